"""Agents paused: what it reaches, who escapes it (nobody), and guests that are running."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

import forge
from forge import NOW, Key
from guests.build import wat
from moat import Denied, SandboxOutcome
from moat._native import Module
from threats.test_guest import PLENTY, permitted
from threats.test_revocation import refused, take
from threats.world import MALLORY, OPERATOR, PLANNER, RESEARCHER, RIVAL, ROOT, WORKER, World, agent


@pytest.mark.parametrize(("target", "link"), [(PLANNER, 0), (RESEARCHER, 1), (WORKER, 2)], ids=str)
def test_a_suspended_agent_pauses_its_descendants(world: World, target: Key, link: int) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "suspend", target)
    assert world.gate.is_suspended(agent(target))
    world.refuse(world.ask(chain), "suspended", link=link)
    world.allow(world.ask(forge.first(ROOT, RIVAL)))
    take(world, ROOT, "resume", target)
    assert not world.gate.is_suspended(agent(target))
    world.allow(world.ask(chain))


def test_fresh_keys_do_not_escape_a_suspension(world: World) -> None:
    """A paused agent makes itself a hundred children: every one is paused with it."""
    mine = forge.first(ROOT, PLANNER)
    world.allow(world.ask(mine))
    take(world, ROOT, "suspend", PLANNER)
    for n in range(100):
        world.refuse(world.ask(mine.then(Key(f"fresh{n}"))), "suspended", link=0)
    world.refuse(world.ask(forge.first(ROOT, PLANNER, fuel=1)), "suspended", link=0)


def test_a_suspension_survives_a_restart(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, OPERATOR, "suspend", PLANNER)
    world.restart()
    world.refuse(world.ask(chain), "suspended", link=0)
    take(world, OPERATOR, "resume", PLANNER)
    world.restart()
    world.allow(world.ask(chain))


@pytest.mark.parametrize("signer", [WORKER, RIVAL, MALLORY], ids=lambda key: key.name)
def test_those_who_may_not_suspend(world: World, signer: Key) -> None:
    """Not the agent itself, not another branch, not a stranger."""
    chain = world.chain()
    world.allow(world.ask(chain))
    world.allow(world.ask(forge.first(ROOT, RIVAL)))
    refused(world, world.control(signer, "suspend", WORKER), "no_standing")
    refused(world, world.control(signer, "suspend", chain.ids[2]), "no_standing")
    world.allow(world.ask(chain))


@pytest.mark.parametrize("signer", [WORKER, PLANNER, OPERATOR, MALLORY], ids=lambda key: key.name)
def test_those_who_may_not_resume(world: World, signer: Key) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "suspend", WORKER)
    refused(world, world.control(signer, "resume", WORKER), "no_standing")
    refused(world, world.control(signer, "restore", WORKER), "no_standing")
    world.refuse(world.ask(chain), "suspended")


def test_a_suspended_agent_revokes_and_suspends_nobody(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    take(world, ROOT, "suspend", PLANNER)
    for verb in ("revoke", "suspend"):
        refused(world, world.control(PLANNER, verb, WORKER), "no_standing")
    take(world, ROOT, "resume", PLANNER)
    world.allow(world.ask(chain))


def test_a_permit_given_before_the_suspension_does_not_open_after_it(world: World) -> None:
    permit = world.allow(world.ask())
    take(world, ROOT, "suspend", WORKER)
    with pytest.raises(Denied) as denied, permit:
        pytest.fail("it opened")
    assert denied.value.reason == "suspended"


@pytest.mark.parametrize("verb", ["revoke", "suspend"])
@pytest.mark.parametrize("guest", ["spin", "sleep"])
def test_a_running_guest_is_stopped(world: World, guest: str, verb: str) -> None:
    """Computing or asleep in the host, it ends long before its minute is over."""
    permit = permitted(world, fuel=PLENTY, time=60_000)
    ended: list[SandboxOutcome] = []
    module = Module(wat(guest))
    thread = threading.Thread(target=lambda: ended.append(module.run(permit)))
    thread.start()
    while not permit.is_open:
        assert thread.is_alive()
    world.gate.control(world.control(ROOT, verb, WORKER), now=NOW)
    thread.join(timeout=30)
    assert [outcome.status for outcome in ended] == ["interrupted"]
    assert ended[0].elapsed < timedelta(seconds=10)
    body = world.entries(len(world.gate) - 1)[0]["body"]
    assert (body["decision"], body["status"]) == (permit.entry, "interrupted")


def test_a_second_run_of_the_same_permit_takes_no_watch_away(world: World) -> None:
    """It is refused, and the guest that runs is still stopped when trust is withdrawn."""
    permit = permitted(world, fuel=PLENTY, time=60_000)
    ended: list[SandboxOutcome] = []
    module = Module(wat("spin"))
    thread = threading.Thread(target=lambda: ended.append(module.run(permit)))
    thread.start()
    while not permit.is_open:
        assert thread.is_alive()
    with pytest.raises(Denied) as denied:
        module.run(permit)
    assert denied.value.reason == "permit_spent"
    world.gate.control(world.control(ROOT, "revoke", WORKER), now=NOW)
    thread.join(timeout=30)
    assert [outcome.status for outcome in ended] == ["interrupted"]


def test_other_guests_run_on(world: World) -> None:
    """What is withdrawn from one agent stops no other agent's code."""
    permit = permitted(world, fuel=PLENTY, time=400)
    ended: list[SandboxOutcome] = []
    module = Module(wat("spin"))
    thread = threading.Thread(target=lambda: ended.append(module.run(permit)))
    thread.start()
    while not permit.is_open:
        assert thread.is_alive()
    world.gate.control(world.control(ROOT, "suspend", RIVAL), now=NOW)
    thread.join(timeout=30)
    assert [outcome.status for outcome in ended] == ["timed_out"]


def test_permits_that_die_unopened_are_settled(world: World) -> None:
    """They are no unknown outcomes: after a restart none of them is listed as one."""
    kept = [world.allow(world.ask()) for _ in range(3)]
    entries = [permit.entry for permit in kept]
    del kept
    world.restart()
    assert world.gate.pending == ()
    bodies = [line["body"] for line in world.entries() if line["kind"] == "unused"]
    assert [at for body in bodies for at in body["decisions"]] == entries


def test_a_permit_that_was_refused_at_its_opening_is_settled(world: World) -> None:
    permit = world.allow(world.ask())
    take(world, ROOT, "suspend", WORKER)
    with pytest.raises(Denied), permit:
        pytest.fail("it opened")
    del permit
    world.restart()
    assert world.gate.pending == ()
