"""``Router``: a message that a gate permitted reaches its recipient (spec/router.md).

Nothing is delivered but by a permit: delivery is the permit's effect, and its outcome is a line.
The order is: parse, and refuse for free what has no recipient; ask the gate; wait for room with
the permit unopened; open it, look at the recipient once more, put the message into the queue.

Room is claimed after the gate has said yes, and not before: only then is the sender known, so a
stranger's words hold no room and use up nobody's share. A permit lives 30 s unopened, so a message
waits for room at most ``PATIENCE`` seconds. It waits unopened so that a revocation still stops it.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from moat._native import Message
from moat._requests import REPLY, Request, Requests
from moat._room import Bounds, Rate, deadline, left
from moat.errors import Denied, MoatError, Undelivered
from moat.mailbox import Delivery, Mailbox, Parcel, undelivered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from moat._native import AgentId, Decision, Permit
    from moat._room import Slot
    from moat.pep import Pep

__all__ = ["Bounds", "Delivery", "Directory", "Mailbox", "Rate", "Router", "Sent"]

SCHEME: Final = "agent://"
SEND: Final = "send"
PATIENCE: Final = 25.0
"""Seconds that a permitted message waits for room at most."""
ANSWER_TIMEOUT: Final = 60.0
"""Seconds that a request waits for its answer where nothing else is said."""


class Directory(Protocol):
    """Who is registered, and under which name; asked at every message. A ``Registry`` is one."""

    def current(self, name: str, /) -> AgentId | None:
        """Give the present key of a registered name."""

    def name_of(self, agent: AgentId, /) -> str | None:
        """Give the name whose present key this is."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Where the log has a message that was delivered."""

    entry: int
    """Index of the decision."""
    outcome: int
    """Index of the outcome."""
    message_id: bytes


