"""The gate gives, on every case of spec/vectors, the answer that the case names.

The cases are made without Moat's code (``spec/vectors/generate.py``). A token is checked by
``Token.verify`` and, inside a message by its holder, by a gate; a message and a control statement
by a gate. Every case has a gate of its own and its own clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forge
from moat import REASONS, AgentId, Identity, Message, Policy, Token
from moat._native import Gate
from moat.errors import Denied, MoatError

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[2] / "spec" / "vectors"
KINDS = ("token", "message", "control")
NOT_FROM_BYTES = {
    "permit_mismatch",
    "permit_spent",
    "throttled",
    "out_of_order",
    "monitor_full",
    "name_taken",
    "not_registered",
}
"""Reasons that come from a permit, a rule or a name, not from bytes alone."""

Step = dict[str, Any]


def load(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    return document


DOCUMENTS = {kind: load(kind) for kind in KINDS}
CASES = [
    pytest.param(kind, case, id=f"{kind}: {case['name']}")
    for kind in KINDS
    for case in DOCUMENTS[kind]["cases"]
]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A fresh gate with the document's keys; all documents name the same ones."""
    document = DOCUMENTS["token"]
    signer = Identity.from_pem("gate", forge.key(document["gate"]).pem())
    # The clock stands behind every case's, so that each step's own ``now`` is the latest.
    gate = Gate.open(tmp_path / "log", signer, anchor=None, clock=lambda: forge.NOW - 100)
    gate.arm(
        policy=Policy.CHAIN_ONLY,
        roots=[agent(name) for name in document["roots"]],
        operators=[agent(name) for name in document["operators"]],
    )
    yield gate
    gate.close(now=forge.NOW)


def agent(name: str) -> AgentId:
    return AgentId.from_bytes(bytes.fromhex(DOCUMENTS["token"]["keys"][name]["public"]))


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_every_step_gets_its_answer(gate: Gate, kind: str, case: dict[str, Any]) -> None:
    for step in case["steps"]:
        HANDED[step["kind"]](gate, bytes.fromhex(step["hex"]), step)
    assert case["steps"][-1]["kind"] in {kind, "message"}


def hand_token(gate: Gate, data: bytes, step: Step) -> None:
    """To ``Token.verify``, then to the gate in a message that asks for anything."""
    roots = [agent("root")]
    reason = "ok"
    try:
        Token.from_bytes(data).verify(roots, gate=gate.id, now=step["now"])
    except MoatError as error:
        reason = error.reason or "none"
    assert reason == step["expect"]

    holder = forge.key(step["holder"])
    asked = forge.request(holder, data, bytes(gate.id), forge.Ask(now=step["now"]))
    decision = gate.decide(forge.wire(data, asked), now=step["now"])
    if step["expect"] == "ok":
        assert decision.reason in {None, "not_granted", "not_attested"}
        return
    assert decision.reason == step["expect"]
    check_where(decision, step)


def hand_message(gate: Gate, data: bytes, step: Step) -> None:
    decision = gate.decide(data, now=step["now"])
    assert (decision.reason or "ok") == step["expect"], decision.explain()
    assert decision.allowed == (step["expect"] == "ok")
    check_where(decision, step)


def hand_control(gate: Gate, data: bytes, step: Step) -> None:
    before = len(gate)
    if step["expect"] == "ok":
        assert gate.control(data, now=step["now"]) >= before
        return
    with pytest.raises(MoatError) as caught:
        gate.control(data, now=step["now"])
    error = caught.value
    reason = error.decision.reason if isinstance(error, Denied) else error.reason
    assert reason == step["expect"]


HANDED = {"token": hand_token, "message": hand_message, "control": hand_control}


def check_where(decision: Any, step: Step) -> None:
    """A refusal names the stage, and the link and axis that the case names."""
    if step["expect"] == "ok":
        return
    assert decision.stage == REASONS[step["expect"]]
    if step.get("link") is not None:
        assert decision.link == step["link"]
    if step.get("axis") is not None:
        assert decision.caveat == step["axis"]


def test_every_reason_that_bytes_can_trigger_has_a_negative_case() -> None:
    expected = {
        reason
        for reason, stage in REASONS.items()
        if stage in {"authentic", "policy", "capability"} and reason not in NOT_FROM_BYTES
    }
    shown = {
        case["steps"][-1]["expect"] for document in DOCUMENTS.values() for case in document["cases"]
    }
    assert expected <= shown
    assert shown <= {*REASONS, "ok"}


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_unique_and_rules_are_named(kind: str) -> None:
    names = [case["name"] for case in DOCUMENTS[kind]["cases"]]
    assert len(names) == len(set(names))
    assert all(case["rule"] and case["steps"] for case in DOCUMENTS[kind]["cases"])
    assert any(case["steps"][-1]["expect"] == "ok" for case in DOCUMENTS[kind]["cases"])


def test_the_files_are_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "generate.py"), "--check"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_keys_come_from_their_seeds() -> None:
    for document in DOCUMENTS.values():
        for name, key in document["keys"].items():
            identity = Identity.from_pem(name, forge.key(name).pem())
            assert forge.key(name).seed.hex() == key["seed"]
            assert bytes(identity.id).hex() == key["public"]
            assert str(identity.id) == key["did"]
        assert Policy.CHAIN_ONLY.hash.hex() == document["policy"]


def test_messages_of_accepted_cases_decode_to_what_was_signed() -> None:
    for case in DOCUMENTS["message"]["cases"]:
        step = case["steps"][-1]
        if step["kind"] == "message" and step["expect"] == "ok":
            data = bytes.fromhex(step["hex"])
            message = Message.from_bytes(data)
            token, request = forge.cbor2.loads(data)
            fields = forge.cbor2.loads(forge.parts(request)[2])
            assert bytes(message.token) == token
            assert message.id == forge.object_id(request)
            assert (message.action, message.resource, message.number) == tuple(
                fields[key] for key in (4, 5, 12)
            )
