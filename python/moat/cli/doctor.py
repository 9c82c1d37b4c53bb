"""``moat doctor``: what is configured against what is really enforced."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from moat.cli import failure
from moat.cli.app import App, common

if TYPE_CHECKING:
    from rich.console import Console

_STYLE: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


@click.command()
@common()
def doctor(app: App) -> None:
    """Check the machine and the state folder: permissions, disk, clock, sandbox, anchor, keys.

    What can be tried is tried: a guest that spins is run and must be stopped. Changes nothing,
    works beside a running gate and without a state folder. Exit code 1 means that a check failed.
    """
    from moat import _doctor  # noqa: PLC0415 (only this command needs it)

    found = list(_doctor.examine(app.state))
    counts = {status: sum(one.status == status for one in found) for status in _STYLE}
    document = {
        "ok": not counts["fail"],
        "state": str(app.state.resolve()) if app.state.exists() else None,
        "counts": counts,
        "checks": [dataclasses.asdict(one) for one in found],
    }

    def show(screen: Console) -> None:
        for one in found:
            _line(screen, one.status, one.message, _STYLE[one.status])
            if one.next and one.status != "ok":
                _line(screen, "", f"→ {one.next}", "dim")
        told = (f"{count} {status}" for status, count in counts.items() if count)
        screen.print("\n" + ", ".join(told))

    app.emit(document, show)
    sys.exit(failure.ERROR if counts["fail"] else 0)


def _line(screen: Console, label: str, text: str, style: str) -> None:
    """Fold a text beside its label; names of files are a stranger's and may hold anything."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    room = max(20, screen.width - 5)
    for number, line in enumerate(textwrap.wrap(plain, room, break_long_words=False)):
        row = Text.assemble((f"{'' if number else label:5}", style), line)
        screen.print(row, no_wrap=True, overflow="ignore", crop=False)
