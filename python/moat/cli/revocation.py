"""``moat revoke``, ``restore``, ``suspend`` and ``resume``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moat import AgentId, Control, Link, _show
from moat.cli import completers
from moat.cli.app import App, common, read_token
from moat.cli.backups import put_back
from moat.cli.speak import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from moat.pep import Verb

_LINK_ID = re.compile(r"[0-9a-f]{64}")
_DONE: dict[Verb, str] = {
    "revoke": "revoked",
    "restore": "restored",
    "suspend": "suspended",
    "resume": "resumed",
}


_by = click.option(
    "--by", default="root", show_default=True, help="Whose key signs.",
    shell_complete=completers.agents,
)  # fmt: skip


def _options(command: Callable[..., None]) -> Callable[..., None]:
    command = _by(common(gates=True)(command))
    return click.argument("target", shell_complete=completers.agents)(command)


@click.command()
@_options
def revoke(app: App, target: str, by: str) -> None:
    """Withdraw trust from TARGET and from everything that descends from it, at once.

    TARGET is an agent (name or did:key), a token (file, `-` or text: its last link), or the 64
    hex digits of a link's id. A root may revoke anything; others what they gave, and themselves.
    A gate that another process runs hears of it within a second; this waits until it has.
    """
    _state(app, "revoke", target, by)


@click.command()
@click.argument("target", required=False, shell_complete=completers.agents)
@_by
@click.option(
    "--from", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE", help="Put this backup back instead.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="In the place of a folder, which is kept aside.")
@common(gates=True)
def restore(app: App, *, target: str | None, by: str, file: Path | None, replace: bool) -> None:
    """Lift a revocation of TARGET (its signer may, and a root); or put a backup back.

    With `--from` there is no TARGET: the backup becomes the state folder, which must be new or,
    with `--replace`, is moved aside. Every log says that it was restored, and what was signed
    before that, or in the minute after, is refused as stale.
    """
    if (target is None) == (file is None):
        message = "give a TARGET to lift its revocation, or `--from FILE` to put a backup back"
        raise click.UsageError(message)
    if file is not None:
        if app.gates:
            message = "`--gate` goes with a TARGET; a backup is put back with all its gates"
            raise click.UsageError(message)
        put_back(app, file, replace=replace)
    elif target is not None:
        if replace:
            message = "`--replace` goes with `--from FILE`"
            raise click.UsageError(message)
        _state(app, "restore", target, by)


@click.command()
@_options
def suspend(app: App, target: str, by: str) -> None:
    """Pause TARGET and everything that descends from it, until it is resumed.

    TARGET and who may are as in `moat revoke`, but nobody suspends itself.
    """
    _state(app, "suspend", target, by)


@click.command()
@_options
def resume(app: App, target: str, by: str) -> None:
    """Lift a suspension of TARGET. Its signer may, and a root; an operator where a rule did it."""
    _state(app, "resume", target, by)


def _state(app: App, verb: Verb, text: str, by: str) -> None:
    target, what = _target(app, text)
    signer = app.keys.load(by)
    about = target.id if isinstance(target, Link) else target
    answers = say(app, lambda gate: Control.sign(signer, verb, about, gate=gate))
    document: dict[str, Any] = {
        "verb": verb,
        "target": what,
        "by": {"id": str(signer.id), "name": by},
        "gates": answers,
    }

    def show(screen: Console) -> None:
        screen.print(f"{_DONE[verb]} {what['kind']} {what['name'] or what['id']}")
        rows = [("by", by), *((f"gate {one['name']}", f"entry {one['entry']}") for one in answers)]
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
