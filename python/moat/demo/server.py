"""A real HTTPS server on loopback, with a certificate that the demo makes for it."""

from __future__ import annotations

import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from moat import Identity

DAY: Final = 24 * 3600
_ED25519: Final = bytes.fromhex("300506032b6570")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_OTHER_NAMES: Final = bytes.fromhex("0603551d11")


class Server:
    """Answers a request for a note, and asks for a key. It keeps what it was asked."""

    def __init__(self, host: str, key: str) -> None:
        """Listen on a free port; ``key`` is what a caller has to show."""
        asked = self.asked = list[tuple[str, str]]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = self.headers.get("authorization", "")
                asked.append((self.path, shown))
                known = shown == f"Bearer {key}"
                said = f"welcome; you showed me `{shown}`" if known else "who are you?"
                body = f"{said}\n".encode()
                self.send_response(200 if known else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.certificate, context = _speaks(host)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.daemon = True
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _speaks(host: str) -> tuple[bytes, ssl.SSLContext]:
    """Make a key and its certificate (DER), and what a server speaks TLS with."""
    key = Identity.generate("server")
    der = certificate(key, host, int(time.time()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="moat-demo-") as made:
        file = Path(made) / "server.pem"
        file.touch(0o600)
        file.write_text(key.to_pem() + ssl.DER_cert_to_PEM_cert(der))
        context.load_cert_chain(file)
    return der, context


def certificate(key: Identity, host: str, now: int) -> bytes:
    """Make a certificate for a host, signed by its own key: X.509 (RFC 5280, RFC 8410) in DER.

    It holds from a day before ``now``, in Unix seconds, to a day after.
    """
    name = _der(0x30, _der(0x31, _der(0x30, _COMMON_NAME, _der(0x0C, host.encode()))))
    names = _der(0x30, _der(0x82, host.encode()))
    body = _der(
        0x30,
        _der(0xA0, _der(0x02, b"\x02")),  # version 3
        _der(0x02, b"\x01"),
        _ED25519,
        name,
        _der(0x30, _moment(now - DAY), _moment(now + DAY)),
        name,
        _der(0x30, _ED25519, _der(0x03, b"\0", bytes(key.id))),
        _der(0xA3, _der(0x30, _der(0x30, _OTHER_NAMES, _der(0x04, names)))),
    )
    return _der(0x30, body, _ED25519, _der(0x03, b"\0", key.sign(body)))


def _moment(second: int) -> bytes:
    return _der(0x17, time.strftime("%y%m%d%H%M%SZ", time.gmtime(second)).encode())


def _der(tag: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    size = len(data)
    if size < 0x80:  # noqa: PLR2004 (short form)
        return bytes([tag, size]) + data
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(long)]) + long + data