class Router:
    """Delivers permitted messages between registered agents of one process.

    A message is for ``agent://<name>`` with the action ``send`` or ``reply``, and its recipient is
    that name's present key. Each recipient has a bounded queue (``Bounds``), and each sender at
    most half of it; a slow recipient holds up those who write to it and nobody else. A payload is
    never looked into. Messages of one sender that are sent one after another arrive in that order.
    Safe across threads and event loops at once.
    """

    def __init__(self, pep: Pep, directory: Directory, *, bounds: Bounds | None = None) -> None:
        """Deliver what this gate permits to whom this directory knows."""
        self._pep = pep
        self._directory = directory
        self._bounds = bounds or Bounds()
        self._lock = threading.RLock()
        self._mailboxes: dict[AgentId, Mailbox] = {}
        self._sweep_at = 64
        self._requests = Requests()
        self._refused: Counter[str] = Counter()
        self._closed = False

    @property
    def refused(self) -> dict[str, int]:
        """How many messages were refused before the gate was asked, by reason: no line has them."""
        with self._lock:
            return dict(self._refused)

    def mailbox(self, agent: AgentId) -> Mailbox:
        """Give a registered agent's mailbox; a new one where the last was closed.

        Raises ``Undelivered`` (``not_registered``, ``closed``).
        """
        return self._mailbox(agent, reopen=True)

    def send(self, wire: bytes, *, timeout: float | None = None) -> Sent:
        """Deliver one sealed message; raises ``Denied`` where the gate says no.

        Where the queue has no room it waits, at most ``timeout`` seconds, ``PATIENCE`` and the
        message's life. ``Undelivered`` (``.reason``) says that the recipient does not have it:
        ``too_large``, ``not_registered`` and ``misaddressed`` before the gate was asked, and then
        the message is not used up; anything else is the outcome ``raised``, and it is.
        """
        return self._send(wire, timeout)

    async def send_async(
        self,
        wire: bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Sent:
        """Do what ``send`` does without blocking the loop.

        If the waiting task is cancelled the message is in the queue, with its outcome in the log,
        or it never will be, and its permit dies.
        """
        return await self._send_async(wire, timeout)

    def send_many(
        self, wires: Sequence[bytes], *, timeout: float | None = None
    ) -> list[Sent | MoatError]:
        """Deliver a batch in order, with one sync for its decisions; nothing raises.

        Each message has its place in the answer: where it went, or why it did not. ``timeout``
        and ``PATIENCE`` are for the whole batch.
        """
        found: dict[int, Message | MoatError] = {}
        for at, wire in enumerate(wires):
            try:
                found[at] = self._address(wire)
            except MoatError as error:
                found[at] = error
        asked = [at for at in found if isinstance(found[at], Message)]
        end = deadline(PATIENCE if timeout is None else min(timeout, PATIENCE))
        decisions = self._pep.authorize_many([wires[at] for at in asked])
        answers = dict(zip(asked, decisions, strict=True))
        done: list[Sent | MoatError] = []
        for at, message in found.items():
            if isinstance(message, MoatError):
                done.append(message)
            else:
                done.append(self._send_decided(message, wires[at], answers[at], left(end)))
        return done

    def request(self, wire: bytes, *, timeout: float | None = ANSWER_TIMEOUT) -> Delivery:
        """Deliver a message and wait for the answer; ``TimeoutError`` when there is none in time.

        The answer is the first ``reply`` by the asked agent to the asking one whose ``causes``
        name this message. It does not also come to the mailbox; what answers no open request does.
        Raises as ``send``, and ``Undelivered`` where the message is dropped before it was taken.
        """
        end = deadline(timeout)
        request = Request()
        with self._awaiting(request):
            self._send(wire, left(end), request)
            request.bell.wait(left(end))
        return request.result()

    async def request_async(
        self,
        wire: bytes,
        *,
        timeout: float | None = ANSWER_TIMEOUT,  # noqa: ASYNC109
    ) -> Delivery:
        """Do what ``request`` does without blocking the loop."""
        end = deadline(timeout)
        request = Request()
        with self._awaiting(request):
            await self._send_async(wire, left(end), request)
            await request.bell.wait_async(left(end))
        return request.result()

    def key_of(self, name: str) -> AgentId:
        """Give a registered name's present key, or raise ``Undelivered`` (``not_registered``)."""
        if (key := self._directory.current(name)) is None:
            raise undelivered(name, "not_registered")
        return key

    def name_of(self, agent: AgentId) -> str:
        """Give a registered key's name, or raise ``Undelivered`` (``not_registered``)."""
        if (name := self._directory.name_of(agent)) is None:
            raise undelivered(agent, "not_registered")
        return name

    def close(self) -> None:
        """Close every mailbox and release everybody who waits; nothing is delivered any more."""
        with self._lock:
            self._closed = True
            mailboxes = list(self._mailboxes.values())
        for mailbox in mailboxes:
            mailbox.close()
        self._requests.close()

    def __enter__(self) -> Self:
        """Return itself; ``close`` is called at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _send(self, wire: bytes, timeout: float | None, request: Request | None = None) -> Sent:
        message = self._address(wire)
        transit = self._transit(message, len(wire), self._pep.authorize(wire), request)
        return self._carry(transit, timeout)

    def _send_decided(
        self, message: Message, wire: bytes, decision: Decision, timeout: float | None
    ) -> Sent | MoatError:
        if decision.permit is None:
            return _denied(decision)
        try:
            return self._carry(self._transit(message, len(wire), decision.permit), timeout)
        except MoatError as error:
            return error

    async def _send_async(
        self,
        wire: bytes,
        timeout: float | None,  # noqa: ASYNC109
        request: Request | None = None,
    ) -> Sent:
        import asyncio  # noqa: PLC0415 - slow to import, and not needed by synchronous callers

        message = self._address(wire)
        permit = await self._pep.authorize_async(wire)
        transit = self._transit(message, len(wire), permit, request)
        try:
            await transit.wait_async(self._patience(permit, timeout))
            return await asyncio.to_thread(self._deliver, transit)
        finally:
            transit.release()

    def _carry(self, transit: _Transit, timeout: float | None) -> Sent:
        try:
            transit.wait(self._patience(transit.permit, timeout))
            return self._deliver(transit)
        finally:
            transit.release()

    # --- before the gate ---

    def _address(self, wire: bytes) -> Message:
        """Parse a message, and refuse for free what could not be delivered anyway."""
        try:
            message = Message.from_bytes(wire)
            if len(wire) > self._bounds.message_bytes:
                raise undelivered(message.recipient, "too_large")
            self._check_address(message)
        except Undelivered as error:
            self._count(error)
            raise
        return message

    def _check_address(self, message: Message) -> None:
        name = message.resource.removeprefix(SCHEME)
        if message.resource != SCHEME + name or message.action not in {SEND, REPLY}:
            raise undelivered(message.recipient, "misaddressed")
        if self.key_of(name) != message.recipient:
            raise undelivered(name, "misaddressed")
        self.name_of(message.token.holder)

    # --- with a permit ---

    def _transit(
        self, message: Message, size: int, permit: Permit, request: Request | None = None
    ) -> _Transit:
        """Claim room for a permitted message; what fails here is raised in its permit."""
        parcel = Parcel(_delivery(message, permit), message.token, size)
        transit = _Transit(message, permit, parcel, request)
        try:
            transit.mailbox = self._mailbox(permit.recipient)
            if not self._requests.awaits(parcel.delivery):
                transit.slot = transit.mailbox.claim(permit.sender, size)
        except Undelivered as error:
            transit.failure = error
        return transit

    def _patience(self, permit: Permit, timeout: float | None) -> float:
        life = max(0, permit.expires - self._pep.now())
        return min(PATIENCE if timeout is None else timeout, PATIENCE, life)

    def _deliver(self, transit: _Transit) -> Sent:
        """Open the permit around the effect; what fails in here is the outcome ``raised``."""
        permit = transit.permit
        if permit.expires <= self._pep.now():
            raise undelivered(permit.recipient, "expired")
        with permit:
            if transit.failure is not None:
                raise transit.failure
            self._check_address(transit.message)
            self._hand_over(transit)
        # A permit that was closed without an exception has its line.
        return Sent(permit.entry, cast("int", permit.outcome), permit.message_id)

    def _hand_over(self, transit: _Transit) -> None:
        parcel, mailbox = transit.parcel, transit.mailbox
        if mailbox is None:
            raise undelivered(transit.permit.recipient, "closed")
        transit.permit.check(recipient=mailbox.owner)
        if transit.slot is None:
            if self._requests.answer(parcel):
                return
            # Whoever asked has given up since, so this is a message like any other.
            transit.slot = mailbox.claim(parcel.delivery.sender, parcel.size)
            mailbox.wait(transit.slot, 0)
        if transit.request is not None:
            self._requests.open(transit.request, parcel.delivery)
        mailbox.put(transit.slot, parcel)

    def _mailbox(self, agent: AgentId, *, reopen: bool = False) -> Mailbox:
        self.name_of(agent)
        with self._lock:
            if self._closed:
                raise undelivered(agent, "closed")
            mailbox = self._mailboxes.get(agent)
            if mailbox is not None and not (reopen and mailbox.closed):
                return mailbox
            mailbox = Mailbox(
                agent, pep=self._pep, bounds=self._bounds, on_lost=self._requests.fail
            )
            self._mailboxes[agent] = mailbox
            gone = self._sweep()
        for other in gone:
            other.close()
        return mailbox

    def _sweep(self) -> list[Mailbox]:
        """Forget the mailboxes of agents that are registered no longer, now and then."""
        if len(self._mailboxes) < self._sweep_at:
            return []
        gone = [who for who in self._mailboxes if self._directory.name_of(who) is None]
        mailboxes = [self._mailboxes.pop(who) for who in gone]
        self._sweep_at = 2 * len(self._mailboxes) + 64
        return mailboxes

    @contextmanager
    def _awaiting(self, request: Request) -> Iterator[None]:
        """Forget the request in the end; an answer that nobody waits for goes to the mailbox."""
        try:
            yield
        except BaseException:
            self._requests.forget(request)
            if isinstance(request.answer, Parcel):
                self._put_back(request.answer)
            raise
        self._requests.forget(request)

    def _put_back(self, parcel: Parcel) -> None:
        try:
            mailbox = self._mailbox(parcel.delivery.recipient)
            slot = mailbox.claim(parcel.delivery.sender, parcel.size)
            mailbox.wait(slot, 0)
            mailbox.put(slot, parcel)
        except Undelivered as error:
            self._count(error)

    def _count(self, error: Undelivered) -> None:
        with self._lock:
            self._refused[error.reason] += 1


@dataclass(slots=True)
class _Transit:
    """One permitted message on its way."""

    message: Message
    permit: Permit
    parcel: Parcel
    request: Request | None
    mailbox: Mailbox | None = None
    slot: Slot | None = None
    failure: Undelivered | None = None

    def wait(self, timeout: float) -> None:
        if self.mailbox is not None and self.slot is not None:
            try:
                self.mailbox.wait(self.slot, timeout)
            except Undelivered as error:
                self.failure = error

    async def wait_async(self, timeout: float) -> None:  # noqa: ASYNC109
        if self.mailbox is not None and self.slot is not None:
            try:
                await self.mailbox.wait_async(self.slot, timeout)
            except Undelivered as error:
                self.failure = error

    def release(self) -> None:
        if self.mailbox is not None and self.slot is not None:
            self.mailbox.release(self.slot)


def _delivery(message: Message, permit: Permit) -> Delivery:
    return Delivery(
        message_id=permit.message_id,
        entry=permit.entry,
        sender=permit.sender,
        recipient=permit.recipient,
        action=permit.action,
        resource=permit.resource,
        args_json=permit.args_json,
        payload=permit.payload,
        causes=message.causes,
        labels=message.labels,
        expires=permit.expires,
    )


def _denied(decision: Decision) -> Denied:
    error = Denied(decision.detail)
    error.reason = decision.reason
    error.decision = decision
    return error
