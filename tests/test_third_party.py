"""Tokens, messages and control statements are COSE that libraries Moat never saw verify."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import cbor2
import cwt
import pytest
from pycose.keys import OKPKey
from pycose.keys.curves import Ed25519
from pycose.messages import Sign1Message

from moat import (
    AgentId,
    Control,
    Denial,
    Grant,
    Host,
    Identity,
    Limits,
    Message,
    Policy,
    Secret,
    Token,
)

NOW = 1_800_000_000
ROOT, GATE, PLANNER, WORKER = map(Identity.generate, ("root", "gate", "planner", "worker"))


def three_links() -> Token:
    """A token of three links that states something on every axis."""
    token = Token.issue(
        ROOT,
        holder=PLANNER.id,
        allow=[Grant("tool://search/**", {"call", "read"}), Grant("file:///data/**", {"*"}, {})],
        deny=[Denial("tool://search/secret/**", {"*"})],
        limits=Limits(
            fuel=5_000_000,
            memory=64 << 20,
            time=timedelta(seconds=2),
            output=1 << 20,
            hosts=[
                Host("https://git.example.net/v1/**", {"POST", "GET"}, ["::1/128", "10.0.0.0/8"]),
                "https://*.example.com",
            ],
            read=["file:///data/**"],
            write=["file:///data/out/**"],
            secrets=[Secret("secret://key", host="https://*.example.com", header="authorization")],
        ),
        expires_in=timedelta(hours=1),
        depth=2,
        now=NOW,
    )
    token = token.attenuate(
        PLANNER, holder=WORKER.id, allow=[Grant("tool://search/web", {"call"})], now=NOW
    )
    return token.attenuate(WORKER, holder=WORKER.id, audience=GATE.id, now=NOW)


def message() -> bytes:
    """A message of the worker's under three links."""
    return Message.seal(
        WORKER,
        gate=GATE.id,
        token=three_links(),
        policy=Policy.CHAIN_ONLY.hash,
        action="call",
        resource="tool://search/web",
        args={"q": "moat"},
        payload=b"payload",
        now=NOW,
    )


def signed_objects() -> list[tuple[str, bytes, AgentId]]:
    """Everything Moat signs in COSE, each with its signer."""
    links = [(f"link {link.index}", bytes(link), link.issuer) for link in three_links().links]
    request = cbor2.loads(message())[1]
    control = Control.sign(ROOT, "revoke", PLANNER.id, gate=GATE.id, now=NOW)
    return [*links, ("request", request, WORKER.id), ("control", control, ROOT.id)]


OBJECTS = signed_objects()
NAMES = [name for name, _, _ in OBJECTS]


def tampered(data: bytes) -> bytes:
    """The same object with one bit of its payload flipped."""
    tag = cbor2.loads(data)
    protected, unprotected, payload, signature = tag.value
    flipped = payload[:-1] + bytes([payload[-1] ^ 1])
    return cbor2.dumps(cbor2.CBORTag(tag.tag, [protected, unprotected, flipped, signature]))


@pytest.mark.parametrize(("name", "data", "signer"), OBJECTS, ids=NAMES)
def test_pycose_verifies(name: str, data: bytes, signer: AgentId) -> None:
    def verified(wire: bytes) -> bool:
        decoded: Any = Sign1Message.decode(wire)
        decoded.key = OKPKey(crv=Ed25519, x=bytes(signer))
        return bool(decoded.verify_signature())

    assert verified(data), name
    assert not verified(tampered(data)), name


@pytest.mark.parametrize(("name", "data", "signer"), OBJECTS, ids=NAMES)
def test_cwt_verifies_and_reads_the_claims(name: str, data: bytes, signer: AgentId) -> None:
    key = cwt.COSEKey.new({1: 1, 3: -8, -1: 6, -2: bytes(signer), 2: kid(signer)})
    payload = cwt.COSE.new().decode(data, key)
    assert payload == cbor2.loads(data).value[2], name
    with pytest.raises(cwt.VerifyError):
        cwt.COSE.new().decode(tampered(data), key)
    if name.startswith("link"):
        # Its clock cannot be injected, so it is given leeway to NOW from whenever this runs.
        claims = cwt.CWT.new(leeway=1 << 33).decode(data, key)
        assert claims[1] == str(signer)


@pytest.mark.parametrize(("name", "data", "signer"), OBJECTS, ids=NAMES)
def test_headers_are_what_the_spec_says(name: str, data: bytes, signer: AgentId) -> None:
    kinds = {"request": "application/moat-msg+cbor", "control": "application/moat-ctl+cbor"}
    tag = cbor2.loads(data)
    protected, unprotected, _, signature = tag.value
    assert (tag.tag, unprotected, len(signature)) == (18, {}, 64)
    assert cbor2.loads(protected) == {
        1: -8,
        4: kid(signer),
        16: kinds.get(name, "application/moat-cap+cwt"),
    }


def test_ids_are_sha256_of_the_sig_structure() -> None:
    token, wire = three_links(), message()
    assert [link.id for link in token.links] == [object_id(bytes(link)) for link in token.links]
    assert token.id == object_id(bytes(token.links[-1]))
    assert token.links[1].parent == token.links[0].id
    assert Message.from_bytes(wire).id == object_id(cbor2.loads(wire)[1])


def test_a_token_is_the_array_of_its_links() -> None:
    token = three_links()
    assert bytes(token) == cbor2.dumps([bytes(link) for link in token.links])
    embedded, request = cbor2.loads(message())
    claims = cbor2.loads(cbor2.loads(request).value[2])
    assert claims[1] == hashlib.sha256(embedded).digest()


def test_claims_of_a_link_read_as_the_spec_names_them() -> None:
    token = three_links()
    last = cbor2.loads(cbor2.loads(bytes(token.links[2])).value[2])
    assert last[1] == str(WORKER.id)
    assert last[3] == str(GATE.id)
    assert (last[4], last[6]) == (NOW + 3600, NOW)
    assert last[8] == {1: {1: 1, -1: 6, -2: bytes(WORKER.id)}}
    assert last[-65537] == [["tool://search/web", ["call"], "any"]]
    assert last[-65538] == [["tool://search/secret/**", ["*"]]]
    assert last[-65539] == {
        1: 5_000_000,
        2: 64 << 20,
        3: 2000,
        4: 1 << 20,
        5: [
            ["https://*.example.com/**", ["*"], []],
            ["https://git.example.net/v1/**", ["GET", "POST"], ["10.0.0.0/8", "::1/128"]],
        ],
        6: ["file:///data/**"],
        7: ["file:///data/out/**"],
        8: [["secret://key", "https://*.example.com", "authorization"]],
    }
    assert last[-65540] == token.links[1].id
    assert last[-65541] == [2, 0]


def kid(signer: AgentId) -> bytes:
    """The hint in a header: the first 8 bytes of the key's SHA-256."""
    return hashlib.sha256(bytes(signer)).digest()[:8]


def object_id(data: bytes) -> bytes:
    """SHA-256 of a COSE_Sign1's Sig_structure (RFC 9052 §4.4)."""
    protected, _, payload, _ = cbor2.loads(data).value
    return hashlib.sha256(cbor2.dumps(["Signature1", protected, b"", payload])).digest()
