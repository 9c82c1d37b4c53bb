"""``moat audit prune`` and ``moat audit accept``: what a log may forget or overrule."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from moat import Moat, _show
from moat._follow import first_entry
from moat._native import read_log
from moat._restore import SKEW
from moat.audit import AuditLog, anchor_path
from moat.cli.app import App, common
from moat.cli.failure import fail
from moat.cli.units import Moment, Size
from moat.errors import RolledBack
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from moat.audit import Pruned

YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command()
@click.option("--keep", type=Size(), metavar="SIZE", help="Keep at least the newest SIZE of lines.")
@click.option("--before", type=click.IntRange(0), metavar="ENTRY", help="Keep ENTRY and later.")
@click.option(
    "--older-than", type=Moment(), metavar="TIME", help="Keep what is newer: 90d, 2026-07-01.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@YES
@common(gate=True)
def prune(
    app: App, *, keep: int | None, before: int | None, older_than: int | timedelta | None,
    dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """Remove the oldest lines of the log, in whole files; their hashes stay.

    Less goes than was asked for: only whole files, and nothing that comes after the newest
    snapshot. A removed entry can still be proved by whoever kept its line.
    """
    if sum(one is not None for one in (keep, before, older_than)) != 1:
        message = "give one of `--keep SIZE`, `--before ENTRY` and `--older-than TIME`"
        raise click.UsageError(message)
    with app.moat() as moat:
        log = moat.audit
        asked = before if before is not None else _entry(log.path, keep, older_than)
        would = log.prune(asked, dry_run=True)
        if would.segments and not dry_run:
            question = f"remove entries up to {would.before - 1} of gate `{app.gate}` for good?"
            app.confirm(question, yes=yes)
            would = log.prune(asked)
        size = len(log)
    document = {
        "gate": app.gate,
        "dry_run": dry_run,
        "asked": asked,
        "oldest": would.before,
        "entries": would.entries,
        "bytes": would.bytes,
        "segments": list(would.segments),
        "log_entries": size,
    }
    app.emit(document, lambda screen: _gone(screen, would, dry_run=dry_run))


def _gone(screen: Console, gone: Pruned, *, dry_run: bool) -> None:
    if not gone.segments:
        told = "nothing goes: only whole files go, and none after the newest snapshot"
        screen.print(f"{told}; the oldest entry is {gone.before}", soft_wrap=True)
        return
    word = "would go" if dry_run else "are gone"
    told = f"{gone.entries} entries {word}, {_show.size(gone.bytes)}; the oldest is {gone.before}"
    screen.print(told, soft_wrap=True)
    rows = [
        ("stays", "every checkpoint, and that the log only grew, at every size"),
        ("with a line", "`moat audit prove --line FILE`: whoever kept an entry's line proves it"),
        ("goes", "what the entries said, unless a backup or an export has them"),
    ]
    screen.print(_show.fields(rows, indent=2))


def _entry(log: Path, keep: int | None, older_than: int | timedelta | None) -> int:
    """Name the first entry of the file that has what is to be kept."""
    files = sorted((log / "seg").glob("*.jsonl"), key=lambda path: int(path.stem), reverse=True)
    if older_than is not None:
        until = older_than
        if isinstance(until, timedelta):
            until = int(time.time() - until.total_seconds())
        # A file goes if the one after it begins before that time.
        begins = (int(path.stem) for path in files if _time(log, int(path.stem)) <= until)
        return next(begins, first_entry(log))
    kept = 0
    for path in files:
        kept += path.stat().st_size
        if kept >= (keep or 0):
            return int(path.stem)
    return first_entry(log)


def _time(log: Path, entry: int) -> int:
    line = next(iter(read_log(log, start=entry)), None)
    return 1 << 53 if line is None else int(json.loads(line)["t"])


@click.command()
@YES
@common(gate=True)
def accept(app: App, *, yes: bool) -> None:
    """Say that you know why this log is behind its anchor, and go on with it. That is logged.

    Revocations in the lost lines are lost: revoke again. What was signed before now, or in the
    next minute, is refused as stale, for the lost lines may have used it.
    """
    home = app.require_state() / "gates" / app.gate
    signer = KeyStore(home / "key").load(app.gate)
    try:
        AuditLog.open(home / "log", signer=signer).close()
    except RolledBack as error:
        _require_time(anchor_path(signer.id))
        app.confirm(f"{error}; go on without the lost lines?", yes=yes)
    with Moat.open(app.state, gate=app.gate, create=False, accept_restored=True) as moat:
        overruled = moat.audit.anchor_state == "overruled"
        document = {"gate": app.gate, "accepted": overruled, "entries": len(moat.audit)}

    def tell(screen: Console) -> None:
        if not overruled:
            screen.print("nothing to accept: the log is the one that its anchor describes")
            return
        screen.print(f"accepted: the log of gate {app.gate} goes on, and a line says so")
        screen.print("revoke again what was revoked in the lost lines", style="bold yellow")

    app.emit(document, tell)


def _require_time(anchor: Path) -> None:
    """Refuse a clock that was set back: what was used since could be used again."""
    behind = int(anchor.stat().st_mtime - time.time()) if anchor.exists() else 0
    if behind > SKEW:
        message = f"the clock is {behind} s behind the anchor; set it right first"
        fail("clock_behind", message)
