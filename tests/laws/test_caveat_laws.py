"""Laws of narrowing: what a child may state, what a chain permits, and what a gate lets through."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from datetime import timedelta
from itertools import count, pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    GATE,
    HOLDER,
    ROOT,
    WORKER,
    Asked,
    a_request,
    asked_chains,
    beside,
    chain_of,
    chains,
    distinct,
    model,
    narrowed,
    pairs,
    some_terms,
    terms,
)

import forge
from moat import (
    ANY,
    AgentId,
    Denial,
    Grant,
    Host,
    Identity,
    Limits,
    Policy,
    Requirement,
    Secret,
    Token,
)
from moat._native import AXES, Gate
from moat.errors import AttenuationViolation
from reference import caveats as reference
from reference import patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT_ID, GATE_ID = (AgentId.from_bytes(key.public) for key in (ROOT, GATE))


def refusal(stated: list[forge.Terms]) -> AttenuationViolation | None:
    """The widening that native verification finds in a signed chain, if there is one."""
    token = Token.from_bytes(chain_of(stated).token)
    try:
        token.verify([ROOT_ID], gate=GATE_ID, now=forge.NOW)
    except AttenuationViolation as error:
        return error
    return None


@given(pairs())
def test_the_reference_agrees_on_what_is_wider(pair: tuple[forge.Terms, forge.Terms]) -> None:
    parent, child = pair
    axes = reference.widened(model(parent), model(child))
    refused = refusal([parent, child])
    assert (refused is not None) == bool(axes)
    if refused is not None:
        assert refused.caveat in axes


@given(pairs())
def test_a_widening_comes_with_a_witness_that_proves_it(
    pair: tuple[forge.Terms, forge.Terms],
) -> None:
    parent, child = map(model, pair)
    refused = refusal(list(pair))
    if refused is None:
        return
    assert refused.caveat is not None
    assert refused.witness is not None or refused.caveat == "resource"
    if refused.caveat == "resource" and refused.witness is not None:
        action, resource = refused.witness.split(" ")
        asked = ("list" if action == "*" else action, resource)
        assert allows(child, *asked)
        named = [grant for grant in parent.allow if action in grant.actions or "*" in grant.actions]
        assert not any(patterns.matches(grant.resource, resource) for grant in named)
    elif refused.caveat in parent.numbers:
        name, _, value = str(refused.witness).partition("=")
        assert child.numbers[name] == int(value) > parent.numbers[name]
    elif refused.caveat in parent.scopes and refused.witness not in child.scopes[refused.caveat]:
        reached = str(refused.witness)
        assert any(patterns.matches(scope, reached) for scope in child.scopes[refused.caveat])
        assert not any(patterns.matches(scope, reached) for scope in parent.scopes[refused.caveat])


def allows(link: reference.Caveats, action: str, resource: str) -> bool:
    """Whether a grant of the link names this, its denials left aside."""
    return reference.permits(replace(link, deny=()), action, resource)[0]


@given(narrowed())
def test_narrowed_terms_are_covered(pair: tuple[forge.Terms, forge.Terms]) -> None:
    parent, child = pair
    expected = None if parent.further else "depth"
    assert reference.covers(model(parent), model(child))[1] == expected
    refused = refusal([parent, child])
    assert (refused and refused.caveat) == expected


@given(terms())
def test_covering_is_reflexive_but_for_the_depth_that_each_link_uses_up(
    stated: forge.Terms,
) -> None:
    parent = replace(stated, further=stated.further + 1)
    assert refusal([parent, stated]) is None
    same = refusal([stated, stated])
    assert same is not None
    assert same.caveat == "depth"


@given(chains())
def test_covering_is_transitive(stated: list[forge.Terms]) -> None:
    first, second, third = stated
    if refusal([first, second]) is None and refusal([second, third]) is None:
        assert refusal([first, third]) is None


@given(asked_chains(2))
def test_what_a_covered_child_permits_its_parent_permits(
    case: tuple[list[forge.Terms], Asked],
) -> None:
    (parent, child), asked = case
    permitted = Token.from_bytes(chain_of([child]).token).permits(*asked)
    if permitted and refusal([parent, child]) is None:
        assert Token.from_bytes(chain_of([parent]).token).permits(*asked)


@given(asked_chains())
def test_a_chain_permits_what_every_link_permits_widened_or_not(
    case: tuple[list[forge.Terms], Asked],
) -> None:
    stated, asked = case
    token = Token.from_bytes(chain_of(stated).token)
    assert token.permits(*asked) == reference.chain_permits(list(map(model, stated)), *asked)
    assert (token.explain(*asked) is None) == token.permits(*asked)


@given(chains())
def test_limits_of_a_chain_are_the_least_of_every_link(stated: list[forge.Terms]) -> None:
    limits = Token.from_bytes(chain_of(stated).token).limits
    models = list(map(model, stated))
    assert limits.fuel == reference.meet(models, "fuel")
    assert limits.memory == reference.meet(models, "memory")
    assert limits.output == reference.meet(models, "output")
    assert limits.time == timedelta(milliseconds=reference.meet(models, "time"))


@given(pairs())
def test_attenuate_gives_what_verifies_or_refuses(pair: tuple[forge.Terms, forge.Terms]) -> None:
    parent, child = pair
    child = replace(
        child,
        deny=(*parent.deny, *child.deny),
        aud=child.aud or parent.aud,
        attestations=distinct([*parent.attestations, *child.attestations]),
    )
    token = Token.from_bytes(chain_of([parent]).token)
    holder = Identity.from_pem("holder", HOLDER.pem())
    axes = reference.widened(model(parent), model(child))
    try:
        longer = token.attenuate(
            holder,
            holder=AgentId.from_bytes(WORKER.public),
            allow=[native_grant(grant) for grant in child.allow],
            deny=[Denial(resource, names) for resource, names in child.deny],
            limits=native_limits(child),
            expires_in=timedelta(seconds=child.exp - forge.NOW),
            not_before=child.nbf,
            depth=child.further,
            audience=None if child.aud is None else GATE_ID,
            attestations=map(native_requirement, child.attestations),
            now=forge.NOW,
        )
    except AttenuationViolation as error:
        refused = error.caveat
    else:
        refused = None
        longer.verify([ROOT_ID], gate=GATE_ID, now=forge.NOW)
        assert longer.links[0] == token.links[0]
        assert longer.holder == AgentId.from_bytes(WORKER.public)
    assert refused in axes if axes else refused is None


@given(pairs())
def test_limits_cover_as_the_reference_says(pair: tuple[forge.Terms, forge.Terms]) -> None:
    parent, child = pair
    axes = reference.widened(model(parent), model(child))
    limited = {name for name in axes if hasattr(Limits, name)}
    assert native_limits(parent).covers(native_limits(child)) == (not limited)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate that trusts one root."""
    signer = Identity.from_pem("gate", GATE.pem())
    folder = tmp_path_factory.mktemp("laws") / "log"
    gate = Gate.open(folder, signer, anchor=None, clock=lambda: forge.NOW)
    gate.arm(policy=Policy.CHAIN_ONLY, roots=[ROOT_ID], operators=[])
    yield gate
    gate.close()


