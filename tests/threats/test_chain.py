"""Chains that are not what they say: wrong signers, wrong parents, wrong order, wrong time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cbor2
import pytest

import forge
from forge import ABSENT, NOW, Chain, Claim
from moat import Policy
from moat._native import Gate
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
    assert_refused,
    identity,
)


def test_a_chain_of_good_links_is_allowed(world: World) -> None:
    world.allow(world.ask())


# --- who signed ---


def test_a_child_signed_by_someone_else_in_the_holders_name(world: World) -> None:
    stolen = forge.first(ROOT, PLANNER)
    world.allow(world.ask(stolen.then(MALLORY)))
    forged = {"signer": MALLORY, "headers": {4: PLANNER.kid}}
    world.refuse(world.ask(stolen.then(MALLORY, forged=forged)), "bad_signature", link=1)


def test_a_child_signed_by_someone_else_in_their_own_name(world: World) -> None:
    stolen = forge.first(ROOT, PLANNER)
    wire = world.ask(stolen.then(MALLORY, issuer=MALLORY))
    world.refuse(wire, "broken_chain", link=1)


def test_a_header_that_hints_at_the_real_signer_selects_nothing(world: World) -> None:
    """``iss`` is the holder and the hint is right for the forger's key: still the holder's key."""
    stolen = forge.first(ROOT, PLANNER)
    wire = world.ask(stolen.then(MALLORY, forged={"signer": MALLORY}))
    world.refuse(wire, "bad_signature", link=1)


def test_a_chain_from_a_root_nobody_trusts(world: World) -> None:
    world.allow(world.ask(forge.first(ROOT, WORKER)))
    world.refuse(world.ask(forge.first(MALLORY, WORKER)), "unknown_root", link=0)


@pytest.mark.parametrize("pretender", [GATE, OPERATOR], ids=lambda key: key.name)
def test_a_gate_or_an_operator_is_no_root(world: World, pretender: forge.Key) -> None:
    world.refuse(world.ask(forge.first(pretender, WORKER)), "unknown_root", link=0)


def test_a_root_that_is_trusted_no_longer(world: World) -> None:
    """The gate has walked this chain before; with other roots it is walked anew."""
    chain = world.chain()
    world.allow(world.ask(chain))
    rules = {"policy": Policy.CHAIN_ONLY, "operators": []}
    world.gate.arm(roots=[agent(RIVAL)], **rules)
    world.refuse(world.ask(chain), "unknown_root", link=0)
    world.gate.arm(roots=[], **rules)
    world.refuse(world.ask(chain), "unknown_root", link=0)
    world.gate.arm(roots=[agent(ROOT)], **rules)
    world.allow(world.ask(chain))


def test_a_gate_that_was_told_of_no_root(tmp_path: Path) -> None:
    """Opened and not armed, it trusts nobody."""
    gate = Gate.open(tmp_path / "log", identity(GATE), anchor=None, clock=lambda: NOW)
    decision = gate.decide(forge.message(forge.first(ROOT, WORKER), GATE.public))
    assert_refused(decision, "unknown_root")
    gate.close()


def test_a_chain_in_the_roots_name_signed_by_another(world: World) -> None:
    forged = {"signer": MALLORY, "headers": {4: ROOT.kid}}
    world.refuse(world.ask(forge.first(ROOT, MALLORY, forged=forged)), "bad_signature", link=0)


def test_a_token_presented_by_someone_who_is_not_its_holder(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain))
    world.refuse(world.ask(chain, forged={"sender": MALLORY}), "wrong_holder")
    world.refuse(world.ask(chain, forged={"sender": RESEARCHER}), "wrong_holder")


def test_a_thief_who_hints_at_the_holders_key(world: World) -> None:
    forged = {"sender": MALLORY, "headers": {4: WORKER.kid}}
    world.refuse(world.ask(forged=forged), "bad_signature")


# --- no signature at all ---


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64], ids=["zeros", "ones"])
def test_a_token_with_a_blank_signature(world: World, signature: bytes) -> None:
    chain = world.chain()
    for at, made in enumerate(chain.links):
        blank = forge.rebuilt(made, signature=signature)
        links = (*chain.links[:at], blank, *chain.links[at + 1 :])
        world.refuse(world.ask(chain.of(links)), "bad_signature", link=at)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65), None], ids=repr)
def test_a_token_without_a_whole_signature(world: World, signature: bytes | None) -> None:
    chain = forge.first(ROOT, WORKER)
    cut = forge.rebuilt(chain.links[0], signature=signature)
    world.refuse(world.ask(chain.of([cut])), "malformed", link=0)


def test_bare_claims_are_no_token(world: World) -> None:
    chain = forge.first(ROOT, WORKER)
    protected, unprotected, payload, _ = forge.parts(chain.links[0])
    bare = [payload, forge.cbor(forge.Tag(61, cbor2.loads(payload)))]
    bare += [forge.cbor(forge.Tag(18, [protected, unprotected, payload]))]
    for link in bare:
        world.refuse(world.ask(chain.of([link])), "malformed", link=0)


def test_an_empty_token(world: World) -> None:
    world.refuse(world.ask(forge.first(ROOT, WORKER).of([])), "malformed")


# --- parents and order ---


def test_a_child_moved_under_another_parent_of_the_same_holder(world: World) -> None:
    """The planner was given two tokens; a child of the narrow one is put under the wide one."""
    wide = forge.first(ROOT, PLANNER)
    narrow = forge.first(ROOT, PLANNER, fuel=1)
    child = narrow.then(WORKER)
    world.allow(world.ask(child))
    world.refuse(world.ask(child.of([wide.links[0], child.links[1]])), "broken_chain", link=1)


def test_a_child_moved_under_another_parent_of_the_same_terms(world: World) -> None:
    """Equal but for ``cti``: still not the parent that was signed for."""
    twin = forge.first(ROOT, PLANNER, forged={"claims": {Claim.CTI: bytes(16)}})
    child = forge.first(ROOT, PLANNER).then(WORKER)
    world.refuse(world.ask(child.of([twin.links[0], child.links[1]])), "broken_chain", link=1)


@pytest.mark.parametrize(
    "parent", [ABSENT, bytes(32), hashlib.sha256(b"x").digest()], ids=["none", "zeros", "other"]
)
def test_a_child_that_names_no_parent_or_another(world: World, parent: object) -> None:
    child = forge.first(ROOT, PLANNER).then(WORKER, forged={"claims": {Claim.PARENT: parent}})
    world.refuse(world.ask(child), "broken_chain", link=1)


def test_a_first_link_that_names_a_parent(world: World) -> None:
    chain = forge.first(ROOT, WORKER, forged={"parent": bytes(32)})
    world.refuse(world.ask(chain), "broken_chain", link=0)


@pytest.mark.parametrize("index", [0, 2, 15])
def test_a_child_that_says_it_stands_elsewhere(world: World, index: int) -> None:
    child = forge.first(ROOT, PLANNER).then(WORKER, forged={"index": index})
    world.refuse(world.ask(child), "broken_chain", link=1)


def test_a_first_link_that_says_it_is_not_the_first(world: World) -> None:
    world.refuse(world.ask(forge.first(ROOT, WORKER, forged={"index": 1})), "broken_chain", link=0)


def test_links_in_another_order(world: World) -> None:
    chain = world.chain()
    a, b, c = chain.links
    world.allow(world.ask(chain))
    for links, sender, reason, at in [
        ((a, c, b), RESEARCHER, "broken_chain", 1),
        ((b, a, c), WORKER, "unknown_root", 0),
        ((c, b, a), PLANNER, "unknown_root", 0),
    ]:
        wire = world.ask(chain.of(links), forged={"sender": sender})
        world.refuse(wire, reason, link=at)


def test_links_that_stand_twice(world: World) -> None:
    chain = world.chain()
    a, b, c = chain.links
    for links, at in [((a, a, b, c), 1), ((a, b, b, c), 2), ((a, b, c, c), 3)]:
        world.refuse(world.ask(chain.of(links)), "broken_chain", link=at)


def test_a_link_given_to_oneself_and_repeated(world: World) -> None:
    """Even where issuer and holder agree, a second copy is not its own parent."""
    chain = forge.first(ROOT, PLANNER).then(PLANNER)
    world.allow(world.ask(chain))
    world.refuse(world.ask(chain.of([*chain.links, chain.links[1]])), "broken_chain", link=2)


def test_a_chain_with_its_root_cut_off(world: World) -> None:
    chain = world.chain()
    world.refuse(world.ask(chain.of(chain.links[1:])), "unknown_root", link=0)


def test_a_chain_with_its_middle_cut_out(world: World) -> None:
    chain = world.chain()
    world.refuse(world.ask(chain.of([chain.links[0], chain.links[2]])), "broken_chain", link=1)


def test_a_chain_with_its_narrow_end_cut_off(world: World) -> None:
    """The worker drops its own link to use the researcher's wider one."""
    chain = world.chain()
    world.refuse(world.ask(chain.of(chain.links[:-1])), "wrong_holder")


