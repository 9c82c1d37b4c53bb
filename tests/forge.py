"""A forging kit: tokens, messages and control statements, byte by byte, from the pages in spec/.

Nothing here uses Moat's code. Signatures come from libsodium, CBOR from the few lines below
(``tests/test_forge.py`` checks them against ``cbor2``), so an attack can be signed correctly and
still say anything at all: every claim, header and field can be replaced, dropped or written in a
form that a canonical encoder would never choose. What is not replaced is as the pages want it, and
deterministic but for streams and nonces.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache, cached_property
from typing import Any, Final

import cbor2
import nacl.signing

NOW: Final = 1_750_000_000
"""The injected clock of every test here: seconds since the epoch."""

CAP, MSG, CTL = (f"application/moat-{kind}" for kind in ("cap+cwt", "msg+cbor", "ctl+cbor"))
CHAIN_ONLY: Final = hashlib.sha256(b"moat-policy-v1\nchain-only").digest()
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""L, the order of Ed25519's base point (RFC 8032 §5.1)."""


# --- CBOR -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in the output as they are."""

    data: bytes


@dataclass(frozen=True)
class Pairs:
    """A map in this order, duplicates and all."""

    items: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Tag:
    """A tagged value."""

    number: int
    value: Any


@dataclass(frozen=True)
class Wide:
    """An integer or a string whose head takes ``size`` bytes after the first, needed or not."""

    value: Any
    size: int


@dataclass(frozen=True)
class Endless:
    """A byte string, text, array or map of indefinite length."""

    value: Any


class _Absent:
    """Says that a claim, field or header is left out."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


def head(major: int, value: int, size: int | None = None) -> bytes:
    """The first bytes of a CBOR item (RFC 8949 §3), shortest unless ``size`` says otherwise."""
    if size is None:
        if value < 24:
            return bytes([major << 5 | value])
        size = next(n for n in (1, 2, 4, 8) if value < 1 << 8 * n)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + value.to_bytes(size, "big")


def cbor(value: Any, size: int | None = None) -> bytes:  # noqa: C901, PLR0911 - a case each
    """Deterministic CBOR (RFC 8949 §4.2.1), but for the classes above."""
    match value:
        case Raw(data):
            return data
        case Wide(inner, width):
            return cbor(inner, width)
        case Endless(inner):
            return _endless(inner)
        case Tag(number, inner):
            return head(6, number) + cbor(inner)
        case Pairs(items):
            return head(5, len(items), size) + b"".join(cbor(k) + cbor(v) for k, v in items)
        case bool() | None:
            return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
        case int():
            return head(0, value, size) if value >= 0 else head(1, -1 - value, size)
        case bytes():
            return head(2, len(value), size) + value
        case str():
            return head(3, len(value.encode()), size) + value.encode()
        case list() | tuple():
            return head(4, len(value), size) + b"".join(map(cbor, value))
        case Mapping():
            pairs = sorted((cbor(key), cbor(inner)) for key, inner in value.items())
            return head(5, len(pairs), size) + b"".join(key + inner for key, inner in pairs)
    raise TypeError(type(value))


def _endless(value: Any) -> bytes:
    match value:
        case bytes():
            return b"\x5f" + cbor(value) + b"\xff"
        case str():
            return b"\x7f" + cbor(value) + b"\xff"
        case list() | tuple():
            return b"\x9f" + b"".join(map(cbor, value)) + b"\xff"
        case Mapping():
            return b"\xbf" + b"".join(cbor(k) + cbor(v) for k, v in value.items()) + b"\xff"
    raise TypeError(type(value))


def _merged(base: Mapping[int, Any], changes: Mapping[int, Any] | None) -> dict[int, Any]:
    return {k: v for k, v in {**base, **(changes or {})}.items() if v is not ABSENT}


# --- keys -----------------------------------------------------------------------------------

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BLOCK = bytes.fromhex("302e020100300506032b657004220420")
"""DER of a PKCS#8 Ed25519 private key before its 32 bytes (RFC 8410 §7)."""


