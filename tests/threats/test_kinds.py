"""A signature made for one kind of object, presented as another."""

from __future__ import annotations

import pytest

import forge
from forge import CAP, CTL, MSG, NOW
from moat.errors import Denied
from threats.world import GATE, PLANNER, ROOT, WORKER, World


def made(kind: str, signer: forge.Key) -> bytes:
    """A good object of a kind, by this signer."""
    chain = forge.first(ROOT, signer)
    match kind:
        case "link":
            return forge.link(signer, WORKER, forge.Terms())
        case "message":
            return forge.request(signer, chain.token, GATE.public, forge.Ask())
        case _:
            return forge.control(signer, "revoke", WORKER, GATE.public)


@pytest.mark.parametrize("kind", ["message", "control"])
def test_as_a_link(world: World, kind: str) -> None:
    world.allow(world.ask(forge.first(ROOT, WORKER).of([made("link", ROOT)])))
    world.refuse(world.ask(forge.first(ROOT, WORKER).of([made(kind, ROOT)])), "wrong_type", link=0)


@pytest.mark.parametrize("kind", ["link", "control"])
def test_as_a_message(world: World, kind: str) -> None:
    chain = forge.first(ROOT, PLANNER)
    world.allow(forge.wire(chain.token, made("message", PLANNER)))
    world.refuse(forge.wire(chain.token, made(kind, PLANNER)), "wrong_type")


@pytest.mark.parametrize("kind", ["link", "message"])
def test_as_a_control_statement(world: World, kind: str) -> None:
    world.gate.control(made("control", ROOT), now=NOW)
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.control(made(kind, ROOT), now=NOW)
    assert denied.value.reason == "wrong_type"


@pytest.mark.parametrize("typ", [MSG, CTL, "application/cwt"])
def test_a_payload_of_a_link_signed_as_something_else(world: World, typ: str) -> None:
    """The holder was made to sign these bytes as another kind; the header is then put right."""
    good = forge.first(ROOT, WORKER)
    protected, _, payload, _ = forge.parts(good.links[0])
    elsewhere = forge.parts(forge.sign1(ROOT, typ, payload))[3]
    link = forge.rebuilt(good.links[0], signature=elsewhere)
    assert forge.parts(link)[0] == protected
    world.allow(world.ask(good))
    world.refuse(world.ask(good.of([link])), "bad_signature", link=0)


@pytest.mark.parametrize("typ", [CAP, CTL])
def test_a_payload_of_a_message_signed_as_something_else(world: World, typ: str) -> None:
    chain = forge.first(ROOT, WORKER)
    good = forge.request(WORKER, chain.token, GATE.public, forge.Ask())
    elsewhere = forge.parts(forge.sign1(WORKER, typ, forge.parts(good)[2]))[3]
    world.refuse(forge.wire(chain.token, forge.rebuilt(good, signature=elsewhere)), "bad_signature")
    world.allow(forge.wire(chain.token, good))


@pytest.mark.parametrize("typ", [CAP, MSG])
def test_a_payload_of_a_statement_signed_as_something_else(world: World, typ: str) -> None:
    good = made("control", ROOT)
    elsewhere = forge.parts(forge.sign1(ROOT, typ, forge.parts(good)[2]))[3]
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.control(forge.rebuilt(good, signature=elsewhere), now=NOW)
    assert denied.value.reason == "bad_signature"


def test_a_bare_signature_over_the_claims(world: World) -> None:
    """What ``Identity.sign`` gives for the claims is not what signs a link."""
    good = forge.first(ROOT, WORKER)
    bare = ROOT.sign(forge.parts(good.links[0])[2])
    link = forge.rebuilt(good.links[0], signature=bare)
    world.refuse(world.ask(good.of([link])), "bad_signature", link=0)
