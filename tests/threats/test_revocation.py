"""Trust withdrawn: who may, what it reaches, and what happens in the moment it lands."""

from __future__ import annotations

import threading

import pytest

import forge
from forge import NOW, Chain, Key
from moat import Denied, Permit
from threats.test_replay import at_once
from threats.world import (
    GATE,
    MALLORY,
    OPERATOR,
    PLANNER,
    RESEARCHER,
    RIVAL,
    ROOT,
    WORKER,
    World,
    agent,
)


def take(world: World, signer: Key, verb: str, target: Key | bytes) -> int:
    """A statement that counts: one ``control`` line."""
    with world.growing_by("control"):
        return world.gate.control(world.control(signer, verb, target), now=NOW)


def refused(world: World, statement: bytes, reason: str, *, now: int = NOW) -> None:
    """A statement that does not count: nothing is written and nothing is revoked by it."""
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.control(statement, now=now)
    assert denied.value.reason == reason


# --- what it reaches ---


@pytest.mark.parametrize(
    ("target", "link"), [(ROOT, 0), (PLANNER, 0), (RESEARCHER, 1), (WORKER, 2)], ids=str
)
def test_a_revoked_agent_takes_its_descendants_along(world: World, target: Key, link: int) -> None:
    chain, sibling = world.chain(), forge.first(ROOT, RIVAL)
    world.allow(world.ask(chain))
    world.allow(world.ask(sibling))
    take(world, ROOT if target is not ROOT else OPERATOR, "revoke", target)
    assert world.gate.is_revoked(agent(target))
    world.refuse(world.ask(chain), "revoked", link=link)
    if target is not ROOT:
        world.allow(world.ask(sibling))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_revoked_link_takes_its_descendants_along(world: World, at: int) -> None:
    chain = world.chain()
    again = forge.first(ROOT, PLANNER, fuel=2).then(RESEARCHER).then(WORKER)
    world.allow(world.ask(chain))
    take(world, ROOT, "revoke", chain.ids[at])
    assert world.gate.is_revoked(chain.ids[at])
    world.refuse(world.ask(chain), "revoked", link=at)
    world.allow(world.ask(again))


def test_ancestors_of_what_was_revoked_go_on(world: World) -> None:
    above = forge.first(ROOT, PLANNER)
    world.allow(world.ask(above.then(WORKER)))
    take(world, ROOT, "revoke", WORKER)
    world.refuse(world.ask(above.then(WORKER)), "revoked", link=1)
    world.allow(world.ask(above))


def test_a_link_revoked_before_it_is_first_seen(world: World) -> None:
    chain = world.chain()
    take(world, ROOT, "revoke", chain.ids[1])
    world.refuse(world.ask(chain), "revoked", link=1)


def test_a_fresh_link_to_a_revoked_agent_is_dead_on_arrival(world: World) -> None:
    take(world, ROOT, "revoke", WORKER)
    world.refuse(world.ask(forge.first(ROOT, WORKER)), "revoked", link=0)
    world.refuse(world.ask(forge.first(ROOT, WORKER, fuel=1)), "revoked", link=0)


def test_a_revocation_survives_a_restart(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "revoke", PLANNER)
    world.restart()
    world.refuse(world.ask(chain), "revoked", link=0)
    take(world, ROOT, "restore", PLANNER)
    world.restart()
    world.allow(world.ask(chain))


def test_a_delegator_takes_back_what_it_gave_and_nothing_else(world: World) -> None:
    mine = forge.first(ROOT, PLANNER).then(WORKER)
    other = forge.first(ROOT, RIVAL).then(WORKER)
    direct = forge.first(ROOT, WORKER)
    for chain in (mine, other, direct):
        world.allow(world.ask(chain))
    take(world, PLANNER, "revoke", WORKER)
    world.refuse(world.ask(mine), "revoked", link=1)
    world.refuse(world.ask(forge.first(ROOT, PLANNER, fuel=1).then(WORKER)), "revoked", link=1)
    world.allow(world.ask(other))
    world.allow(world.ask(direct))


# --- who may ---


@pytest.mark.parametrize(
    "signer", [ROOT, OPERATOR, WORKER, RESEARCHER, PLANNER], ids=lambda key: key.name
)
def test_those_with_standing(world: World, signer: Key) -> None:
    """A root, an operator, the target itself, its delegator and the delegator's."""
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, signer, "revoke", WORKER)
    world.refuse(world.ask(chain), "revoked")


@pytest.mark.parametrize("signer", [MALLORY, RIVAL, GATE, WORKER], ids=lambda key: key.name)
@pytest.mark.parametrize("what", ["agent", "link"])
def test_those_without_standing(world: World, signer: Key, what: str) -> None:
    """A stranger, another branch, the gate's own key, a descendant of the target."""
    chain = world.chain()
    world.allow(world.ask(chain))
    world.allow(world.ask(forge.first(ROOT, RIVAL)))
    target = RESEARCHER if what == "agent" else chain.ids[1]
    refused(world, world.control(signer, "revoke", target), "no_standing")
    world.allow(world.ask(chain))


