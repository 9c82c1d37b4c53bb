"""How values look in a terminal: identities, sizes, times, a token's tree, a denial.

Shared by the command line and the demo. Nothing here decides anything.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.text import Text
from rich.tree import Tree

from moat._native import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rich.console import ConsoleOptions, RenderResult

    from moat._native import AgentId, Denial, Grant, Link, Token

WIDTH = 100
"""Columns at most: longer lines are hard to read."""
FAR = 600
"""Seconds from which a time to come is told in minutes."""


def console(*, stderr: bool = False) -> Console:
    """Open a console on the present streams: plain when piped, uncoloured under ``NO_COLOR``."""
    stream = sys.stderr if stderr else sys.stdout
    made = Console(file=stream, highlight=False, emoji=False, markup=False)
    if made.is_terminal and made.width > WIDTH:
        made.width = WIDTH
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDTH
    return made


@dataclass(frozen=True)
class Names:
    """Names of agents known here, for a person; a key that is not known is shown short."""

    known: Mapping[AgentId, str] = field(default_factory=dict)

    def __call__(self, agent: AgentId) -> str:
        """Give the name, or the ends of the did:key."""
        return self.known.get(agent) or short(agent)

    def find(self, agent: AgentId) -> str | None:
        """Give the name, if there is one."""
        return self.known.get(agent)


def short(agent: AgentId | str) -> str:
    """Give the ends of a did:key: enough to tell agents apart, not to trust one."""
    text = str(agent).removeprefix("did:key:")
    return f"{text[:4]}…{text[-6:]}"


def size(count: int) -> str:
    """Tell bytes: ``64 MiB``, ``1.5 KiB``, ``300 B``."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.4g} {unit}"
    return f"{count} B"


def span(seconds: float) -> str:
    """Tell a length of time in one or two units: ``1 h 30 min``, ``2 s``, ``250 ms``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole, parts = round(seconds), list[str]()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if whole >= length and len(parts) < 2:  # noqa: PLR2004 (two units are enough to read)
            parts.append(f"{whole // length} {unit}")
            whole %= length
        elif parts:
            break
    return " ".join(parts)


def moment(second: int) -> str:
    """Tell a time as RFC 3339, UTC."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def until(second: int, now: int) -> str:
    """Tell a time as seen from now: ``in 59 min`` or ``5 min ago``."""
    if second > now:
        left = second - now
        return f"in {span(left if left < FAR else -(-left // 60) * 60)}"
    return f"{span(now - second)} ago" if second < now else "now"


def fuel(units: int) -> str:
    """Tell fuel, or that nobody counts it."""
    return "unmetered" if units == Limits.UNMETERED else f"{units:,}"


def amount(axis: str, value: object) -> str:
    """Tell a limit with its unit."""
    match value:
        case timedelta():
            return span(value.total_seconds()) if value else "none"
        case 0 | () | []:
            return "none"
        case int():
            return fuel(value) if axis == "fuel" else size(value)
        case tuple() | list():
            return ", ".join(map(str, value))
    return str(value)


# --- what a link says, and what it dropped -------------------------------------------------------

NUMBERS = ("fuel", "memory", "time", "output")
SETS = ("hosts", "read", "write", "secrets")


def grant(entry: Grant | Denial) -> str:
    """Write ``tool://search/** call,read``, with ``{}`` at the end for no arguments."""
    args = " {}" if getattr(entry, "args", None) == {} else ""
    return f"{entry.resource} {','.join(sorted(entry.actions))}{args}"


def requirement(text: str) -> str:
    """Tell a requirement of attestations in a line, its signers' keys cut short."""
    kind, predicate, threshold, signers, seconds = text.split()
    keys = ", ".join(map(short, signers.split(",")))
    age = span(int(seconds.removesuffix("s")))
    return f"{kind} by {threshold} of {keys} within {age} ({predicate})"


def limits(value: Limits) -> dict[str, Any]:
    """Give limits as JSON: time in milliseconds, the rest as the command line takes it."""
    plain = {axis: getattr(value, axis) for axis in NUMBERS}
    plain["time"] = value.time // timedelta(milliseconds=1)
    return plain | {axis: [str(one) for one in getattr(value, axis)] for axis in SETS}


