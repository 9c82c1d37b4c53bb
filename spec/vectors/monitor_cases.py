"""Histories of spec/monitor.md; what is expected in them is what the reference model says."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

from reference.monitor import Monitor, Request, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOW = 1_800_000_000
REGISTERED = 100
"""From this number on, an agent is registered."""
ROUNDS = 24
LENGTH = 40

RESOURCES = ("tool://a", "tool://b/c", "file:///d", "https://example.com/e")
PATTERNS = (None, None, "tool://*/**", "tool://a", "file:///**", "https://*/**")
AGENTS = (0, 1, 2, 3, 4, 100, 101)

Step = dict[str, Any]
T = TypeVar("T")


class Dice:
    """Numbers that are the same on every machine."""

    def __init__(self, seed: str) -> None:
        self._seed, self._thrown = seed, 0

    def below(self, most: int) -> int:
        self._thrown += 1
        digest = hashlib.sha256(f"{self._seed} {self._thrown}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % most

    def one(self, of: Sequence[T]) -> T:
        return of[self.below(len(of))]


def text(rounds: int = ROUNDS) -> str:
    """The file as it is written: a line for each rule and each step."""
    return "[\n" + ",\n".join(_text(*made) for made in histories(rounds)) + "\n]\n"


def histories(rounds: int) -> Iterator[tuple[str, list[Rule], list[Step]]]:
    """Every history, played once: name, rules and steps with what is expected."""
    for name, rules, steps in PLAIN:
        yield name, rules, play(rules, steps)
    for number in range(rounds):
        dice = Dice(f"history {number}")
        rules = [rule(dice, f"r{at}") for at in range(1 + dice.below(5))]
        yield f"dice {number}", rules, play(rules, list(throw(dice)))


def play(rules: list[Rule], steps: list[Step]) -> list[Step]:
    monitor, played = Monitor(rules), []
    for index, step in enumerate(steps):
        more: Step = {}
        if step["do"] == "decide":
            holders = [(n, at == 0 or n >= REGISTERED) for at, n in enumerate(step["holders"])]
            request = Request(step["time"], holders, step["action"], step["resource"])
            answer = monitor.decide(request, index, allowed=step["allowed"])
            more = {"expect": answer.code, "alerts": answer.alerts}
        elif step["do"] == "outcome":
            monitor.outcome(step["of"], step["fuel"], step["time"])
        elif step["do"] == "forget":
            monitor.forget(step["agent"])
        else:
            monitor.reset(step["agent"])
        played.append(step | more)
    return played


def call(after: int, *holders: int, resource: str = "tool://a", allowed: bool = True) -> Step:
    return {
        "do": "decide", "time": NOW + after, "holders": list(holders), "action": "call",
        "resource": resource, "allowed": allowed,
    }  # fmt: skip


def outcome(after: int, of: int, fuel: int | None) -> Step:
    return {"do": "outcome", "time": NOW + after, "of": of, "fuel": fuel}


def throw(dice: Dice) -> Iterator[Step]:
    """Steps of one history."""
    time = 0
    for at in range(LENGTH):
        time += dice.one((0, 0, 1, 2, 5, 17, dice.below(400)))
        kind = dice.below(16)
        if kind == 0:
            yield {"do": "forget", "agent": dice.one(AGENTS)}
        elif kind == 1:
            yield {"do": "reset", "agent": dice.one(AGENTS)}
        elif kind <= 4:
            yield outcome(time, dice.below(at + 1), dice.one((None, dice.below(40))))
        else:
            holders = dict.fromkeys(dice.one(AGENTS) for _ in range(1 + dice.below(4)))
            allowed = dice.below(5) > 0
            yield call(time, *holders, resource=dice.one(RESOURCES), allowed=allowed)


def rule(dice: Dice, name: str) -> Rule:
    """A rule in its one spelling."""
    kind = dice.one(("rate", "calls", "fuel", "sequence", "machine"))
    window = 1 + dice.below(dice.one((15, 300)))
    limit = dice.below(6)
    scope = match(dice, verdicts=kind in {"rate", "calls"})
    last = scope
    body: dict[str, Any]
    if kind == "rate":
        body = {"rate": {"limit": limit, "window": window}}
    elif kind == "sequence":
        steps = [match(dice, verdicts=True) for _ in range(2 + dice.below(3))]
        scope, last = {}, steps[-1]
        body = {"sequence": {"steps": steps, "within": window}}
    elif kind == "machine":
        states = ("a", "b", "c")
        ways = [("a", "b"), ("b", dice.one(states)), (dice.one("ab"), "c"), ("c", "a")]
        transitions = [
            {"from": start, "to": end} | ({"match": on} if (on := match(dice)) else {})
            for start, end in ways[: 2 + dice.below(3)]
        ]
        body = {"machine": {"initial": "a", "transitions": transitions}}
    else:
        fuel = kind == "fuel"
        cost = {"limit": limit * (10 if fuel else 1)}
        cost |= {"of": "fuel"} if fuel else dice.one(({}, {"each": 2}))
        body = {"cost": cost | dice.one(({}, {"window": window}))}
    denied = last.get("verdict") == "denied"
    then = dice.one(("alert", "suspend") if denied else ("alert", "throttle", "suspend"))
    return {"name": name} | ({"match": scope} if scope else {}) | body | {"then": then}


def match(dice: Dice, *, verdicts: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if dice.below(6) == 0:
        found["actions"] = dice.one((["call"], ["call", "read"], ["read"]))
    if resource := dice.one(PATTERNS):
        found["resource"] = resource
    verdict = dice.one(("allowed", "allowed", "denied", "any"))
    if verdicts and verdict != "allowed":
        found["verdict"] = verdict
    return found


def _text(name: str, rules: list[Rule], steps: list[Step]) -> str:
    def lines(items: list[dict[str, Any]]) -> str:
        return ",\n".join("  " + json.dumps(item, separators=(",", ":")) for item in items)

    return f'{{"name":"{name}","rules":[\n{lines(rules)}],\n "steps":[\n{lines(steps)}]}}'


_RATE = {"name": "r", "rate": {"limit": 2, "window": 10}}
_STEPS = [{"resource": "file:///**"}, {"resource": "https://*/**"}]
_FLOW = [
    {"from": "idle", "to": "reading", "match": {"resource": "tool://a"}},
    {"from": "reading", "to": "idle", "match": {"resource": "tool://b/**"}},
]
PLAIN: tuple[tuple[str, list[Rule], list[Step]], ...] = (
    (
        "the request over a rate is throttled and not counted",
        [_RATE | {"then": "throttle"}],
        [call(after, 1) for after in (0, 1, 2, 9, 10, 10, 11, 19, 20)],
    ),
    (
        "an alert is written at the edge only",
        [_RATE | {"then": "alert"}],
        [call(after, 1) for after in (0, 1, 2, 3, 12, 13, 40, 41, 42)],
    ),
    (
        "the last holder that lasts is suspended",
        [_RATE | {"then": "suspend"}],
        [call(0, 1, 100, 2), call(0, 1, 100, 3), call(0, 1, 100, 4), call(1, 1, 101)],
    ),
    (
        "attempts keep the door shut where they are counted",
        [_RATE | {"match": {"verdict": "any"}, "then": "throttle"}],
        [call(after, 1) for after in range(0, 40, 4)],
    ),
    (
        "a window of a minute has buckets of four seconds",
        [{"name": "r", "rate": {"limit": 1, "window": 60}, "then": "throttle"}],
        [call(after, 1) for after in (3, 60, 62, 63, 64, 123, 124)],
    ),
    (
        "fuel counts when the outcome comes",
        [{"name": "f", "cost": {"limit": 10, "of": "fuel"}, "then": "throttle"}],
        [call(0, 1, 2), call(0, 1, 3), outcome(5, 0, 9), call(6, 1, 2), outcome(7, 1, 1),
         call(8, 1, 2), call(8, 2)],
    ),
    (
        "steps in order and in time",
        [{"name": "s", "sequence": {"steps": _STEPS, "within": 60}, "then": "throttle"}],
        [call(after, 1, resource=resource) for after, resource in (
            (0, RESOURCES[3]), (1, RESOURCES[2]), (62, RESOURCES[3]), (70, RESOURCES[2]),
            (71, RESOURCES[0]), (130, RESOURCES[3]), (130, RESOURCES[3]), (131, RESOURCES[3]))],
    ),
    (
        "a machine moves by what is allowed",
        [{"name": "m", "match": {"resource": "tool://*/**"},
          "machine": {"initial": "idle", "transitions": _FLOW}, "then": "throttle"}],
        [call(0, 1, resource="tool://b/c"), call(0, 1, resource="file:///d"),
         call(0, 1, allowed=False), call(1, 1, resource="tool://b/c"), call(2, 1), call(3, 1),
         call(4, 1, resource="tool://b/c"), call(5, 1, 2), call(6, 1)],
    ),
)  # fmt: skip