def base58(data: bytes) -> str:
    """Bitcoin's base58, as multibase ``z``."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def did(public: bytes, codec: bytes = b"\xed\x01") -> str:
    """The did:key of 32 bytes."""
    return "did:key:z" + base58(codec + public)


@dataclass(frozen=True)
class Key:
    """An Ed25519 key pair; the same name always gives the same key."""

    name: str

    @cached_property
    def seed(self) -> bytes:
        """The 32 secret bytes."""
        return hashlib.sha256(b"moat forge " + self.name.encode()).digest()

    @cached_property
    def _signer(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.seed)

    @cached_property
    def public(self) -> bytes:
        """The 32 public bytes."""
        return bytes(self._signer.verify_key)

    @property
    def did(self) -> str:
        """The did:key."""
        return did(self.public)

    @property
    def kid(self) -> bytes:
        """The header's hint."""
        return hashlib.sha256(self.public).digest()[:8]

    def sign(self, message: bytes) -> bytes:
        """64 bytes (RFC 8032 §5.1.6)."""
        return self._signer.sign(message).signature

    def pem(self) -> str:
        """PKCS#8 PEM."""
        import base64

        body = base64.b64encode(_BLOCK + self.seed).decode()
        return f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"

    def scalar(self) -> int:
        """The secret scalar (RFC 8032 §5.1.5)."""
        low = bytearray(hashlib.sha512(self.seed).digest()[:32])
        low[0] &= 0xF8
        low[31] = low[31] & 0x7F | 0x40
        return int.from_bytes(low, "little")

    def sign_with_r(self, message: bytes, r: bytes) -> bytes:
        """A signature whose R is a given encoding of the identity: S is then h·a alone."""
        h = int.from_bytes(hashlib.sha512(r + self.public + message).digest(), "little")
        return r + (h * self.scalar() % ORDER).to_bytes(32, "little")


def malleate(signature: bytes, times: int = 1) -> bytes:
    """The same R with S + times·L, which an unreduced check takes for equal."""
    s = int.from_bytes(signature[32:], "little") + times * ORDER
    return signature[:32] + s.to_bytes(32, "little")


# --- COSE_Sign1 -----------------------------------------------------------------------------


def sig_structure(protected: bytes, payload: bytes) -> bytes:
    """What is signed (RFC 9052 §4.4); its SHA-256 is a link's or a message's id."""
    return cbor(["Signature1", protected, b"", payload])


def sign1(
    key: Key,
    typ: str,
    payload: bytes,
    *,
    headers: Mapping[int, Any] | bytes | None = None,
    unprotected: Any = None,
    sign: Callable[[bytes], bytes] | None = None,
    tag: int | None = 18,
) -> bytes:
    """A COSE_Sign1 (RFC 9052 §4.2); ``headers`` as bytes is the protected header itself."""
    if isinstance(headers, bytes):
        protected = headers
    else:
        protected = cbor(_merged({1: -8, 4: key.kid, 16: typ}, headers))
    signature = (sign or key.sign)(sig_structure(protected, payload))
    parts = [protected, {} if unprotected is None else unprotected, payload, signature]
    return cbor(parts if tag is None else Tag(tag, parts))


def parts(sign1_bytes: bytes) -> list[Any]:
    """Protected header, unprotected header, payload and signature, as encoded."""
    return list(cbor2.loads(sign1_bytes).value)


def rebuilt(sign1_bytes: bytes, **changes: Any) -> bytes:
    """The same COSE_Sign1 with parts replaced and its signature kept, as tampering leaves it."""
    names = ("protected", "unprotected", "payload", "signature")
    now = dict(zip(names, parts(sign1_bytes), strict=True)) | changes
    return cbor(Tag(18, [now[name] for name in names]))


def object_id(sign1_bytes: bytes) -> bytes:
    """SHA-256 of the Sig_structure: a link's, a message's or a statement's id."""
    protected, _, payload, _ = parts(sign1_bytes)
    return hashlib.sha256(sig_structure(protected, payload)).digest()


# --- tokens ---------------------------------------------------------------------------------


class Claim(IntEnum):
    """Keys of a link's claims (spec/token.md)."""

    ISS, AUD, EXP, NBF, IAT, CTI, CNF = 1, 3, 4, 5, 6, 7, 8
    ALLOW, DENY, LIMITS, PARENT, DEPTH, ATTESTATIONS = range(-65537, -65543, -1)


