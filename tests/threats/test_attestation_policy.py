"""A gate whose own policy requires attestations, beside what tokens require."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

import forge
from forge import NOW, Key
from moat import Denied, MalformedInput, Policy, Requirement
from moat._native import Module
from threats.vouching import (
    ALICE,
    BOB,
    CODE,
    GRANTS,
    MANIFEST,
    WASM,
    envelope,
    required,
    requiring,
    statement,
    take,
)
from threats.world import OPERATOR, PLANNER, ROOT, World, agent


def policy_of(*signers: Key, kind: str = "code", threshold: int = 1, age: int = 3600) -> Policy:
    required = Requirement(
        kind, map(agent, signers), max_age=timedelta(seconds=age), threshold=threshold
    )
    return Policy.requiring([required])


def arm(world: World, policy: Policy) -> None:
    """Enforce another policy: a line of the log."""
    with world.growing_by("rules"):
        world.gate.arm(policy=policy, roots=[agent(ROOT)], operators=[agent(OPERATOR)], rules=b"[]")


def free() -> forge.Chain:
    """A token that requires nothing."""
    return forge.first(ROOT, PLANNER, allow=GRANTS, deny=(), read=(), write=())


def ask(world: World, policy: Policy, chain: forge.Chain | None = None, **more: Any) -> bytes:
    asked = {"action": "run", "resource": "code://x", "code": CODE, "policy": policy.hash} | more
    return world.ask(chain or free(), **asked)


def refuse(world: World, wire: bytes) -> None:
    """Not attested, and by no link: it is the gate that asks."""
    decision = world.refuse(wire, "not_attested", caveat="attestations")
    assert decision.link is None


def test_code_that_a_token_lets_run_and_the_policy_does_not(world: World) -> None:
    arm(world, policy := policy_of(ALICE, BOB))
    refuse(world, ask(world, policy))
    take(world, envelope(statement(), ALICE), ALICE)
    permit = world.allow(ask(world, policy))
    decision = json.loads(world.gate.read(permit.entry))["body"]
    assert len(decision["attested"]) == 1
    assert Module(WASM).run(permit).status == "ok"
    arm(world, strict := policy_of(ALICE, BOB, threshold=2))
    refuse(world, ask(world, strict))
    take(world, envelope(statement(), BOB), BOB)
    world.allow(ask(world, strict))


def test_a_message_that_counts_on_the_policy_without_its_requirements(world: World) -> None:
    arm(world, policy := policy_of(ALICE))
    take(world, envelope(statement(), ALICE), ALICE)
    for other in (Policy.CHAIN_ONLY, policy_of(BOB), policy_of(ALICE, age=3601)):
        world.refuse(ask(world, other), "policy_mismatch")
    world.allow(ask(world, policy))


def test_a_link_and_the_policy_must_both_be_met(world: World) -> None:
    arm(world, policy := policy_of(ALICE))
    chain = requiring(required(BOB))
    take(world, envelope(statement(), ALICE), ALICE)
    world.refuse(ask(world, policy, chain), "not_attested", link=0, caveat="attestations")
    take(world, envelope(statement(), BOB), BOB)
    world.allow(ask(world, policy, chain))
    arm(world, other := policy_of(ALICE, BOB, threshold=2, age=10))
    world.clock.now = NOW + 10
    later = ask(world, other, chain, now=NOW + 10)
    assert world.refuse(later, "not_attested", now=NOW + 10).link is None


@pytest.mark.parametrize("how", ["too old", "revoked"])
def test_a_word_that_does_not_count_any_more_when_the_permit_opens(world: World, how: str) -> None:
    arm(world, policy := policy_of(ALICE, age=10))
    take(world, envelope(statement(), ALICE), ALICE)
    permit = world.allow(ask(world, policy))
    if how == "too old":
        world.clock.now = NOW + 10
    else:
        world.gate.control(world.control(ROOT, "revoke", ALICE))
    with pytest.raises(Denied) as denied:
        Module(WASM).run(permit)
    assert denied.value.reason == "not_attested"


def test_code_that_the_message_does_not_name_under_a_policy(world: World) -> None:
    arm(world, policy := policy_of(ALICE))
    take(world, envelope(statement(), ALICE), ALICE)
    refuse(world, ask(world, policy, code=None))
    permit = world.allow(ask(world, policy, code=None, resource="tool://x"))
    with pytest.raises(Denied) as denied:
        Module(WASM).run(permit)
    assert denied.value.reason == "not_attested"


@pytest.mark.parametrize("kind", ["tool", "skill"])
def test_a_call_of_what_the_policy_wants_vouched_for(world: World, kind: str) -> None:
    arm(world, policy := policy_of(ALICE, kind=kind))
    asked = {"resource": f"{kind}://x"}
    refuse(world, ask(world, policy, code=None, **asked))
    take(world, envelope(statement("code"), ALICE), ALICE)
    refuse(world, ask(world, policy, **asked))  # a word about code is none about this
    files = {"predicate": {"kind": kind, "issued": NOW}}
    if kind == "tool":
        take(world, envelope(statement("tool", **files), ALICE), ALICE)
        world.allow(ask(world, policy, **asked))


def test_a_policy_that_is_not_in_its_one_spelling() -> None:
    good = policy_of(ALICE, BOB).text
    assert Policy(good) == policy_of(BOB, ALICE)
    assert good == f"chain-only\nrequire {policy_of(ALICE, BOB).attestations[0]}"
    line = good.split("\n")[1]
    for text in (
        f"{good}\n", f"{good}\n{line}", good.upper(), good.replace("\n", "\r\n"), line, "",
        good.replace("require", "prefer"), good.replace("3600s", "3600"), "allow-all",
        good.replace(" 1 ", " 0 "), good.replace(MANIFEST, "urn:moat:manifest:v2"),
    ):  # fmt: skip
        with pytest.raises(MalformedInput):
            Policy(text)
