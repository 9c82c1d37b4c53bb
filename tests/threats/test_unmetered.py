"""Code that counts no fuel: wherever a number of fuel is stated, it does not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import forge
from guests.build import wat
from moat import Limits, MalformedInput
from moat._native import Module
from threats.test_guest import LIMITS, permitted
from threats.world import ROOT, WORKER, World

FREE = Limits.UNMETERED
BUDGET = {"name": "fuel", "cost": {"limit": 1 << 53, "of": "fuel"}, "then": "throttle"}


def outcome(world: World) -> dict[str, Any]:
    """What the log says of the last run."""
    (entry,) = world.entries(len(world.gate) - 1)
    assert entry["kind"] == "outcome"
    return dict(entry["body"])


@pytest.mark.parametrize("fuel", [0, 1, LIMITS["fuel"], 10**15, FREE - 1])
def test_a_number_of_fuel_is_not_run_without_a_meter(world: World, fuel: int) -> None:
    """It is refused before the permit is opened: the same permit runs code with a meter."""
    permit = permitted(world, fuel=fuel)
    with world.growing_by(), pytest.raises(MalformedInput, match="without a meter"):
        Module(wat("spin"), metered=False).run(permit)
    assert Module(wat("empty")).run(permit).status == ("ok" if fuel > 1 else "out_of_fuel")


def test_a_number_in_any_link_is_a_number(world: World) -> None:
    """The root gives code of any cost, a holder between does not."""
    given = forge.first(ROOT, WORKER, read=(), write=(), **(LIMITS | {"fuel": FREE}))
    permit = world.allow(world.ask(given.then(WORKER, fuel=1_000).then(WORKER, fuel=1_000)))
    assert permit.limits.fuel == 1_000
    with pytest.raises(MalformedInput, match="without a meter"):
        Module(wat("spin"), metered=False).run(permit)
    assert Module(wat("spin")).run(permit).status == "out_of_fuel"


def test_nobody_gives_unmetered_fuel_who_has_a_number(world: World) -> None:
    given = forge.first(ROOT, WORKER, **(LIMITS | {"fuel": FREE - 1}))
    world.refuse(world.ask(given.then(WORKER, fuel=FREE)), "widened", caveat="fuel")
    limits = Limits(fuel=FREE - 1)
    assert Limits(fuel=FREE).covers(limits)
    assert not limits.covers(Limits(fuel=FREE))


def test_without_a_meter_the_clock_stops_a_guest(world: World) -> None:
    ended = Module(wat("spin"), metered=False).run(permitted(world, fuel=FREE, time=50))
    assert (ended.status, ended.fuel_used) == ("timed_out", FREE)
    assert (outcome(world)["status"], outcome(world)["fuel"]) == ("timed_out", FREE)


def test_without_a_meter_the_other_limits_hold(world: World) -> None:
    for guest, status in (("grow", "out_of_memory"), ("flood", "output_full")):
        ended = Module(wat(guest), metered=False).run(permitted(world, fuel=FREE, time=60_000))
        assert ended.status == status


def test_what_nobody_counted_uses_up_every_rule_about_fuel(tmp_path: Path) -> None:
    """The log says so, and reading it again counts the same."""
    world = World.at(tmp_path / "log", [BUDGET])
    chain = forge.first(ROOT, WORKER, hosts=(), read=(), write=(), **(LIMITS | {"fuel": FREE}))
    counted, free = Module(wat("empty")), Module(wat("empty"), metered=False)
    assert counted.run(world.allow(world.ask(chain))).fuel_used < 100
    assert free.run(world.allow(world.ask(chain))).status == "ok"
    assert outcome(world)["fuel"] == FREE
    assert world.gate.decide(world.ask(chain)).reason == "throttled"
    world.restart()
    assert world.gate.decide(world.ask(chain)).reason == "throttled"
    world.gate.close()


def test_code_without_a_meter_is_not_what_is_run_again(world: World) -> None:
    """A deterministic run is compared by its fuel, so it counts some."""
    module, permit = Module(wat("empty"), metered=False), permitted(world, fuel=FREE)
    with world.growing_by(), pytest.raises(MalformedInput, match="deterministic"):
        module.run(permit, deterministic=True)
    with pytest.raises(MalformedInput, match="deterministic"):
        module.replay(Limits(fuel=FREE))
    assert module.run(permit).status == "ok"


def test_the_same_bytes_are_two_pieces_of_code(world: World) -> None:
    """Whichever was compiled first, the meter of each is its own."""
    wasm = wat("start_spin")
    for order in ((True, False), (False, True)):
        modules = {metered: Module(wasm, metered=metered) for metered in order}
        assert [modules[metered].metered for metered in order] == list(order)
        ended = modules[True].run(permitted(world, fuel=10_000, time=60_000))
        assert (ended.status, ended.fuel_used) == ("out_of_fuel", 10_000)
        assert modules[False].run(permitted(world, fuel=FREE, time=20)).status == "timed_out"
