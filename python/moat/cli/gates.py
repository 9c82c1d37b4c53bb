"""``moat gate``: a gate's own key, and what gates require themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moat import Moat, Policy, _show
from moat.cli.app import App, common
from moat.cli.units import NONE, RequirementText

if TYPE_CHECKING:
    from rich.console import Console

    from moat.cli.units import Required


class _RequirementText(RequirementText):
    """A requirement, or ``none``."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse text; one word is no requirement."""
        return value if value == NONE else super().convert(value, param, ctx)


@click.group()
def gate() -> None:
    """A gate's own key, which signs its log, and what gates require of every message."""


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


@gate.command()
@click.argument("requirements", nargs=-1, type=_RequirementText(), required=True)
@common()
def require(app: App, requirements: tuple[Required | str, ...]) -> None:
    """Have every gate of the folder require attestations of every message; `none` requires none.

    Beside what tokens require (`moat token issue --require`), and in the place of what the gates
    required before: 'KIND SIGNER,SIGNER AGE [THRESHOLD [PREDICATE]]'. Stop their processes first.
    Agents have to start again: messages name what they count on.
    """
    wanted = [one.of(app.agent) for one in requirements if not isinstance(one, str)]
    if 0 < len(wanted) < len(requirements):
        message = "`none` stands alone; leave it out, or the requirements"
        raise click.UsageError(message)
    policy = Policy.requiring(wanted)
    gates = Moat.change_policy(app.require_state(), policy)
    document: dict[str, Any] = {
        "gates": list(gates),
        "required": [str(one) for one in policy.attestations],
        "policy": policy.hash.hex(),
    }

    def show(screen: Console) -> None:
        screen.print(f"gates that enforce it: {', '.join(gates)}", soft_wrap=True)
        for text in document["required"]:
            screen.print(f"  attested {_show.requirement(text)}", soft_wrap=True)
        if not document["required"]:
            screen.print("  nothing is required but what tokens require")
        screen.print(f"  policy  {policy.hash.hex()}", style="dim", soft_wrap=True)

    app.emit(document, show)
