"""``moat gate``: a gate's own key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moat import Moat, _show
from moat.cli.app import App, common

if TYPE_CHECKING:
    from rich.console import Console


@click.group()
def gate() -> None:
    """A gate's own key, which signs its log."""


@gate.command()
@click.option("--name", metavar="NAME", help="Register it as this, where it has no name yet.")
@common(gate=True)
def rotate(app: App, name: str | None) -> None:
    """Give the gate a new key. It goes on in a new log, with all that the old one knew.

    Senders have to address the new key, and tokens bound to the old one be issued again. The old
    log stays, to be verified; the old secret is destroyed. Stop the gate's process first.
    """
    done = Moat.rotate_gate(app.require_state(), gate=app.gate, name=name)
    document = {
        "gate": done.gate,
        "name": done.name,
        "previous": str(done.former),
        "id": str(done.id),
        "entries": done.entries,
        "former": done.number,
    }

    def show(screen: Console) -> None:
        screen.print(f"gate {done.gate} has a new key and goes on in a new log")
        rows = [
            ("old key", str(done.former)),
            ("new key", str(done.id)),
            ("registered", done.name),
            ("old log", f"{done.entries} entries, in gates/{done.gate}/former/{done.number}"),
        ]
        screen.print(_show.fields(rows, indent=2))
        told = (
            "tell senders the new key: messages and statements for the old one are refused",
            "issue tokens again that are bound to the old key (`--gate-only`)",
            "destroy backups from before, or keep them as safe: the old secret is in them",
        )
        for line in told:
            screen.print(f"  {line}", style="yellow", soft_wrap=True)

    app.emit(document, show)
