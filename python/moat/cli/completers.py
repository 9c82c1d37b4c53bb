"""What the shell offers while a command is typed: names of the state folder, kinds.

A completer never fails: where it cannot look, it offers nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from click.shell_completion import CompletionItem

from moat.keystore import KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

STATE: Final = "moat-state"
"""The state folder where none is named."""
KINDS: Final = (
    "agent", "alert", "attested", "control", "decision", "inherited", "link", "open", "outcome",
    "pruned", "recovered", "request", "restored", "rules", "snapshot", "summary", "torn",
)  # fmt: skip
"""The kinds of entries that there are; a log may hold others later."""


def _completer(offer: Callable[[Path], Iterable[tuple[str, str]]]) -> Completer:
    """Make one from a function that gives words, and what each is, for a state folder."""

    def complete(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        with suppress(Exception):  # a shell in the middle of a line is no place for errors
            words = offer(_state(ctx))
            return [
                CompletionItem(word, help=what) for word, what in words if word.startswith(begun)
            ]
        return []

    return complete


def _state(ctx: click.Context) -> Path:
    return Path(ctx.params.get("state") or os.environ.get("MOAT_STATE") or STATE)


def _agents(state: Path) -> Iterable[tuple[str, str]]:
    return [(name, "identity") for name in KeyStore(state / "keys").names()]


def _gates(state: Path) -> Iterable[tuple[str, str]]:
    found = sorted(path.parent.name for path in state.glob("gates/*/key"))
    return [(name, "gate") for name in found]


def _kinds(_: Path) -> Iterable[tuple[str, str]]:
    return [(kind, "kind of entry") for kind in KINDS]


agents = _completer(_agents)
gates = _completer(_gates)
kinds = _completer(_kinds)


def files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Leave it to the shell, which knows files; text that starts ``moat1.`` is typed by nobody."""
    return [CompletionItem(begun, type="file")]