Grant = tuple[str, tuple[str, ...], Any]
Denial = tuple[str, tuple[str, ...]]
Host = tuple[str, tuple[str, ...], tuple[str, ...]]
Secret = tuple[str, str, str]
Required = tuple[str, str, tuple[bytes, ...], int, int]
"""Kind, predicate type, signers, threshold and seconds."""


@dataclass(frozen=True)
class Terms:
    """What a link states. The defaults name every axis, so that every axis can be widened."""

    allow: tuple[Grant, ...] = (
        ("file:///data/**", ("read",), "any"),
        ("tool://search/**", ("call", "list"), "any"),
    )
    deny: tuple[Denial, ...] = (("tool://search/private/**", ("*",)),)
    fuel: int = 1_000_000
    memory: int = 64 << 20
    time: int = 2_000
    output: int = 1 << 20
    hosts: tuple[Host, ...] = (
        ("https://*.example.org/v1/**", ("GET", "POST"), ()),
        ("https://git.example.net/**", ("*",), ("10.0.0.0/8",)),
    )
    read: tuple[str, ...] = ("file:///data/**",)
    write: tuple[str, ...] = ("file:///data/out/**",)
    secrets: tuple[Secret, ...] = (("secret://key", "https://*.example.org", "authorization"),)
    exp: int = NOW + 3_600
    nbf: int = NOW - 10
    iat: int = NOW - 10
    further: int = 4
    aud: bytes | None = None
    attestations: tuple[Required, ...] = ()

    def limits(self) -> dict[int, Any]:
        """The map of limits."""
        numbers = (self.fuel, self.memory, self.time, self.output)
        hosts = sorted([url, sorted(names), sorted(cidr)] for url, names, cidr in self.hosts)
        lists = (hosts, sorted(self.read), sorted(self.write), sorted(map(list, self.secrets)))
        return dict(enumerate((*numbers, *lists), 1))

    def claims(self) -> dict[int, Any]:
        """The claims that come from these terms."""

        def text(entry: Any) -> Any:
            return (entry[0], sorted(entry[1]), *(arg == {} for arg in entry[2:]))

        return {
            Claim.AUD: ABSENT if self.aud is None else did(self.aud),
            Claim.EXP: self.exp,
            Claim.NBF: self.nbf,
            Claim.IAT: self.iat,
            Claim.ALLOW: [[r, sorted(a), x] for r, a, x in sorted(self.allow, key=text)],
            Claim.DENY: [[r, sorted(a)] for r, a in sorted(self.deny, key=text)],
            Claim.LIMITS: self.limits(),
            Claim.ATTESTATIONS: [
                [kind, uri, sorted(keys), threshold, age]
                for kind, uri, keys, threshold, age in sorted(self.attestations)
            ],
        }


def cnf(public: bytes) -> dict[int, Any]:
    """A holder's key (RFC 8747 §3.2, RFC 9053 §7.2)."""
    return {1: {1: 1, -1: 6, -2: public}}


def link(
    issuer: Key,
    holder: Key | bytes,
    terms: Terms,
    *,
    index: int = 0,
    parent: bytes | None = None,
    claims: Mapping[int, Any] | bytes | None = None,
    **cose: Any,
) -> bytes:
    """One link; ``claims`` replaces single claims, or as bytes is the payload itself."""
    public = holder if isinstance(holder, bytes) else holder.public
    seed = issuer.public + public + bytes([index])
    base = terms.claims() | {
        Claim.ISS: issuer.did,
        Claim.CTI: hashlib.sha256(seed).digest()[:16],
        Claim.CNF: cnf(public),
        Claim.PARENT: ABSENT if parent is None else parent,
        Claim.DEPTH: [index, terms.further],
    }
    payload = claims if isinstance(claims, bytes) else cbor(_merged(base, claims))
    return sign1(cose.pop("signer", issuer), CAP, payload, **cose)