def link(entry: Link, names: Names) -> dict[str, Any]:
    """Give one link as JSON (``spec/cli.md``)."""
    return {
        "index": entry.index,
        "id": entry.id.hex(),
        "issuer": agent(entry.issuer, names),
        "holder": agent(entry.holder, names),
        "allow": [grant(one) for one in entry.allow],
        "deny": [grant(one) for one in entry.deny],
        "limits": limits(entry.limits),
        "expires": entry.expires,
        "not_before": entry.not_before,
        "issued": entry.issued,
        "depth": entry.depth,
        "audience": str(entry.audience) if entry.audience else None,
        "attestations": [str(one) for one in entry.attestations],
    }


def agent(key: AgentId, names: Names) -> dict[str, str | None]:
    """Give an agent as JSON: its did:key, and its name where it is known here."""
    return {"id": str(key), "name": names.find(key)}


def dropped(parent: Link, child: Link) -> dict[str, Any]:
    """Say what a link has less than its parent, as JSON; what stays the same is left out.

    ``grants`` are gone altogether, ``narrowed`` maps a grant to what is left of it, ``denials`` and
    ``attestations`` were added; every other key is an axis with its ``[before, after]``, or for a
    set what it was ``before`` and is ``after``.
    """
    gone, less = _grants(parent.allow, child.allow)
    denials = sorted({grant(one) for one in child.deny} - {grant(one) for one in parent.deny})
    texts = {"grants": gone, "narrowed": less, "denials": denials}
    found: dict[str, Any] = {key: value for key, value in texts.items() if value}
    before, after = limits(parent.limits), limits(child.limits)
    for axis in NUMBERS:
        if before[axis] != after[axis]:
            found[axis] = [before[axis], after[axis]]
    for axis in SETS:
        if before[axis] != after[axis]:
            found[axis] = {"before": before[axis], "after": after[axis]}
    for axis in ("expires", "not_before", "depth"):
        if getattr(parent, axis) != getattr(child, axis):
            found[axis] = [getattr(parent, axis), getattr(child, axis)]
    if parent.audience != child.audience:
        found["audience"] = [None, str(child.audience)]
    required = {str(one) for one in child.attestations}
    if added := sorted(required - {str(one) for one in parent.attestations}):
        found["attestations"] = added
    return found


def _grants(
    before: Iterable[Grant], after: Iterable[Grant]
) -> tuple[list[str], dict[str, list[str]]]:
    kept = {grant(one) for one in after}
    gone: list[str] = []
    less: dict[str, list[str]] = {}
    for one in before:
        if grant(one) in kept:
            continue
        rest = sorted(grant(two) for two in after if _overlaps(one, two))
        if rest:
            less[grant(one)] = rest
        else:
            gone.append(grant(one))
    return gone, less


def _overlaps(parent: Grant, child: Grant) -> bool:
    actions = parent.actions & child.actions or {"*"} & (parent.actions | child.actions)
    return bool(actions) and parent.resource.covers(child.resource)


