"""What the attacks on attestations share: envelopes made byte by byte, and a gate that is asked."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any, Final

import pytest

import forge
from forge import NOW, Chain, Key
from guests.build import assemble
from moat import MoatError
from threats.world import PLANNER, ROOT, World, agent

MANIFEST, SLSA, VSA = (
    "urn:moat:manifest:v1",
    "https://slsa.dev/provenance/v1",
    "https://slsa.dev/verification_summary/v1",
)
IN_TOTO: Final = "application/vnd.in-toto+json"
ALICE, BOB, CAROL = map(forge.key, ("alice", "bob", "carol"))
WASM: Final = assemble('(module (memory (export "memory") 1) (func (export "_start")))')
OTHER_WASM: Final = assemble('(module (memory (export "memory") 1) (func (export "_start") nop))')
CODE: Final = sha256(WASM).digest()
GRANTS = tuple((f"{scheme}://x", ("run",), "any") for scheme in ("code", "mcp", "skill", "tool"))

Required = tuple[str, str, tuple[bytes, ...], int, int]


def required(
    *signers: Key, kind: str = "code", uri: str = MANIFEST, threshold: int = 1, age: int = 3600
) -> Required:
    """A requirement of a forged link."""
    return kind, uri, tuple(key.public for key in signers), threshold, age


def requiring(*requirements: Required, **terms: Any) -> Chain:
    """A first link with these requirements."""
    bare = {"allow": GRANTS, "deny": (), "read": (), "write": ()}
    return forge.first(ROOT, PLANNER, attestations=requirements, **bare | terms)


def ask(world: World, chain: Chain, code: bytes | None = CODE, scheme: str = "code") -> bytes:
    return world.ask(chain, action="run", resource=f"{scheme}://x", code=code)


def refuse(world: World, chain: Chain, *, link: int = 0, now: int = NOW, **more: Any) -> None:
    """The gate says that it is not attested, as this link requires."""
    asked = {"action": "run", "resource": "code://x", "code": CODE, "now": now} | more
    world.refuse(
        world.ask(chain, **asked), "not_attested", link=link, caveat="attestations", now=now
    )


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, written from its page."""
    kind = payload_type.encode()
    return b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    )


def statement(
    kind: str = "code", digest: bytes = CODE, issued: int = NOW, **changes: Any
) -> dict[str, Any]:
    """An in-toto statement with Moat's predicate."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "x", "digest": {"sha256": digest.hex()}}],
        "predicateType": MANIFEST,
        "predicate": {"kind": kind, "issued": issued},
    } | changes


def envelope(
    said: dict[str, Any] | bytes,
    *signers: Key,
    payload_type: str = IN_TOTO,
    signed: bytes | None = None,
    **changes: Any,
) -> bytes:
    """An envelope as DSSE describes it; ``signed`` is what the signatures are over instead."""
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    to_sign = pae(payload_type, payload) if signed is None else signed
    signatures = [
        {"keyid": key.did, "sig": base64.b64encode(key.sign(to_sign)).decode()} for key in signers
    ]
    made = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": signatures,
    }
    return json.dumps(made | changes).encode()


def take(world: World, sealed: bytes, *signers: Key, now: int = NOW) -> int:
    """The gate takes it up, in one line."""
    world.clock.now = now
    with world.growing_by("attested"):
        return world.gate.attest(sealed, signers=map(agent, signers))


def reject(world: World, sealed: bytes, reason: str, *signers: Key, now: int = NOW) -> None:
    """The gate does not take it up, for this reason, and writes nothing."""
    world.clock.now = now
    with world.growing_by(), pytest.raises(MoatError) as refused:
        world.gate.attest(sealed, signers=map(agent, signers or (ALICE,)))
    assert refused.value.reason == reason
