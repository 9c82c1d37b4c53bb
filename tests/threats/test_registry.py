"""Names and keys, with an enemy who wants somebody else's."""

from __future__ import annotations

import pytest

import forge
import forge_registration as reg
from forge import NOW, Key
from moat import Denied
from threats.test_replay import at_once
from threats.test_revocation import take
from threats.world import (
    GATE,
    MALLORY,
    OPERATOR,
    PLANNER,
    RIVAL,
    ROOT,
    WORKER,
    World,
    agent,
    open_gate,
)

FRESH = Key("fresh")


def registers(world: World, name: str, key: Key, **more: object) -> int:
    """A registration that counts: one ``agent`` line."""
    with world.growing_by("agent"):
        return world.gate.register(reg.registration(name, key, GATE.public, **more), now=NOW)


def refused(world: World, proof: bytes, reason: str) -> None:
    """A registration that does not count: nothing is written, nobody new is known."""
    before = world.gate.agents()
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.register(proof, now=NOW)
    assert denied.value.reason == reason
    assert world.gate.agents() == before


def test_a_name_and_its_key_survive_a_restart(world: World) -> None:
    registers(world, "worker", WORKER)
    registers(world, "worker", FRESH, previous=WORKER)
    world.restart()
    ((role, name, keys),) = world.gate.agents()
    assert (role, name, [key for key, _ in keys]) == (
        "agent",
        "worker",
        [agent(WORKER), agent(FRESH)],
    )
    assert world.gate.named("worker") == agent(FRESH)
    assert world.gate.agent(agent(FRESH)) == "worker"
    assert world.gate.agent(agent(WORKER)) is None


def test_somebody_elses_key(world: World) -> None:
    """Mallory names the worker's key and signs with its own."""
    as_itself = reg.registration("mallory", WORKER, GATE.public, signers=[MALLORY])
    refused(world, as_itself, "bad_signature")
    posing = {"headers": {4: WORKER.kid}}
    refused(
        world,
        reg.registration("mallory", WORKER, GATE.public, signers=[MALLORY], cose=posing),
        "bad_signature",
    )


@pytest.mark.parametrize(
    "name", ["worker-1", "worker_1", "vvorker-1", "worker-l", "w0rker-1", "worker1", "w.orker-1"]
)
def test_a_taken_name_and_one_that_looks_like_it(world: World, name: str) -> None:
    registers(world, "worker-1", WORKER)
    refused(world, reg.registration(name, MALLORY, GATE.public), "name_taken")


def test_a_key_that_has_a_name_already(world: World) -> None:
    registers(world, "worker", WORKER)
    refused(world, reg.registration("second", WORKER, GATE.public), "name_taken")
    registers(world, "worker", FRESH, previous=WORKER)
    refused(world, reg.registration("second", WORKER, GATE.public), "name_taken")
    refused(world, reg.registration("second", FRESH, GATE.public), "name_taken")


def test_a_registration_sent_again(world: World) -> None:
    proof = reg.registration("worker", WORKER, GATE.public)
    world.gate.register(proof, now=NOW)
    refused(world, proof, "name_taken")
    world.restart()
    refused(world, proof, "name_taken")


def test_a_name_wanted_by_64_threads_goes_to_one(world: World) -> None:
    keys = [Key(f"k{n}") for n in range(64)]

    def wants(at: int) -> str:
        try:
            world.gate.register(reg.registration("wanted", keys[at], GATE.public), now=NOW)
        except Denied as denied:
            return str(denied.reason)
        return "taken"

    assert sorted(at_once(wants)) == ["name_taken"] * 63 + ["taken"]
    assert len(world.gate.agents()) == 1


def test_a_rotation_without_the_key_it_replaces(world: World) -> None:
    registers(world, "worker", WORKER)
    for signers, reason in (([MALLORY], "malformed"), ([MALLORY, MALLORY], "bad_signature")):
        forged = reg.registration("worker", MALLORY, GATE.public, previous=WORKER, signers=signers)
        refused(world, forged, reason)


def test_a_rotation_of_another_name_or_a_former_key(world: World) -> None:
    registers(world, "worker", WORKER)
    registers(world, "rival", RIVAL)
    proof = reg.registration("worker", MALLORY, GATE.public, previous=RIVAL)
    refused(world, proof, "no_standing")
    registers(world, "worker", FRESH, previous=WORKER)
    proof = reg.registration("worker", MALLORY, GATE.public, previous=WORKER)
    refused(world, proof, "no_standing")


