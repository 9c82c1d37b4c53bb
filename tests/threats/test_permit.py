"""A permit used twice, late, elsewhere, for something else, or made up."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

import forge
from forge import NOW
from guests.build import wat
from moat import AuditError, Decision, Denied, Permit, Sandbox, SandboxError
from moat._native import Gate, Module
from threats.test_replay import at_once
from threats.world import GATE, PLANNER, ROOT, WORKER, World, agent, identity


def spent(permit: Permit, reason: str = "permit_spent") -> None:
    """It does not open, for this reason."""
    with pytest.raises(Denied) as denied, permit:
        pytest.fail("it opened")
    assert denied.value.reason == reason
    assert denied.value.decision.permit is None


def test_a_permit_opens_once(world: World) -> None:
    permit = world.allow(world.ask())
    with world.growing_by("outcome"), permit:
        spent(permit)
    spent(permit)
    assert permit.outcome == len(world.gate) - 1


def test_two_references_are_one_permit(world: World) -> None:
    decision = world.gate.decide(world.ask(), now=NOW)
    assert decision.permit is not None
    with decision.permit:
        pass
    assert decision.permit is not None
    spent(decision.permit)


def test_a_permit_opened_from_64_threads_opens_once(world: World) -> None:
    permit = world.allow(world.ask())

    def use(_: int) -> str | None:
        try:
            with permit:
                return "opened"
        except Denied as denied:
            return denied.reason

    with world.growing_by("outcome"):
        answers = at_once(use)
    assert sorted(answers) == ["opened"] + ["permit_spent"] * 63


def test_an_effect_that_raises_is_recorded_and_raised(world: World) -> None:
    permit = world.allow(world.ask())
    with world.growing_by("outcome"), pytest.raises(ZeroDivisionError), permit:
        _ = 1 // 0
    body = world.entries(len(world.gate) - 1)[0]["body"]
    assert (body["decision"], body["status"]) == (permit.entry, "raised")
    spent(permit)


def test_a_permit_closed_without_being_opened(world: World) -> None:
    """No outcome for an effect that never was, and it still opens once."""
    permit = world.allow(world.ask())
    with world.growing_by(), pytest.raises(AuditError):
        permit.__exit__(None, None, None)
    with world.growing_by("outcome"), permit:
        pass
    with world.growing_by(), pytest.raises(AuditError):
        permit.__exit__(None, None, None)


# --- late ---


def test_a_permit_that_waited_thirty_seconds(world: World) -> None:
    young, old = (world.allow(world.ask(lifetime=300)) for _ in range(2))
    world.clock.now = NOW + 29
    with young:
        pass
    world.clock.now = NOW + 30
    spent(old)


def test_a_permit_after_its_message(world: World) -> None:
    permits = [world.allow(world.ask(lifetime=10)) for _ in range(2)]
    assert permits[0].expires == NOW + 10
    world.clock.now = NOW + 9
    with permits[0]:
        pass
    world.clock.now = NOW + 10
    spent(permits[1], "stale")


def test_a_permit_after_its_chain(world: World) -> None:
    chain = forge.first(ROOT, PLANNER).then(WORKER, exp=NOW + 10)
    permits = [world.allow(world.ask(chain)) for _ in range(2)]
    assert permits[0].expires == NOW + 10
    world.clock.now = NOW + 9
    with permits[0]:
        pass
    world.clock.now = NOW + 10
    spent(permits[1], "expired")


def test_a_dead_permit_does_not_come_alive_when_the_clock_goes_back(world: World) -> None:
    permit = world.allow(world.ask(lifetime=10))
    world.clock.now = NOW + 10
    spent(permit, "stale")
    world.clock.now = NOW
    spent(permit)


def test_a_permit_under_a_clock_that_went_back_behind_the_log(world: World) -> None:
    permit = world.allow(world.ask())
    world.clock.now = NOW - 61
    spent(permit, "clock_behind")


def test_a_permit_under_a_clock_set_back_within_the_skew(world: World) -> None:
    """The log's time counts, so a permit does not win a second life of sixty seconds."""
    permit = world.allow(world.ask(lifetime=10))
    world.allow(world.ask(now=NOW + 10), now=NOW + 10)
    world.clock.now = NOW + 5
    spent(permit, "stale")


def test_a_permit_after_a_revocation(world: World) -> None:
    permit = world.allow(world.ask())
    world.gate.control(world.control(ROOT, "revoke", PLANNER), now=NOW)
    spent(permit, "revoked")


