"""A gate in a process of its own, to be killed, traced and cut off from its disk.

Run as a script it opens a gate, decides the messages it reads, acts on every permit and says what
it did before it does the next thing. The parent believes what was said and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Story:
    """What a victim said before it ended, and how it ended."""

    code: int
    said: list[dict[str, Any]]
    errors: str
    acknowledged: list[int] = field(default_factory=list)
    """Messages that were allowed, by their place in what was sent."""
    acted: list[int] = field(default_factory=list)
    """Messages whose effect took place."""
    refused: dict[int, str] = field(default_factory=dict)
    """Messages that were refused, and why."""

    def __post_init__(self) -> None:
        for saying in self.said:
            match saying:
                case {"allowed": at}:
                    self.acknowledged.append(at)
                case {"acted": at}:
                    self.acted.append(at)
                case {"refused": at, "reason": reason}:
                    self.refused[at] = reason

    @property
    def opened(self) -> bool:
        """Whether the gate could be opened at all."""
        return {"opened": True} in self.said


@dataclass(frozen=True)
class Victim:
    """How to start one: over which folder, with which anchor, under which tracer."""

    folder: Path
    anchor: Path | None = None
    tracer: Sequence[str] = ()

    def run(self, wires: Sequence[bytes], *, kill: bool = False) -> Story:
        """Send it messages; with ``kill`` it ends itself with SIGKILL after the last one."""
        command = [
            *self.tracer, sys.executable, "-m", "threats.victim",
            str(self.folder), str(self.anchor or ""), "kill" if kill else "close",
        ]  # fmt: skip
        done = subprocess.run(
            command,
            input="".join(wire.hex() + "\n" for wire in wires),
            env=environment(),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        said = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
        story = Story(done.returncode, said, done.stderr)
        if kill and not self.tracer:
            assert done.returncode == -signal.SIGKILL, done.stderr
        return story


def environment() -> dict[str, str]:
    """This process's environment, with this folder of tests to import from."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


def _say(**saying: Any) -> None:
    os.write(1, json.dumps(saying).encode() + b"\n")


def _main(folder: str, anchor: str, end: str) -> None:
    from forge import NOW
    from moat import MoatError
    from threats.world import open_gate

    gate = open_gate(Path(folder), anchor=Path(anchor) if anchor else None)
    _say(opened=True)
    for at, line in enumerate(sys.stdin):
        decision = gate.decide(bytes.fromhex(line), now=NOW)
        if decision.permit is None:
            _say(refused=at, reason=decision.reason)
            continue
        _say(allowed=at, entry=decision.entry)
        try:
            with decision.permit as permit:
                _say(acted=at)
                permit.record(b"done")
        except MoatError as error:
            _say(failed=at, why=repr(error))
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    gate.close()
    _say(end=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
