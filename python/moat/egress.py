"""``transport``: an ``httpx`` transport that sends what the token of an open permit names.

The extra ``http`` brings ``httpx``. Everything that decides is in Rust (spec/egress.md); this
module only carries requests to it and answers back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio.to_thread
import httpx

from moat._native import Egress
from moat.errors import EgressDenied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from moat._native import Permit

KIB: Final = 1024

_FAILED: Final[dict[str | None, type[httpx.TransportError]]] = {
    "name_unresolved": httpx.ConnectError,
    "connect_failed": httpx.ConnectError,
    "tls_failed": httpx.ConnectError,
    "response_broken": httpx.RemoteProtocolError,
    "deadline_passed": httpx.ReadTimeout,
}
"""What is a fault of the network and no denial, as ``httpx`` calls it."""

_FRAMING: Final = {("connection", b"keep-alive"), ("transfer-encoding", b"chunked")}
"""What a client adds by itself, and the engine sets as it sends."""


def transport(
    permit: Permit,
    *,
    secrets: Mapping[str, str] | None = None,
    anchors: Iterable[bytes] = (),
    resolver: Callable[[str], Iterable[str]] | None = None,
    timeout: timedelta = timedelta(seconds=30),
    request_bytes: int = KIB * KIB,
    response_bytes: int = 16 * KIB * KIB,
) -> Transport:
    """Give what ``httpx.Client(transport=…)`` or ``AsyncClient`` sends through.

    Requests are sent while the permit is open, where every link of its token has a host rule for
    them. ``secrets`` maps handles to values and is looked into at each request; a value is put
    in where the links bind it, for a header that says ``secret://name`` or ``Bearer
    secret://name``. ``anchors`` are certificates in DER that are trusted beside the public
    issuers; ``resolver`` gives the addresses of a name in place of the system. ``timeout`` is
    for a whole request, whatever ``httpx`` was told.

    A request that is not allowed raises ``EgressDenied`` with ``reason`` and ``host``; one with a
    permit that is not open, ``Denied``; one that fails on the way, an ``httpx.TransportError``.
    """
    engine = Egress(
        anchors=list(anchors),
        resolver=resolver,
        timeout=timeout,
        request_bytes=request_bytes,
        response_bytes=response_bytes,
    )
    return Transport(engine, permit, {} if secrets is None else secrets)


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Made by ``transport``. Safe across threads; holds no connection."""

    def __init__(self, engine: Egress, permit: Permit, secrets: Mapping[str, str]) -> None:
        """Use ``transport`` instead."""
        self._engine = engine
        self._permit = permit
        self._secrets = secrets

    def __repr__(self) -> str:
        """The permit, and no value."""
        return f"Transport({self._permit!r})"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; ``httpx`` calls this. A redirect comes back here from the start."""
        return self._send(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Do the same in a thread."""
        body = await request.aread()
        return await anyio.to_thread.run_sync(self._send, request, body)

    def _send(self, request: httpx.Request, body: bytes) -> httpx.Response:
        url = request.url
        place = url.netloc.decode("ascii")
        headers = [
            (name.decode("ascii"), value)
            for name, value in request.headers.raw
            if not _is_framing(name.decode("ascii").lower(), value, place)
        ]
        try:
            status, fields, content = self._engine.send(
                self._permit,
                request.method,
                f"{url.raw_scheme.decode('ascii')}://{place}{url.raw_path.decode('ascii')}",
                headers=headers,
                body=body,
                secrets=list(self._secrets.items()),
            )
        except EgressDenied as denied:
            if failed := _FAILED.get(denied.reason):
                raise failed(str(denied), request=request) from None
            raise
        pairs = [(name.encode("ascii"), value) for name, value in fields]
        return httpx.Response(status, headers=pairs, content=content, request=request)


def _is_framing(name: str, value: bytes, place: str) -> bool:
    """Whether a header is one that ``httpx`` adds, and says nothing else than the engine will."""
    return (name, value.lower()) in _FRAMING or (name, value) == ("host", place.encode("ascii"))
