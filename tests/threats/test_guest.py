"""Code that does not end, takes what it was not given, or leaves something behind."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest

import forge
from forge import NOW
from guests.build import assemble, c, wat
from moat import Denied, Permit, SandboxError, SandboxOutcome
from moat._native import Module
from threats.world import ROOT, WORKER, World

LIMITS = {"fuel": 2_000_000, "memory": 1 << 20, "time": 300, "output": 10_000}
PLENTY = 10**15


def permitted(
    world: World, number: int | None = None, *, code: bytes | None = None, **limits: Any
) -> Permit:
    """A permit under these limits, without directories; numbers are those of one stream."""
    chain = forge.first(ROOT, WORKER, hosts=(), read=(), write=(), **(LIMITS | limits))
    stream = {} if number is None else {"stream": bytes(16), "number": number}
    return world.allow(world.ask(chain, code=code, **stream))


def run(world: World, wasm: bytes, **limits: Any) -> SandboxOutcome:
    """How the guest ended; its outcome is one more line that says the same."""
    module, permit = Module(wasm), permitted(world, **limits)
    with world.growing_by("outcome"):
        outcome = module.run(permit)
    entry = world.entries(len(world.gate) - 1)[0]["body"]
    assert entry["decision"] == permit.entry
    assert entry["status"] == outcome.status
    assert entry["fuel"] == outcome.fuel_used
    return outcome


def test_a_guest_that_ends(world: World) -> None:
    outcome = run(world, wat("empty"))
    assert outcome.status == "ok"
    assert outcome.check() == outcome


@pytest.mark.parametrize("name", ["spin", "start_spin"])
def test_a_guest_that_loops_runs_out_of_fuel(world: World, name: str) -> None:
    outcome = run(world, wat(name), time=60_000)
    assert outcome.status == "out_of_fuel"
    assert outcome.fuel_used == LIMITS["fuel"]


@pytest.mark.parametrize("name", ["spin", "start_spin"])
def test_a_guest_that_loops_runs_out_of_time(world: World, name: str) -> None:
    outcome = run(world, wat(name), fuel=PLENTY)
    assert outcome.status == "timed_out"
    assert outcome.elapsed < timedelta(seconds=5)


@pytest.mark.parametrize("name", ["sleep", "sleep_until", "naps"])
def test_a_guest_that_sleeps_runs_out_of_time(world: World, name: str) -> None:
    """Sleeping costs no fuel; the clock stops it, be it one long sleep or many short ones."""
    outcome = run(world, wat(name))
    assert outcome.status == "timed_out"
    assert outcome.elapsed < timedelta(seconds=5)


def test_a_guest_that_spins_in_host_calls_runs_out_of_time(world: World) -> None:
    outcome = run(world, wat("host_spin"), fuel=PLENTY)
    assert outcome.status == "timed_out"
    assert outcome.elapsed < timedelta(seconds=5)


def test_a_guest_that_recurses_traps(world: World) -> None:
    outcome = run(world, wat("recurse"), fuel=PLENTY)
    assert outcome.status == "trap"
    with pytest.raises(SandboxError):
        outcome.check()


@pytest.mark.parametrize("name", ["grow", "grow_table", "big_memory", "big_table"])
def test_a_guest_that_takes_memory_runs_out_of_it(world: World, name: str) -> None:
    outcome = run(world, wat(name))
    assert outcome.status == "out_of_memory"
    assert outcome.memory_peak <= LIMITS["memory"]


def test_a_guest_that_asks_the_host_for_a_gigabyte(world: World) -> None:
    outcome = run(world, wat("greedy_host"))
    assert outcome.status in {"trap", "out_of_memory"}


def test_a_guest_that_floods_its_output(world: World) -> None:
    outcome = run(world, wat("flood"), fuel=PLENTY, time=60_000)
    assert outcome.status == "output_full"
    assert outcome.truncated
    assert len(outcome.stdout) + len(outcome.stderr) <= LIMITS["output"]


@pytest.mark.parametrize("name", ["divide", "fault", "bad_pointer"])
def test_a_guest_that_faults_is_a_grade_and_no_crash(world: World, name: str) -> None:
    assert run(world, wat(name)).status in {"trap", "ok", "exit"}
    assert run(world, wat("empty")).status == "ok"


@pytest.mark.parametrize("axis", ["fuel", "memory", "time", "output"])
def test_an_axis_of_zero_is_nothing(world: World, axis: str) -> None:
    expected = {
        "fuel": "out_of_fuel", "memory": "out_of_memory", "time": "timed_out",
        "output": "output_full",
    }  # fmt: skip
    guest = wat("flood" if axis == "output" else "empty")
    assert run(world, guest, **{axis: 0}).status == expected[axis]


def test_limits_are_those_of_every_link(world: World) -> None:
    """Root gives plenty, the child little: the child's counts, and no link can be left out."""
    given = forge.first(ROOT, WORKER, read=(), write=(), **(LIMITS | {"fuel": PLENTY}))
    permit = world.allow(world.ask(given.then(WORKER, fuel=1_000)))
    assert permit.limits.fuel == 1_000
    outcome = Module(wat("spin")).run(permit)
    assert (outcome.status, outcome.fuel_used) == ("out_of_fuel", 1_000)