# --- pictures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fields:
    """Names in a dim column, values folded beside them; a long word is never cut."""

    rows: tuple[tuple[str, str], ...]
    indent: int = 0

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, without blanks at the ends of lines."""
        names = max((len(name) for name, _ in self.rows), default=0)
        room = max(20, options.max_width - self.indent - names - 2)
        for name, value in self.rows:
            lines = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False)
            for number, line in enumerate(lines or [""]):
                label = f"{' ' * self.indent}{'' if number else name:{names}}  "
                yield Text.assemble((label, "dim"), line, no_wrap=True, overflow="ignore")


@dataclass(frozen=True)
class Indented:
    """Something moved to the right, without blanks at the ends of lines."""

    inner: RenderableType
    left: int

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        narrow = options.update(width=options.max_width - self.left)
        for line in screen.render_lines(self.inner, narrow, pad=False):
            yield Segment(" " * self.left)
            yield from line
            yield Segment.line()


def fields(rows: Iterable[tuple[str, str]], *, indent: int = 0) -> Fields:
    """Set names in a dim column and values beside them."""
    return Fields(tuple(rows), indent)


def token_tree(token: Token, names: Names, now: int) -> RenderableType:
    """Draw a token as a tree: what the first link allows, then what each further one dropped."""
    links = token.links
    first = links[0]
    tree = Tree(_heading(first, names, now), guide_style="dim")
    for label, style, text in _says(first):
        tree.add(_line(label, text, style))
    branch = tree
    for parent, child in pairwise(links):
        branch = branch.add(_heading(child, names, now))
        for label, style, text in _lost(dropped(parent, child)) or (("=", "dim", "nothing less"),):
            branch.add(_line(label, text, style))
    return tree


def _heading(entry: Link, names: Names, now: int) -> Text:
    dead = entry.expires <= now
    text = Text.assemble(
        (f"{entry.index} ", "dim"),
        (names(entry.issuer), "bold"),
        (" → ", "dim"),
        (names(entry.holder), "bold cyan"),
    )
    expiry = ("expired " if dead else "expires ") + until(entry.expires, now)
    text.append("   ").append(expiry, style="red" if dead else "dim")
    further = f"delegates {entry.depth} more" if entry.depth else "delegates no further"
    return text.append(f" · {further}", style="dim")


def _line(label: str, text: str, style: str) -> Text:
    return Text.assemble((f"{label} ", style), text)


def _says(entry: Link) -> list[tuple[str, str, str]]:
    rows = [("allow  ", "green", grant(one)) for one in entry.allow]
    rows += [("deny   ", "red", grant(one)) for one in entry.deny]
    rows += [
        (f"{axis:7}", "dim", amount(axis, value))
        for axis in (*NUMBERS, *SETS)
        if (value := getattr(entry.limits, axis))
    ]
    if entry.audience:
        rows.append(("gate   ", "dim", str(entry.audience)))
    rows += [("attest ", "yellow", requirement(str(one))) for one in entry.attestations]
    return rows


def _lost(lost: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows for one link; the sign says which way it went."""
    rows = [("-", "yellow", text) for text in lost.get("grants", ())]
    rows += [
        ("~", "yellow", f"{before}  →  {', '.join(after)}")
        for before, after in lost.get("narrowed", {}).items()
    ]
    rows += [("+", "red", f"deny {text}") for text in lost.get("denials", ())]
    for axis in NUMBERS:
        if axis in lost:
            before, after = (_unit(axis, value) for value in lost[axis])
            rows.append(("-", "yellow", f"{axis} {before}  →  {after}"))
    for axis in SETS:
        if axis in lost:
            before, after = (amount(axis, lost[axis][side]) for side in ("before", "after"))
            rows.append(("-", "yellow", f"{axis} {before}  →  {after}"))
    if "expires" in lost:
        before, after = lost["expires"]
        rows.append(("-", "yellow", f"expires {span(before - after)} earlier"))
    if "not_before" in lost:
        before, after = lost["not_before"]
        rows.append(("-", "yellow", f"starts {span(after - before)} later"))
    if "audience" in lost:
        rows.append(("-", "yellow", f"only at gate {short(lost['audience'][1])}"))
    rows += [("+", "red", f"attested {requirement(one)}") for one in lost.get("attestations", ())]
    return rows


def _unit(axis: str, value: int) -> str:
    return amount(axis, timedelta(milliseconds=value) if axis == "time" else value)


# --- what others wrote ---------------------------------------------------------------------------

_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
"""What could steer a terminal: C0 without tab and newline, DEL, C1."""


def clean(text: str) -> str:
    """Give one line that cannot steer a terminal: controls and bidi marks become ``?``."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def tame(data: bytes) -> bytes:
    """Give output for a terminal without what could steer it; tabs and newlines stay."""
    return _CONTROLS.sub(b"?", data)


def printable(data: bytes, folder: Path) -> list[str]:
    """Lines for a person: paths below the folder made short, nothing that steers a terminal."""
    text = data.decode(errors="replace").replace(f"{folder}/", "")
    return [clean(line) for line in text.split("\n") if line]
