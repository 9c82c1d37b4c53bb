"""A day of traffic through one gate: what expires is forgotten, and memory stays flat."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

from moat._bench import in_memory
from threats.victim import environment


def test_a_day_leaves_nothing_behind_in_memory() -> None:
    """Every minute of 24 simulated hours, with a few messages in each: links and streams expire
    and are renewed, twenty rules count, segments come and go. The program fails where the last
    quarter takes more memory than the second; ``soak/day.py`` runs the day in full."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        command = [
            sys.executable, "-m", "soak.day", "--burst", "0.02", "--used", "1", "--folder", folder,
        ]  # fmt: skip
        done = subprocess.run(
            command, env=environment() | {"MALLOC_ARENA_MAX": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    state = list(map(int, said["snapshot bytes"].split()))
    assert len(state) == len(said["resident MiB"].split()) == 48
    # The state holds what is alive: as much in the evening as in the morning.
    early, late = statistics.median(state[12:24]), statistics.median(state[36:])
    assert 0 < late < 1.5 * early, state
