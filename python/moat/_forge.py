"""What attackers make, for the demo: a link made by hand, and a log edited.

The link is signed correctly and says whatever it is told to: what an attacker with a real key and
a real token can do. `Token.attenuate` refuses to make such a link; nothing can stop others from
making it, which is why a gate checks again.
"""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from moat import Token

if TYPE_CHECKING:
    from pathlib import Path

    from moat import AgentId, Grant, Identity

TYPE = "application/moat-cap+cwt"


def widened(token: Token, issuer: Identity, holder: AgentId, allow: list[Grant]) -> Token:
    """Add a link to a token that allows ``allow``, wider or not (spec/token.md)."""
    parent = token.links[-1]
    limits = parent.limits
    numbers = (limits.fuel, limits.memory, limits.time // timedelta(milliseconds=1), limits.output)
    hosts = [[str(one.pattern), sorted(one.methods), list(one.cidr)] for one in limits.hosts]
    secrets = [[one.handle, str(one.host), one.header] for one in limits.secrets]
    lists = [hosts, list(limits.read), list(limits.write), secrets]
    claims = {
        1: str(issuer.id),
        4: parent.expires,
        5: parent.not_before,
        6: parent.issued,
        7: os.urandom(16),
        8: {1: {1: 1, -1: 6, -2: bytes(holder)}},
        -65537: sorted([str(one.resource), sorted(one.actions), "any"] for one in allow),
        -65538: [[str(one.resource), sorted(one.actions)] for one in parent.deny],
        -65539: dict(enumerate([*numbers, *lists], start=1)),
        -65540: parent.id,
        -65541: [parent.index + 1, max(0, parent.depth - 1)],
        -65542: [
            [
                one.kind, one.predicate, [bytes(key) for key in one.signers], one.threshold,
                one.max_age // timedelta(seconds=1),
            ]
            for one in parent.attestations
        ],
    }  # fmt: skip
    kid = hashlib.sha256(bytes(issuer.id)).digest()[:8]
    protected, payload = cbor({1: -8, 4: kid, 16: TYPE}), cbor(claims)
    signature = issuer.sign(cbor(["Signature1", protected, b"", payload]))
    link = b"\xd2" + cbor([protected, {}, payload, signature])
    return Token.from_bytes(cbor([*map(bytes, token.links), link]))


def edited(log: Path, entry: int | None) -> None:
    """Change one letter of the resource that an entry names."""
    start, place = b'{"i":%d,' % (-1 if entry is None else entry), b'"resource":"tool://mail/'
    for part in log.rglob("*.jsonl"):
        lines = part.read_bytes().splitlines(keepends=True)
        for at, line in enumerate(lines):
            if line.startswith(start):
                lines[at] = line.replace(place + b"o", place + b"i")
                part.write_bytes(b"".join(lines))


def cbor(value: object) -> bytes:
    """Encode as RFC 8949 §4.2.1 wants it: shortest heads, sorted keys."""
    match value:
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case list():
            return _head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            pairs = sorted((cbor(key), cbor(one)) for key, one in value.items())
            return _head(5, len(pairs)) + b"".join(key + one for key, one in pairs)
    raise TypeError(type(value))


def _head(major: int, value: int) -> bytes:
    if value < 24:  # noqa: PLR2004 (RFC 8949 §3)
        return bytes([major << 5 | value])
    size = next(n for n in (1, 2, 4, 8) if value < 1 << 8 * n)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + value.to_bytes(size, "big")