def _long(links: int) -> Chain:
    chain = forge.first(ROOT, PLANNER, further=15)
    for _ in range(links - 1):
        chain = chain.then(PLANNER)
    return chain


def test_sixteen_links_are_the_most(world: World) -> None:
    longest = _long(16)
    world.allow(world.ask(longest))
    world.refuse(world.ask(longest.then(PLANNER)), "too_large")


def test_a_chain_of_ten_thousand_links(world: World) -> None:
    chain = _long(2)
    world.refuse(world.ask(chain.of([*chain.links] * 5_000)), "too_large")
    world.refuse(world.ask(chain.of([b""] * 10_000)), "too_large")


def test_a_chain_of_too_many_bytes(world: World) -> None:
    """Each link is small enough; the chain is not."""
    many = tuple((f"tool://search/{n:03}-{'x' * 20}", ("call",), "any") for n in range(148))
    chain = forge.first(ROOT, PLANNER, further=15, allow=many)
    for _ in range(11):
        chain = chain.then(PLANNER)
    assert max(map(len, chain.links)) <= 8 * 1024
    assert len(chain.token) > 64 * 1024
    world.refuse(world.ask(chain, resource=many[0][0]), "too_large")


# --- times ---


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_ancestor_that_has_expired(world: World, at: int) -> None:
    """Only one link is past its expiry; those below say that they are not."""
    exps = [NOW + 3600] * 3
    exps[at] = NOW
    first = forge.first(ROOT, PLANNER, exp=exps[0])
    chain = first.then(RESEARCHER, exp=exps[1]).then(WORKER, exp=exps[2])
    world.refuse(world.ask(chain), "expired", link=at)


