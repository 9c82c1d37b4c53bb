"""Code that nobody vouched for, or not enough, not lately, or for other bytes."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

import forge
from forge import NOW, Claim
from moat import Attestation, Denied, NotAttested, Requirement
from moat._native import Module
from moat.errors import InvalidSignature, MoatError
from threats.vouching import (
    ALICE,
    BOB,
    CAROL,
    CODE,
    IN_TOTO,
    OTHER_WASM,
    SLSA,
    WASM,
    Required,
    ask,
    envelope,
    pae,
    refuse,
    reject,
    required,
    requiring,
    statement,
    take,
)
from threats.world import MALLORY, ROOT, WORKER, World, agent, open_gate

# --- what runs ---


def test_code_that_was_vouched_for_runs_and_the_log_says_by_what(world: World) -> None:
    chain = requiring(required(ALICE, BOB))
    refuse(world, chain)
    said = statement()
    entry = take(world, envelope(said, ALICE), ALICE, BOB)
    permit = world.allow(ask(world, chain))
    decision = json.loads(world.gate.read(permit.entry))["body"]
    digest = sha256(json.dumps(said).encode()).hexdigest()
    assert decision["attested"] == [digest]
    line = json.loads(world.gate.read(entry))["body"]
    assert (line["statement"], line["signers"]) == (digest, [ALICE.did])
    assert Module(WASM).run(permit).status == "ok"


def test_an_attestation_for_other_bytes(world: World) -> None:
    chain = requiring(required(ALICE))
    take(world, envelope(statement(digest=sha256(WASM + b"\0").digest()), ALICE), ALICE)
    refuse(world, chain)


def test_code_changed_between_decision_and_run(world: World) -> None:
    take(world, envelope(statement(), ALICE), ALICE)
    permit = world.allow(ask(world, requiring(required(ALICE))))
    with pytest.raises(Denied) as denied:
        Module(OTHER_WASM).run(permit)
    assert denied.value.reason == "permit_mismatch"
    assert Module(WASM).run(permit).status == "ok"


@pytest.mark.parametrize("scheme", ["code", "tool", "mcp", "skill"])
def test_code_that_the_message_does_not_name(world: World, scheme: str) -> None:
    take(world, envelope(statement(), ALICE), ALICE)
    chain = requiring(required(ALICE))
    if scheme == "code":
        refuse(world, chain, code=None)
        return
    permit = world.allow(ask(world, chain, code=None, scheme=scheme))
    with pytest.raises(Denied) as denied:
        Module(WASM).run(permit)
    assert denied.value.reason == "not_attested"
    with permit:  # a function of the host is not code in this sense
        pass


def test_an_attestation_that_died_between_decision_and_run(world: World) -> None:
    take(world, envelope(statement(), ALICE), ALICE)
    permit = world.allow(ask(world, requiring(required(ALICE, age=10))))
    world.clock.now = NOW + 10
    with pytest.raises(Denied) as denied:
        Module(WASM).run(permit)
    assert denied.value.reason == "not_attested"


def test_a_signer_revoked_between_decision_and_run(world: World) -> None:
    take(world, envelope(statement(), ALICE), ALICE)
    chain = requiring(required(ALICE))
    permit = world.allow(ask(world, chain))
    world.gate.control(world.control(ROOT, "revoke", ALICE))
    with pytest.raises(Denied) as denied:
        Module(WASM).run(permit)
    assert denied.value.reason == "not_attested"
    refuse(world, chain)
    world.gate.control(world.control(ROOT, "restore", ALICE))
    world.allow(ask(world, chain))


# --- whose word counts ---


def test_an_untrusted_key(world: World) -> None:
    chain = requiring(required(ALICE))
    sealed = envelope(statement(), MALLORY)
    reject(world, sealed, "bad_signature", ALICE)
    take(world, sealed, MALLORY)  # a gate may be told of it, and no token asks for that key
    refuse(world, chain)


def test_a_hint_at_a_trusted_key_selects_nothing(world: World) -> None:
    signed = json.loads(envelope(statement(), MALLORY))
    for keyid in (ALICE.did, "", agent(ALICE).__bytes__().hex(), ALICE.kid.hex()):
        signed["signatures"][0]["keyid"] = keyid
        reject(world, json.dumps(signed).encode(), "bad_signature", ALICE)
    # Nor does a wrong one keep a good signature out.
    good = json.loads(envelope(statement(), ALICE))
    good["signatures"][0]["keyid"] = MALLORY.did
    take(world, json.dumps(good).encode(), ALICE)


def test_a_repeated_key_is_one_signer(world: World) -> None:
    chain = requiring(required(ALICE, BOB, threshold=2))
    take(world, envelope(statement(), ALICE, ALICE, ALICE), ALICE, BOB)
    refuse(world, chain)
    # Another statement by the same key is the same signer again.
    take(world, envelope(statement(issued=NOW + 1), ALICE), ALICE, BOB)
    refuse(world, chain)
    take(world, envelope(statement(), BOB), BOB)
    world.allow(ask(world, chain))


def test_a_malleated_or_foreign_signature(world: World) -> None:
    payload = json.dumps(statement()).encode()
    good = ALICE.sign(pae(IN_TOTO, payload))
    for signature in (
        forge.malleate(good),
        good[:-1] + bytes([good[-1] ^ 1]),
        bytes(64),
        good[:63],
        good + b"\0",
        ALICE.sign_with_r(pae(IN_TOTO, payload), bytes([1]) + bytes(31)),
    ):
        signed = [{"sig": base64.b64encode(signature).decode()}]
        reject(world, envelope(payload, signatures=signed), "bad_signature")


# --- when it was said ---


def test_an_attestation_that_is_too_old(world: World) -> None:
    chain = requiring(required(ALICE, age=100))
    take(world, envelope(statement(issued=NOW - 100), ALICE), ALICE)
    refuse(world, chain)
    take(world, envelope(statement(issued=NOW - 99), ALICE), ALICE)
    world.allow(ask(world, chain))
    refuse(world, chain, now=NOW + 1)


def test_an_attestation_from_the_future(world: World) -> None:
    reject(world, envelope(statement(issued=NOW + 61), ALICE), "stale")
    reject(world, envelope(statement(issued=2**63), ALICE), "malformed")
    take(world, envelope(statement(issued=NOW + 60), ALICE), ALICE)


@pytest.mark.parametrize("issued", [None, "1750000000", 1.5, True, -1, [NOW], 1e30], ids=repr)
def test_a_time_that_is_none(world: World, issued: object) -> None:
    said = statement(predicate={"kind": "code", "issued": issued})
    reject(world, envelope(said, ALICE), "malformed")


def test_an_older_word_does_not_replace_a_newer_one(world: World) -> None:
    new, old = (envelope(statement(issued=at), ALICE) for at in (NOW, NOW - 50))
    take(world, new, ALICE)
    reject(world, new, "replayed")
    reject(world, old, "replayed")
    world.allow(ask(world, requiring(required(ALICE, age=10))))


# --- the requirement in the token ---

BASE: Final = required(ALICE, BOB, threshold=2, age=100)


@pytest.mark.parametrize(
    "loose",
    [
        (),
        (required(ALICE, BOB, threshold=1, age=100),),
        (required(ALICE, BOB, threshold=2, age=101),),
        (required(ALICE, BOB, MALLORY, threshold=2, age=100),),
        (required(ALICE, MALLORY, threshold=2, age=100),),
        (required(ALICE, BOB, threshold=2, age=100, uri=SLSA),),
        (required(ALICE, BOB, threshold=2, age=100, kind="tool"),),
        (required(ALICE, threshold=1, age=100), required(BOB, threshold=1, age=100)),
    ],
    ids=["dropped", "threshold", "age", "another signer", "swapped", "predicate", "kind", "split"],
)
def test_a_child_that_loosens_a_requirement(world: World, loose: tuple[Required, ...]) -> None:
    take(world, envelope(statement(), ALICE, MALLORY), ALICE, MALLORY)
    parent = requiring(BASE)
    child = parent.then(WORKER, attestations=loose)
    world.refuse(ask(world, child), "widened", link=1, caveat="attestations")


def test_a_child_that_tightens_every_part(world: World) -> None:
    parent = requiring(required(ALICE, BOB, CAROL, threshold=1, age=100))
    child = parent.then(WORKER, attestations=((*BASE[:4], 50),))
    take(world, envelope(statement(issued=NOW - 40), ALICE), ALICE)
    world.allow(ask(world, parent))
    refuse(world, child, link=1)
    take(world, envelope(statement(issued=NOW - 40), BOB), BOB)
    world.allow(ask(world, child))
    refuse(world, child, link=1, now=NOW + 10)
    world.allow(world.ask(parent, action="run", resource="code://x", code=CODE, now=NOW + 10),
                now=NOW + 10)  # fmt: skip


def test_a_requirement_of_every_link_holds(world: World) -> None:
    chain = requiring(required(ALICE)).then(
        WORKER, attestations=(required(ALICE), required(BOB, uri=SLSA))
    )
    take(world, envelope(statement(), ALICE, BOB), ALICE, BOB)
    refuse(world, chain, link=1)  # vouched for, and not for how it was built


@pytest.mark.parametrize("nothing", [forge.ABSENT, None, "none", {}, 0], ids=repr)
def test_requirements_that_are_not_stated(world: World, nothing: object) -> None:
    chain = forge.first(ROOT, WORKER, forged={"claims": {Claim.ATTESTATIONS: nothing}})
    world.refuse(world.ask(chain), "malformed", link=0)


# --- what a gate remembers ---


def test_attestations_survive_a_restart_and_cannot_be_removed_unseen(
    world: World, tmp_path: Path
) -> None:
    take(world, envelope(statement(), ALICE), ALICE)
    world.gate.close()
    segment = next((tmp_path / "log" / "seg").iterdir())
    whole = segment.read_bytes()
    world.gate = open_gate(tmp_path / "log", clock=world.clock)
    world.allow(ask(world, requiring(required(ALICE))))
    world.gate.close()
    for tampered in (
        b"\n".join(line for line in whole.split(b"\n") if b'"attested"' not in line),
        whole.replace(b'"subject":"code"', b'"subject":"tool"'),
        whole.replace(b'"issued":175', b'"issued":176'),
    ):
        assert tampered != whole
        segment.write_bytes(tampered)
        with pytest.raises(MoatError):
            open_gate(tmp_path / "log", clock=world.clock)


def test_bytes_that_are_too_many_or_nothing(world: World) -> None:
    reject(world, b"", "malformed")
    reject(world, b" " * (32 * 1024 + 1), "too_large")
    reject(world, envelope(statement(), *[ALICE] * 17), "too_large")
    reject(world, b'{"a":' * 20_000, "too_large")
    reject(world, b'{"a":' * 6_000, "malformed")
    many = [{"digest": {"sha256": f"{n:064x}"}} for n in range(257)]
    reject(world, envelope(statement(subject=many), ALICE), "too_large")


def test_a_check_without_a_gate_is_as_strict() -> None:
    needs = Requirement(
        "code", map(agent, (ALICE, BOB)), threshold=2, max_age=timedelta(seconds=100)
    )
    with pytest.raises(InvalidSignature):
        Attestation.verify(envelope(statement(), MALLORY), needs.signers)
    one = Attestation.verify(envelope(statement(), ALICE, MALLORY), needs.signers)
    assert one.signers == (agent(ALICE),)
    two = Attestation.verify(envelope(statement(), BOB), needs.signers)
    assert needs.check(CODE, [one, two], now=NOW) == (one.statement, two.statement)
    for digest, given, now in (
        (CODE, [one], NOW),
        (CODE, [one, one], NOW),
        (CODE, [one, two], NOW + 100),
        (bytes(32), [one, two], NOW),
        (CODE, [], NOW),
    ):
        with pytest.raises(NotAttested):
            needs.check(digest, given, now=now)
