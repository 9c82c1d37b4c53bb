"""A gate that takes a new key, with an enemy who wants something forgotten on the way."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import forge_registration as reg
from forge import NOW, Key
from guests.build import wat
from moat import (
    AuditLog,
    Denied,
    Identity,
    MoatError,
    _succession,
)
from moat._native import Control, Module, Registration
from moat.errors import GateBusy
from moat.keystore import KeyStore
from threats.rotating import Rotating
from threats.test_guest import PLENTY, permitted
from threats.test_replay import at_once
from threats.test_revocation import take
from threats.world import GATE, MALLORY, RIVAL, ROOT, WORKER, World, agent, open_gate

FRESH = Key("fresh")
RATE = """
[[rule]]
name = "searches"
match = { actions = ["call"] }
rate = { limit = 3, window = "1h" }
then = "throttle"
"""


@pytest.fixture
def place(tmp_path: Path) -> Rotating:
    return Rotating(tmp_path)


# --- nothing is forgotten ---


def test_a_message_for_the_former_gate(place: Rotating) -> None:
    """Used there or not, it is no message for the next one, and is not used up by it either."""
    used, unused = place.ask(), place.ask()
    place.use(used)
    place.rotate()
    assert [place.reason(wire) for wire in (used, unused)] == ["wrong_gate"] * 2
    wire = place.ask()
    place.use(wire)
    assert place.reason(wire) == "replayed"


def test_a_statement_for_the_former_gate(place: Rotating) -> None:
    """Also one that was taken up there, and one that would restore what was revoked."""
    with place.open() as moat:
        root = moat.identity("root")
        said = {
            verb: Control.sign(root, verb, place.agent.id, gate=place.gate, now=place.now)
            for verb in ("revoke", "restore")
        }
        moat.take(said["revoke"])
    place.rotate()
    with place.open() as moat:
        for statement in said.values():
            with pytest.raises(Denied) as denied:
                moat.take(statement)
            assert denied.value.reason == "wrong_gate"
    assert place.reason(place.ask()) == "revoked"


@pytest.mark.parametrize("verb", ["revoke", "suspend"])
def test_what_was_withdrawn_stays_withdrawn(place: Rotating, verb: str) -> None:
    with place.open() as moat:
        getattr(moat, verb)(place.agent)
    word = {"revoke": "revoked", "suspend": "suspended"}[verb]
    for _ in range(2):
        place.rotate()
        assert place.reason(place.ask()) == word
    undo = {"revoke": "restore", "suspend": "resume"}[verb]
    with place.open() as moat:
        getattr(moat, undo)(place.agent)
    assert place.reason(place.ask()) is None


def test_a_rate_goes_on_counting(place: Rotating) -> None:
    (place.state / "rules.toml").write_text(RATE)
    place.use(place.ask(), place.ask())
    place.rotate()
    place.use(place.ask())
    place.rotate()
    assert place.reason(place.ask()) == "throttled"
    place.now += 2 * 3600
    assert place.reason(place.ask()) is None


def test_a_delegator_keeps_its_standing(place: Rotating) -> None:
    """The chain was seen by the former gate alone."""
    worker = Identity.generate("worker")
    narrow = place.token.attenuate(place.agent, holder=worker.id, now=place.now)
    place.use(place.ask(narrow, worker))
    place.rotate()
    with place.open() as moat:
        moat.revoke(worker, by=place.agent)
    assert place.reason(place.ask(narrow, worker)) == "revoked"


def test_names_and_keys_go_along(place: Rotating) -> None:
    with place.open() as moat:
        moat.register(place.agent)
    first = place.gate
    second = place.rotate().id
    third = place.rotate().id
    with place.open() as moat:
        found = moat.registry.get("main")
        assert found is not None
        assert [key for key, _ in found.keys] == [first, second, third]
        assert found.role == "gate"
        assert moat.registry.current("agent") == place.agent.id
        with pytest.raises(Denied) as denied:
            moat.register(Identity.generate("thief"), "agent")
    assert denied.value.reason == "name_taken"


def test_what_a_restored_copy_lost_stays_stale(place: Rotating) -> None:
    """The next gate refuses as well what is dated before."""
    with place.open() as moat:
        moat.backup(place.file)
    place.use(place.ask())
    place.restore()
    with pytest.raises(Denied, match="were lost"):
        place.rotate()
    assert not (place.home / "next").exists()
    place.now += 61
    place.rotate()
    place.now -= 1
    dated_before = place.ask()
    place.now += 1
    assert place.reason(dated_before) == "stale"
    assert place.reason(place.ask()) is None


def test_time_does_not_go_back_with_a_new_key(place: Rotating) -> None:
    place.now += 1000
    place.use(place.ask())
    place.now -= 61
    with pytest.raises(Denied, match="set the clock"):
        place.rotate()
    place.now += 1
    place.rotate()
    with place.open() as moat:
        assert {entry["t"] for entry in moat.audit.entries()} == {place.now + 60}
    place.now -= 1
    assert place.reason(place.ask()) == "clock_behind"


def test_a_revocation_that_waits_in_the_control_folder(place: Rotating) -> None:
    """It names the former gate, behind more files than one look takes, that say nothing."""
    with place.open() as moat:
        root = moat.identity("root")
        control = moat._watcher._folder
        said = Control.sign(root, "revoke", place.agent.id, gate=place.gate, now=place.now)
    for n in range(300):
        control.drop(b"noise %d" % n)
    control.drop(said)
    place.rotate()
    assert place.reason(place.ask()) == "revoked"


# --- who can hand over ---


@pytest.fixture
def handed(world: World) -> World:
    """A gate that is registered, and has handed over."""
    world.gate.register(reg.registration("gate", GATE, GATE.public, role="gate"), now=NOW)
    with world.growing_by("agent"):
        world.gate.register(rotation(), now=NOW)
    return world


def rotation(**more: Any) -> bytes:
    return reg.registration(
        **{"name": "gate", "key": FRESH, "gate": GATE.public, "previous": GATE, "role": "gate"}
        | more
    )


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"signers": [FRESH]}, "malformed"),
        ({"signers": [FRESH, FRESH]}, "bad_signature"),
        ({"signers": [GATE, GATE]}, "bad_signature"),
        ({"signers": [GATE, FRESH]}, "bad_signature"),
        ({"previous": None, "signers": [FRESH]}, "no_standing"),
        ({"previous": RIVAL}, "no_standing"),
        ({"previous": ROOT}, "no_standing"),
        ({"gate": RIVAL.public}, "wrong_gate"),
        ({"gate": FRESH.public}, "wrong_gate"),
        ({"name": "worker"}, "no_standing"),
        ({"name": "nobody"}, "not_registered"),
        ({"role": "agent"}, "no_standing"),
        ({"role": "root"}, "no_standing"),
        ({"key": WORKER}, "name_taken"),
        ({"now": NOW - 120}, "stale"),
    ],
)  # fmt: skip
def test_a_rotation_that_is_not_the_gates(world: World, more: dict, reason: str) -> None:
    """By one key, by others, for another gate, name or role: it hands nothing over."""
    world.gate.register(reg.registration("gate", GATE, GATE.public, role="gate"), now=NOW)
    world.gate.register(reg.registration("worker", WORKER, GATE.public), now=NOW)
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.register(rotation(**more), now=NOW)
    assert denied.value.reason == reason
    assert world.gate.successor is None
    world.allow(world.ask())


def test_a_revoked_gate_hands_nothing_over(world: World) -> None:
    world.gate.register(reg.registration("gate", GATE, GATE.public, role="gate"), now=NOW)
    take(world, ROOT, "revoke", FRESH)
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.register(rotation(), now=NOW)
    assert denied.value.reason == "no_standing"


# --- the gate that has handed over ---


@pytest.mark.parametrize("again", [False, True], ids=["open", "reopened"])
def test_it_denies_everything_and_writes_nothing(handed: World, *, again: bool) -> None:
    if again:  # where every commit would begin a segment
        handed.gate.close()
        handed.gate = open_gate(handed.folder, clock=handed.clock, segment_bytes=1)
    size = len(handed.gate)
    for at in range(3):
        decision = handed.gate.decide(handed.ask(), now=NOW + 100 * at)
        assert decision.reason == ("wrong_gate" if at == 0 else "stale")
    assert str(agent(FRESH)) in str(handed.gate.decide(handed.ask()).explain())
    said = (
        lambda: handed.gate.control(handed.control(ROOT, "revoke", WORKER)),
        lambda: handed.gate.register(reg.registration("late", MALLORY, GATE.public)),
        lambda: handed.gate.register(rotation(key=MALLORY, previous=FRESH)),
        lambda: handed.gate.register(rotation(key=MALLORY)),
    )
    for say in said:
        with pytest.raises(Denied) as denied:
            say()
        assert denied.value.reason == "wrong_gate"
    assert handed.gate.successor == agent(FRESH)
    handed.gate.close()
    gate = open_gate(handed.folder, clock=handed.clock, roots=[ROOT, RIVAL])
    assert len(gate) == size
    gate.close()
    AuditLog.verify(handed.folder, log=agent(GATE), anchor=None)


def test_a_permit_from_before_does_not_open(world: World) -> None:
    world.gate.register(reg.registration("gate", GATE, GATE.public, role="gate"), now=NOW)
    waiting, running = world.allow(world.ask()), world.allow(world.ask())
    with pytest.raises(MoatError, match="handed over"), running:
        world.gate.register(rotation(), now=NOW)
    with pytest.raises(Denied) as denied:
        waiting.__enter__()
    assert denied.value.reason == "wrong_gate"
    assert world.kinds()[-1] == "agent"


def test_a_guest_that_runs_is_stopped(world: World) -> None:
    world.gate.register(reg.registration("gate", GATE, GATE.public, role="gate"), now=NOW)
    permit, ended = permitted(world, fuel=PLENTY, time=60_000), list[str]()
    module = Module(wat("spin"))

    def run() -> None:
        with pytest.raises(MoatError, match="handed over"):
            module.run(permit)
        ended.append("stopped, and not in the log")

    thread = threading.Thread(target=run)
    thread.start()
    while not permit.is_open:
        assert thread.is_alive()
    world.gate.register(rotation(), now=NOW)
    thread.join(timeout=30)
    assert ended == ["stopped, and not in the log"]
    assert world.kinds()[-1] == "agent"


def test_a_rotation_while_64_threads_decide(world: World) -> None:
    world.gate.register(reg.registration("gate", GATE, GATE.public, role="gate"), now=NOW)
    wires = [world.ask(stream=bytes(16), number=at) for at in range(64)]
    proof = rotation()

    def step(at: int) -> str:
        if at == 32:
            world.gate.register(proof, now=NOW)
            return "handed over"
        return str(world.gate.decide(wires[at], now=NOW).reason)

    answers = at_once(step)
    assert set(answers) <= {"None", "wrong_gate", "handed over"}
    entries = world.entries()
    assert entries[-1]["body"]["key"] == str(agent(FRESH))
    allowed = [entry for entry in entries if entry["kind"] == "decision"]
    assert len(allowed) == answers.count("None")


def test_nothing_is_removed_from_a_log_that_has_ended(handed: World) -> None:
    with pytest.raises(MoatError, match="handed over"):
        handed.gate.prune(1)


def test_a_process_that_has_the_gate(place: Rotating) -> None:
    with place.open(), pytest.raises(GateBusy):
        place.rotate()
    assert not (place.home / "next").exists()
    with _succession.held(place.home):
        (place.home / "next").mkdir()
        with pytest.raises(GateBusy):
            place.open()


def test_a_key_that_nobody_has(place: Rotating) -> None:
    """A rotation signed elsewhere, to a key that is not kept in the folder."""
    elsewhere = Identity.generate("main")
    with place.open() as moat:
        signer = KeyStore(place.home / "key").load("main")
        moat.registry.register(signer, role="gate", now=place.now)
        proof = Registration.sign(
            elsewhere, "main", gate=moat.id, previous=signer, role="gate", now=place.now
        )
        moat.registry.take(proof)
    assert place.reason(place.ask()) == "wrong_gate"
    with pytest.raises(MoatError, match="has handed over to"):
        place.rotate()
