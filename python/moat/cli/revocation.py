"""``moat revoke`` and ``moat restore``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from moat import AgentId, Link, _show
from moat.cli import completers
from moat.cli.app import App, common, read_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

_LINK_ID = re.compile(r"[0-9a-f]{64}")


def _options(command: Callable[..., None]) -> Callable[..., None]:
    command = common(gate=True)(command)
    by = click.option(
        "--by", default="root", show_default=True, help="Whose key signs.",
        shell_complete=completers.agents,
    )  # fmt: skip
    return click.argument("target", shell_complete=completers.agents)(by(command))


@click.command()
@_options
def revoke(app: App, target: str, by: str) -> None:
    """Withdraw trust from TARGET and from everything that descends from it, at once.

    TARGET is an agent (name or did:key), a token (file, `-` or text: its last link), or the 64
    hex digits of a link's id. A root may revoke anything; others what they gave, and themselves.
    """
    _state(app, "revoke", target, by)


@click.command()
@_options
def restore(app: App, target: str, by: str) -> None:
    """Lift a revocation of TARGET. Its signer may, and a root."""
    _state(app, "restore", target, by)


def _state(app: App, verb: str, text: str, by: str) -> None:
    target, what = _target(app, text)
    signer = app.keys.load(by)
    with app.moat() as moat:
        state = moat.pep.revoke if verb == "revoke" else moat.pep.restore
        entry = state(target, by=signer)
    document = {
        "verb": verb,
        "target": what,
        "by": {"id": str(signer.id), "name": by},
        "entry": entry,
    }

    def show(screen: Console) -> None:
        rows = [("by", by), ("entry", str(entry))]
        done = {"revoke": "revoked", "restore": "restored"}[verb]
        screen.print(f"{done} {what['kind']} {what['name'] or what['id']}")
        screen.print(_show.fields(rows, indent=2))

    app.emit(document, show)


def _target(app: App, text: str) -> tuple[AgentId | Link | bytes, dict[str, str | None]]:
    if _LINK_ID.fullmatch(text):
        return bytes.fromhex(text), {"kind": "link", "id": text, "name": None}
    if text.startswith("did:") or text in app.keys.names():
        agent = app.agent(text)
        return agent, {"kind": "agent", **_show.agent(agent, app.names())}
    link = read_token(text).links[-1]
    return link, {"kind": "link", "id": link.id.hex(), "name": None}
