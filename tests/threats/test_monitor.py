"""Agents who want more than their rules give: by fresh keys, by threads, by others' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import forge
import forge_registration as reg
from forge import NOW, Chain, Key
from moat import Denied, MalformedInput, Moat, MoatError, Policy
from moat.monitor import Alert, Monitor
from threats.test_replay import at_once
from threats.test_revocation import take
from threats.world import GATE, MALLORY, OPERATOR, PLANNER, RIVAL, ROOT, WORKER, World, agent

Watch = Callable[..., World]

RATE = {"name": "rate", "rate": {"limit": 5, "window": 10}, "then": "throttle"}
PAUSE = {"name": "pause", "rate": {"limit": 5, "window": 10}, "then": "suspend"}
BUDGET = {"name": "budget", "cost": {"limit": 2}, "then": "throttle"}
STEPS = {
    "name": "steps",
    "machine": {
        "initial": "idle",
        "transitions": [{"from": "idle", "to": "done"}],
    },
    "then": "throttle",
}


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Make gates with rules."""
    made: list[World] = []

    def make(*rules: dict[str, Any]) -> World:
        made.append(World.at(tmp_path / f"log{len(made)}", rules))
        return made[-1]

    yield make
    for world in made:
        world.gate.close()


NUMBERS = count()


def asked(world: World, chain: Chain, *, now: int = NOW) -> str:
    """What the gate says to one more message of a chain, on its holder's one stream."""
    world.clock.now = now
    wire = world.ask(chain, now=now, stream=bytes(16), number=next(NUMBERS))
    decision = world.gate.decide(wire)
    return "ok" if decision.allowed else str(decision.reason)


