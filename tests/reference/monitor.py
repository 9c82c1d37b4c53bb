"""A reference model of the monitor, written from spec/monitor.md.

It is slow and plain: every agent's cells are dictionaries, every window a dictionary from the
number of a bucket to what is in it, and nothing is dropped early. Rules are taken as JSON gives
them and are trusted to be right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from reference import patterns

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

AGENTS = 65_536
"""How many agents are counted."""
BELOW_ONE = AGENTS // 8
"""How many of them below the holder of one first link."""

FOREVER = float("inf")
Rule = dict[str, Any]
Verdict = Literal["allowed", "denied"]


@dataclass
class Cell:
    """What one rule remembers of one agent."""

    buckets: dict[int, int] = field(default_factory=dict)
    total: int = 0
    starts: dict[int, int] = field(default_factory=dict)
    """By step: the latest first step from which a run has come so far."""
    state: str | None = None
    """Of a machine, unless it is the initial one."""
    mute: float = 0
    """The first second in which a trigger is an edge."""


@dataclass
class Row:
    """What is remembered of one agent."""

    principal: Hashable
    lasting: bool
    open: int = 0
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request and who asks: every holder in the chain, and whether its key lasts."""

    time: int
    holders: Sequence[tuple[Hashable, bool]]
    action: str
    resource: str


@dataclass(frozen=True)
class Answer:
    """``ok`` or the reason, and the alerts: rule and agent."""

    code: str
    alerts: list[tuple[str, Hashable]]