NUMBERS = count()


@given(asked_chains())
def test_a_gate_lets_through_what_narrows_and_is_permitted_and_nothing_else(
    gate: Gate, case: tuple[list[forge.Terms], Asked]
) -> None:
    stated, asked = case
    action, resource, args = asked
    wire = forge.message(
        chain_of(stated),
        GATE.public,
        action=action,
        resource=resource,
        args=b'{"q":1}' if args else b"{}",
        stream=bytes(16),
        number=next(NUMBERS),
    )
    decision = gate.decide(wire, now=forge.NOW)
    models = list(map(model, stated))
    wide = [reference.widened(*pair) for pair in pairwise(models)]
    if any(wide):
        assert decision.reason == "widened"
        assert decision.caveat in next(axes for axes in wide if axes)
        assert decision.link == next(n for n, axes in enumerate(wide, 1) if axes)
    elif not reference.chain_permits(models, *asked):
        assert decision.reason in {"not_granted", "forbidden"}
    elif reference.must_be_attested(models, resource):
        assert decision.reason == "not_attested"
    else:
        assert decision.allowed
        assert decision.permit is not None
        assert decision.permit.limits.fuel == reference.meet(models, "fuel")
    assert decision.entry is not None


WIDER = {
    "resource": lambda _: {"allow": (("tool://new/**", ("call",), {}),)},
    "action": lambda _: {"allow": (("tool://t/**", ("call", "list"), "any"),)},
    "args": lambda _: {"allow": (("tool://none", ("call",), "any"),)},
    "deny": lambda _: {"deny": ()},
    "fuel": lambda t: {"fuel": t.fuel + 1},
    "memory": lambda t: {"memory": t.memory + 1},
    "time": lambda t: {"time": t.time + 1},
    "output": lambda t: {"output": t.output + 1},
    "hosts": lambda _: {"hosts": (("http://*/**", ("*",), ()),)},
    "read": lambda _: {"read": ("file:///z/**",)},
    "write": lambda _: {"write": ("file:///z/**",)},
    "secrets": lambda _: {"secrets": (("secret://z", "https://a.example", "x-key"),)},
    "expiry": lambda t: {"exp": t.exp + 1},
    "not_before": lambda t: {"nbf": t.nbf - 1},
    "depth": lambda t: {"further": t.further},
    "audience": lambda _: {"aud": None},
    "attestations": lambda t: {"attestations": loosened(t.attestations)},
}


