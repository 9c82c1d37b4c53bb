"""The examples do what they say, from beginning to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from guests.wheels import PYTHON, program
from moat import Moat

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_a_team_is_watched_revoked_killed_and_goes_on(tmp_path: Path) -> None:
    """Three agents, a rule, another process, a SIGKILL: everything stands after the restart."""
    python, state = program(PYTHON), tmp_path / "state"
    command = [sys.executable, str(EXAMPLES / "team.py"), "--python", str(python)]
    done = subprocess.run(
        [*command, "--state", str(state)],
        check=True, capture_output=True, text=True, timeout=300,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "anchors")},
    )  # fmt: skip
    before, _, after = done.stdout.partition("killed")
    for told in (
        'copyright.txt: {"lines"', "throttled", "suspended: True", "its code ended: interrupted",
        "revoked agent worker", "asked again: revoked", "alert `talks-too-much`",
    ):  # fmt: skip
        assert told in before, done.stdout + done.stderr
    for told in ("worker: revoked", "scout: suspended", "planner: allowed", "the log verifies"):
        assert told in after, done.stdout + done.stderr
    with Moat.open(state, anchor=None) as moat:
        assert moat.is_revoked(moat.identity("worker"))
        assert moat.is_suspended(moat.identity("scout"))
        assert [one.name for one in moat.registry] == ["planner", "scout", "worker"]


def test_an_agent_writes_python_that_calls_tools(tmp_path: Path) -> None:
    """In a process of its own, so the interpreter comes from a folder's compiled code."""
    told = subprocess.run(
        [sys.executable, str(EXAMPLES / "code.py"), "--state", str(tmp_path / "state")],
        check=True, capture_output=True, text=True, timeout=600,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "anchors")},
    ).stdout.splitlines()  # fmt: skip
    assert told[:2] == ["salt is the cheapest of 3, at 1", "ordered 3 of salt"]
    assert "no grant reaches `tool://bank/pay`" in told[2]
    assert [line.split()[0] for line in told[3:]] == ["allowed"] * 5 + ["denied"]
    assert told[-1] == "denied  call tool://bank/pay"
