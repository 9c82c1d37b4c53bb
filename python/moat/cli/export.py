"""``moat audit export``: entries of a log for other programs, after the log was verified."""

from __future__ import annotations

import hashlib
import sys
import time
from array import array
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from moat import _files, _show
from moat._native import read_log
from moat.cli import entries, failure
from moat.cli.app import App, common
from moat.cli.audit import KEY, LOG, folder_of, key_of
from moat.cli.failure import CommandError
from moat.cli.formats import FORMATS
from moat.cli.units import Moment
from moat.cli.verified import Verified
from moat.errors import AuditError, MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from typing import Unpack

    from rich.console import Console

    from moat import AgentId


MOST: Final = 1 << 53
"""No index and no time is larger (spec/audit.md)."""


class Asked(entries.Filters):
    """Which entries are to be written, and how."""

    form: str
    start: int | None
    to: int | None
    since: int | timedelta | None
    until: int | timedelta | None
    names: bool


@click.command("export")
@LOG
@KEY
@click.option(
    "--format", "form", type=click.Choice(sorted(FORMATS)), default="jsonl", show_default=True,
    help="jsonl: lines as in the log. csv: decisions and outcomes.",
)  # fmt: skip
@click.option("--from", "start", type=click.IntRange(0), metavar="N", help="First entry.")
@click.option("--to", type=click.IntRange(0), metavar="N", help="Last entry.")
@click.option("--since", type=Moment(), help="From this time on: 2026-07-01T12:00:00Z, or 90m.")
@click.option("--until", type=Moment(), help="Up to this time.")
@entries.filters
@click.option("--names", is_flag=True, help="Add the names of agents that are known here.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here (0600).",
)  # fmt: skip
@click.option(
    "--proofs", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Also write a proof of each entry here, unless another process has the gate.",
)  # fmt: skip
@click.option("--unverified", is_flag=True, help="Write a log that does not hold, and say so.")
@common(gate=True)
def export(
    app: App, *, log: Path | None, key: str | None, out: Path | None, proofs: Path | None,
    unverified: bool, **asked: Unpack[Asked],
) -> None:  # fmt: skip
    """Verify the log, then write its entries, or some of them, for other programs.

    A file appears only once all of it is known to be what was verified. Without `--out` the
    entries go to standard output, and only the exit code says whether they hold.
    """
    if proofs is not None and (log is not None or key is not None):
        message = "`--proofs` needs the gate itself; leave `--log` and `--key` out"
        raise click.UsageError(message)
    if asked["form"] == "csv" and asked["kind"] not in {None, "decision", "outcome"}:
        message = f"a table has decisions and outcomes; write `{asked['kind']}` as jsonl"
        raise click.UsageError(message)
    if app.json and out is None:
        message = "`--json` prints a summary, so the entries need `--out FILE`"
        raise click.UsageError(message)
    work = _Work(app, folder_of(app, log), key_of(app, key), asked)
    work.verify(unverified=unverified)
    with _writing(out) as put:
        work.write(put)
    document = work.summary(out)
    document["proofs"] = None if proofs is None else _prove(app, proofs, work.written)
    if out is None:
        _tell(_show.console(stderr=True), document)
    else:
        app.emit(document, lambda screen: _tell(screen, document))


