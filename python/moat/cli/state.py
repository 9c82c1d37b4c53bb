"""``moat init``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moat import Moat, _show
from moat.cli.app import App, common
from moat.cli.failure import fail

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.option("--root", default="root", show_default=True, help="Name of the root identity.")
@common()
def init(app: App, root: str) -> None:
    """Make a state folder: a root identity, a gate and its empty log."""
    if (app.state / "config.json").exists():
        message = f"there is a state folder at `{app.state}` already"
        fail("exists", message, "use it, or name another with `--state DIR`")
    with Moat.init(app.state, root=root) as moat:
        gate = moat.id
    # Keys lie in here: keep them out of a repository that the folder happens to be in.
    (app.state / ".gitignore").write_text("*\n")
    key = app.keys.public(root)
    document = {
        "state": str(app.state.resolve()),
        "root": {"name": root, "id": str(key)},
        "gate": {"name": "main", "id": str(gate)},
    }

    def show(screen: Console) -> None:
        rows = [("state", str(app.state)), (root, str(key)), ("gate", str(gate))]
        screen.print(_show.fields(rows))
        screen.print("\nnext: moat identity new NAME, then moat token issue --to NAME", style="dim")

    app.emit(document, show)
