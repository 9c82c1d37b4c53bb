"""A component that `componentize-py` makes of somebody's Python does its work under a token.

    MOAT_SLOW=1 python -m pytest -s tests/test_guests_built.py

It takes 40 s, most of them to make the component and to compile it, and needs `npm`.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from cast import PLANNER, issue
from code_kit import add, send
from guests.componentize import component
from moat import Denied, Grant, Limits, Sandbox, Session
from moat._tree import tree

if TYPE_CHECKING:
    from pathlib import Path

    from moat import AuditLog, Pep, SandboxOutcome

pytestmark = pytest.mark.skipif(
    os.environ.get("MOAT_SLOW") != "1", reason="slow: set `MOAT_SLOW=1`"
)

LIMITS: Final = Limits(
    fuel=1_000_000_000, memory=64 << 20, time=timedelta(seconds=10), output=64 << 10
)
ALLOW: Final = [Grant("code://guest", {"run"}), Grant("tool://search/**", {"call"})]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """The component, compiled."""
    begun = time.perf_counter()
    made = component()
    between = time.perf_counter()
    compiled = Sandbox(made)
    now = time.perf_counter()
    print(f"\n{len(made) / 1e6:.1f} MB, made in {between - begun:.1f} s", end=", ")
    print(f"compiled in {now - between:.1f} s")
    return compiled


@pytest.fixture
def session(pep: Pep, tmp_path: Path) -> Session:
    """An agent that may run the component, read one folder, and search."""
    (desk := tmp_path.resolve() / "desk").mkdir()
    (desk / "story.txt").write_text("one fish two fish")
    (desk.parent / "diary.txt").write_text("not for guests")
    limits = LIMITS.replace(read=[tree(desk)])
    return Session(pep, PLANNER, issue(allow=ALLOW, limits=limits))


def told(outcome: SandboxOutcome) -> SandboxOutcome:
    """Print what it took."""
    fuel, memory = outcome.fuel_used / 1e3, outcome.memory_peak / 2**20
    print(f"{fuel:.0f}k fuel, {memory:.1f} MiB, {outcome.elapsed.total_seconds() * 1000:.0f} ms")
    return outcome


def ask(session: Session, sandbox: Sandbox, tool: str, **arguments: int) -> Any:
    """Call the typed function, which asks for a tool; only `add` is granted."""
    permit = session.request("run", "code://guest", code=sandbox.sha256)
    tools = session.toolbox([add, send])
    called = sandbox.call(permit, "ask", [tool, list(arguments.items())], tools=tools)
    return told(called.check()).result


def test_it_prints_and_reads_the_folder_that_it_was_given_and_no_other(
    session: Session, sandbox: Sandbox, tmp_path: Path
) -> None:
    files = [str(tmp_path.resolve() / name) for name in ("desk/story.txt", "diary.txt")]
    outcome = told(session.run(sandbox, resource="code://guest", argv=files).check())
    first, second, last = outcome.stdout.decode().splitlines()
    assert first == "read one fish two fish"
    assert second.startswith("refused ")
    assert json.loads(last)["platform"] == "wasi"
    assert b"not for guests" not in outcome.stdout + outcome.stderr


def test_it_calls_a_tool_that_it_was_granted(
    session: Session, sandbox: Sandbox, audit: AuditLog
) -> None:
    answer = {"tool": "add", "words": 1, "said": ["42"]}
    assert ask(session, sandbox, "add", a=40, b=2) == {"ok": answer}
    calls = [entry["body"] for entry in audit.entries() if entry["kind"] == "decision"]
    assert [call["resource"] for call in calls] == ["code://guest", "tool://search/add"]


def test_a_tool_that_it_was_not_granted_is_denied_and_its_caller_is_told(
    session: Session, sandbox: Sandbox
) -> None:
    refused = ask(session, sandbox, "send")
    assert list(refused) == ["err"]
    assert refused["err"].startswith("denied:")


def test_it_does_not_start_under_a_token_for_other_code(pep: Pep, sandbox: Sandbox) -> None:
    elsewhere = Session(pep, PLANNER, issue(allow=[Grant("code://other", {"run"})], limits=LIMITS))
    with pytest.raises(Denied) as caught:
        elsewhere.run(sandbox, resource="code://guest")
    assert caught.value.reason == "not_granted"
