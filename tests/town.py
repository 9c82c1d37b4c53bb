"""A router with its agents: a gate on a folder, a clock to turn, and a directory in memory."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cast import GATE, NOW, ROOT, identity, issue
from moat import AuditLog, Endpoint, Grant, Pep, Policy, Router, Session, Undelivered
from moat._room import Bell
from moat.mailbox import UNDELIVERED
from moat.router import Bounds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from moat import AgentId

SMALL = Bounds(messages=4, total_bytes=1 << 20, message_bytes=1 << 16, waiting=4)
TALK = [Grant("agent://*", {"send", "reply"})]


class People:
    """Names and their present keys."""

    def __init__(self) -> None:
        self.keys: dict[str, AgentId] = {}

    def current(self, name: str) -> AgentId | None:
        return self.keys.get(name)

    def name_of(self, agent: AgentId) -> str | None:
        return next((name for name, key in self.keys.items() if key == agent), None)


class Town:
    """Everything that an orchestrator would hold."""

    def __init__(self, folder: Path, bounds: Bounds | None = None) -> None:
        self.now = NOW
        self.audit = AuditLog.open(folder, signer=GATE, anchor=None, clock=lambda: self.now)
        self.pep = Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=self.audit)
        self.people = People()
        self.router = Router(self.pep, self.people, bounds=bounds)

    def join(self, name: str) -> Endpoint:
        """Register an agent that may write to everybody, and bring it to the router."""
        self.people.keys[name] = identity(name).id
        return Endpoint(self.router, self.session(name))

    def session(self, name: str, allow: list[Grant] = TALK) -> Session:
        return Session(self.pep, identity(name), issue(holder=identity(name).id, allow=allow))

    def outcomes(self) -> list[tuple[str, str | None]]:
        """How every effect ended, in order."""
        bodies = [line["body"] for line in self.audit.entries() if line["kind"] == "outcome"]
        return [(body["status"], body.get("detail")) for body in bodies]

    def decisions(self) -> int:
        return sum(line["kind"] == "decision" for line in self.audit.entries())

    def close(self) -> None:
        self.router.close()
        self.audit.close()


class Waits:
    """Tells when somebody begins to wait, so that no test has to sleep."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._begun: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        wait, wait_async = Bell.wait, Bell.wait_async

        def begin(bell: Bell, timeout: float | None) -> bool:
            self._begun.put(timeout)
            return wait(bell, timeout)

        async def begin_async(bell: Bell, timeout: float | None) -> bool:  # noqa: ASYNC109
            self._begun.put(timeout)
            return await wait_async(bell, timeout)

        patch.setattr(Bell, "wait", begin)
        patch.setattr(Bell, "wait_async", begin_async)

    def next(self) -> float | None:
        """Return once somebody waits: for how long they would."""
        return self._begun.get(timeout=30)


class Doing:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, call, *args, **kwargs) -> None:
        self._answer: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._call = lambda: call(*args, **kwargs)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._answer.put(self._call())
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._answer.put(error)

    def answer(self):
        found = self._answer.get(timeout=30)
        if isinstance(found, Exception):
            raise found
        return found


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """The block ends with ``Undelivered`` for this reason."""
    with pytest.raises(Undelivered) as caught:
        yield
    assert caught.value.reason == reason
    assert reason in UNDELIVERED
