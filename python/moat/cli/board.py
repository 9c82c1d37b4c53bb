"""What `moat watch` shows on a terminal: totals, alerts and the newest decisions of gates."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from moat import _show
from moat.cli import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import RenderableType

KEPT: Final = 200
"""Rows that are remembered: more than a terminal has lines."""
OPEN: Final = 10_000
"""Decisions without an outcome that are remembered; from there on they are only `10,000+`."""
WINDOW: Final = 10.0
"""Seconds over which the rate is taken."""
HEADING: Final = 5
"""Lines above and below the rows."""

ROUTINE: Final = frozenset({"inherited", "link", "outcome", "snapshot"})
"""Kinds that have no row of their own unless they are asked for."""


@dataclass
class Row:
    """One decision, or another entry worth a line."""

    gate: str
    entry: dict[str, Any]
    ended: str = ""
    """How the effect ended, once it has."""


class Board:
    """The figures and rows of one view; bounded, however long it runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock that rates are counted by."""
        self.counts: Counter[str] = Counter()
        self.alert: dict[str, Any] | None = None
        self.pending: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._rows: OrderedDict[tuple[str, int], Row] = OrderedDict()
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, gate: str, entry: dict[str, Any], *, shown: bool) -> None:
        """Count an entry; give it a row if it is to be shown."""
        kind, body, key = entry["kind"], entry["body"], (gate, entry["i"])
        self.counts["entries"] += 1
        if kind == "decision":
            allowed = body.get("allow") is True
            self.counts["allowed" if allowed else "denied"] += 1
            if allowed:
                self._wait_for(key, entry["t"])
        elif kind == "outcome":
            self._ended(gate, entry)
        elif kind == "recovered":
            for index in _whole_numbers(body.get("pending")):
                self.pending.pop((gate, index), None)
        elif kind == "alert":
            self.counts["alerts"] += 1
            self.alert = entry
        if shown:
            self._rows[key] = Row(gate, entry)
            while len(self._rows) > KEPT:
                self._rows.popitem(last=False)

    def tick(self) -> None:
        """Note how many entries there are now: what came before the first look has no rate."""
        now = self._clock()
        self._marks.append((now, self.counts["entries"]))
        while len(self._marks) > 1 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Entries a second over the last ten seconds."""
        if len(self._marks) < 2:  # noqa: PLR2004 (a rate lies between two looks)
            return 0.0
        (begin, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - begin) if now > begin else 0.0

    def rows(self, most: int) -> list[Row]:
        """Give the newest rows, newest first."""
        return list(self._rows.values())[::-1][: max(0, most)]

    def _wait_for(self, key: tuple[str, int], second: int) -> None:
        self.pending[key] = second
        if len(self.pending) > OPEN:
            self.pending.popitem(last=False)
            self.counts["forgotten"] += 1

    def _ended(self, gate: str, entry: Mapping[str, Any]) -> None:
        body = entry["body"]
        for index in _whole_numbers([body.get("decision")]):
            began = self.pending.pop((gate, index), None)
            if row := self._rows.get((gate, index)):
                took = 0 if began is None else entry["t"] - began
                status = _show.clean(str(body.get("status")))
                row.ended = f"{status} {_show.span(took)}" if took > 0 else status


def _whole_numbers(value: object) -> list[int]:
    return [one for one in value if isinstance(one, int)] if isinstance(value, list) else []


# --- as a picture --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What a picture needs besides the board."""

    gates: Sequence[str]
    names: Mapping[str, str]
    chosen: str = ""
    missed: int = 0
    height: int = 24


def draw(board: Board, scene: Scene) -> RenderableType:
    """Draw the board for a terminal of so many lines."""
    parts: list[RenderableType] = [_heading(board, scene), _totals(board, scene)]
    if board.alert is not None:
        told = Text("alert    ", "bold white on red")
        told.append(" ").append_text(entries.said(board.alert, scene.names))
        told.append(f"  {_clock_time(board.alert)}", "dim")
        parts.append(_one_line(told))
    parts.append(_table(board, scene, scene.height - HEADING - len(parts)))
    return Group(*parts)


def _heading(board: Board, scene: Scene) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    gates = ", ".join(scene.gates) or "no gate yet"
    left = Text.assemble(("moat watch  ", "bold"), (_show.clean(gates), "cyan"))
    if scene.chosen:
        left.append(f"  only {scene.chosen}", "yellow")
    grid.add_row(left, Text(f"{board.rate:,.1f} entries/s   q quits", "dim"))
    return grid


def _totals(board: Board, scene: Scene) -> Text:
    counts = board.counts
    pending = f"{len(board.pending):,}{'+' if counts['forgotten'] else ''}"
    told = Text.assemble(
        (f"allowed {counts['allowed']:,}", "green"),
        "   ",
        (f"denied {counts['denied']:,}", "red" if counts["denied"] else "dim"),
        "   ",
        (f"alerts {counts['alerts']:,}", "bold yellow" if counts["alerts"] else "dim"),
        (f"   pending {pending}   entries {counts['entries']:,}", "dim"),
    )
    if scene.missed:
        told.append(f"   {scene.missed:,} removed unseen", "yellow")
    return _one_line(told)


def _table(board: Board, scene: Scene, most: int) -> RenderableType:
    several = len(scene.gates) > 1
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    cut: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
    table.add_column("time", width=8, **cut)
    if several:
        table.add_column("gate", max_width=10, **cut)
    table.add_column("agent", max_width=16, **cut)
    table.add_column("asked", ratio=1, **cut)
    table.add_column("answer", max_width=16, **cut)
    table.add_column("ended", max_width=16, **cut)
    for row in board.rows(most):
        cells = [Text(_clock_time(row.entry), "dim"), *_cells(row, scene.names)]
        if several:
            cells.insert(1, Text(row.gate, "cyan"))
        table.add_row(*cells)
    return table


def _cells(row: Row, names: Mapping[str, str]) -> list[Text]:
    """Agent, asked, answer, ended."""
    kind, body = row.entry["kind"], row.entry["body"]
    if kind != "decision":
        style = "bold yellow" if kind == "alert" else "yellow"
        said = entries.said(row.entry, names)
        return [Text(), said, Text(_show.clean(kind), style), Text()]
    asked = _show.clean(f"{body.get('action')} {body.get('resource')}")
    if body.get("allow") is True:
        answer = Text("allowed", "green")
    else:
        answer = Text(_show.clean(str(body.get("reason"))), "bold red")
    ended = Text(row.ended, "dim" if row.ended.startswith("ok") else "red")
    return [Text(entries.name(body.get("holder"), names)), Text(asked), answer, ended]


def _clock_time(entry: Mapping[str, Any]) -> str:
    return _show.moment(entry["t"])[11:19]


def _one_line(told: Text) -> Text:
    told.no_wrap, told.overflow = True, "ellipsis"
    return told
