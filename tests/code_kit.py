"""Code that calls tools: an agent's session, tools to call, and a guest that calls them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cast import PLANNER, issue
from guests.build import wat
from moat import Grant, Limits, Sandbox, Session, tool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat import Pep, SandboxOutcome
    from moat.session import Tool

LIMITS = Limits(fuel=5_000_000_000, memory=256 << 20, time=timedelta(seconds=60), output=1 << 20)
RUN = Grant("code://*", {"run"})
ALLOW = [RUN, Grant("tool://search/**", {"call"})]


@tool("tool://search/add")
def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


@tool("tool://mail/send")
def send(text: str = "") -> str:
    """Nobody here was granted this."""
    raise AssertionError(text)


def coder(pep: Pep, **terms: Any) -> Session:
    """A session of an agent that may run code and search."""
    token = issue(**({"allow": ALLOW, "limits": LIMITS} | terms))
    return Session(pep, PLANNER, token)


def ask(
    session: Session,
    tools: Iterable[Tool[..., Any]],
    name: str,
    args: str = "{}",
    function: str = "ask",
) -> SandboxOutcome:
    """One run of code that calls a tool."""
    sandbox = Sandbox(wat("tools"))
    permit = session.request("run", "code://ask", code=sandbox.sha256)
    return sandbox.call(permit, function, [name, args], tools=session.toolbox(tools))