def test_nothing_is_left_over_from_one_run_to_the_next(world: World) -> None:
    """Memory, globals and tables of one module, run twice and by turns with another permit."""
    module = Module(wat("remember"))
    for _ in range(4):
        outcome = module.run(permitted(world))
        assert (outcome.status, outcome.exit_code) in {("ok", 0), ("ok", None)}


def test_two_guests_at_once_have_each_their_own_limits(world: World) -> None:
    """One spends all that it has, the other is none the poorer, nor stopped with it."""
    names = ["spin", "empty", "grow", "spin", "flood", "empty"]
    modules = {name: Module(wat(name)) for name in names}
    plenty = {"time": 60_000}
    alone = {name: modules[name].run(permitted(world, **plenty)) for name in modules}
    permits = [permitted(world, number, **plenty) for number, _ in enumerate(names)]
    with ThreadPoolExecutor(len(names)) as pool:
        ended = list(pool.map(lambda name, permit: modules[name].run(permit), names, permits))
    for name, outcome in zip(names, ended, strict=True):
        first = alone[name]
        assert (outcome.status, outcome.fuel_used) == (first.status, first.fuel_used), name
        assert outcome.memory_peak == first.memory_peak, name
        assert len(outcome.stdout) == len(first.stdout), name


def test_two_guests_at_once_do_not_share_one_permit(world: World) -> None:
    """However many start together: what it allows is spent once."""
    module, permit = Module(wat("spin")), permitted(world)
    start = Barrier(8)

    def once(_: int) -> str:
        start.wait()
        try:
            return module.run(permit).status
        except Denied as denied:
            return str(denied.reason)

    with ThreadPoolExecutor(8) as pool:
        ended = sorted(pool.map(once, range(8)))
    assert ended == ["out_of_fuel"] + ["permit_spent"] * 7
    assert world.kinds().count("outcome") == 1


def test_nothing_is_inherited_from_the_host(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_SECRET", "hunter2")
    outcome = Module(c("inspect")).run(permitted(world, memory=64 << 20, fuel=10**9, time=10_000))
    assert outcome.status == "ok"
    assert outcome.stdout == b""


def test_what_is_given_to_one_run_is_not_there_in_the_next(world: World) -> None:
    module, plenty = Module(c("inspect")), {"memory": 64 << 20, "fuel": 10**9, "time": 10_000}
    first = module.run(permitted(world, **plenty), args=["one"], env={"KEY": "value"})
    assert first.stdout == b"arg one\nenv KEY=value\n"
    assert module.run(permitted(world, **plenty)).stdout == b""


def test_a_guest_has_no_sockets(world: World) -> None:
    outcome = run(world, wat("sockets"))
    assert outcome.status == "ok", outcome


# --- which code ---


def test_code_that_is_not_what_was_permitted(world: World) -> None:
    good, other = wat("empty"), wat("exit")
    digest = hashlib.sha256(good).digest()
    assert Module(good).sha256 == digest
    assert Module(good).run(permitted(world, code=digest)).status == "ok"
    permit = permitted(world, code=digest)
    with pytest.raises(Denied) as denied:
        Module(other).run(permit)
    assert denied.value.reason == "permit_mismatch"


def test_a_permit_runs_one_module_once(world: World) -> None:
    permit = permitted(world)
    Module(wat("empty")).run(permit)
    with pytest.raises(Denied) as denied:
        Module(wat("empty")).run(permit)
    assert denied.value.reason == "permit_spent"


BAD = {
    "nothing": b"",
    "text": b"(module)",
    "no start": b"\0asm\1\0\0\0",
    "cut": b"\0asm\1\0\0",
    "a component of noise": b"\0asm\x0d\0\1\0" + bytes(range(256)),
    "noise": b"\0asm\1\0\0\0" + bytes(range(256)),
}


@pytest.mark.parametrize("wasm", BAD.values(), ids=BAD.keys())
def test_code_that_is_no_command(wasm: bytes) -> None:
    with pytest.raises((SandboxError, ValueError)):
        Module(wasm)


@pytest.mark.parametrize(
    "imported", ["env::system", "wasi_unstable::fd_write", "wasi_snapshot_preview1::system"]
)
def test_code_that_imports_anything_else(imported: str) -> None:
    module, name = imported.split("::")
    text = (
        f'(module (import "{module}" "{name}" (func)) (memory (export "memory") 1)'
        ' (func (export "_start")))'
    )
    with pytest.raises(SandboxError):
        Module(assemble(text))


def test_a_run_that_was_never_allowed(world: World) -> None:
    """No permit, no run: there is nothing to hand to the sandbox."""
    refused = world.gate.decide(
        world.ask(forge.first(ROOT, WORKER), resource="tool://shell"), now=NOW
    )
    assert refused.permit is None
    with pytest.raises(TypeError):
        Module(wat("empty")).run(refused.permit)  # type: ignore[arg-type]
