"""``moat watch``: the decisions of running gates, as they are written, from another process."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import click
from rich.live import Live

from moat import _show
from moat._follow import Feed, Seen
from moat.cli import board, completers, entries
from moat.cli.app import App, common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self, Unpack

    from rich.console import Console

PAUSE: Final = 0.2
"""Seconds between two looks where nothing is new."""
RENAMED: Final = 5.0
"""Seconds after which names are looked up again."""


class Sink(Protocol):
    """Takes what is new; is called with nothing, too, so that a view stays fresh."""

    def __call__(self, seen: Sequence[Seen], /) -> None:
        """Show it."""


@click.command()
@click.option(
    "--gate", "gates", multiple=True, metavar="NAME", shell_complete=completers.gates,
    help="Only this gate; all of the state folder's, if left out. Repeatable.",
)  # fmt: skip
@entries.filters
@click.option("--from", "start", type=click.IntRange(0), help="Begin with entry N of each gate.")
@click.option(
    "--last", type=click.IntRange(0), metavar="N",
    help="Begin with the newest N entries of each gate; 10 if nothing is said.",
)  # fmt: skip
@common()
def watch(
    app: App,
    *,
    gates: tuple[str, ...],
    start: int | None,
    last: int | None,
    **wanted: Unpack[entries.Filters],
) -> None:
    """See what gates decide, while they run; nothing is locked, written or verified.

    On a terminal a live view, which q or Ctrl-C ends. In a pipe one line for each decision and
    each other event. With `--json` one document on one line for each entry.
    """
    if start is not None and last is not None:
        message = "`--from` and `--last` exclude each other"
        raise click.UsageError(message)
    newest = 10 if start is None and last is None else last
    chosen = entries.Choice(app, wanted)
    with closing(Feed(app.require_state(), gates, start=start or 0, last=newest)) as feed:
        screen = _show.console()
        if app.json:
            stream(feed, lambda seen: _documents(seen, chosen), pause)
        elif screen.is_terminal and not screen.is_dumb_terminal:
            with _keys() as wait, View(app, feed, chosen, screen) as view:
                stream(feed, view.show, wait)
        else:
            for gate in feed.missing:
                click.echo(f"waiting for gate `{gate}`", err=True)
            stream(feed, Lines(app, feed, chosen, screen).show, pause)


def stream(feed: Feed, show: Sink, wait: Callable[[float], bool]) -> None:
    """Show what is new until ``wait(seconds)`` says that it is enough."""
    while True:
        seen = feed.poll()
        show(seen)
        if wait(0 if seen else PAUSE):
            return


def pause(seconds: float) -> bool:
    """Wait; nobody is asked."""
    time.sleep(seconds)
    return False


# --- where it goes -------------------------------------------------------------------------------


def _documents(seen: Sequence[Seen], chosen: entries.Choice) -> None:
    for gate, line in seen:
        if chosen(entry := entries.read(line)):
            # Escaped, so that no agent's words reach a terminal as they are.
            click.echo(json.dumps({"gate": gate, "entry": entry}, separators=(",", ":")))
    sys.stdout.flush()


def _has_row(entry: dict[str, Any], chosen: entries.Choice) -> bool:
    """Whether an entry is worth a line: routine has none unless its kind was asked for."""
    routine = entry["kind"] in board.ROUTINE and chosen.wanted["kind"] is None
    return chosen(entry) and not routine


def _ended_badly(entry: dict[str, Any], chosen: entries.Choice) -> bool:
    """Whether an effect failed: a picture shows it beside its decision, a pipe in a line."""
    return entry["kind"] == "outcome" and entry["body"].get("status") != "ok" and chosen(entry)


class _Named:
    """Names of agents, looked up again now and then: agents come while one watches."""

    def __init__(self, app: App, clock: Callable[[], float]) -> None:
        self._app, self._clock = app, clock
        self._known, self._read = entries.known(app), clock()

    @property
    def known(self) -> dict[str, str]:
        if self._clock() - self._read >= RENAMED:
            self._known, self._read = entries.known(self._app), self._clock()
        return self._known


class Lines:
    """One line for each entry: for a pipe, or a terminal that can do no more."""

    def __init__(self, app: App, feed: Feed, chosen: entries.Choice, screen: Console) -> None:
        """Take where lines come from and go to."""
        self._feed, self._chosen, self._screen = feed, chosen, screen
        self._names = _Named(app, time.monotonic)

    def show(self, seen: Sequence[Seen], /) -> None:
        """Print what is new."""
        several = len(self._feed.gates) > 1
        for gate, line in seen:
            entry = entries.read(line)
            if _has_row(entry, self._chosen) or _ended_badly(entry, self._chosen):
                told = entries.row(entry, self._names.known, gate if several else None)
                self._screen.print(told, soft_wrap=True)
        self._screen.file.flush()


class View:
    """The live view."""

    def __init__(
        self,
        app: App,
        feed: Feed,
        chosen: entries.Choice,
        screen: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is followed, what is asked for and where it is drawn."""
        self._feed, self._chosen, self._screen = feed, chosen, screen
        self._names = _Named(app, clock)
        self._board = board.Board(clock)
        self._live = Live(console=screen, auto_refresh=False, vertical_overflow="crop")

    def show(self, seen: Sequence[Seen], /) -> None:
        """Count what is new and draw."""
        for gate, line in seen:
            entry = entries.read(line)
            self._board.add(gate, entry, shown=_has_row(entry, self._chosen))
        self._board.tick()
        scene = board.Scene(
            gates=self._feed.gates,
            names=self._names.known,
            chosen=str(self._chosen),
            missed=self._feed.missed,
            height=self._screen.height,
        )
        self._live.update(board.draw(self._board, scene), refresh=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last picture there."""
        self._live.stop()


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Read keys while waiting; the terminal is put back as it was. No keyboard: only wait."""
    if not sys.stdin.isatty():
        yield pause
        return
    import termios  # noqa: PLC0415 (only here, and only where there are terminals)
    import tty  # noqa: PLC0415

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield lambda seconds: _quit(keyboard, seconds)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _quit(keyboard: int, seconds: float) -> bool:
    """Wait for a key that ends the view; end of input ends it, too."""
    ready, _, _ = select.select([keyboard], [], [], seconds)
    if not ready:
        return False
    typed = os.read(keyboard, 64)
    return not typed or b"q" in typed.lower()
