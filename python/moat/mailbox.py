"""``Mailbox``: what was delivered to one agent and is not taken yet, bounded on every side.

Safe across threads and event loops at once. Nobody polls: a waiter is woken by its ``Bell``. A
message is handed over only by the call that takes it off the queue, so a waiter that is cancelled,
or whose loop is gone, loses nothing.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from moat._room import Bell, Pace, Room, Slot, State, deadline, left
from moat.errors import MoatError, TokenRefused, Undelivered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from moat._native import AgentId, Token
    from moat._room import Bounds
    from moat.pep import Pep

UNDELIVERED: Final = {
    "closed": "the mailbox of `{}` is closed; send a new message once it is connected again",
    "expired": "the message to `{}` expired before it was taken; send a new one",
    "full": "the queue of `{}` has no room for this sender; send a new message later",
    "misaddressed": "this is no message to `{}`; send it as `send` or `reply` on `agent://<name>`",
    "not_registered": "`{}` is not registered; register it, or address it by its present key",
    "revoked": "the message to `{}` was sent under a token that is revoked",
    "throttled": "this sender writes to `{}` more often than the router allows; slow down",
    "too_large": "the message to `{}` is larger than the router takes; send less",
    "withdrawn": "the sender gave up before its message to `{}` was in the queue",
}
"""Every reason of ``Undelivered`` and its sentence."""


NOTHING: Final = "nothing came for `{}` within the time given; wait longer"


def undelivered(agent: AgentId | str, reason: str) -> Undelivered:
    """Make the exception for one of ``UNDELIVERED``."""
    error = Undelivered(UNDELIVERED[reason].format(agent))
    error.reason = reason
    return error


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message as its recipient gets it. The gate has verified and logged all that it says."""

    message_id: bytes
    """Names the message in ``causes`` and in the log."""
    entry: int
    """Index of the decision in the log."""
    sender: AgentId
    recipient: AgentId
    action: str
    """``send`` or ``reply``."""
    resource: str
    args_json: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    """The sender's bytes; nobody looked into them."""
    causes: tuple[bytes, ...]
    labels: tuple[str, ...]
    expires: int
    """First second in which it would not have been handed out."""

    @property
    def args(self) -> dict[str, Any]:
        """The arguments, parsed."""
        parsed: dict[str, Any] = json.loads(self.args_json)
        return parsed


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """A delivery, and what the router keeps beside it until it is taken."""

    delivery: Delivery
    token: Token
    size: int


