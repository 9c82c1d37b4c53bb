"""A real HTTPS server on loopback, with a certificate of an authority of the tests' own.

Its fixtures are those of ``threats/conftest.py``.
"""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cast import LIMITS, NOW, PLANNER, WORKER, issue
from moat import Host, Pep, Permit, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOOPBACK = ["127.0.0.0/8"]
BEGIN, END = dt.datetime(2001, 1, 1, tzinfo=dt.UTC), dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


class Authority:
    """Signs certificates for servers."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        made = self._sign(self._name, self._key, basic, critical=True)
        self.der = made.public_bytes(serialization.Encoding.DER)

    def serves(self, folder: Path, *names: str) -> ssl.SSLContext:
        """What a server with a certificate for these names speaks with."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        made = self._sign(subject, key, alternatives, critical=False)
        pem = serialization.Encoding.PEM
        form = serialization.PrivateFormat.PKCS8
        (folder / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        return context

    def _sign(
        self, subject: x509.Name, key: Any, extension: Any, *, critical: bool
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=BEGIN,
            not_valid_after=END,
        )
        return builder.add_extension(extension, critical=critical).sign(self._key, hashes.SHA256())


class Server:
    """Answers each request with what ``serve(handler)`` does; keeps what it was asked."""

    def __init__(self, context: ssl.SSLContext, serve: Callable[[Any], None]) -> None:
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length", 0))
                self.body = self.rfile.read(length)
                seen.append((self.command, self.path, dict(self.headers.items()), self.body))
                serve(self)

            do_POST = do_GET  # noqa: N815 - the base class finds it by this name

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop taking requests."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(handler: Any, body: bytes, status: int = 200, **headers: str) -> None:
    """Send a whole answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def echo(handler: Any) -> None:
    """Say what was asked; a redirect leads to where the query says."""
    if handler.path.startswith("/to?"):
        return answer(handler, b"", 302, location=handler.path.removeprefix("/to?"))
    said = handler.headers.get("authorization", "nothing")
    return answer(handler, f"{handler.path} {said} {handler.body!r}".encode(), x_echo=said)


def leave(pep: Pep, *hosts: Host, narrow: list[Host] | None = None, **limits: Any) -> Permit:
    """A permit whose token names these hosts, in its first link or in both."""
    limits = {"fuel": 100_000_000} | limits
    token = issue(limits=LIMITS.replace(hosts=hosts, **limits))
    lower = token.limits if narrow is None else token.limits.replace(hosts=narrow)
    token = token.attenuate(PLANNER, holder=WORKER.id, limits=lower, now=NOW)
    return Session(pep, WORKER, token).request("call", "tool://search/web")


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who signs certificates that the tests trust."""
    return Authority()


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[Server]:
    """One that echoes, and is `api.test` and `other.test`."""
    made = Server(authority.serves(tmp_path, "api.test", "other.test"), echo)
    yield made
    made.close()


@pytest.fixture
def base(server: Server) -> str:
    """Where it is as `api.test`."""
    return f"https://api.test:{server.port}"
