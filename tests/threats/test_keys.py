"""Keys that are no keys, and signatures in two spellings or for two messages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

import forge
from forge import Claim, Key
from moat import AgentId
from moat.errors import InvalidSignature, MalformedInput
from threats.world import MALLORY, PLANNER, ROOT, WORKER, World, agent

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
EIGHT = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)


def encoded(y: int, sign: int = 0) -> bytes:
    """A point's encoding (RFC 8032 §5.1.2), reduced or not."""
    return (y | sign << 255).to_bytes(32, "little")


def on_curve(y: int) -> bool:
    """Whether x² = (y² - 1) / (d·y² + 1) has a root (RFC 8032 §5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    return square == 0 or pow(square, (P - 1) // 2, P) == 1


SMALL = [
    *(encoded(y, sign) for y in (0, 1, P - 1) for sign in (0, 1)),
    *(bytes.fromhex(y) for y in EIGHT),
    *(bytes.fromhex(y)[:31] + bytes([bytes.fromhex(y)[31] | 0x80]) for y in EIGHT),
]
"""Every point of small order, in each spelling with a reduced y."""
UNREDUCED = [encoded(y, sign) for y in range(P, 2**255) for sign in (0, 1)]
"""Every y that is not reduced: p to 2^255 - 1."""
OFF = [encoded(y) for y in range(2, 40) if not on_curve(y)][:4]
IDENTITY = encoded(1)


class Weak(Key):
    """A holder with chosen public bytes, who signs as the identity would: R = 1, S = 0."""

    def __init__(self, public: bytes) -> None:
        super().__init__("weak")
        object.__setattr__(self, "public", public)

    def sign(self, message: bytes) -> bytes:
        """Verifies for every message under a point of order one, where weak keys are let in."""
        del message
        return IDENTITY + bytes(32)


@pytest.mark.parametrize("public", SMALL, ids=bytes.hex)
def test_a_holder_of_small_order(world: World, public: bytes) -> None:
    """Anybody can sign for such a key; it is refused before any equation is looked at."""
    chain = forge.first(ROOT, Weak(public))
    world.refuse(world.ask(chain), "bad_key", link=0)
    with pytest.raises(MalformedInput):
        AgentId.from_bytes(public)


@pytest.mark.parametrize("public", SMALL[:4], ids=bytes.hex)
def test_an_issuer_of_small_order(world: World, public: bytes) -> None:
    forged = {"claims": {Claim.ISS: forge.did(public)}}
    world.refuse(world.ask(forge.first(Weak(public), WORKER, forged=forged)), "bad_key", link=0)


@pytest.mark.parametrize("public", UNREDUCED, ids=bytes.hex)
def test_a_holder_whose_key_is_not_reduced(world: World, public: bytes) -> None:
    world.refuse(world.ask(forge.first(ROOT, Weak(public))), "bad_key", link=0)


@pytest.mark.parametrize("public", OFF, ids=bytes.hex)
def test_a_holder_whose_key_is_off_the_curve(world: World, public: bytes) -> None:
    world.refuse(world.ask(forge.first(ROOT, Weak(public))), "bad_key")
    below = forge.first(ROOT, Weak(public)).then(WORKER)
    world.refuse(world.ask(below), "bad_key", link=1)
    with pytest.raises((MalformedInput, InvalidSignature)):
        AgentId.from_bytes(public).verify(b"", bytes(64))


@pytest.mark.parametrize(
    "spell",
    [
        lambda did: did + "#" + did.removeprefix("did:key:"),
        lambda did: did.upper(),
        lambda did: did.replace("did:key:z", "did:key:f"),
        lambda did: did.replace("did:key:z", "did:web:z"),
        lambda did: did.replace("did:key:z", "did:key:z1"),
        lambda did: did.replace("did:key:z", "did:key:"),
        lambda did: " " + did,
        lambda did: did + "\n",
        lambda did: did[:-1],
        lambda did: did + "1" * 40,
        lambda did: "",
    ],
    ids=["fragment", "case", "base", "method", "leading", "bare", "space", "newline", "short",
         "long", "empty"],
)  # fmt: skip
def test_another_spelling_of_a_key(world: World, spell: Callable[[str], str]) -> None:
    AgentId(ROOT.did)
    forged = {"claims": {Claim.ISS: spell(ROOT.did)}}
    world.refuse(world.ask(forge.first(ROOT, WORKER, forged=forged)), "malformed", link=0)
    with pytest.raises(MalformedInput):
        AgentId(spell(ROOT.did))


@pytest.mark.parametrize(
    "codec", [b"\xec\x01", b"\xe7\x01", b"\xed\x00", b"\xed\x02"], ids=bytes.hex
)
def test_a_key_of_another_kind(world: World, codec: bytes) -> None:
    """X25519, secp256k1, and Ed25519's number in two wrong spellings."""
    forged = {"claims": {Claim.ISS: forge.did(ROOT.public, codec)}}
    world.refuse(world.ask(forge.first(ROOT, WORKER, forged=forged)), "malformed", link=0)


