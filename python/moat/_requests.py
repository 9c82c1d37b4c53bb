"""Requests that were delivered and wait for their answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from moat._room import Bell
from moat.errors import Undelivered
from moat.mailbox import NOTHING, undelivered

if TYPE_CHECKING:
    from moat.mailbox import Delivery, Parcel

REPLY: Final = "reply"
"""The action of an answer."""


class Request:
    """One asker, waiting."""

    def __init__(self) -> None:
        """Make one that is not delivered yet."""
        self.bell = Bell()
        self.asked: Delivery | None = None
        self.over = False
        self.answer: Parcel | Undelivered | None = None

    def result(self) -> Delivery:
        """Give the answer; raise ``Undelivered``, or ``TimeoutError`` where nothing came."""
        if isinstance(self.answer, Undelivered):
            raise self.answer
        if self.answer is None:
            raise TimeoutError(NOTHING.format(self.asked.sender if self.asked else "the asker"))
        return self.answer.delivery


class Requests:
    """The open requests of a router, by message id. Safe across threads."""

    def __init__(self) -> None:
        """Nobody waits."""
        # Reentrant, because an asker that is garbage collected takes its request back.
        self._lock = threading.RLock()
        self._open: dict[bytes, Request] = {}

    def open(self, request: Request, delivery: Delivery) -> None:
        """Wait for the answer to a message that is about to be delivered.

        INVARIANT: called with the message's permit open and nowhere else, so its id is fresh, and
        nobody who overheard or copied a message can wait for the answer to it.
        """
        with self._lock:
            if not request.over:
                request.asked = delivery
                self._open[delivery.message_id] = request

    def awaits(self, delivery: Delivery) -> bool:
        """Whether a message answers an open request."""
        with self._lock:
            return self._find(delivery) is not None

    def answer(self, parcel: Parcel) -> bool:
        """Give a message to the request that it answers, if there is one."""
        with self._lock:
            message_id = self._find(parcel.delivery)
            if message_id is None:
                return False
            request = self._open.pop(message_id)
            request.answer = parcel
        request.bell.ring()
        return True

    def fail(self, delivery: Delivery, reason: str) -> None:
        """Tell the asker that this message is dropped."""
        with self._lock:
            request = self._open.pop(delivery.message_id, None)
            if request is None:
                return
            request.answer = undelivered(delivery.recipient, reason)
        request.bell.ring()

    def forget(self, request: Request) -> None:
        """Wait no longer: after this its answer does not change."""
        with self._lock:
            request.over = True
            if request.asked is not None:
                self._open.pop(request.asked.message_id, None)

    def close(self) -> None:
        """Fail them all."""
        with self._lock:
            asked = [request.asked for request in self._open.values()]
        for delivery in asked:
            if delivery is not None:
                self.fail(delivery, "closed")

    def __len__(self) -> int:
        """Count those who wait."""
        return len(self._open)

    def _find(self, reply: Delivery) -> bytes | None:
        """The request that this is a reply to: by who was asked, to who asked, naming it."""
        if reply.action != REPLY:
            return None
        for cause in reply.causes:
            asked = request.asked if (request := self._open.get(cause)) else None
            if asked and (asked.recipient, asked.sender) == (reply.sender, reply.recipient):
                return cause
        return None