def test_a_delegator_in_a_chain_the_gate_has_not_seen(world: World) -> None:
    """Self-made links give no standing: only a chain that was walked to a root does."""
    bogus = forge.first(MALLORY, WORKER)
    world.refuse(world.ask(bogus), "unknown_root")
    refused(world, world.control(MALLORY, "revoke", WORKER), "no_standing")
    refused(world, world.control(MALLORY, "revoke", bogus.ids[0]), "no_standing")


def test_a_statement_in_the_name_of_someone_with_standing(world: World) -> None:
    headers = {4: ROOT.kid}
    forged = world.control(MALLORY, "revoke", WORKER, fields=None, headers=headers)
    refused(world, forged, "bad_signature")
    forged = forge.control(ROOT, "revoke", WORKER, GATE.public, sign=MALLORY.sign)
    refused(world, forged, "bad_signature")
    world.allow(world.ask())


def test_a_revoked_agent_has_no_standing_left(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "revoke", PLANNER)
    refused(world, world.control(PLANNER, "revoke", WORKER), "no_standing")
    refused(world, world.control(PLANNER, "restore", PLANNER), "no_standing")


@pytest.mark.parametrize(
    "signer", [WORKER, RESEARCHER, PLANNER, MALLORY, GATE, OPERATOR], ids=lambda key: key.name
)
def test_those_who_may_not_restore(world: World, signer: Key) -> None:
    """Only the revoker or a root; not the target, whose key may be why it was revoked."""
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "revoke", WORKER)
    refused(world, world.control(signer, "restore", WORKER), "no_standing")
    world.refuse(world.ask(chain), "revoked")


def test_a_self_revoked_key_does_not_come_back_by_itself(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, WORKER, "revoke", WORKER)
    refused(world, world.control(WORKER, "restore", WORKER), "no_standing")
    take(world, ROOT, "restore", WORKER)
    world.allow(world.ask(chain))


def test_restoring_lifts_what_its_signer_may_lift(world: World) -> None:
    """Two who revoked: one of them restores, and the other's word stands."""
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, PLANNER, "revoke", WORKER)
    take(world, OPERATOR, "revoke", WORKER)
    take(world, PLANNER, "restore", WORKER)
    world.refuse(world.ask(chain), "revoked")
    take(world, OPERATOR, "restore", WORKER)
    world.allow(world.ask(chain))


# --- the statement itself ---


def test_a_statement_for_another_gate(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    refused(world, forge.control(ROOT, "revoke", WORKER, RIVAL.public), "wrong_gate")
    world.allow(world.ask(chain))


def test_a_statement_taken_up_twice(world: World) -> None:
    chain = world.chain()
    revoke = world.control(ROOT, "revoke", WORKER)
    world.gate.control(revoke, now=NOW)
    refused(world, revoke, "replayed")
    take(world, ROOT, "restore", WORKER)
    refused(world, revoke, "replayed")
    world.allow(world.ask(chain))


def test_a_restoring_statement_sent_again_after_a_second_revocation(world: World) -> None:
    chain = world.chain()
    restore = world.control(ROOT, "restore", WORKER, lifetime=3_600)
    take(world, ROOT, "revoke", WORKER)
    world.gate.control(restore, now=NOW)
    take(world, ROOT, "revoke", WORKER)
    refused(world, restore, "replayed")
    world.restart()
    refused(world, restore, "replayed", now=NOW + 3_599)
    refused(world, restore, "stale", now=NOW + 3_600)
    world.restart()
    world.refuse(world.ask(chain), "revoked")


def test_a_restoring_statement_kept_for_a_revocation_to_come(world: World) -> None:
    """Signed in advance and refused while there is nothing to restore: it may still be used
    later, by design of its signer; what is refused leaves no trace."""
    refused(world, world.control(ROOT, "restore", WORKER), "no_standing")


def test_a_statement_from_64_threads_counts_once(world: World) -> None:
    revoke = world.control(ROOT, "revoke", WORKER)

    def send(_: int) -> str:
        try:
            world.gate.control(revoke, now=NOW)
        except Denied as denied:
            return str(denied.reason)
        return "taken"

    with world.growing_by("control"):
        answers = at_once(send)
    assert sorted(answers) == ["replayed"] * 63 + ["taken"]


@pytest.mark.parametrize(
    ("now", "lifetime"), [(NOW - 3_600, 3_600), (NOW, 3_601), (NOW + 61, 60), (NOW, 0)]
)
def test_a_stale_statement(world: World, now: int, lifetime: int) -> None:
    refused(world, world.control(ROOT, "revoke", WORKER, now=now, lifetime=lifetime), "stale")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({1: "pause"}, "malformed"),
        ({1: "Revoke"}, "malformed"),
        ({2: [2, bytes(32)]}, "malformed"),
        ({2: [1, bytes(31)]}, "malformed"),
        ({2: [0, bytes(32)]}, "bad_key"),
        ({2: WORKER.public}, "malformed"),
        ({5: bytes(15)}, "malformed"),
        ({8: 0}, "unknown_claim"),
        ({7: forge.ABSENT}, "malformed"),
        ({4: MALLORY.public}, "bad_signature"),
    ],
    ids=repr,
)
def test_a_statement_of_another_form(world: World, fields: dict[int, object], reason: str) -> None:
    refused(world, world.control(ROOT, "revoke", WORKER, fields=fields), reason)


