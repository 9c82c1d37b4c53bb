"""``moat bench``: what the everyday calls cost on this machine."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.table import Table

import moat
from moat.cli import bars
from moat.cli.app import App, common

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from moat._bench import Figure


@click.command()
@click.option("--quick", is_flag=True, help="Take 3 seconds instead of 15: coarser.")
@common()
def bench(app: App, *, quick: bool) -> None:
    """Measure what signing, verifying, authorizing and running cost on this machine.

    Every row is compared with one raw Ed25519 verification, taken in turn with it: ratios can be
    compared between machines, times cannot. Logs are made in temporary folders, in memory and on
    the disk of the state folder, and removed.
    """
    from moat import _bench  # noqa: PLC0415 (only this command needs it)

    began = time.monotonic()
    disk = _place(app.state)
    plan = _bench.QUICK if quick else _bench.FULL
    with bars.steps("measuring", len(_bench.ROWS), quiet=app.json) as begin:
        found = list(_bench.measure(disk, plan, begin))
    document = {
        "moat": moat.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "disk": str(disk),
        "quick": quick,
        "seconds": round(time.monotonic() - began, 3),
        "rows": [asdict(figure) for figure in found],
    }
    app.emit(document, lambda screen: _tell(screen, found, disk))


def _place(state: Path) -> Path:
    """Find the state folder, or the nearest folder above where it would be."""
    return next(path for path in (state, *state.absolute().parents) if path.is_dir()).resolve()


def _tell(screen: Console, found: list[Figure], disk: Path) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("what", no_wrap=True)
    table.add_column("where", style="dim", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("of a raw verify", justify="right", no_wrap=True)
    for one in found:
        table.add_row(one.what, one.place or "", duration(one.ns), f"{one.ratio:,.2f}")
    screen.print(table)
    screen.print(f"disk: {disk}", style="dim", soft_wrap=True)
    if not any(one.place == "memory" for one in found):
        screen.print("there is no place for files in memory here, so nothing was tried there")


def duration(ns: float) -> str:
    """Tell a time in three digits or so: ``850 ns``, ``33.1 µs``, ``1.52 ms``."""
    for unit, length in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= length:
            return (
                f"{ns / length:.3g} {unit}" if ns < 1000 * length else f"{ns / length:.0f} {unit}"
            )
    return f"{ns:.0f} ns"