@pytest.mark.parametrize(
    "cnf",
    [
        {1: {1: 2, -1: 6, -2: WORKER.public}},
        {1: {1: 1, -1: 4, -2: WORKER.public}},
        {1: {1: 1, -1: 6, -2: WORKER.public[:31]}},
        {1: {1: 1, -1: 6, -2: WORKER.public + b"\0"}},
        {1: {1: 1, -1: 6, -2: WORKER.did}},
        {1: {1: 1, -1: 6}},
        {1: {1: 1, 3: -8, -1: 6, -2: WORKER.public}},
        {1: {1: 1, -1: 6, -2: WORKER.public, -4: WORKER.seed}},
        {1: {}},
        {},
        {2: b"kid"},
        {3: WORKER.kid},
        {1: {1: 1, -1: 6, -2: WORKER.public}, 3: b"kid"},
        WORKER.public,
    ],
    ids=range(14),
)
def test_a_confirmation_of_another_form(world: World, cnf: object) -> None:
    forged = {"claims": {Claim.CNF: cnf}}
    world.refuse(world.ask(forge.first(ROOT, WORKER, forged=forged)), "malformed", link=0)


def test_a_hint_that_does_not_match_is_refused(world: World) -> None:
    world.allow(world.ask(forge.first(ROOT, WORKER)))
    forged = {"headers": {4: bytes(8)}}
    world.refuse(world.ask(forge.first(ROOT, WORKER, forged=forged)), "bad_signature", link=0)
    world.refuse(world.ask(forge.first(ROOT, WORKER), forged=forged), "wrong_holder")


# --- signatures ---


def resigned(world: World, sign: Callable[[Key], Callable[[bytes], bytes]]) -> None:
    """Refuse an altered signature in the first link, a later one and the message."""
    root_forged, holder_forged = ({"sign": sign(key)} for key in (ROOT, PLANNER))
    first = forge.first(ROOT, PLANNER)
    world.allow(world.ask(first))
    world.refuse(world.ask(forge.first(ROOT, PLANNER, forged=root_forged)), "bad_signature", link=0)
    below = first.then(WORKER, forged=holder_forged)
    world.refuse(world.ask(below), "bad_signature", link=1)
    world.refuse(world.ask(first, forged=holder_forged), "bad_signature")


@pytest.mark.parametrize("times", range(1, 16))
def test_a_malleated_signature(world: World, times: int) -> None:
    """S + n·L: the same equation, another byte string."""
    resigned(world, lambda key: lambda m: forge.malleate(key.sign(m), times))


def test_a_malleated_copy_of_a_message_that_was_used(world: World) -> None:
    """A second spelling would be a second message, were it accepted."""
    chain = world.chain()
    signed = forge.request(WORKER, chain.token, forge.key("gate").public, forge.Ask())
    world.allow(forge.wire(chain.token, signed))
    other = forge.rebuilt(signed, signature=forge.malleate(forge.parts(signed)[3]))
    world.refuse(forge.wire(chain.token, other), "bad_signature")


@pytest.mark.parametrize(
    "r", [IDENTITY, encoded(1, 1), encoded(P + 1), encoded(P + 1, 1)], ids=bytes.hex
)
def test_a_signature_whose_r_is_the_identity(world: World, r: bytes) -> None:
    """The holder can make them at will; libraries differ, so a strict gate takes none."""
    resigned(world, lambda key: lambda m: key.sign_with_r(m, r))


@pytest.mark.parametrize("bit", [0, 7, 255, 256, 511])
def test_a_signature_with_one_bit_turned(world: World, bit: int) -> None:
    def turned(key: Key) -> Callable[[bytes], bytes]:
        return lambda m: (int.from_bytes(key.sign(m), "little") ^ 1 << bit).to_bytes(64, "little")

    resigned(world, turned)


def test_a_signature_by_another_key(world: World) -> None:
    resigned(world, lambda _: MALLORY.sign)


def test_a_signature_over_a_digest_or_the_bare_payload(world: World) -> None:
    """Prehashed, or without the Sig_structure."""
    resigned(world, lambda key: lambda m: key.sign(hashlib.sha512(m).digest()))
    resigned(world, lambda key: lambda m: key.sign(m[m.index(b"moat") :]))


@pytest.mark.parametrize("context", ["Signature", "CounterSignature", "MAC0", "Signature1\0"])
def test_a_signature_for_another_context(world: World, context: str) -> None:
    def other(key: Key) -> Callable[[bytes], bytes]:
        return lambda m: key.sign(forge.cbor([context]) + m[12:])

    resigned(world, other)


def test_a_signature_with_external_data(world: World) -> None:
    def aad(key: Key) -> Callable[[bytes], bytes]:
        import cbor2

        def sign(message: bytes) -> bytes:
            name, protected, _, payload = cbor2.loads(message)
            return key.sign(forge.cbor([name, protected, b"aad", payload]))

        return sign

    resigned(world, aad)


def test_a_native_key_checks_by_the_same_rule() -> None:
    key = forge.key("holder")
    agent(key).verify(b"m", key.sign(b"m"))
    for bad in (forge.malleate(key.sign(b"m")), key.sign_with_r(b"m", IDENTITY), bytes(64)):
        with pytest.raises(InvalidSignature):
            agent(key).verify(b"m", bad)
