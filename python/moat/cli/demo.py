"""``moat demo``."""

from __future__ import annotations

import sys

import click

from moat.cli import failure
from moat.cli.app import dumps


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--state", type=click.Path(file_okay=False, resolve_path=True),
    help="Keep everything in this new folder, to go on with.",
)  # fmt: skip
@click.option(
    "--read", "folder", type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Let the worker read your own text files in this folder instead.",
)  # fmt: skip
@click.option("--find", "word", default="token", show_default=True, help="What it looks for.")
@click.option(
    "--code", is_flag=True,
    help="Play an agent's own Python too (extra `python`; half a minute to compile it first).",
)  # fmt: skip
def demo(*, as_json: bool, state: str | None, folder: str | None, word: str, code: bool) -> None:
    """Show all of it on real files: delegation, work, eleven attempts to cheat, and the proof.

    Takes seconds, and no network but loopback. Exit code 1 means that something did not go as it
    must.
    """
    from moat import demo as play  # noqa: PLC0415 (only this command needs it)

    outcome = play.run(state=state, folder=folder, word=word, code=code, quiet=as_json)
    if as_json:
        click.echo(dumps(outcome))
    sys.exit(0 if outcome["ok"] else failure.ERROR)