class Mailbox:
    """The queue of one agent; ``Router.mailbox`` gives it.

    A message that expired, or whose token was revoked, while it lay here is dropped and counted
    (``lost``), never handed out. Once closed it holds and takes nothing.
    """

    def __init__(
        self,
        owner: AgentId,
        *,
        pep: Pep,
        bounds: Bounds,
        on_lost: Callable[[Delivery, str], None],
    ) -> None:
        """Make an empty one; the router does. ``on_lost`` is told of what is dropped, and why."""
        self._owner = owner
        self._pep = pep
        self._room = Room(bounds)
        self._pace = Pace(bounds.rate)
        self._on_lost = on_lost
        # Reentrant, because a waiter that is garbage collected lets go of its slot.
        self._lock = threading.RLock()
        self._queue: deque[Parcel] = deque()
        self._getters: set[Bell] = set()
        self._lost: Counter[str] = Counter()
        self._purged = -1
        self._closed = False

    @property
    def owner(self) -> AgentId:
        """Whose it is."""
        return self._owner

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def lost(self) -> dict[str, int]:
        """How many messages were dropped here, by reason: ``expired``, ``revoked``, ``closed``."""
        with self._lock:
            return dict(self._lost)

    def __len__(self) -> int:
        """Count the messages that wait to be taken."""
        return len(self._queue)

    def get(self, timeout: float | None = None) -> Delivery:
        """Take the oldest message; wait for one, at most ``timeout`` seconds (``TimeoutError``).

        Raises ``Undelivered`` (``closed``) once the mailbox is closed.
        """
        end = deadline(timeout)
        while isinstance(found := self._take(), Bell):
            try:
                rung = found.wait(left(end))
            finally:
                self._getters.discard(found)
            if not rung:
                raise TimeoutError(NOTHING.format(self._owner))
        return found

    async def get_async(self, timeout: float | None = None) -> Delivery:  # noqa: ASYNC109
        """Do what ``get`` does without blocking the loop; cancelled, it takes nothing."""
        end = deadline(timeout)
        while isinstance(found := self._take(), Bell):
            try:
                rung = await found.wait_async(left(end))
            finally:
                self._getters.discard(found)
            if not rung:
                raise TimeoutError(NOTHING.format(self._owner))
        return found

    def __iter__(self) -> Iterator[Delivery]:
        """Take messages until the mailbox is closed."""
        while True:
            try:
                delivery = self.get()
            except Undelivered:
                return
            yield delivery

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Do what iterating does without blocking the loop."""
        while True:
            try:
                delivery = await self.get_async()
            except Undelivered:
                return
            yield delivery

    def close(self) -> None:
        """Drop what is queued and release everybody who waits, on both sides; for good."""
        with self._lock:
            self._closed = True
            dropped = list(self._queue)
            self._queue.clear()
            bells = [*self._getters, *self._room.close()]
        for bell in bells:
            bell.ring()
        self._lose(dropped, "closed")

    # --- for the router ---

    def claim(self, sender: AgentId, size: int) -> Slot:
        """Ask for room for one message of an authenticated sender; ``wait``, then ``put``."""
        now = self._pep.now()
        with self._lock:
            self._check_open()
            if not self._pace.allows(sender, now):
                raise undelivered(self._owner, "throttled")
            expired = self._purge(now)
            slot = Slot(sender, size)
            met = self._room.claim(slot)
        self._lose(expired, "expired")
        if not met:
            raise undelivered(self._owner, "full")
        return slot

    def wait(self, slot: Slot, timeout: float) -> None:
        """Wait until the slot is held; ``Undelivered`` (``full``, ``closed``)."""
        if not self._settle(slot):
            slot.bell.wait(timeout)
            self._settle(slot, last=True)

    async def wait_async(self, slot: Slot, timeout: float) -> None:  # noqa: ASYNC109
        """Do what ``wait`` does without blocking the loop."""
        if not self._settle(slot):
            await slot.bell.wait_async(timeout)
            self._settle(slot, last=True)

    def put(self, slot: Slot, parcel: Parcel) -> None:
        """Fill a slot that is held."""
        with self._lock:
            self._check_open()
            if slot.state is not State.HELD:
                raise undelivered(self._owner, "withdrawn")
            slot.state = State.OVER
            self._queue.append(parcel)
            getters = list(self._getters)
        # All of them: one that is cancelled or whose loop is gone does not keep the others asleep.
        for bell in getters:
            bell.ring()

    def release(self, slot: Slot) -> None:
        """Give up a slot that was not filled; otherwise do nothing."""
        with self._lock:
            self._room.release(slot)

    def _take(self) -> Delivery | Bell:
        """Take the oldest message that may be handed out, or leave a bell that rings for one."""
        while True:
            with self._lock:
                if not self._queue:
                    self._check_open()
                    bell = Bell()
                    self._getters.add(bell)
                    return bell
                parcel = self._queue.popleft()
                self._room.free(parcel.delivery.sender, parcel.size)
            if self._still_good(parcel):
                return parcel.delivery

    def _still_good(self, parcel: Parcel) -> bool:
        if parcel.delivery.expires <= self._pep.now():
            self._lose([parcel], "expired")
            return False
        try:
            self._pep.check_withdrawn(parcel.token)
        except MoatError as error:
            self._lose([parcel], "revoked")
            if not isinstance(error, TokenRefused):
                raise
            return False
        return True

    def _settle(self, slot: Slot, *, last: bool = False) -> bool:
        """Whether the slot is held; the ``last`` time, or where it never will be, raise."""
        now = self._pep.now()
        with self._lock:
            expired = self._purge(now)
            held = slot.state is State.HELD
            over = slot.state is State.OVER
            if last and not held:
                self._room.release(slot)
        self._lose(expired, "expired")
        if over:
            raise undelivered(self._owner, "closed")
        if last and not held:
            raise undelivered(self._owner, "full")
        return held

    def _purge(self, now: int) -> list[Parcel]:
        """Take out what has expired, so that it holds no room: once a second, and no oftener."""
        if now == self._purged:
            return []
        self._purged = now
        expired = [parcel for parcel in self._queue if parcel.delivery.expires <= now]
        if expired:
            self._queue = deque(it for it in self._queue if it.delivery.expires > now)
        for parcel in expired:
            self._room.free(parcel.delivery.sender, parcel.size)
        return expired

    def _lose(self, parcels: list[Parcel], reason: str) -> None:
        if not parcels:
            return
        with self._lock:
            self._lost[reason] += len(parcels)
        for parcel in parcels:
            self._on_lost(parcel.delivery, reason)

    def _check_open(self) -> None:
        if self._closed:
            raise undelivered(self._owner, "closed")