def loosened(attestations: tuple[forge.Required, ...]) -> tuple[forge.Required, ...]:
    """The same requirements, the first of them for a second longer."""
    (*first, age), *rest = attestations
    return ((*first, age + 1), *rest)


@given(narrowed(), st.sampled_from([*WIDER]))
def test_any_hand_widened_link_is_refused_on_its_axis(
    pair: tuple[forge.Terms, forge.Terms], axis: str
) -> None:
    base = {
        "allow": (("tool://none", ("call",), {}), ("tool://t/**", ("call",), "any")),
        "deny": (("tool://t/secret", ("call",)),),
        "read": ("file:///a/**",),
        "write": ("file:///a/**",),
        "aud": GATE.public,
        "attestations": (("code", "urn:moat:manifest:v1", (WORKER.public,), 1, 60),),
    }
    parent = replace(pair[0], **base, further=max(1, pair[0].further))
    kept = replace(pair[1], **base, further=parent.further - 1)
    assert refusal([parent, kept]) is None
    # What is wider is one step beyond the parent, on this axis alone.
    child = replace(kept, **WIDER[axis](parent))
    refused = refusal([parent, child])
    assert refused is not None
    assert refused.caveat == axis


def test_every_axis_of_a_link_is_widened_above() -> None:
    stated = {field.name for field in fields(forge.Terms)} - {"iat"}
    base = forge.Terms(attestations=(("code", "urn:moat:manifest:v1", (WORKER.public,), 1, 60),))
    touched = {name for widen in WIDER.values() for name in widen(base)}
    assert touched == stated


def native_grant(grant: forge.Grant) -> Grant:
    resource, names, args = grant
    return Grant(resource, names, ANY if args == "any" else {})


def native_requirement(required: forge.Required) -> Requirement:
    kind, uri, keys, threshold, age = required
    signers = map(AgentId.from_bytes, keys)
    return Requirement(
        kind, signers, predicate=uri, threshold=threshold, max_age=timedelta(seconds=age)
    )


def native_limits(stated: forge.Terms) -> Limits:
    return Limits(
        fuel=stated.fuel,
        memory=stated.memory,
        time=timedelta(milliseconds=stated.time),
        output=stated.output,
        hosts=[Host(*host) for host in stated.hosts],
        read=stated.read,
        write=stated.write,
        secrets=[Secret(handle, host=host, header=name) for handle, host, name in stated.secrets],
    )


def test_the_laws_are_tried_on_every_axis_and_every_answer() -> None:
    """Each axis is often the only one too wide, and what is drawn is often covered."""
    seen: Counter[str] = Counter()
    for seed in range(5000):
        r = Random(seed)
        parent = some_terms(r)
        child = beside(r, parent)
        axes = reference.widened(model(parent), model(child))
        seen.update(["covered"] if not axes else axes if len(axes) == 1 else [])
        chain = [model(parent), model(child)]
        seen[str(reference.chain_permits(chain, *a_request(r, child)))] += 1
    assert seen.keys() == {*AXES, "covered", "True", "False"}
    assert min(seen.values()) >= 10, seen