@contextmanager
def _writing(out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Open a file that only its owner reads, or standard output; a terminal is not steered."""
    if out is not None:
        with _files.writing(out.absolute(), secret=True, overwrite=True) as file:
            yield file.write
        return
    stream, person = sys.stdout.buffer, sys.stdout.isatty()
    yield lambda data: stream.write(_show.tame(data) if person else data)
    stream.flush()


@dataclass
class _Work:
    """One export: what was verified and what was written."""

    app: App
    log: Path
    gate: AgentId
    asked: Asked
    verified: Verified | None = None
    problem: CommandError | None = None
    written: array[int] = field(default_factory=lambda: array("Q"))
    unreadable: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def verify(self, *, unverified: bool) -> None:
        """Check the whole log; a broken one is refused unless it was asked for."""
        try:
            self.verified = Verified(self.log, self.gate, quiet=self.app.json)
        except MoatError as error:
            self.problem = failure.verification(error)
            if not unverified:
                self.problem.next = "`--unverified` writes it all the same, and says so in it"
                raise self.problem from error

    def write(self, put: Callable[[bytes], object]) -> None:
        """Write what was asked for."""

        def counted(data: bytes) -> None:
            self.digest.update(data)
            put(data)

        asked = self.asked
        names = entries.known(self.app) if asked["names"] else None
        form = FORMATS[asked["form"]](counted, names, self.problem)
        wanted = self._wanted()
        lines = read_log(self.log) if self.verified is None else self.verified.lines()
        for line in lines:
            entry = self._read(line)
            if entry is not None and wanted(entry) and form.write(line, entry):
                self.written.append(entry["i"])

    def summary(self, out: Path | None) -> dict[str, Any]:
        """Say what was written, and what is known about it (spec/cli.md)."""
        unchecked: list[str] = []
        if self.verified is not None:
            unchecked += self.verified.report.unchecked
            if not self.verified.complete:
                unchecked.append(
                    "the oldest entries are gone: lines were compared with each other, not with "
                    "the root, when they were read again to be written"
                )
        return {
            "log": str(self.gate),
            "format": self.asked["form"],
            "out": None if out is None else str(out.resolve()),
            "entries": len(self.written),
            "first": self.written[0] if self.written else None,
            "last": self.written[-1] if self.written else None,
            "sha256": self.digest.hexdigest(),
            "verified": self.problem is None,
            "problem": None if self.problem is None else self.problem.to_dict()["error"],
            "of": None if self.verified is None else self.verified.report.entries,
            "root": None if self.verified is None else self.verified.report.root.hex(),
            "unreadable": self.unreadable,
            "unchecked": unchecked,
        }

    def _read(self, line: bytes) -> dict[str, Any] | None:
        try:
            return entries.read(line)
        except CommandError:
            if self.problem is None:
                raise
            self.unreadable += 1
            return None

    def _wanted(self) -> Callable[[dict[str, Any]], bool]:
        asked, now = self.asked, int(time.time())
        chosen = entries.Choice(self.app, asked)
        start, to = asked["start"] or 0, MOST if asked["to"] is None else asked["to"]
        since, until = _second(asked["since"], now, 0), _second(asked["until"], now, MOST)
        return lambda one: start <= one["i"] <= to and since <= one["t"] <= until and chosen(one)


def _second(asked: int | timedelta | None, now: int, otherwise: int) -> int:
    """Give Unix seconds; a length of time is so long ago."""
    if asked is None:
        return otherwise
    return asked if isinstance(asked, int) else now - int(asked.total_seconds())


def _prove(app: App, folder: Path, written: array[int]) -> dict[str, Any]:
    """Write a proof of each entry as ``N.proof``; the gate's key signs what they lead to."""
    _files.make_dirs(folder)
    done = 0
    problem: str | None = None
    try:
        with app.moat() as moat:
            for entry in written:
                text = str(moat.audit.prove(entry)).encode()
                _files.write(folder / f"{entry}.proof", text, secret=False, overwrite=True)
                done += 1
    except AuditError as error:
        problem = f"{error}; without it there are no proofs"
    return {"dir": str(folder.resolve()), "written": done, "problem": problem}


def _tell(screen: Console, document: dict[str, Any]) -> None:
    where = f" written to {document['out']}" if document["out"] else ""
    of = "" if document["of"] is None else f" of {document['of']}, all verified"
    if document["verified"]:
        screen.print(f"✓ {document['entries']} entries{of}{where}", style="green", soft_wrap=True)
    else:
        said = f"✗ {document['entries']} entries of a log that does not hold{where}"
        screen.print(said, style="bold red", soft_wrap=True)
    rows = [("sha256", document["sha256"])]
    if document["problem"]:
        rows.append(("problem", document["problem"]["message"]))
    if document["unreadable"]:
        rows.append(("left out", f"{document['unreadable']} lines that do not read"))
    if proofs := document["proofs"]:
        told = proofs["problem"] or f"in {proofs['dir']}"
        rows.append(("proofs", f"{proofs['written']}, {told}"))
    screen.print(_show.fields(rows, indent=2))
    if document["unchecked"]:
        screen.print("  what verifying could not check:", style="yellow")
    for sentence in document["unchecked"]:
        screen.print(_show.Indented(Text(sentence), 4))