def test_a_link_is_dead_at_its_expiry_without_skew(world: World) -> None:
    chain = world.chain(exp=NOW + 30)
    world.allow(world.ask(chain, now=NOW + 29), now=NOW + 29)
    world.refuse(world.ask(chain, now=NOW + 30), "expired", link=0, now=NOW + 30)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_ancestor_that_is_not_valid_yet(world: World, at: int) -> None:
    nbfs = [NOW - 10] * 3
    nbfs[at:] = [NOW + 61] * (3 - at)
    first = forge.first(ROOT, PLANNER, nbf=nbfs[0])
    chain = first.then(RESEARCHER, nbf=nbfs[1]).then(WORKER, nbf=nbfs[2])
    world.refuse(world.ask(chain), "not_yet_valid", link=at)


def test_a_link_from_the_future(world: World) -> None:
    world.allow(world.ask(world.chain(iat=NOW + 60, nbf=NOW + 60)))
    world.refuse(world.ask(world.chain(iat=NOW + 61)), "not_yet_valid", link=0)


# --- the gate a link is bound to ---


def test_a_token_bound_to_another_gate(world: World) -> None:
    bound = forge.first(ROOT, PLANNER)
    world.allow(world.ask(bound.then(WORKER, aud=GATE.public)))
    world.refuse(world.ask(bound.then(WORKER, aud=RIVAL.public)), "wrong_gate", link=1)
