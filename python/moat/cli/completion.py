"""``moat completion``: what a shell needs to complete commands, options and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import get_completion_class

from moat.cli.app import App, common, dumps

if TYPE_CHECKING:
    from click.shell_completion import ShellComplete

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_MOAT_COMPLETE"
"""Set by the script when it asks what could come next."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@common()
def completion(app: App, shell: str) -> None:
    """Print the completion script for SHELL.

    bash, in ~/.bashrc: eval "$(moat completion bash)". zsh, in ~/.zshrc: the same with zsh.
    fish: moat completion fish > ~/.config/fish/completions/moat.fish
    """
    text = completer(shell, click.get_current_context().find_root().command).source()
    if app.json:
        click.echo(dumps({"shell": shell, "script": text}))
    else:
        click.echo(text, nl=False)


def completer(shell: str, command: click.Command) -> ShellComplete:
    """Give click's completion of a shell for a command."""
    made = get_completion_class(shell)
    if made is None:
        message = f"`{shell}` has no completion; use one of {', '.join(SHELLS)}"
        raise click.UsageError(message)
    return made(command, {}, "moat", VARIABLE)