def test_a_registration_for_another_gate_or_another_role(world: World) -> None:
    refused(world, reg.registration("worker", WORKER, RIVAL.public), "wrong_gate")
    refused(world, reg.registration("root", MALLORY, GATE.public, role="root"), "no_standing")
    refused(world, reg.registration("gate", MALLORY, GATE.public, role="gate"), "no_standing")


# --- what a rotation does not shake off ---


def test_a_suspension_follows_every_key_of_an_agent(world: World) -> None:
    """Said about one key, it reaches the former and the later one."""
    registers(world, "worker", WORKER)
    registers(world, "worker", FRESH, previous=WORKER)
    take(world, ROOT, "suspend", FRESH)
    for key in (WORKER, FRESH):
        assert world.gate.is_suspended(agent(key))
        world.refuse(world.ask(forge.first(ROOT, key)), "suspended", link=0)
    take(world, ROOT, "resume", WORKER)
    for key in (WORKER, FRESH):
        world.allow(world.ask(forge.first(ROOT, key)))


@pytest.mark.parametrize("verb", ["suspend", "revoke"])
def test_a_suspended_or_revoked_key_hands_nothing_on(world: World, verb: str) -> None:
    registers(world, "worker", WORKER)
    take(world, ROOT, verb, WORKER)
    refused(world, reg.registration("worker", FRESH, GATE.public, previous=WORKER), "no_standing")


def test_a_rotation_to_a_key_that_was_suspended_before(world: World) -> None:
    registers(world, "worker", WORKER)
    take(world, ROOT, "suspend", FRESH)
    refused(world, reg.registration("worker", FRESH, GATE.public, previous=WORKER), "no_standing")


def test_revoking_a_former_key_leaves_the_present_one(world: World) -> None:
    """That is what a rotation is for: the old key was stolen."""
    registers(world, "worker", WORKER)
    registers(world, "worker", FRESH, previous=WORKER)
    take(world, ROOT, "revoke", WORKER)
    world.refuse(world.ask(forge.first(ROOT, WORKER)), "revoked", link=0)
    world.allow(world.ask(forge.first(ROOT, FRESH)))


# --- roots ---


def test_a_roots_new_key_is_trusted_beside_the_old_one(world: World) -> None:
    chain, new = forge.first(ROOT, WORKER), forge.first(FRESH, WORKER)
    world.refuse(world.ask(new), "unknown_root")
    registers(world, "root", ROOT, role="root")
    proof = reg.registration("root", FRESH, GATE.public, previous=ROOT, role="root")
    with world.growing_by("agent", "rules"):
        world.gate.register(proof, now=NOW)
    world.allow(world.ask(chain))
    world.allow(world.ask(new))
    world.restart()
    world.allow(world.ask(new))
    take(world, FRESH, "revoke", ROOT)
    world.refuse(world.ask(chain), "revoked", link=0)
    world.allow(world.ask(new))


def test_a_root_that_is_no_longer_named_takes_its_earlier_keys_along(world: World) -> None:
    """The configuration names the new key alone: the old one is not trusted by way of it."""
    registers(world, "root", ROOT, role="root")
    world.gate.register(
        reg.registration("root", FRESH, GATE.public, previous=ROOT, role="root"), now=NOW
    )
    world.gate.close()
    gate = open_gate(world.folder, clock=world.clock, roots=[FRESH])
    world.gate = gate
    world.refuse(world.ask(forge.first(ROOT, WORKER)), "unknown_root")
    world.allow(world.ask(forge.first(FRESH, WORKER)))


@pytest.mark.parametrize("key", [OPERATOR, MALLORY, PLANNER], ids=lambda key: key.name)
def test_nobody_but_a_root_makes_a_root(world: World, key: Key) -> None:
    refused(world, reg.registration("root", key, GATE.public, role="root"), "no_standing")
    registers(world, "someone", key)
    proof = reg.registration("someone", FRESH, GATE.public, previous=key, role="root")
    refused(world, proof, "no_standing")


def test_a_root_and_a_gate_are_no_agents(world: World) -> None:
    refused(world, reg.registration("root", ROOT, GATE.public), "no_standing")
    refused(world, reg.registration("gate", GATE, GATE.public), "no_standing")