def test_a_rate_is_never_exceeded_in_any_window(watch: Watch) -> None:
    world, chain = watch(RATE), forge.first(ROOT, WORKER)
    allowed = [at for at in range(60) if asked(world, chain, now=NOW + at // 2) == "ok"]
    times = [at // 2 for at in allowed]
    assert len(times) >= 15
    for start in range(30):
        assert sum(start <= at < start + 10 for at in times) <= 5


@pytest.mark.parametrize("rule", [RATE, PAUSE], ids=lambda rule: rule["name"])
def test_fresh_keys_do_not_escape_a_rate(watch: Watch, rule: dict[str, Any]) -> None:
    """An agent over its limit delegates to a hundred keys, and theirs to further ones."""
    world, mine = watch(rule), forge.first(ROOT, PLANNER)
    answers = [asked(world, mine.then(Key(f"f{n}"))) for n in range(50)]
    answers += [asked(world, mine.then(Key(f"f{n}")).then(Key(f"g{n}"))) for n in range(50)]
    assert answers.count("ok") == 5
    assert answers[:5] == ["ok"] * 5
    assert set(answers[6:]) <= {"throttled", "suspended"}
    assert asked(world, forge.first(ROOT, RIVAL)) == "ok"


def test_fresh_keys_do_not_escape_a_machine(watch: Watch) -> None:
    world, mine = watch(STEPS), forge.first(ROOT, PLANNER)
    assert asked(world, mine.then(Key("first"))) == "ok"
    assert [asked(world, mine.then(Key(f"f{n}"))) for n in range(20)] == ["out_of_order"] * 20
    assert asked(world, mine) == "out_of_order"


def test_a_rotation_does_not_escape_a_rate(watch: Watch) -> None:
    world, fresh = watch(RATE), Key("fresh")
    world.gate.register(reg.registration("worker", WORKER, GATE.public), now=NOW)
    answers = [asked(world, forge.first(ROOT, WORKER)) for _ in range(5)]
    proof = reg.registration("worker", fresh, GATE.public, previous=WORKER)
    world.gate.register(proof, now=NOW)
    answers += [asked(world, forge.first(ROOT, fresh)) for _ in range(5)]
    assert answers == ["ok"] * 5 + ["throttled"] * 5


def test_a_counted_key_does_not_escape_by_taking_over_a_fresh_name(watch: Watch) -> None:
    """It makes a name with a new key, and hands that to itself: whom it stands for would change."""
    world, front = watch(BUDGET), Key("front")
    mine = forge.first(ROOT, WORKER)
    assert [asked(world, mine) for _ in range(3)] == ["ok", "ok", "throttled"]
    world.gate.register(reg.registration("front", front, GATE.public), now=NOW)
    proof = reg.registration("front", WORKER, GATE.public, previous=front)
    with pytest.raises(Denied) as denied:
        world.gate.register(proof, now=NOW)
    assert denied.value.reason == "no_standing"
    assert asked(world, mine) == "throttled"


def test_a_delegator_gives_nobody_a_clean_slate(watch: Watch) -> None:
    """An agent delegates to a key of its own and back, and has that pause and resume it."""
    world, helper = watch(BUDGET), Key("helper")
    mine = forge.first(ROOT, WORKER)
    assert [asked(world, mine) for _ in range(3)] == ["ok", "ok", "throttled"]
    assert asked(world, mine.then(helper).then(WORKER)) == "throttled"
    take(world, helper, "suspend", WORKER)
    take(world, helper, "resume", WORKER)
    assert asked(world, mine) == "throttled"
    take(world, ROOT, "suspend", WORKER)
    take(world, ROOT, "resume", WORKER)
    assert asked(world, mine) == "ok"


def test_64_threads_against_one_limit(watch: Watch) -> None:
    """All at once, from one agent and its children: so many get through and not one more."""
    world = watch({**RATE, "rate": {"limit": 20, "window": 60}})
    mine = forge.first(ROOT, PLANNER)
    chains = [mine, *(mine.then(Key(f"child{n}")) for n in range(63))]
    wires = [world.ask(chain) for chain in chains]

    def send(at: int) -> str:
        decision = world.gate.decide(wires[at], now=NOW)
        return "ok" if decision.allowed else str(decision.reason)

    answers = at_once(send)
    assert (answers.count("ok"), answers.count("throttled")) == (20, 44)


def test_forged_traffic_uses_up_nobodys_rate(watch: Watch) -> None:
    """A stranger sends in the victim's name, and sends the victim's old messages again."""
    world, mine = watch(RATE), forge.first(ROOT, WORKER)
    captured = world.ask(mine)
    world.allow(captured)
    for n in range(200):
        forged = forge.wire(
            mine.token, forge.request(MALLORY, mine.token, GATE.public, forge.Ask())
        )
        assert not world.gate.decide(forged, now=NOW).allowed
        assert not world.gate.decide(captured, now=NOW).allowed
        assert not world.gate.decide(captured[:-1] + bytes([n]), now=NOW).allowed
    assert [asked(world, mine) for _ in range(6)] == ["ok"] * 4 + ["throttled"] * 2


def test_counters_survive_a_restart(watch: Watch) -> None:
    world, mine = watch(RATE, STEPS), forge.first(ROOT, WORKER)
    assert asked(world, mine) == "ok"
    for _ in range(3):
        world.restart()
        assert asked(world, mine) == "out_of_order"


def test_a_clock_that_goes_back_gives_nothing_back(watch: Watch) -> None:
    world, mine = watch(RATE), forge.first(ROOT, WORKER)
    assert [asked(world, mine, now=NOW + 100) for _ in range(6)] == ["ok"] * 5 + ["throttled"]
    for back in (99, 95, 60):
        assert asked(world, mine, now=NOW + back) == "throttled"
    assert asked(world, mine, now=NOW + 20) == "clock_behind"
    assert asked(world, mine, now=NOW + 110) == "ok"


def test_alerts_do_not_flood_the_log(watch: Watch) -> None:
    world, mine = watch(RATE), forge.first(ROOT, WORKER)
    before = len(world.gate)
    assert [asked(world, mine) for _ in range(300)].count("ok") == 5
    kinds = world.kinds(before)
    assert kinds.count("alert") == 1
    assert kinds.count("decision") == 300


def test_a_suspended_agent_is_resumed_by_an_operator_with_a_clean_slate(watch: Watch) -> None:
    world, mine = watch(PAUSE), forge.first(ROOT, WORKER)
    assert [asked(world, mine) for _ in range(8)] == ["ok"] * 5 + ["throttled"] + ["suspended"] * 2
    assert world.gate.is_suspended(agent(WORKER))
    world.restart()
    assert asked(world, mine) == "suspended"
    take(world, OPERATOR, "resume", WORKER)
    assert [asked(world, mine) for _ in range(6)] == ["ok"] * 5 + ["throttled"]


def test_a_rule_that_suspends_stops_the_permits_from_before(watch: Watch) -> None:
    world, mine = watch(PAUSE), forge.first(ROOT, WORKER)
    permits = [world.gate.decide(world.ask(mine), now=NOW).permit for _ in range(5)]
    assert asked(world, mine) == "throttled"
    for permit in permits:
        assert permit is not None
        with pytest.raises(MoatError), permit:
            pytest.fail("it opened")


def test_a_rule_file_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nname = "r"\nrate = { limit = 1, window = 1 }\nthen = "alert"\n')
    Monitor.load(file)
    file.chmod(0o666)
    with pytest.raises(MoatError):
        Monitor.load(file)
    file.chmod(0o600)
    file.replace(tmp_path / "real")
    file.symlink_to(tmp_path / "real")
    with pytest.raises((MoatError, OSError)):
        Monitor.load(file)


def test_rules_that_a_link_leads_away_from_are_not_no_rules(tmp_path: Path) -> None:
    """A state folder whose `rules.toml` leads nowhere does not open as one that has none."""
    state = tmp_path / "state"
    Moat.init(state, anchor=None).close()
    (state / "rules.toml").symlink_to(tmp_path / "moved")
    with pytest.raises(MoatError, match=r"rules\.toml"):
        Moat.open(state, anchor=None)
    (state / "rules.toml").unlink()
    Moat.open(state, anchor=None).close()


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "r", "then": "throttle"},
        {"name": "r", "rate": {"limit": 1, "window": 0}, "then": "throttle"},
        {"name": "r", "rate": {"limit": 1, "window": 1}, "then": "shout"},
        {"name": "../r", "rate": {"limit": 1, "window": 1}, "then": "alert"},
        {"name": "r", "rate": {"limit": 1, "window": 1}, "cost": {"limit": 1}, "then": "alert"},
        {"name": "r", "rate": {"limit": 1, "window": 1, "x": 1}, "then": "alert"},
        {"name": "r", "rate": {"limit": 1.5, "window": 1}, "then": "alert"},
    ],
    ids=repr,
)
def test_a_rule_that_is_not_understood_arms_no_gate(tmp_path: Path, rule: dict[str, Any]) -> None:
    with pytest.raises(MalformedInput):
        World.at(tmp_path / "log", [rule])


