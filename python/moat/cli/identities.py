"""``moat identity``: new, show, import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moat import AgentId, _openssh, _show
from moat.cli import completers
from moat.cli.app import App, common
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


@click.group()
def identity() -> None:
    """Make keys and list them. A key is an identity; its public part is a did:key."""


@identity.command()
@click.argument("name")
@common()
def new(app: App, name: str) -> None:
    """Make an identity NAME (1 to 63 of a-z, 0-9, `.`, `_`, `-`)."""
    made = app.keys.create(name)
    path = app.state / "keys" / f"{name}.pem"
    document = {"name": name, "id": str(made.id), "path": str(path.resolve())}

    def show(screen: Console) -> None:
        screen.print(_show.fields([(name, str(made.id)), ("key", str(path))]))

    app.emit(document, show)


@identity.command()
@click.argument("name", required=False, shell_complete=completers.agents)
@common()
@click.option("--openssh", is_flag=True, help="As lines of OpenSSH's `authorized_keys`.")
def show(app: App, name: str | None, *, openssh: bool) -> None:
    """Show identity NAME, or all of them and the gates."""
    rows = list(_known(app))
    if name is not None:
        rows = [row for row in rows if row["name"] == name] or [_agent(app, name)]
    for row in rows if openssh else ():
        row["openssh"] = _openssh.public_line(AgentId(row["id"]), row["name"])

    def table(screen: Console) -> None:
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            if openssh:
                click.echo(row["openssh"])
                continue
            screen.print(f"{row['name']:{width}}  {row['id']}  {row['role']}", soft_wrap=True)

    app.emit({"identities": rows}, table)


def _agent(app: App, name: str) -> dict[str, Any]:
    return {"name": name, "id": str(app.keys.public(name)), "role": "agent"}


def _known(app: App) -> Iterator[dict[str, Any]]:
    config = app.config()
    for name in app.keys.names():
        row = _agent(app, name)
        roles = [("root", config.roots), ("operator", config.operators)]
        known = (role for role, ids in roles if row["id"] in map(str, ids))
        yield row | {"role": next(known, "agent")}
    for folder in sorted(app.state.glob("gates/*/key")):
        store = KeyStore(folder)
        for name in store.names():
            yield {"name": name, "id": str(store.public(name)), "role": "gate"}
