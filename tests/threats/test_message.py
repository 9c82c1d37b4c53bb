"""Messages turned, changed, kept or forged after they were signed."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2
import pytest

import forge
from forge import ABSENT, NOW, Field, cbor
from moat import Message
from moat.errors import MoatError
from threats.world import GATE, PLANNER, RESEARCHER, RIVAL, ROOT, WORKER, World, agent


def test_a_message_for_another_gate(world: World) -> None:
    chain = world.chain()
    world.allow(forge.message(chain, GATE.public))
    world.refuse(forge.message(chain, RIVAL.public), "wrong_gate")


# --- changed on the way ---


def changed(signed: bytes, changes: dict[int, Any]) -> bytes:
    """The same request with fields replaced and its old signature."""
    fields = cbor2.loads(forge.parts(signed)[2]) | changes
    kept = {key: value for key, value in fields.items() if value is not ABSENT}
    return forge.rebuilt(signed, payload=cbor(kept))


CHANGES: dict[str, dict[int, Any]] = {
    "action": {Field.ACTION: "list"},
    "resource": {Field.RESOURCE: "tool://search/news"},
    "args": {Field.ARGS: b'{"q":"other"}'},
    "payload": {Field.PAYLOAD: b"x", Field.DIGEST: hashlib.sha256(b"x").digest()},
    "recipient": {Field.RECIPIENT: WORKER.public},
    "code": {Field.CODE: bytes(32)},
    "code left out": {Field.CODE: ABSENT},
    "policy": {Field.POLICY: bytes(32)},
    "stream": {Field.STREAM: bytes(16)},
    "number": {Field.NUMBER: 1},
    "iat": {Field.IAT: NOW + 1},
    "exp": {Field.EXP: NOW + 61},
    "causes": {Field.CAUSES: [bytes(32)]},
    "labels": {Field.LABELS: ["trusted"]},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_field_changed_after_signing(world: World, change: dict[int, Any]) -> None:
    chain = world.chain()
    ask = forge.Ask(args=b'{"q":"moat"}', payload=b"p", code=b"\1" * 32)
    good = forge.request(WORKER, chain.token, GATE.public, ask)
    world.refuse(forge.wire(chain.token, changed(good, change)), "bad_signature")
    world.allow(forge.wire(chain.token, good))


def test_a_gate_changed_after_signing(world: World) -> None:
    """A message caught on its way to another gate, readdressed."""
    chain = world.chain()
    caught = forge.request(WORKER, chain.token, RIVAL.public, forge.Ask())
    turned = changed(caught, {Field.GATE: GATE.public, Field.RECIPIENT: GATE.public})
    world.refuse(forge.wire(chain.token, turned), "bad_signature")


def test_a_payload_that_is_not_what_its_digest_says(world: World) -> None:
    world.allow(world.ask(payload=b"p"))
    world.refuse(world.ask(payload=b"p", forged={"fields": {Field.PAYLOAD: b"q"}}), "malformed")


def test_another_token_put_under_a_request(world: World) -> None:
    """The holder has a narrow and a wide token; the request was signed for the narrow one."""
    narrow = forge.first(ROOT, WORKER, allow=(("tool://search/web", ("call",), "any"),))
    wide = forge.first(ROOT, WORKER)
    signed = forge.request(WORKER, narrow.token, GATE.public, forge.Ask())
    world.refuse(forge.wire(wide.token, signed), "malformed")
    world.refuse(
        forge.wire(
            wide.token,
            changed(signed, {Field.TOKEN: hashlib.sha256(wide.token).digest()}),
        ),
        "bad_signature",
    )
    world.allow(forge.wire(narrow.token, signed))


def test_one_bit_turned_anywhere_in_a_message(world: World) -> None:
    """Every byte of a whole message, one bit each: not one of them gets a permit or a line."""
    good = world.ask(forge.first(ROOT, WORKER))
    with world.growing_by():
        for at in range(len(good)):
            bad = good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]
            decision = world.gate.decide(bad, now=NOW)
            assert (decision.allowed, decision.permit, decision.stage) == (False, None, "authentic")
    world.allow(good)


# --- policy ---


@pytest.mark.parametrize(
    "policy", [bytes(32), hashlib.sha256(b"chain-only").digest()], ids=["zeros", "undomained"]
)
def test_a_message_that_counts_on_another_policy(world: World, policy: bytes) -> None:
    world.refuse(world.ask(policy=policy), "policy_mismatch")


# --- times ---


@pytest.mark.parametrize(
    ("iat", "lifetime", "now"),
    [
        (NOW - 60, 60, NOW),
        (NOW - 300, 300, NOW),
        (NOW - 86_400, 60, NOW),
        (NOW + 61, 60, NOW),
        (NOW + 86_400 * 365, 300, NOW),
        (NOW, 301, NOW),
        (NOW, 0, NOW),
        (NOW, -1, NOW),
        (0, 60, NOW),
    ],
    ids=["at exp", "at exp of 300", "a day ago", "ahead", "far ahead", "long life", "no life",
         "backwards", "epoch"],
)  # fmt: skip
def test_a_stale_message(world: World, iat: int, lifetime: int, now: int) -> None:
    world.refuse(world.ask(now=iat, lifetime=lifetime), "stale", now=now)


@pytest.mark.parametrize(("iat", "lifetime"), [(NOW - 59, 60), (NOW + 60, 300), (NOW, 1)])
def test_a_message_at_the_edge_of_its_life(world: World, iat: int, lifetime: int) -> None:
    world.allow(world.ask(now=iat, lifetime=lifetime))


# --- forms ---


@pytest.mark.parametrize("field", [f for f in Field if f is not Field.CODE], ids=lambda f: f.name)
def test_a_request_that_lacks_a_field(world: World, field: Field) -> None:
    world.refuse(world.ask(forged={"fields": {field: ABSENT}}), "malformed")


ARGS = {
    "not an object": b"[]",
    "a number": b"1",
    "not JSON": b"{q:1}",
    "nothing": b"",
    "a space": b'{"q": 1}',
    "members out of order": b'{"b":1,"a":2}',
    "a member twice": b'{"a":1,"a":2}',
    "1.0 for 1": b'{"a":1.0}',
    "an exponent": b'{"a":1e2}',
    "an escape": rb'{"a":"\u0061"}',
    "beyond 2^53": b'{"a":9007199254740993}',
    "below -2^53": b'{"a":-9007199254740993}',
    "not a number": b'{"a":NaN}',
    "lone surrogate": rb'{"a":"\ud800"}',
    "bad UTF-8": b'{"a":"\xff"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "two objects": b"{}{}",
    "trailing NUL": b"{}\0",
    "minus zero": b'{"a":-0}',
}


@pytest.mark.parametrize("args", ARGS.values(), ids=ARGS.keys())
def test_arguments_in_another_spelling(world: World, args: bytes) -> None:
    """What one parser reads as one call and another as another call."""
    world.allow(world.ask(args=b'{"a":1,"b":[true,null]}'))
    world.refuse(world.ask(args=args), "malformed")


def test_arguments_that_are_too_large(world: World) -> None:
    def long(size: int) -> bytes:
        return b'{"a":"' + b"x" * (size - 8) + b'"}'

    world.allow(world.ask(args=long(32 * 1024)))
    world.refuse(world.ask(args=long(32 * 1024 + 1)), "too_large")


def test_arguments_that_nest_too_deep(world: World) -> None:
    def deep(levels: int) -> bytes:
        return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    world.allow(world.ask(args=deep(32)))
    world.refuse(world.ask(args=deep(33)), "too_large")
    decision = world.gate.decide(world.ask(args=deep(16_000)), now=NOW)
    assert decision.reason in {"too_large", "malformed"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({Field.ACTION: "*"}, "malformed"),
        ({Field.ACTION: ""}, "malformed"),
        ({Field.ACTION: "Call"}, "malformed"),
        ({Field.ACTION: "call\n"}, "malformed"),
        ({Field.ACTION: "call,delete"}, "malformed"),
        ({Field.ACTION: "a" * 65}, "malformed"),
        ({Field.RESOURCE: "tool://search/*"}, "malformed"),
        ({Field.RESOURCE: "tool://search/**"}, "malformed"),
        ({Field.RESOURCE: ""}, "malformed"),
        ({Field.GATE: bytes(31)}, "malformed"),
        ({Field.RECIPIENT: bytes(32)}, "bad_key"),
        ({Field.CODE: b""}, "malformed"),
        ({Field.STREAM: bytes(15)}, "malformed"),
        ({Field.NUMBER: -1}, "malformed"),
        ({Field.EXP: 253_402_300_800, Field.IAT: 253_402_300_799}, "malformed"),
        ({Field.CAUSES: [bytes(32)] * 2}, "malformed"),
        ({Field.CAUSES: [b"\1" * 32, b"\0" * 32]}, "malformed"),
        ({Field.CAUSES: [bytes(31)]}, "malformed"),
        ({Field.CAUSES: [bytes([n]) * 32 for n in range(17)]}, "too_large"),
        ({Field.LABELS: ["b", "a"]}, "malformed"),
        ({Field.LABELS: ["a", "a"]}, "malformed"),
        ({Field.LABELS: ["A"]}, "malformed"),
        ({Field.LABELS: ["\u202e"]}, "malformed"),
        ({Field.LABELS: ["a\n"]}, "malformed"),
        ({Field.LABELS: ["a" * 65]}, "malformed"),
        ({Field.LABELS: [f"a{n:02}" for n in range(17)]}, "too_large"),
    ],
    ids=repr,
)
def test_fields_of_another_form(world: World, fields: dict[int, Any], reason: str) -> None:
    world.refuse(world.ask(forged={"fields": fields}), reason)


# --- a reader without a gate ---


def test_opening_without_a_gate_checks_gate_times_and_sender() -> None:
    chain = forge.first(ROOT, PLANNER).then(RESEARCHER).then(WORKER)
    wire = forge.message(chain, GATE.public)
    opened = Message.open(wire, gate=agent(GATE), sender=agent(WORKER), now=NOW)
    assert opened.resource == "tool://search/web"
    for wrong in (
        {"gate": agent(RIVAL)},
        {"sender": agent(PLANNER)},
        {"now": NOW + 60},
        {"now": NOW - 61},
    ):
        with pytest.raises(MoatError):
            Message.open(wire, **{"gate": agent(GATE), "sender": agent(WORKER), "now": NOW} | wrong)
