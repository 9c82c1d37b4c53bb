"""Who may put how much into a queue, who waits for room, and how a waiter is woken."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from moat.errors import MalformedInput

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable

    from moat._native import AgentId


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` messages at once, and ``count`` more every ``seconds``, evenly."""

    count: int
    seconds: int

    def __post_init__(self) -> None:
        """Refuse what would allow nothing or everything."""
        if self.count < 1 or self.seconds < 1:
            message = "a rate is a count and whole seconds, each at least 1"
            raise MalformedInput(message)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one recipient's mailbox takes. One sender gets at most half of each."""

    messages: int = 1_024
    """Messages in the queue."""
    total_bytes: int = 16 << 20
    """Bytes of all of them, as they were sent: token, arguments and payload."""
    message_bytes: int = 1 << 20
    """Bytes of one."""
    waiting: int = 64
    """Senders that wait for room; more are refused at once."""
    rate: Rate | None = None
    """How often one sender may write to one recipient."""

    def __post_init__(self) -> None:
        """Refuse bounds in which half is nothing, or in which a message would never have room."""
        if min(self.messages, self.waiting) < 2 or self.message_bytes < 1:  # noqa: PLR2004 - halved
            message = "a mailbox takes at least 2 messages, 2 waiting senders and 1 byte"
            raise MalformedInput(message)
        if self.message_bytes > self.total_bytes // 2:
            message = "one message must fit into half of `total_bytes`, which is a sender's share"
            raise MalformedInput(message)


class Bell:
    """Rings once, for one waiter in a thread or on an event loop."""

    def __init__(self) -> None:
        """Make it silent."""
        self._rung = threading.Event()
        self._wake: Callable[[], None] | None = None

    def ring(self) -> None:
        """Wake the waiter, now or as soon as it waits; never raises, never blocks."""
        self._rung.set()
        if self._wake is not None:
            self._wake()

    def wait(self, timeout: float | None) -> bool:
        """Block the thread until it rings, or for ``timeout`` seconds; say whether it rang."""
        return self._rung.wait(timeout)

    async def wait_async(self, timeout: float | None) -> bool:  # noqa: ASYNC109
        """Do what ``wait`` does without blocking the loop."""
        import asyncio  # noqa: PLC0415 - slow to import, and not needed by synchronous callers

        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        # INVARIANT: ``ring`` sets, then reads ``_wake``; this writes ``_wake``, then looks. One
        # of the two sees the other.
        self._wake = lambda: _wake(loop, waiter)
        if not self._rung.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await waiter
            except TimeoutError:
                pass
        return self._rung.is_set()


class State(Enum):
    """Where a claim to room stands."""

    WAITING = auto()
    HELD = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class Slot:
    """One sender's claim to room for one message."""

    sender: AgentId
    size: int
    bell: Bell = field(default_factory=Bell)
    state: State = State.WAITING


class Room:
    """Who has how much of a mailbox, and who waits for more. Its mailbox locks it.

    Claims are met in the order they were made. One that waits only for its sender's own share is
    passed by other senders; one that waits for the whole is passed by nobody.
    """

    def __init__(self, bounds: Bounds) -> None:
        """Nobody has anything."""
        self._bounds = bounds
        self._messages: Counter[AgentId] = Counter()
        self._bytes: Counter[AgentId] = Counter()
        self._total = (0, 0)
        self._waiting: list[Slot] = []

    def claim(self, slot: Slot) -> bool:
        """Meet a claim now or let it wait; False where too many wait, in all or of this sender."""
        self._waiting.append(slot)
        self._admit()
        mine = sum(other.sender == slot.sender for other in self._waiting)
        limit = self._bounds.waiting
        if slot.state is State.WAITING and (len(self._waiting) > limit or mine > limit // 2):
            self.release(slot)
            return False
        return True

    def release(self, slot: Slot) -> None:
        """End a claim that was not used."""
        if slot.state is State.HELD:
            self._add(slot.sender, -1, -slot.size)
        elif slot.state is State.WAITING:
            self._waiting.remove(slot)
        else:
            return
        slot.state = State.OVER
        self._admit()

    def free(self, sender: AgentId, size: int) -> None:
        """Give back the room of a message that was taken, and meet the claims it is enough for."""
        self._add(sender, -1, -size)
        self._admit()

    def close(self) -> list[Bell]:
        """End every claim that waits; whom to tell."""
        waiting, self._waiting = self._waiting, []
        for slot in waiting:
            slot.state = State.OVER
        return [slot.bell for slot in waiting]

    def _admit(self) -> None:
        passed: set[AgentId] = set()
        for slot in list(self._waiting):
            if slot.sender in passed or not self._fits_share(slot):
                passed.add(slot.sender)
            elif not self._fits(self._total, slot.size, 1):
                break
            else:
                self._waiting.remove(slot)
                self._add(slot.sender, 1, slot.size)
                slot.state = State.HELD
                slot.bell.ring()

    def _fits_share(self, slot: Slot) -> bool:
        return self._fits((self._messages[slot.sender], self._bytes[slot.sender]), slot.size, 2)

    def _fits(self, used: tuple[int, int], size: int, parts: int) -> bool:
        messages, size_in_all = used
        return (
            messages + 1 <= self._bounds.messages // parts
            and size_in_all + size <= self._bounds.total_bytes // parts
        )

    def _add(self, sender: AgentId, messages: int, size: int) -> None:
        self._total = (self._total[0] + messages, self._total[1] + size)
        self._messages[sender] += messages
        self._bytes[sender] += size
        if not self._messages[sender]:
            del self._messages[sender], self._bytes[sender]


class Pace:
    """How often each sender may write here: the generic cell rate algorithm (ITU-T I.371), exact.

    For each sender the time is kept at which all it sent is worked off, in seconds times count. A
    time that has passed says no more than none, so it is forgotten.
    """

    def __init__(self, rate: Rate | None) -> None:
        """Without a rate everything is allowed."""
        self._rate = rate
        self._due: dict[AgentId, int] = {}
        self._sweep_at = 64

    def allows(self, sender: AgentId, now: int) -> bool:
        """Count one message, unless it is one too many."""
        if self._rate is None:
            return True
        count, seconds = self._rate.count, self._rate.seconds
        due = max(self._due.get(sender, 0), now * count) + seconds
        if due > (now + seconds) * count:
            return False
        if len(self._due) >= self._sweep_at:
            self._due = {who: at for who, at in self._due.items() if at > now * count}
            self._sweep_at = 2 * len(self._due) + 64
        self._due[sender] = due
        return True


def deadline(timeout: float | None) -> float | None:
    """Give the monotonic second at which a wait that starts now is over."""
    return None if timeout is None else time.monotonic() + timeout


def left(end: float | None) -> float | None:
    """Give the seconds left until a deadline."""
    return None if end is None else max(0.0, end - time.monotonic())


def _wake(loop: AbstractEventLoop, waiter: Future[None]) -> None:
    def finish() -> None:
        if not waiter.done():
            waiter.set_result(None)

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:
        return  # the loop is closed, and nobody waits on it any more
