"""Bytes that say the right thing in a form nobody honest writes, correctly signed.

Two encodings of one value are two ids for one link and two readings for two readers; a decoder
that repairs is one that an attacker talks to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
import pytest

import forge
from forge import NOW, Claim, Endless, Field, Pairs, Raw, Tag, Wide, cbor
from moat import Token
from moat.errors import Denied, MalformedInput
from threats.world import GATE, MALLORY, ROOT, WORKER, World

Map = dict[int, Any]
LINK = forge.first(ROOT, WORKER).links[0]
CLAIMS: Map = cbor2.loads(forge.parts(LINK)[2])


def fields(token: bytes) -> Map:
    """The fields of a good request, as a plain map."""
    base = forge.Ask().fields(token, GATE.public)
    return {int(key): value for key, value in base.items() if value is not forge.ABSENT}


def statement() -> Map:
    """The fields of a good statement, as a plain map."""
    made = forge.control(ROOT, "revoke", MALLORY, GATE.public)
    return dict(cbor2.loads(forge.parts(made)[2]))


def with_value(good: Map, key: int, value: Any) -> Map:
    return {**good, key: value}


SPELLINGS: dict[str, Callable[[Map, int, int], Any]] = {
    "keys out of order": lambda good, *_: Pairs(tuple(reversed(good.items()))),
    "a key twice": lambda good, whole, _: Pairs(
        tuple(item for key in good for item in [(key, good[key])] * (1 + (key == whole)))
    ),
    "indefinite map": lambda good, *_: Endless(good),
    "map head too wide": lambda good, *_: Wide(good, 1),
    "key too wide": lambda good, *_: Pairs(
        tuple((Raw(b"\x18\x01") if key == 1 else key, value) for key, value in good.items())
    ),
    "integer too wide": lambda good, whole, _: with_value(good, whole, Wide(good[whole], 8)),
    "integer as bignum": lambda good, whole, _: with_value(
        good, whole, Tag(2, good[whole].to_bytes(8, "big"))
    ),
    "integer as float": lambda good, whole, _: with_value(good, whole, Raw(b"\xf9\x7b\xff")),
    "integer tagged as time": lambda good, whole, _: with_value(good, whole, Tag(1, good[whole])),
    "negative integer": lambda good, whole, _: with_value(good, whole, -1),
    "integer as text": lambda good, whole, _: with_value(good, whole, str(good[whole])),
    "bytes too wide": lambda good, _, blob: with_value(good, blob, Wide(good[blob], 2)),
    "indefinite bytes": lambda good, _, blob: with_value(good, blob, Endless(good[blob])),
    "bytes as text": lambda good, _, blob: with_value(good, blob, "x" * 16),
    "null": lambda good, whole, _: with_value(good, whole, None),
    "undefined": lambda good, whole, _: with_value(good, whole, Raw(b"\xf7")),
    "trailing null": lambda good, *_: Raw(cbor(good) + b"\xf6"),
    "trailing map": lambda good, *_: Raw(cbor(good) * 2),
    "cut short": lambda good, *_: Raw(cbor(good)[:-1]),
    "text key": lambda good, *_: {**good, "x": 1},
    "tagged": lambda good, *_: Tag(55799, good),
    "an array of pairs": lambda good, *_: list(good.items()),
    "nothing": lambda *_: Raw(b""),
}
spellings = pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())


def with_claims(claims: bytes | Map) -> forge.Chain:
    return forge.first(ROOT, WORKER, forged={"claims": claims})


@spellings
def test_odd_claims(world: World, spell: Callable[[Map, int, int], Any]) -> None:
    world.allow(world.ask(with_claims(cbor(CLAIMS))))
    odd = cbor(spell(CLAIMS, Claim.EXP, Claim.CTI))
    world.refuse(world.ask(with_claims(odd)), "malformed", link=0)


@spellings
def test_odd_requests(world: World, spell: Callable[[Map, int, int], Any]) -> None:
    chain = world.chain()
    world.allow(world.ask(chain, forged={"fields": cbor(fields(chain.token))}))
    odd = cbor(spell(fields(chain.token), Field.IAT, Field.STREAM))
    world.refuse(world.ask(chain, forged={"fields": odd}), "malformed")


@spellings
def test_odd_control_statements(world: World, spell: Callable[[Map, int, int], Any]) -> None:
    world.gate.control(world.control(ROOT, "revoke", MALLORY, fields=cbor(statement())), now=NOW)
    odd = world.control(ROOT, "revoke", MALLORY, fields=cbor(spell(statement(), 6, 5)))
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.control(odd, now=NOW)
    assert denied.value.reason == "malformed"


# --- unknown keys, versions, algorithms ---


@pytest.mark.parametrize("claim", [2, 9, 42, -1, -65536, -65543, -65544, 2**31])
def test_an_unknown_claim(world: World, claim: int) -> None:
    world.refuse(world.ask(with_claims({**CLAIMS, claim: 0})), "unknown_claim", link=0)


@pytest.mark.parametrize("key", [0, 17, -1])
def test_an_unknown_field_of_a_request(world: World, key: int) -> None:
    world.refuse(world.ask(forged={"fields": {key: 0}}), "unknown_claim")


def test_an_unknown_limit(world: World) -> None:
    claims = {Claim.LIMITS: forge.Terms().limits() | {9: 1}}
    world.refuse(world.ask(with_claims(claims)), "unknown_claim", link=0)


ALGORITHMS = [-7, -35, -37, -48, -50, -53, -257, -6, 0, 1, 5, -9, 8]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_an_unknown_algorithm(world: World, alg: int) -> None:
    """ES256, ES512, PS256, ML-DSA, Ed448, RS256, direct, none, HMAC …: Ed25519 alone."""
    chain = forge.first(ROOT, WORKER)
    odd = forge.first(ROOT, WORKER, forged={"headers": {1: alg}})
    world.refuse(world.ask(odd), "unknown_algorithm", link=0)
    world.refuse(world.ask(chain, forged={"headers": {1: alg}}), "unknown_algorithm")


def test_the_two_names_of_ed25519_are_read(world: World) -> None:
    chain = forge.first(ROOT, WORKER, forged={"headers": {1: -19}})
    world.allow(world.ask(chain, forged={"headers": {1: -19}}))


@pytest.mark.parametrize("alg", ["EdDSA", None, forge.ABSENT, b"\x27", [-8]], ids=repr)
def test_an_algorithm_of_another_form(world: World, alg: object) -> None:
    odd = forge.first(ROOT, WORKER, forged={"headers": {1: alg}})
    world.refuse(world.ask(odd), "malformed", link=0)
    world.refuse(world.ask(forged={"headers": {1: alg}}), "malformed")


VERSIONS = ["application/moat-cap2+cwt", "application/moat-cap+cwt; v=2", "application/cwt", ""]


@pytest.mark.parametrize("typ", VERSIONS)
def test_an_unknown_version(world: World, typ: str) -> None:
    odd = forge.first(ROOT, WORKER, forged={"headers": {16: typ}})
    world.refuse(world.ask(odd), "wrong_type", link=0)
    world.refuse(world.ask(forged={"headers": {16: typ}}), "wrong_type")


@pytest.mark.parametrize("prefix", ["moat2.", "moat.", "MOAT1.", "", "moat1"])
def test_an_unknown_version_of_the_text_form(prefix: str) -> None:
    text = str(Token.from_bytes(forge.first(ROOT, WORKER).token))
    Token.parse(text)
    with pytest.raises(MalformedInput):
        Token.parse(prefix + text.removeprefix("moat1."))


@pytest.mark.parametrize("tail", ["=", "\n", " ", "A", "=="])
def test_a_text_form_with_something_behind_it(tail: str) -> None:
    text = str(Token.from_bytes(forge.first(ROOT, WORKER).token))
    with pytest.raises(MalformedInput):
        Token.parse(text + tail)


# --- headers ---


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({2: [1]}, "unknown_claim"),
        ({3: 0}, "unknown_claim"),
        ({-1: 0}, "unknown_claim"),
        ({4: forge.ABSENT}, "malformed"),
        ({16: forge.ABSENT}, "malformed"),
        ({4: bytes(7)}, "malformed"),
        ({4: "12345678"}, "malformed"),
        ({16: 13}, "malformed"),
        (b"", "malformed"),
        (b"\xa0", "malformed"),
        (b"\xf6", "malformed"),
    ],
    ids=repr,
)
def test_odd_headers(world: World, headers: dict[int, Any] | bytes, reason: str) -> None:
    odd = forge.first(ROOT, WORKER, forged={"headers": headers})
    world.refuse(world.ask(odd), reason, link=0)
    world.refuse(world.ask(forged={"headers": headers}), reason)


HEADERS = {1: -8, 4: ROOT.kid, 16: forge.CAP}


@pytest.mark.parametrize(
    "header",
    [
        cbor(Pairs(tuple(reversed(HEADERS.items())))),
        cbor(Pairs(((1, -7), *HEADERS.items()))),
        cbor(Pairs((*HEADERS.items(), (16, forge.CAP)))),
        cbor(Endless(HEADERS)),
        cbor(Wide(HEADERS, 1)),
        cbor({**HEADERS, 1: Wide(-8, 1)}),
        cbor({**HEADERS, 16: Wide(forge.CAP, 2)}),
        cbor(HEADERS) + b"\x00",
        cbor(cbor(HEADERS)),
    ],
    ids=["order", "two algorithms", "typ twice", "endless", "wide", "wide alg", "wide typ",
         "trailing", "twice wrapped"],
)  # fmt: skip
def test_odd_spellings_of_the_header(world: World, header: bytes) -> None:
    world.allow(world.ask(forge.first(ROOT, WORKER, forged={"headers": cbor(HEADERS)})))
    odd = forge.first(ROOT, WORKER, forged={"headers": header})
    world.refuse(world.ask(odd), "malformed", link=0)


@pytest.mark.parametrize("unprotected", [{4: ROOT.kid}, {1: -8}, {"x": 1}], ids=repr)
def test_unprotected_headers(world: World, unprotected: dict[Any, Any]) -> None:
    """Nothing signs them, so there are none."""
    chain = forge.first(ROOT, WORKER)
    odd = forge.first(ROOT, WORKER, forged={"unprotected": unprotected})
    world.refuse(world.ask(odd), "unknown_claim", link=0)
    world.refuse(world.ask(chain, forged={"unprotected": unprotected}), "unknown_claim")


# --- envelopes: nothing here is signed, so an attacker needs no key ---


def _envelopes(signed: bytes) -> dict[str, bytes]:
    four = forge.parts(signed)
    protected, _, payload, signature = four
    return {
        "no tag": cbor(four),
        "tag too wide": b"\xd8\x12" + cbor(four),
        "tag twice": b"\xd2" + signed,
        "CWT tag": cbor(Tag(61, Raw(signed))),
        "COSE_Sign": cbor(Tag(98, four)),
        "COSE_Mac0": cbor(Tag(17, four)),
        "self-described": cbor(Tag(55799, Raw(signed))),
        "three parts": cbor(Tag(18, four[:3])),
        "five parts": cbor(Tag(18, [*four, b""])),
        "indefinite array": cbor(Tag(18, Endless(four))),
        "array too wide": cbor(Tag(18, Wide(four, 1))),
        "indefinite unprotected": cbor(Tag(18, [protected, Endless({}), payload, signature])),
        "null unprotected": cbor(Tag(18, [protected, None, payload, signature])),
        "unwrapped protected": cbor(Tag(18, [Raw(protected), {}, payload, signature])),
        "detached payload": cbor(Tag(18, [protected, {}, None, signature])),
        "unwrapped payload": cbor(Tag(18, [protected, {}, Raw(payload), signature])),
        "payload too wide": cbor(Tag(18, [protected, {}, Wide(payload, 4), signature])),
        "indefinite payload": cbor(Tag(18, [protected, {}, Endless(payload), signature])),
        "signature too wide": cbor(Tag(18, [protected, {}, payload, Wide(signature, 2)])),
        "trailing byte": signed + b"\x00",
        "trailing break": signed + b"\xff",
        "cut short": signed[:-1],
        "empty": b"",
    }


ENVELOPES = list(_envelopes(LINK))


@pytest.mark.parametrize("form", ENVELOPES)
def test_odd_envelopes(world: World, form: str) -> None:
    chain = forge.first(ROOT, WORKER)
    odd = chain.of([_envelopes(LINK)[form]])
    world.refuse(world.ask(odd), "malformed", link=0)
    good = forge.request(WORKER, chain.token, GATE.public, forge.Ask())
    world.refuse(forge.wire(chain.token, _envelopes(good)[form]), "malformed")
    world.allow(forge.wire(chain.token, good))


def _tokens(link: bytes) -> dict[str, bytes]:
    return {
        "indefinite": cbor(Endless([link])),
        "array too wide": cbor(Wide([link], 1)),
        "link too wide": cbor([Wide(link, 4)]),
        "link unwrapped": cbor([Raw(link)]),
        "link alone": link,
        "a map": cbor({0: link}),
        "tagged": cbor(Tag(18, [link])),
        "trailing byte": cbor([link]) + b"\x00",
        "cut short": cbor([link])[:-1],
        "empty": b"",
    }


@pytest.mark.parametrize("form", list(_tokens(LINK)))
def test_odd_tokens(world: World, form: str) -> None:
    """Correctly signed for: the request names the SHA-256 of exactly these bytes."""
    token = _tokens(LINK)[form]
    odd = forge.wire(token, forge.request(WORKER, token, GATE.public, forge.Ask()))
    world.refuse(odd, "malformed")


def _wires(token: bytes, signed: bytes) -> dict[str, bytes]:
    return {
        "indefinite": cbor(Endless([token, signed])),
        "array too wide": cbor(Wide([token, signed], 2)),
        "token too wide": cbor([Wide(token, 4), signed]),
        "request too wide": cbor([token, Wide(signed, 4)]),
        "indefinite token": cbor([Endless(token), signed]),
        "token unwrapped": cbor([Raw(token), signed]),
        "request unwrapped": cbor([token, Raw(signed)]),
        "one part": cbor([signed]),
        "three parts": cbor([token, signed, b""]),
        "a map": cbor({0: token, 1: signed}),
        "other order": cbor([signed, token]),
        "tagged": cbor(Tag(55799, [token, signed])),
        "trailing byte": cbor([token, signed]) + b"\x00",
        "cut short": cbor([token, signed])[:-1],
        "empty": b"",
        "text": b"moat1.",
        "deep arrays": b"\x81" * 100_000,
        "deep tags": b"\xd2" * 100_000,
        "deep maps": b"\xa1\x00" * 50_000,
        "huge array head": b"\x9b" + b"\xff" * 8,
        "huge bytes head": b"\x82\x5b" + b"\xff" * 8,
        "huge map head": b"\xbb" + b"\xff" * 8,
    }


@pytest.mark.parametrize("form", list(_wires(b"", b"")))
def test_odd_messages(world: World, form: str) -> None:
    chain = world.chain()
    good = forge.request(WORKER, chain.token, GATE.public, forge.Ask())
    world.refuse(_wires(chain.token, good)[form], "malformed")
    world.allow(forge.wire(chain.token, good))


# --- too much of it ---


def test_a_message_of_more_than_one_mebibyte(world: World) -> None:
    room = (1 << 20) - len(world.ask(payload=bytes(1 << 17))) + (1 << 17)
    world.allow(world.ask(payload=bytes(room)))
    world.refuse(world.ask(payload=bytes(room + 1)), "too_large")
    world.refuse(bytes(64 << 20), "too_large")


def test_a_link_of_more_than_eight_kibibytes(world: World) -> None:
    def sized(extra: int) -> forge.Chain:
        long = tuple((f"tool://a/{n:02}{'x' * 400}", ("call",), "any") for n in range(17))
        last = (f"tool://b/{'x' * extra}", ("call",), "any")
        return forge.first(ROOT, WORKER, allow=(*long, last, *forge.Terms().allow))

    room = 8 * 1024 - len(sized(300).links[0]) + 300
    assert len(sized(room).links[0]) == 8 * 1024
    world.allow(world.ask(sized(room)))
    world.refuse(world.ask(sized(room + 1)), "too_large", link=0)


SEARCH = ["tool://search/web", ["call"], "any"]


def zeds(entries: int) -> list[Any]:
    """Grants of nothing much."""
    return [[f"z://{n:03}", ["a"], {}] for n in range(entries)]


def limits(axis: int, text: str, entries: int) -> Map:
    """Limits with this many entries on one axis."""
    return forge.Terms().limits() | {axis: [text.format(n) for n in range(entries)]}


MANY: dict[str, tuple[Claim, int, Callable[[int], Any]]] = {
    "grants": (Claim.ALLOW, 255, lambda m: [SEARCH, *zeds(m)]),
    "denials": (Claim.DENY, 256, lambda m: [[f"z://{n:03}", ["a"]] for n in range(m)]),
    "actions": (Claim.DENY, 32, lambda m: [["z://a", [f"a{n:02}" for n in range(m)]]]),
    "read": (Claim.LIMITS, 64, lambda m: limits(6, "file:///{:02}/**", m)),
    "write": (Claim.LIMITS, 64, lambda m: limits(7, "file:///{:02}/**", m)),
}


@pytest.mark.parametrize(("claim", "most", "made"), MANY.values(), ids=MANY.keys())
def test_too_many_entries(
    world: World, claim: Claim, most: int, made: Callable[[int], Any]
) -> None:
    world.allow(world.ask(with_claims({claim: made(most)})))
    world.refuse(world.ask(with_claims({claim: made(most + 1)})), "too_large", link=0)


def test_a_pattern_and_a_resource_of_more_than_512_bytes(world: World) -> None:
    fine, over = (f"tool://a/{'x' * (n - 9)}" for n in (512, 513))
    chain = forge.first(ROOT, WORKER, allow=((fine, ("call",), "any"),))
    world.allow(world.ask(chain, resource=fine))
    world.refuse(world.ask(chain, resource=over), "too_large")
    longer = forge.first(ROOT, WORKER, allow=((over, ("call",), "any"),))
    world.refuse(world.ask(longer, resource=fine), "too_large", link=0)


# --- values that no link may have ---


@pytest.mark.parametrize(
    "claims",
    [
        {Claim.EXP: 253_402_300_800},
        {Claim.EXP: 2**63},
        {Claim.EXP: 2**64 - 1},
        {Claim.EXP: NOW - 10},
        {Claim.NBF: NOW + 3_600},
        {Claim.IAT: NOW + 3_600},
        {Claim.CTI: bytes(15)},
        {Claim.CTI: bytes(17)},
        {Claim.PARENT: bytes(31)},
        {Claim.DEPTH: [0]},
        {Claim.DEPTH: [0, 16]},
        {Claim.DEPTH: [16, 0]},
        {Claim.DEPTH: [0, 2**64 - 1]},
        {Claim.DEPTH: {0: 0, 1: 4}},
        *({Claim.LIMITS: forge.Terms().limits() | {n: 2**63}} for n in range(1, 5)),
        *({Claim.LIMITS: forge.Terms().limits() | {n: -1}} for n in range(1, 5)),
        {Claim.LIMITS: forge.Terms().limits() | {6: ["file:///a"]}},
        {Claim.LIMITS: forge.Terms().limits() | {7: ["https://a/**"]}},
        {Claim.ALLOW: [["tool://b", ["a"], "any"], ["tool://a", ["a"], "any"]]},
        {Claim.ALLOW: [["tool://a", ["a"], "any"]] * 2},
        {Claim.ALLOW: [["tool://a", ["a"], {}], ["tool://a", ["a"], "any"]]},
        {Claim.ALLOW: [["tool://a", ["b", "a"], "any"]]},
        {Claim.ALLOW: [["tool://a", ["a", "a"], "any"]]},
        {Claim.ALLOW: [["tool://a", [], "any"]]},
        {Claim.ALLOW: [["tool://a", ["*", "a"], "any"]]},
        {Claim.ALLOW: [["tool://a", ["A"], "any"]]},
        {Claim.ALLOW: [["tool://a", ["a b"], "any"]]},
        {Claim.ALLOW: [["tool://a", ["a" * 65], "any"]]},
        {Claim.ALLOW: [["tool://a", "a", "any"]]},
        {Claim.ALLOW: [["tool://a", ["a"]]]},
        {Claim.ALLOW: [["tool://a", ["a"], "any", "any"]]},
        {Claim.ALLOW: [["**", ["a"], "any"]]},
        {Claim.ALLOW: [["tool://a/**/b", ["a"], "any"]]},
        {Claim.ALLOW: [["tool://a//b", ["a"], "any"]]},
        {Claim.ALLOW: [["tool://a/../b", ["a"], "any"]]},
        {Claim.ALLOW: [[Raw(b"\x69tool://\xff\xfe"), ["a"], "any"]]},
        {Claim.DENY: [["tool://b", ["a"]], ["tool://a", ["a"]]]},
        {Claim.DENY: [["tool://a", ["a"], "any"]]},
        {Claim.DENY: [["tool://a", []]]},
    ],
    ids=repr,
)
def test_values_that_no_link_has(world: World, claims: dict[int, Any]) -> None:
    world.refuse(world.ask(with_claims(claims)), "malformed", link=0)
