"""Progress bars: on a terminal only, on standard error, and never beside ``--json``."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from moat import _show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG = 16 << 20
"""Bytes from which a log takes long enough for a bar."""


@contextmanager
def reading(log: Path, title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show how far the reading of a long log is: bytes, rate, time left.

    Gives ``progress(done, total)`` with bytes, or None where nothing is to be shown.
    """
    length = sum(map(_size, log.glob("seg/*.jsonl")))
    if quiet or not sys.stderr.isatty() or length < LONG:
        yield None
        return
    told = (DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with _bar(title, *told) as bar:
        task = bar.add_task("", total=length)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def copying(*, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Show how far long work of several parts is.

    Gives ``progress(part, done, total)`` with bytes, or None where nothing is to be shown.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    told = (DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with _bar("{task.description}", *told) as bar:
        task = bar.add_task("")

        def tell(part: str, done: int, total: int) -> None:
            bar.update(task, description=part, completed=done, total=total)

        yield tell


@contextmanager
def steps(title: str, count: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show how many of the steps are begun: call it with the name of each."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    with _bar(title, MofNCompleteColumn(), TextColumn("{task.description}")) as bar:
        task = bar.add_task("", total=count)
        begun = iter(range(count))
        yield lambda name: bar.update(task, completed=next(begun, count), description=name)


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):  # an old segment may go at any time
        return file.stat().st_size
    return 0


def _bar(title: str, *told: ProgressColumn) -> Progress:
    columns = (TextColumn(title), BarColumn(bar_width=None), *told)
    return Progress(*columns, console=_show.console(stderr=True), transient=True, expand=True)