def test_a_permit_after_its_gate_was_closed(world: World) -> None:
    permit = world.allow(world.ask())
    world.gate.close()
    spent(permit, "log_unavailable")


def test_a_permit_of_an_earlier_run_of_the_gate(world: World) -> None:
    permit = world.allow(world.ask())
    world.restart()
    spent(permit, "log_unavailable")
    assert permit.entry in world.gate.pending


def test_an_effect_whose_gate_is_closed_meanwhile_says_so(world: World) -> None:
    permit = world.allow(world.ask())
    with pytest.raises(AuditError), permit:
        world.gate.close()


# --- for something else ---

USES = {
    "action": ({"action": "call"}, {"action": "list"}),
    "resource": ({"resource": "tool://search/web"}, {"resource": "tool://search/news"}),
    "recipient": ({"recipient": agent(GATE)}, {"recipient": agent(WORKER)}),
    "payload": ({"payload": b"payload"}, {"payload": b"other"}),
    "empty payload": ({"payload": b"payload"}, {"payload": b""}),
    "code": ({"code": b"code"}, {"code": b"other"}),
}


@pytest.mark.parametrize(("same", "other"), USES.values(), ids=USES.keys())
def test_a_permit_used_for_something_else(
    world: World, same: dict[str, object], other: dict[str, object]
) -> None:
    import hashlib

    code = hashlib.sha256(b"code").digest()
    permit = world.allow(world.ask(payload=b"payload", code=code))
    with permit:
        permit.check(**same)
        with pytest.raises(Denied) as denied:
            permit.check(**other)
        assert denied.value.reason == "permit_mismatch"
        assert denied.value.decision.entry == permit.entry


def test_a_result_recorded_outside_of_the_effect(world: World) -> None:
    permit = world.allow(world.ask())
    with pytest.raises(Denied):
        permit.record(b"before")
    with permit:
        permit.record(b"result")
    with pytest.raises(Denied):
        permit.record(b"after")


@pytest.mark.parametrize("name", ["resource", "action", "limits", "expires", "entry", "new"])
def test_a_permit_that_is_changed(world: World, name: str) -> None:
    permit = world.allow(world.ask())
    with pytest.raises((AttributeError, TypeError)):
        setattr(permit, name, "tool://shell")


# --- made up, copied, carried elsewhere ---


@pytest.mark.parametrize("kind", [Permit, Decision, Gate])
def test_one_that_is_made_up(kind: type) -> None:
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        object.__new__(kind)
    with pytest.raises(TypeError):
        type("Mine", (kind,), {})


COPIES: dict[str, Callable[[Permit], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda it, n=n: pickle.dumps(it, n) for n in range(6)},
    "reduce": lambda it: it.__reduce__(),
    "reduce_ex": lambda it: it.__reduce_ex__(4),
}


@pytest.mark.parametrize("carry", COPIES.values(), ids=COPIES.keys())
def test_a_permit_that_is_copied_or_pickled(
    world: World, carry: Callable[[Permit], object]
) -> None:
    permit = world.allow(world.ask())
    with pytest.raises(TypeError):
        carry(permit)
    with permit:
        pass


def test_a_secret_key_that_is_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(identity(WORKER))


def test_a_decision_has_no_truth_value(world: World) -> None:
    """``if gate.decide(...)`` would take every denial for a yes."""
    with pytest.raises(TypeError):
        bool(world.gate.decide(world.ask(), now=NOW))


def in_a_fork(work: Callable[[], str]) -> str:
    """What ``work`` says in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "?"
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - the child must not return
            said = f"{type(error).__name__}: {getattr(error, 'reason', None)}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_a_permit_in_a_forked_child(world: World) -> None:
    permit = world.allow(world.ask())

    def use() -> str:
        with permit:
            return "opened"

    with world.growing_by():
        assert in_a_fork(use) == "Denied: permit_spent"
    with world.growing_by("outcome"), permit:
        pass


def test_an_open_permit_in_a_forked_child_writes_no_outcome(world: World) -> None:
    permit = world.allow(world.ask())

    def leave() -> str:
        permit.__exit__(None, None, None)
        return "closed"

    with world.growing_by("outcome"), permit:
        assert in_a_fork(leave).split(":")[0] in {"AuditUnavailable", "Denied"}


def test_a_gate_in_a_forked_child(world: World) -> None:
    """It answers nothing but refusals, and the log stays the parent's."""
    wire, revoke = world.ask(), world.control(ROOT, "revoke", WORKER)

    def decide() -> str:
        decision = world.gate.decide(wire, now=NOW)
        assert decision.permit is None
        return str(decision.reason)

    def control() -> str:
        world.gate.control(revoke, now=NOW)
        return "taken"

    with world.growing_by():
        assert in_a_fork(decide) == "log_unavailable"
        assert in_a_fork(control).split(":")[0] in {"AuditUnavailable", "Denied"}
    world.allow(wire)