class Monitor:
    """The rules and all that they remember."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = {rule["name"]: rule for rule in rules}
        self.rows: dict[Hashable, Row] = {}
        self.open: dict[int, tuple[list[str], Sequence[tuple[Hashable, bool]]]] = {}
        self.time = 0

    def decide(self, request: Request, index: int, *, allowed: bool) -> Answer:
        """Answer a request that without the monitor is allowed or not, and count it."""
        self.advance(request.time)
        code, met = self._judge(request, allowed=allowed)
        alerts = []
        for name, agent in met:
            rule = self.rules[name]
            row = self.rows.get(agent)
            muted = row is not None and name in row.cells and row.cells[name].mute > self.time
            if not muted and (row is not None or self._has_room(request)):
                alerts.append((name, agent))
            cell = self._cell(request, agent, name)
            if cell is not None:
                cell.mute = FOREVER if _quiet(rule) is None else self.time + _quiet(rule)
        self._count(request, index, "allowed" if allowed and code == "ok" else "denied")
        return Answer(code, alerts)

    def outcome(self, index: int, fuel: int | None, time: int) -> None:
        """Count the fuel of an effect that has ended."""
        self.advance(time)
        names, holders = self.open.pop(index, ([], ()))
        for agent, lasting in holders:
            if not lasting and agent not in self.rows:
                continue
            if (row := self._row(holders, agent)) is not None:
                row.open = max(0, row.open - 1)
                for name in names:
                    self._add(self.rules[name], row.cells.setdefault(name, Cell()), fuel or 0)
        self._drop_blank()

    def forget(self, agent: Hashable) -> None:
        """Drop an agent whose links have expired, unless it lasts."""
        if agent in self.rows and not self.rows[agent].lasting:
            del self.rows[agent]

    def reset(self, agent: Hashable) -> None:
        """Start anew for an agent."""
        self.rows.pop(agent, None)

    def advance(self, time: int) -> None:
        """Move on to a second."""
        self.time = max(self.time, time)
        self._drop_blank()

    def _judge(self, request: Request, *, allowed: bool) -> tuple[str, list[tuple[str, Hashable]]]:
        """The answer, and the rules whose condition is met with whom they blame."""
        denied = self._met(request, "denied")
        if not allowed:
            return "ok", denied
        counted = any(looks(rule, request, "allowed") for rule in self.rules.values())
        if counted and not self._has_room(request):
            return "monitor_full", denied
        met = self._met(request, "allowed")
        refusing = [(name, who) for name, who in met if self.rules[name]["then"] != "alert"]
        if not refusing:
            return "ok", met
        first = self.rules[refusing[0][0]]
        names = {name for name, _ in refusing}
        others = [(name, who) for name, who in denied if name not in names]
        code = "throttled" if "rate" in first or "cost" in first else "out_of_order"
        return code, refusing + others

    def _met(self, request: Request, verdict: Verdict) -> list[tuple[str, Hashable]]:
        found = []
        for name, rule in self.rules.items():
            if not looks(rule, request, verdict):
                continue
            over = [
                (agent, lasting)
                for agent, lasting in request.holders
                if self._is_over(rule, self._known(agent, name), request, verdict)
            ]
            if over:
                last = [agent for agent, lasting in over if lasting] or [a for a, _ in over]
                found.append((name, last[-1]))
        return found

    def _is_over(self, rule: Rule, cell: Cell, request: Request, verdict: Verdict) -> bool:
        if "rate" in rule or "cost" in rule:
            terms = rule.get("rate") or rule["cost"]
            if terms.get("of") == "fuel":
                return self._sum(terms, cell) >= terms["limit"]
            return self._sum(terms, cell) + terms.get("each", 1) > terms["limit"]
        if "sequence" in rule:
            steps = rule["sequence"]["steps"]
            start = cell.starts.get(len(steps) - 2)
            live = start is not None and self.time - start <= rule["sequence"]["within"]
            return live and fits(steps[-1], request, verdict)
        return self._next(rule, cell, request) is None

    def _next(self, rule: Rule, cell: Cell, request: Request) -> str | None:
        state = cell.state or rule["machine"]["initial"]
        for transition in rule["machine"]["transitions"]:
            if transition["from"] == state and fits(transition.get("match", {}), request):
                return transition["to"]
        return None

    def _count(self, request: Request, index: int, verdict: Verdict) -> None:
        looking = [rule for rule in self.rules.values() if looks(rule, request, verdict)]
        fuel = [rule["name"] for rule in looking if rule.get("cost", {}).get("of") == "fuel"]
        fuel = fuel if verdict == "allowed" else []
        for agent, _ in request.holders:
            for rule in looking:
                cell = self._cell(request, agent, rule["name"])
                if cell is not None:
                    self._take(rule, cell, request, verdict)
            if fuel and agent in self.rows:
                self.rows[agent].open += 1
        if fuel:
            self.open[index] = (fuel, request.holders)
        self._drop_blank()

    def _take(self, rule: Rule, cell: Cell, request: Request, verdict: Verdict) -> None:
        if "rate" in rule or "cost" in rule:
            terms = rule.get("rate") or rule["cost"]
            if terms.get("of") != "fuel":
                self._add(rule, cell, terms.get("each", 1))
        elif "sequence" in rule:
            before = dict(cell.starts)
            for at, step in enumerate(rule["sequence"]["steps"][:-1]):
                start = self.time if at == 0 else before.get(at - 1)
                live = start is not None and self.time - start <= rule["sequence"]["within"]
                if live and fits(step, request, verdict):
                    cell.starts[at] = max(start, cell.starts.get(at, start))
        elif (state := self._next(rule, cell, request)) is not None:
            cell.state = None if state == rule["machine"]["initial"] else state
            cell.mute = 0

    def _add(self, rule: Rule, cell: Cell, amount: int) -> None:
        terms = rule.get("rate") or rule["cost"]
        if "window" in terms:
            bucket = self.time // _width(terms["window"])
            cell.buckets[bucket] = cell.buckets.get(bucket, 0) + amount
        else:
            cell.total += amount

    def _sum(self, terms: Mapping[str, Any], cell: Cell) -> int:
        if "window" not in terms:
            return cell.total
        width, oldest = _width(terms["window"]), self.time - terms["window"] + 1
        return sum(n for b, n in cell.buckets.items() if b * width + width - 1 >= oldest)

    def _has_room(self, request: Request) -> bool:
        new = [agent for agent, _ in request.holders if agent not in self.rows]
        principal = request.holders[0][0]
        below = sum(row.principal == principal for row in self.rows.values())
        return not new or (below + len(new) <= BELOW_ONE and len(self.rows) + len(new) <= AGENTS)

    def _known(self, agent: Hashable, name: str) -> Cell:
        row = self.rows.get(agent)
        return row.cells.get(name, Cell()) if row else Cell()

    def _cell(self, request: Request, agent: Hashable, name: str) -> Cell | None:
        row = self._row(request.holders, agent)
        return None if row is None else row.cells.setdefault(name, Cell())

    def _row(self, holders: Sequence[tuple[Hashable, bool]], agent: Hashable) -> Row | None:
        principal, lasting = holders[0][0], dict(holders)[agent]
        if agent not in self.rows:
            below = sum(row.principal == principal for row in self.rows.values())
            if below >= BELOW_ONE or len(self.rows) >= AGENTS:
                return None
            self.rows[agent] = Row(principal, lasting)
        self.rows[agent].lasting |= lasting
        return self.rows[agent]

    def _drop_blank(self) -> None:
        for agent, row in list(self.rows.items()):
            blank = (self._is_blank(self.rules[name], cell) for name, cell in row.cells.items())
            if not row.open and all(blank):
                del self.rows[agent]

    def _is_blank(self, rule: Rule, cell: Cell) -> bool:
        terms = rule.get("rate") or rule.get("cost") or {}
        within = rule.get("sequence", {}).get("within", 0)
        runs = any(self.time - start <= within for start in cell.starts.values())
        held = self._sum(terms, cell) > 0 or runs or cell.state is not None
        return not held and cell.mute <= self.time


def fits(match: Mapping[str, Any], request: Request, verdict: Verdict = "allowed") -> bool:
    """Whether a request that ends so is one that the match describes."""
    actions, resource = match.get("actions", ["*"]), match.get("resource")
    return (
        match.get("verdict", "allowed") in {verdict, "any"}
        and ("*" in actions or request.action in actions)
        and (resource is None or patterns.matches(resource, request.resource))
    )


def looks(rule: Rule, request: Request, verdict: Verdict) -> bool:
    """Whether a rule looks at a request that ends so."""
    if "sequence" in rule:
        return any(fits(step, request, verdict) for step in rule["sequence"]["steps"])
    return fits(rule.get("match", {}), request, verdict)


def _quiet(rule: Rule) -> int | None:
    """Seconds without a trigger after which the next one is an edge; None: never by itself."""
    if "sequence" in rule:
        within: int = rule["sequence"]["within"]
        return within
    terms: Mapping[str, int] = rule.get("rate") or rule.get("cost") or {}
    return terms.get("window")


def _width(window: int) -> int:
    return -(-window // 15)