def test_rules_too_long_for_any_snapshot_arm_no_gate(tmp_path: Path) -> None:
    """A line would hold them, a segment could not begin with them, and the log would end there."""
    state, many = tmp_path / "state", [agent(Key(f"operator{n}")) for n in range(900)]
    with pytest.raises(MoatError, match="trust fewer keys"):
        Moat.init(tmp_path / "too many", operators=many, anchor=None)
    Moat.init(state, operators=many[:700], anchor=None).close()
    with Moat.open(state, anchor=None, segment_bytes=1) as moat:
        for key in many[:200]:
            moat.suspend(key)
    assert len(list(state.glob("gates/main/log/seg/*.jsonl"))) > 1
    Moat.open(state, anchor=None).close()


def test_a_callback_that_raises_or_listens_slowly_changes_no_answer(watch: Watch) -> None:
    told: list[Alert] = []

    def fails(alert: Alert) -> None:
        told.append(alert)
        raise RuntimeError("no")

    monitor = Monitor([PAUSE], on_alert=fails)
    world = watch()
    world.gate.arm(
        policy=Policy.CHAIN_ONLY, roots=[agent(ROOT)], operators=[], rules=monitor.rules_json(),
        on_alert=lambda line: monitor.watch([line]),
    )  # fmt: skip
    assert [asked(world, forge.first(ROOT, WORKER)) for _ in range(6)][-1] == "throttled"
    assert monitor.close()
    assert [(alert.rule, alert.agent, alert.then) for alert in told] == [
        ("pause", agent(WORKER), "suspend")
    ]
    assert monitor.failed == 1
