"""The gate as a person sees it: a Permit or ``Denied``, batches, threads, a loop, revocation."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from cast import GATE, HOUR, MALLORY, NOW, PLANNER, ROOT, SEARCH, WORKER, identity, issue, seal
from moat import Control, Denied, MalformedInput, Message, Pep, Policy


def test_an_allowed_message_gives_a_permit_with_what_was_asked(pep):
    permit = pep.authorize(seal(args={"q": "moat"}, payload=b"data"))
    assert permit.sender == PLANNER.id
    assert permit.recipient == pep.id == GATE.id
    assert (permit.action, permit.resource) == ("call", "tool://search/web")
    assert (permit.args, permit.args_json) == ({"q": "moat"}, b'{"q":"moat"}')
    assert permit.payload == b"data"
    assert permit.expires == NOW + 60


def test_a_denial_is_raised_with_its_decision(pep):
    with pytest.raises(Denied) as caught:
        pep.authorize(seal(resource="tool://mail/send"))
    decision = caught.value.decision
    assert caught.value.reason == decision.reason == "not_granted"
    assert decision.stage == "capability"
    assert decision.resource == "tool://mail/send"
    for text in (str(caught.value), decision.explain()):
        assert "no grant reaches `tool://mail/send`" in text


def test_decide_answers_and_never_raises_for_a_denial(pep):
    refused = pep.decide(b"not a message")
    assert not refused.allowed
    assert refused.permit is None
    assert (refused.stage, refused.reason) == ("authentic", "malformed")
    assert pep.decide(seal()).allowed


def test_a_decision_has_no_truth_value(pep):
    with pytest.raises(TypeError):
        bool(pep.decide(seal()))


def test_a_decision_is_plain_data_for_a_machine(pep):
    decision = pep.decide(seal(resource="tool://mail/send"))
    data = json.loads(json.dumps(decision.to_dict()))
    assert data["reason"] == "not_granted"
    assert data["entry"] == decision.entry


def test_a_batch_is_decided_in_order_and_each_has_its_answer(pep, audit):
    wires = [seal(), b"junk", seal(resource="tool://mail/send"), seal()]
    found = pep.authorize_many([*wires, wires[0]])
    assert [decision.reason for decision in found] == [
        None, "malformed", "not_granted", None, "replayed",
    ]  # fmt: skip
    entries = [decision.entry for decision in found if decision.entry is not None]
    assert entries == sorted(set(entries))
    assert [audit.read(entry) for entry in entries]
    assert pep.authorize_many([]) == []


def test_one_of_many_threads_wins_with_the_same_message(pep):
    wire = seal()
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: pep.decide(wire), range(16)))
    assert sorted(decision.reason or "" for decision in found) == ["", *["replayed"] * 15]


def test_a_loop_waits_for_many_without_standing_still(pep):
    async def main():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        waiting = [pep.authorize_async(seal()) for _ in range(4)]
        permits = await asyncio.gather(*waiting)
        counter.cancel()
        return permits, turns

    permits, turns = asyncio.run(main())
    assert len({permit.entry for permit in permits}) == 4
    assert turns > 1


def test_a_denial_is_raised_in_a_loop_too(pep):
    with pytest.raises(Denied, match="tool://mail/send"):
        asyncio.run(pep.authorize_async(seal(resource="tool://mail/send")))


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(lambda _token: PLANNER, id="identity"),
        pytest.param(lambda _token: PLANNER.id, id="agent"),
        pytest.param(lambda token: token, id="token"),
        pytest.param(lambda token: token.links[0], id="link"),
        pytest.param(lambda token: token.id, id="link id"),
    ],
)
def test_trust_is_withdrawn_and_given_back(pep, target):
    token = issue()
    entry = pep.revoke(target(token), by=ROOT)
    assert pep.is_revoked(target(token))
    assert pep.decide(seal(token)).reason == "revoked"
    assert pep.restore(target(token), by=ROOT) > entry
    assert not pep.is_revoked(target(token))
    assert pep.decide(seal(token)).allowed


def test_a_revocation_reaches_descendants(pep):
    narrow = issue().attenuate(PLANNER, holder=WORKER.id, now=NOW)
    assert pep.decide(seal(narrow, WORKER)).allowed
    pep.revoke(PLANNER, by=ROOT)
    assert pep.decide(seal(narrow, WORKER)).reason == "revoked"


def test_a_permit_does_not_open_after_a_revocation(pep):
    permit = pep.authorize(seal())
    pep.revoke(PLANNER, by=ROOT)
    with pytest.raises(Denied) as caught:
        permit.__enter__()
    assert caught.value.reason == "revoked"


def test_who_has_no_standing_revokes_nothing(pep):
    with pytest.raises(Denied) as caught:
        pep.revoke(PLANNER, by=MALLORY)
    assert caught.value.reason == "no_standing"
    assert not pep.is_revoked(PLANNER)
    assert pep.decide(seal()).allowed


def test_an_operator_revokes_anything(audit):
    operator = identity("operator")
    pep = Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=audit, operators=[operator.id])
    pep.revoke(PLANNER, by=operator)
    assert pep.decide(seal()).reason == "revoked"


def test_a_statement_signed_elsewhere_is_taken_up_once(pep):
    statement = Control.sign(ROOT, "revoke", PLANNER.id, gate=pep.id, now=NOW)
    pep.control(statement)
    assert pep.is_revoked(PLANNER)
    with pytest.raises(Denied) as caught:
        pep.control(statement)
    assert caught.value.reason == "replayed"


@pytest.mark.parametrize("target", ["planner", None, 7, [PLANNER]])
def test_what_is_no_target_is_refused_and_named(pep, target):
    with pytest.raises(MalformedInput, match=type(target).__name__):
        pep.revoke(target, by=ROOT)


def test_a_gate_that_trusts_nobody_allows_nothing(audit):
    pep = Pep(policy=Policy.CHAIN_ONLY, roots=[], audit=audit)
    assert pep.decide(seal()).reason == "unknown_root"


def test_a_message_for_another_policy_is_refused(pep):
    wire = Message.seal(
        PLANNER, gate=pep.id, token=issue(), policy=bytes(32), action="call",
        resource="tool://search/web", now=NOW,
    )  # fmt: skip
    assert pep.decide(wire).reason == "policy_mismatch"


def test_a_permit_opens_once_and_its_outcome_is_logged(pep, audit):
    permit = pep.authorize(seal())
    with permit:
        permit.record(b"result")
    assert permit.outcome is not None
    outcome = next(audit.entries(permit.outcome))
    assert outcome["kind"] == "outcome"
    with pytest.raises(Denied) as caught:
        permit.__enter__()
    assert caught.value.reason == "permit_spent"


def test_an_exception_within_a_permit_is_an_outcome_and_goes_on(pep, audit):
    permit = pep.authorize(seal())
    with pytest.raises(KeyError, match="lost"), permit:
        raise KeyError("lost")
    assert b"raised" in audit.read(permit.outcome)


def test_a_permit_is_for_one_effect(pep):
    permit = pep.authorize(seal(payload=b"data"))
    permit.check(action="call", resource="tool://search/web", recipient=pep.id, payload=b"data")
    for other in ({"action": "read"}, {"resource": "tool://search/all"}, {"payload": b"date"}):
        with pytest.raises(Denied) as caught:
            permit.check(**other)
        assert caught.value.reason == "permit_mismatch"


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_permit_is_not_duplicated(pep, duplicate):
    with pytest.raises(TypeError):
        duplicate(pep.authorize(seal()))


def test_an_expired_token_is_refused_without_a_line(pep, audit):
    before = len(audit)
    late = NOW + int(HOUR.total_seconds())
    decision = pep.decide(seal(issue(allow=[SEARCH]), now=late), now=late)
    assert (decision.reason, decision.entry) == ("expired", None)
    assert len(audit) == before
