"""``moat agent``: names and keys at the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moat import Registration, _show
from moat._control import REGISTRATION
from moat.cli.app import App, common
from moat.cli.failure import fail
from moat.cli.speak import say

if TYPE_CHECKING:
    from rich.console import Console

    from moat import Identity
    from moat.registry import Registered


@click.group()
def agent() -> None:
    """Register agents by name; list them and the keys they have had."""


@agent.command()
@click.argument("name")
@click.option("--identity", metavar="NAME", help="Whose key here; the one of that name.")
@common(gates=True)
def register(app: App, name: str, identity: str | None) -> None:
    """Register a key that is kept here under NAME, at every gate.

    A name is given once, and no name that looks like it can be taken afterwards.
    """
    key = app.keys.load(identity or name)
    _say(app, name, key, None)


@agent.command()
@click.argument("name")
@click.option("--from", "previous", required=True, metavar="IDENTITY", help="The present key.")
@click.option("--to", "new", required=True, metavar="IDENTITY", help="The new key.")
@common(gates=True)
def rotate(app: App, name: str, previous: str, new: str) -> None:
    """Give NAME another key; both are kept here and both sign.

    Tokens name a key: issue new ones, and revoke the former key when nothing needs it.
    """
    _say(app, name, app.keys.load(new), app.keys.load(previous))


@agent.command("list")
@common(gate=True)
def list_(app: App) -> None:
    """List who is registered at a gate."""
    with app.moat() as moat:
        found = list(moat.registry)
    _list(app, found)


@agent.command()
@click.argument("name")
@common(gate=True)
def history(app: App, name: str) -> None:
    """Show every key that NAME has had, and since when."""
    with app.moat() as moat:
        found = moat.registry.get(name)
    if found is None:
        fail("not_registered", f"nobody is registered as `{name}`", "`moat agent list` shows all")
    _list(app, [found])


def _list(app: App, found: list[Registered]) -> None:
    agents = [
        {
            "name": one.name,
            "role": one.role,
            "id": str(one.id),
            "keys": [{"id": str(key), "since": since} for key, since in one.keys],
        }
        for one in found
    ]

    def show(screen: Console) -> None:
        if not found:
            screen.print("nobody is registered", style="dim")
        for one in found:
            rows = [(_show.moment(since), str(key)) for key, since in reversed(one.keys)]
            screen.print(f"{one.name} ({one.role})")
            screen.print(_show.fields(rows, indent=2))

    app.emit({"agents": agents}, show)


def _say(app: App, name: str, key: Identity, previous: Identity | None) -> None:
    answers = say(
        app,
        lambda gate: Registration.sign(key, name, gate=gate, previous=previous),
        kind=REGISTRATION,
    )
    document: dict[str, Any] = {
        "name": name,
        "id": str(key.id),
        "previous": str(previous.id) if previous else None,
        "gates": answers,
    }

    def show(screen: Console) -> None:
        screen.print(f"{'rotated' if previous else 'registered'} {name}")
        rows = [("key", str(key.id))]
        rows += [(f"gate {one['name']}", f"entry {one['entry']}") for one in answers]
        screen.print(_show.fields(rows, indent=2))

    app.emit(document, show)
