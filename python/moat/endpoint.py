"""``Endpoint``: an agent at a router; it writes to names and reads its mailbox.

::

    planner, worker = Endpoint(router, planner_session), Endpoint(router, worker_session)

    def work() -> None:
        for task in worker:
            worker.reply(task, task.payload.upper())

    threading.Thread(target=work, daemon=True).start()
    print(planner.request("worker", b"hello").payload)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from moat._requests import REPLY
from moat.router import ANSWER_TIMEOUT, SCHEME, SEND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Self, Unpack

    from moat._native import AgentId
    from moat.mailbox import Delivery
    from moat.router import Router, Sent
    from moat.session import Session


class Content(TypedDict, total=False):
    """What a message carries beside its payload, as in ``Session.seal``."""

    args: Mapping[str, Any] | None
    causes: Iterable[bytes]
    labels: Iterable[str]


class Endpoint:
    """A registered agent at a router: it sends by its session and takes from its mailbox.

    Agents are addressed by name. ``content`` is ``args``, ``causes`` and ``labels``.
    """

    def __init__(self, router: Router, session: Session) -> None:
        """Bring a registered agent to a router.

        Raises ``Undelivered`` (``not_registered``, ``closed``).
        """
        self._router = router
        self._session = session
        self.mailbox = router.mailbox(session.identity.id)

    @property
    def id(self) -> AgentId:
        """Who this is."""
        return self.mailbox.owner

    def seal(self, action: str, to: str, payload: bytes = b"", **content: Unpack[Content]) -> bytes:
        """Sign a message to a registered name, for ``Router.send_many`` or a router elsewhere."""
        recipient = self._router.key_of(to)
        resource = SCHEME + to
        return self._session.seal(action, resource, payload=payload, recipient=recipient, **content)

    def send(
        self,
        to: str,
        payload: bytes = b"",
        *,
        timeout: float | None = None,
        **content: Unpack[Content],
    ) -> Sent:
        """Deliver a message to a name (``Router.send``)."""
        return self._router.send(self.seal(SEND, to, payload, **content), timeout=timeout)

    async def send_async(
        self,
        to: str,
        payload: bytes = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        **content: Unpack[Content],
    ) -> Sent:
        """Do what ``send`` does without blocking the loop."""
        wire = self.seal(SEND, to, payload, **content)
        return await self._router.send_async(wire, timeout=timeout)

    def request(
        self,
        to: str,
        payload: bytes = b"",
        *,
        timeout: float | None = ANSWER_TIMEOUT,
        **content: Unpack[Content],
    ) -> Delivery:
        """Send a message to a name and wait for its answer (``Router.request``)."""
        return self._router.request(self.seal(SEND, to, payload, **content), timeout=timeout)

    async def request_async(
        self,
        to: str,
        payload: bytes = b"",
        *,
        timeout: float | None = ANSWER_TIMEOUT,  # noqa: ASYNC109
        **content: Unpack[Content],
    ) -> Delivery:
        """Do what ``request`` does without blocking the loop."""
        wire = self.seal(SEND, to, payload, **content)
        return await self._router.request_async(wire, timeout=timeout)

    def reply(
        self,
        to: Delivery,
        payload: bytes = b"",
        *,
        timeout: float | None = None,
        **content: Unpack[Content],
    ) -> Sent:
        """Answer a message: ``reply`` on its sender's name, with its id among the causes."""
        return self._router.send(self._answer(to, payload, content), timeout=timeout)

    async def reply_async(
        self,
        to: Delivery,
        payload: bytes = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        **content: Unpack[Content],
    ) -> Sent:
        """Do what ``reply`` does without blocking the loop."""
        wire = self._answer(to, payload, content)
        return await self._router.send_async(wire, timeout=timeout)

    def get(self, timeout: float | None = None) -> Delivery:
        """Take the oldest message (``Mailbox.get``)."""
        return self.mailbox.get(timeout)

    async def get_async(self, timeout: float | None = None) -> Delivery:  # noqa: ASYNC109
        """Do what ``get`` does without blocking the loop."""
        return await self.mailbox.get_async(timeout)

    def __iter__(self) -> Iterator[Delivery]:
        """Take messages until the mailbox is closed."""
        return iter(self.mailbox)

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Take messages until the mailbox is closed, without blocking the loop."""
        return aiter(self.mailbox)

    def close(self) -> None:
        """Close the mailbox."""
        self.mailbox.close()

    def __enter__(self) -> Self:
        """Return itself; ``close`` is called at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the mailbox."""
        self.close()

    def _answer(self, to: Delivery, payload: bytes, content: Content) -> bytes:
        content["causes"] = {to.message_id, *content.get("causes", ())}
        return self.seal(REPLY, self._router.name_of(to.sender), payload, **content)
