"""``moat secret``: what handles stand for, and their values, which are never shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moat import AgentId, _show
from moat._handles import FOLDER, Handles, writable
from moat.cli import completers
from moat.cli.app import App, common, read_input
from moat.cli.failure import fail
from moat.secrets import read_hosts

if TYPE_CHECKING:
    from rich.console import Console

VALUE_BYTES = 16 * 1024
"""More than any key or certificate that stands in a header."""


@click.group()
def secret() -> None:
    """Secrets that agents use and never see: by handle, for some agents, at some hosts."""


_value = click.option(
    "--value", "file", metavar="FILE",
    help="Where the value is, `-` for standard input. Left out, it is asked for.",
)  # fmt: skip


@secret.command("set")
@click.argument("handle")
@click.option(
    "--agent", "agents", multiple=True, required=True, metavar="AGENT", help="For whom.",
    shell_complete=completers.agents,
)  # fmt: skip
@click.option("--host", "hosts", multiple=True, required=True, metavar="URL", help="Where to.")
@click.option("--name", help="The backend's name for the value; left out, the handle's own.")
@click.option("--backend", type=click.Choice(["age", "env", "keyring", "vault"]), default="age",
              show_default=True, help="Where the value is kept.")  # fmt: skip
@click.option("--identity", metavar="FILE", help="age: the identity; else `secrets/age.key`.")
@click.option("--prefix", default="MOAT_SECRET_", show_default=True, help="env: of variables.")
@click.option("--vault", "url", metavar="URL", help="vault: the server.")
@click.option("--token-file", metavar="FILE", help="vault: the file with a token for it.")
@click.option("--mount", default="secret", show_default=True, help="vault: the KV engine.")
@click.option("--path", default="moat", show_default=True, help="vault: the folder in it.")
@click.option("--ca", metavar="FILE", help="vault: certificates to trust.")
@_value
@common()
def set_(
    app: App,
    *,
    handle: str,
    agents: tuple[str, ...],
    hosts: tuple[str, ...],
    name: str | None,
    backend: str,
    file: str | None,
    **given: str | None,
) -> None:
    """Bind HANDLE (`secret://name`) to a value, to agents and to hosts.

    A running gate goes by it from its next use of the handle on. With `env` there is no value to
    give: the gate takes the variable from its own environment when it starts. With `vault` a
    value that is left out on no terminal stays the one that is there.
    """
    handles, known = _handles(app), None
    if handles.kind(backend) is None or any(given[key] for key in ("url", "identity", "ca")):
        known = _setup(backend, given)
    entry = {
        "agents": sorted({str(app.agent(agent)) for agent in agents}),
        "backend": backend,
        "hosts": sorted({str(host) for host in read_hosts(hosts)}),
        "name": name or handle.removeprefix("secret://"),
    }
    asked = backend != "env" and (file is not None or backend != "vault" or sys.stdin.isatty())
    value = _read_value(file) if asked else None
    handles.add(handle, entry, value, setup=known)
    _say(app, "set", handle, entry)


@secret.command("list")
@click.option("--check", is_flag=True, help="Ask each backend whether it has the value.")
@common()
def list_(app: App, *, check: bool) -> None:
    """List handles: for whom, where to and where their values are kept; no values."""
    handles, rows = _handles(app), []
    for handle in handles.names():
        row: dict[str, Any] = {"handle": handle, **handles.entry(handle)}
        row["kind"] = handles.kind(row["backend"])
        row["there"] = _is_there(handles, handle) if check else None
        rows.append(row)

    def show(screen: Console) -> None:
        if not rows:
            screen.print("no secrets are bound; `moat secret set` binds one", style="dim")
        names = app.names()
        for row in rows:
            there = {None: "", True: ", there", False: ", MISSING"}[row["there"]]
            screen.print(f"{row['handle']}  ({row['backend']}: {row['name']}{there})")
            told = [("for", ", ".join(names(AgentId(agent)) for agent in row["agents"]))]
            screen.print(_show.fields([*told, ("at", ", ".join(row["hosts"]))], indent=2))

    app.emit({"secrets": rows}, show)
    if any(row["there"] is False for row in rows):
        sys.exit(1)


@secret.command()
@click.argument("handle")
@_value
@common()
def rotate(app: App, handle: str, file: str | None) -> None:
    """Put a new value behind HANDLE; the next use of it gets that one."""
    handles = _handles(app)
    entry, binding = handles.entry(handle), handles.find(handle)
    if binding is not None:
        writable(binding.source).set(binding.name, _read_value(file))
    _say(app, "rotated", handle, entry)


@secret.command()
@click.argument("handle")
@common()
def rm(app: App, handle: str) -> None:
    """Make HANDLE unknown, and forget its value where the backend can and no other needs it."""
    handles = _handles(app)
    entry = handles.entry(handle)
    handles.drop(handle)
    _say(app, "removed", handle, entry)


def _handles(app: App) -> Handles:
    return Handles(app.require_state() / FOLDER)


def _setup(backend: str, given: dict[str, str | None]) -> dict[str, str]:
    def path(key: str, default: str = "") -> str:
        value = given[key]
        return str(Path(value).absolute()) if value else default

    match backend:
        case "age":
            place = {"file": "values.age", "identity": path("identity", "age.key")}
        case "env":
            place = {"prefix": given["prefix"] or ""}
        case "keyring":
            place = {"service": "moat"}
        case _:
            if not given["url"] or not given["token_file"]:
                message = "`--backend vault` needs `--vault URL` and `--token-file FILE`"
                raise click.UsageError(message)
            place = {"url": given["url"], "token_file": path("token_file"), "ca": path("ca")}
            place |= {"mount": given["mount"] or "", "path": given["path"] or ""}
    return {"kind": backend, **place}


def _read_value(file: str | None) -> str:
    """Read a value without showing it; one final line end is not part of it."""
    if file is None and sys.stdin.isatty():
        value = str(click.prompt("value", hide_input=True, err=True, confirmation_prompt=True))
    else:
        data = read_input(file or "-", VALUE_BYTES)
        try:
            value = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            fail("malformed", "the value is not UTF-8 text", "encode it, for instance in base64")
    if not value:
        fail("malformed", "the value is empty", "give at least one character")
    return value


def _is_there(handles: Handles, handle: str) -> bool:
    """Ask the backend; what it answers is dropped at once."""
    binding = handles.find(handle)
    try:
        return binding is not None and bool(binding.source.get(binding.name))
    except Exception:  # noqa: BLE001 (its text may hold what it should not)
        return False


def _say(app: App, what: str, handle: str, entry: dict[str, Any]) -> None:
    def show(screen: Console) -> None:
        screen.print(f"{what} {handle}")
        rows = [("value", f"{entry['backend']}: {entry['name']}")]
        screen.print(_show.fields([*rows, ("at", ", ".join(entry["hosts"]))], indent=2))

    app.emit({"handle": handle, "done": what, **entry}, show)