def test_a_statement_that_is_too_large(world: World) -> None:
    refused(world, world.control(ROOT, "revoke", WORKER) + bytes(1024), "too_large")


def test_an_agent_named_as_a_link_and_the_other_way_round(world: World) -> None:
    """The two kinds of target do not stand for one another."""
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "revoke", WORKER.public)
    assert not world.gate.is_revoked(agent(WORKER))
    world.allow(world.ask(chain))


# --- the moment it lands ---


def test_a_permit_given_before_is_dead_after(world: World) -> None:
    permits = [world.allow(world.ask(chain)) for chain in (world.chain(), forge.first(ROOT, RIVAL))]
    take(world, ROOT, "revoke", PLANNER)
    with pytest.raises(Denied) as denied, permits[0]:
        pytest.fail("it opened")
    assert denied.value.reason == "revoked"
    with permits[1]:
        pass


def test_a_permit_stays_dead_after_the_revocation_is_lifted_unless_it_is_still_young(
    world: World,
) -> None:
    """A permit is asked when it is opened: what counts is what stands then."""
    permit = world.allow(world.ask())
    take(world, ROOT, "revoke", WORKER)
    with pytest.raises(Denied), permit:
        pytest.fail("it opened")
    take(world, ROOT, "restore", WORKER)
    with pytest.raises(Denied) as denied, permit:
        pytest.fail("it opened at the second try")
    assert denied.value.reason == "permit_spent"


def opens(permit: Permit) -> bool:
    """Whether it opens, or is refused for the revocation; any other refusal is raised."""
    try:
        with permit:
            return True
    except Denied as denied:
        if denied.reason != "revoked":
            raise
        return False


def test_a_revocation_while_64_threads_decide(world: World) -> None:
    """In log order, no decision after the revocation is a yes; by the clock of this process,
    no permit opens after ``control`` has returned, whenever it was given."""
    chains: list[Chain] = [forge.first(ROOT, PLANNER).then(forge.Key(f"w{n}")) for n in range(64)]
    wires = [[world.ask(chain, stream=bytes(16), number=n) for n in range(12)] for chain in chains]
    start, landed, failures = threading.Barrier(65), threading.Event(), []

    def work(at: int) -> None:
        start.wait()
        for wire in wires[at]:
            permit = world.gate.decide(wire, now=NOW).permit
            late = landed.is_set()
            if permit is not None and opens(permit) and late:
                failures.append(wire)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(64)]
    for thread in threads:
        thread.start()
    start.wait()
    world.gate.decide(world.ask(forge.first(ROOT, RIVAL)), now=NOW)
    entry = world.gate.control(world.control(ROOT, "revoke", PLANNER), now=NOW)
    landed.set()
    for thread in threads:
        thread.join()
    assert not failures
    late = [e["body"] for e in world.entries(entry + 1) if e["kind"] == "decision"]
    assert late, "the revocation came after everything; nothing was raced"
    assert {body["allow"] for body in late} == {False}
    assert {body["reason"] for body in late} == {"revoked"}


def test_64_permits_held_while_a_revocation_lands(world: World) -> None:
    """All given before, all opened in the same moment as the revocation: those that open have
    done so before it was durable, and after it returned none does."""
    chain = forge.first(ROOT, WORKER)
    permits = [world.allow(world.ask(chain, stream=bytes(16), number=n)) for n in range(64)]
    landed = threading.Event()

    def race(at: int) -> tuple[bool, bool]:
        if at == 64:
            world.gate.control(world.control(ROOT, "revoke", WORKER), now=NOW)
            landed.set()
            return False, False
        late = landed.is_set()
        return opens(permits[at]), late

    answers = at_once(race, 65)
    assert not any(opened and late for opened, late in answers)
    for permit, (opened, _) in zip(permits, answers, strict=False):
        if not opened:
            with pytest.raises(Denied), permit:
                pytest.fail("it opened after the revocation")