@dataclass(frozen=True)
class Chain:
    """Links, root's first, and what the last one says."""

    links: tuple[bytes, ...]
    holder: Key
    terms: Terms

    @property
    def token(self) -> bytes:
        """The token's bytes."""
        return cbor(list(self.links))

    @property
    def ids(self) -> tuple[bytes, ...]:
        """Every link's id."""
        return tuple(map(object_id, self.links))

    def then(
        self,
        holder: Key,
        *,
        issuer: Key | None = None,
        forged: Mapping[str, Any] | None = None,
        **terms: Any,
    ) -> Chain:
        """One more link by the present holder. ``terms`` are what it changes (narrower or not);
        ``forged`` goes to :func:`link`."""
        new = replace(self.terms, **({"further": max(0, self.terms.further - 1)} | terms))
        rest = {"index": len(self.links), "parent": object_id(self.links[-1]), **(forged or {})}
        made = link(issuer or self.holder, holder, new, **rest)
        return Chain((*self.links, made), holder, new)

    def of(self, links: Iterable[bytes]) -> Chain:
        """The same holder and terms, with these links instead."""
        return Chain(tuple(links), self.holder, self.terms)


def first(root: Key, holder: Key, *, forged: Any = None, **terms: Any) -> Chain:
    """A chain of one link."""
    stated = Terms(**terms)
    return Chain((link(root, holder, stated, **(forged or {})),), holder, stated)


# --- messages -------------------------------------------------------------------------------


class Field(IntEnum):
    """Keys of a request's payload (spec/message.md)."""

    TOKEN, GATE, RECIPIENT, ACTION, RESOURCE, ARGS, PAYLOAD, DIGEST = range(1, 9)
    CODE, POLICY, STREAM, NUMBER, IAT, EXP, CAUSES, LABELS = range(9, 17)


@dataclass(frozen=True)
class Ask:
    """One request, before it is signed."""

    action: str = "call"
    resource: str = "tool://search/web"
    args: bytes = b"{}"
    payload: bytes = b""
    recipient: bytes | None = None
    code: bytes | None = None
    policy: bytes = CHAIN_ONLY
    stream: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    number: int = 0
    now: int = NOW
    lifetime: int = 60

    def fields(self, token: bytes, gate: bytes) -> dict[int, Any]:
        """The payload's fields."""
        sha256 = hashlib.sha256
        values = (
            sha256(token).digest(), gate, self.recipient or gate, self.action, self.resource,
            self.args, self.payload, sha256(self.payload).digest(),
            ABSENT if self.code is None else self.code, self.policy, self.stream, self.number,
            self.now, self.now + self.lifetime, [], [],
        )  # fmt: skip
        return dict(zip(Field, values, strict=True))


def request(
    sender: Key,
    token: bytes,
    gate: bytes,
    ask: Ask,
    *,
    fields: Mapping[int, Any] | bytes | None = None,
    **cose: Any,
) -> bytes:
    """A signed request; ``fields`` replaces single fields, or as bytes is the payload itself."""
    base = ask.fields(token, gate)
    payload = fields if isinstance(fields, bytes) else cbor(_merged(base, fields))
    return sign1(sender, MSG, payload, **cose)


def wire(token: bytes, signed: bytes) -> bytes:
    """A message as it travels."""
    return cbor([token, signed])


def message(chain: Chain, gate: bytes, *, forged: Any = None, **ask: Any) -> bytes:
    """A message by the holder; ``ask`` is :class:`Ask`, ``forged`` goes to :func:`request`."""
    extra = dict(forged or {})
    sender = extra.pop("sender", chain.holder)
    return wire(chain.token, request(sender, chain.token, gate, Ask(**ask), **extra))


def control(
    signer: Key,
    verb: str,
    target: Key | bytes,
    gate: bytes,
    *,
    now: int = NOW,
    lifetime: int = 60,
    fields: Mapping[int, Any] | bytes | None = None,
    **cose: Any,
) -> bytes:
    """A statement about an agent (a key) or a link (its 32-byte id)."""
    aim = [0, target.public] if isinstance(target, Key) else [1, target]
    values = (verb, aim, gate, signer.public, secrets.token_bytes(16), now, now + lifetime)
    base = dict(enumerate(values, 1))
    payload = fields if isinstance(fields, bytes) else cbor(_merged(base, fields))
    return sign1(signer, CTL, payload, **cose)


@cache
def key(name: str) -> Key:
    """The key of this name."""
    return Key(name)
