"""``moat backup`` and ``moat restore --from``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moat import Moat, _backup, _show
from moat._handles import FOLDER
from moat.cli import bars, failure
from moat.cli.app import App, common
from moat.errors import AuditError, GateBusy, MalformedInput

if TYPE_CHECKING:
    from rich.console import Console

    from moat._backup import Backup, GateCopy
    from moat._carry import Lost
    from moat._restore import GateRestored, Restored


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-keys", is_flag=True, help="Leave secret keys out.")
@common(gates=True)
def backup(app: App, *, file: Path, no_keys: bool) -> None:
    """Write the whole state folder into FILE, and verify the copy. Gates may go on meanwhile.

    Secret keys are in it: keep it as you keep them, or leave them out with `--no-keys`.
    """
    with bars.copying(quiet=app.json) as progress:
        made = _backup.backup(
            app.require_state(), file, gates=app.gates, keys=not no_keys, progress=progress
        )
    document = {
        "file": str(made.path),
        "bytes": made.bytes,
        "sha256": made.sha256,
        "keys": made.secret,
        "gates": [_copied(one) | {"former": [_copied(log) for log in one.former]}
                  for one in made.gates],
        "left_out": list(made.left_out),
    }  # fmt: skip
    app.emit(document, lambda screen: _made(screen, made))


def _copied(one: GateCopy) -> dict[str, Any]:
    told = one._asdict() | {"id": str(one.id), "root": one.root.hex()}
    del told["former"]
    return told


def _made(screen: Console, made: Backup) -> None:
    size = _show.size(made.bytes)
    screen.print(f"✓ backed up and verified: {made.path}, {size}", style="green", soft_wrap=True)
    rows = [("sha256", made.sha256)]
    rows += [
        (f"gate {one.name}", f"{one.entries} entries, {one.signed} of them signed")
        for one in made.gates
    ]
    if made.left_out:
        rows.append(("left out", ", ".join(made.left_out)))
    screen.print(_show.fields(rows, indent=2))
    if FOLDER in made.left_out:
        told = f"no value of a secret is in it: keep a copy of `{FOLDER}` and of what opens it"
        screen.print(f"  {told}", style="yellow", soft_wrap=True)
    if made.secret:
        told = "secret keys are in it: whoever reads it is a root; keep it where only you can read"
        screen.print(f"  {told}", style="yellow", soft_wrap=True)


def put_back(app: App, file: Path, *, replace: bool) -> None:
    """Put a backup back, and say what nobody can do but the owner."""
    try:
        with bars.copying(quiet=app.json) as progress:
            done = Moat.restore_from(file, app.state, replace=replace, progress=progress)
    except GateBusy:
        raise
    except (AuditError, MalformedInput) as error:
        made = failure.verification(error)
        if made.code == "malformed":
            made.next = "use another copy of the backup; this one was not made like that"
        raise made from error
    document = {
        "state": str(done.path),
        "before": None if done.before is None else str(done.before),
        "made": done.made,
        "gates": [_gate(one) for one in done.gates],
        "trusted_again": [str(agent) for agent in done.trusted_again],
        "required_no_more": [str(one) for one in done.required_no_more],
        "secrets": None if (kept := _secrets(done)) is None else str(kept),
    }
    app.emit(document, lambda screen: _told(screen, done))


def _secrets(done: Restored) -> Path | None:
    """Find the handles and values of the folder that was replaced; a backup has none."""
    kept = None if done.before is None else done.before / FOLDER
    return kept if kept is not None and kept.is_dir() else None


def _gate(one: GateRestored) -> dict[str, Any]:
    carried = one.carried
    return {
        "name": one.name,
        "id": str(one.id),
        "entries": one.entries,
        "replaced": one.replaced,
        "carried": carried.statements,
        "signed": carried.signed,
        "unread": carried.unread,
        "lost": [x._asdict() | {"next": _again(one.name, x)} for x in carried.lost],
    }


def _again(gate: str, lost: Lost) -> str:
    """Write the command that says it again."""
    verb = "agent register" if lost.verb == "register" else lost.verb
    return f"moat {verb} {lost.target} --gate {gate}"


def _told(screen: Console, done: Restored) -> None:
    screen.print(f"✓ restored to {done.path}", style="green", soft_wrap=True)
    rows = [("made", _show.moment(done.made))]
    if done.before is not None:
        rows.append(("before", f"the folder that was here is kept: {done.before}"))
    for one in done.gates:
        carried = one.carried
        told = f"{one.entries} entries"
        if carried.statements or carried.signed:
            told += f", and {carried.statements + carried.signed} statements that came after"
        rows.append((f"gate {one.name}", told))
    screen.print(_show.fields(rows, indent=2))
    back = f"copy your `{FOLDER}` to {done.path / FOLDER}, or bind them with `moat secret set`"
    if kept := _secrets(done):
        back = f"`cp -a {kept} {done.path}` brings those of the folder before back"
    screen.print(f"  no secrets are in a backup: {back}", style="yellow", soft_wrap=True)
    screen.print("  what was signed before now, or in the next 60 s, is refused", style="dim")
    for one in done.gates:
        if one.carried.unread is not None:
            why = f"gate {one.name}: what came after the backup is not known: {one.carried.unread}"
            screen.print(f"  {why}", style="yellow", soft_wrap=True)
        for lost in one.carried.lost:
            told = (
                f"the backup does not have it; say it again in a minute: {_again(one.name, lost)}"
            )
            screen.print(f"  {told}", style="bold yellow", soft_wrap=True)
    for agent in done.trusted_again:
        told = f"trusted again, and was not before the restore: {agent}"
        screen.print(f"  {told}", style="bold yellow", soft_wrap=True)
    for gone in done.required_no_more:
        told = f"required no more, and was before the restore: attested {gone}"
        screen.print(f"  {told}", style="bold yellow", soft_wrap=True)