def test_a_fork_while_8_threads_decide(world: World) -> None:
    """A lock that another thread held at the fork does not hang the child."""
    if sys.platform == "darwin":
        pytest.skip("forking with threads is not supported here")
    chains = [forge.first(ROOT, PLANNER).then(forge.Key(f"w{n}")) for n in range(8)]
    going = threading.Event()

    def work(at: int) -> None:
        for number in range(200):
            if number == 5:
                going.set()
            world.gate.decide(world.ask(chains[at], stream=bytes(16), number=number), now=NOW)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    going.wait()
    wire = world.ask()
    for _ in range(5):
        said = in_a_fork(lambda: str(world.gate.decide(wire, now=NOW).reason))
        assert said == "log_unavailable"
    for thread in threads:
        thread.join()
    world.allow(wire)


def test_a_module_in_a_forked_child(world: World, tmp_path: Path) -> None:
    """Compiled code, and the engine that may be running, stay the parent's; the child makes its
    own, and finds nothing in a cache that another process filled."""
    module = Module(wat("empty"))

    def use(made: Callable[[], Module | Sandbox], folder: str) -> str:
        own = World.at(tmp_path / folder)
        axes = {"fuel": 10**6, "memory": 1 << 20, "time": 10_000, "output": 100}
        chain = forge.first(ROOT, PLANNER, read=(), write=(), hosts=(), **axes)
        outcome = made().run(own.allow(own.ask(chain)))
        return f"{outcome.status} {outcome.fuel_used}"

    assert in_a_fork(lambda: use(lambda: module, "a")).startswith("SandboxError")
    assert in_a_fork(lambda: use(lambda: Module(wat("empty")), "b")) == "ok 1"
    said = use(lambda: module, "c")
    assert said == "ok 1"
    assert in_a_fork(lambda: use(lambda: module, "d")).startswith("SandboxError")
    assert in_a_fork(lambda: use(lambda: Module(wat("empty")), "e")) == said
    compiled = Sandbox(wat("empty") + b"\0\x02\x01p")
    assert compiled.sha256 != module.sha256
    assert in_a_fork(lambda: use(lambda: Sandbox(wat("empty") + b"\0\x02\x01f"), "f")) == said


def test_a_fork_while_others_compile() -> None:
    """What another thread has locked does not hang the child: it compiles, or it refuses."""
    if sys.platform == "darwin":
        pytest.skip("forking with threads is not supported here")
    going, done = threading.Event(), threading.Event()
    spin = wat("spin")

    def other(mark: int) -> bytes:
        """The same program in other bytes: a section that says nothing."""
        return spin + bytes([0, 6, 1, 0x78]) + mark.to_bytes(4, "big")

    def work(at: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            Module(other(at << 20 | number))
            going.set()

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    going.wait()
    for number in range(8):
        wasm = other(9 << 20 | number)

        def compiled(wasm: bytes = wasm) -> str:
            signal.alarm(60)
            try:
                return Module(wasm).sha256.hex()
            except SandboxError as error:
                return str(error)

        said = in_a_fork(compiled)
        assert said == sha256(wasm).hexdigest() or "was forked" in said
    done.set()
    for thread in threads:
        thread.join()


def test_an_open_permit_in_a_forked_child(world: World) -> None:
    permit = world.allow(world.ask())

    def use() -> str:
        reasons = set()
        for step in (lambda: permit.record(b"x"), lambda: permit.check(action="call")):
            with pytest.raises(Denied) as denied:
                step()
            reasons.add(denied.value.reason)
        return " ".join(map(str, reasons))

    with permit:
        assert in_a_fork(use) == "permit_spent"
        permit.check(action="call")
    with pytest.raises(Denied) as denied:
        permit.check(action="call")
    assert denied.value.reason == "permit_spent"


def test_an_exception_whose_name_is_too_long_for_a_line(world: World) -> None:
    """The outcome is written all the same, and the tool's own exception is what is raised."""
    endless = type("E" * 70_000, (Exception,), {})
    permit = world.allow(world.ask())
    with world.growing_by("outcome"), pytest.raises(endless), permit:
        raise endless
    outcome = world.entries()[-1]["body"]
    assert (outcome["status"], outcome["detail"]) == ("raised", "E" * 256)
