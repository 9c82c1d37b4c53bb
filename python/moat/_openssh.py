"""Ed25519 keys in the files of other tools: OpenSSH's and OpenSSL's private keys, public lines.

Sources: PROTOCOL.key in OpenSSH (``openssh-key-v1``), RFC 7468 (armour), RFC 5958 and RFC 8410
(PKCS#8), RFC 4253 §6.6 and RFC 8709 §4 (public keys). There is one spelling of each; what is not
that is refused. No message holds a byte of a file, and no exception here has another behind it.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from moat._native import Identity
from moat.errors import MalformedInput

if TYPE_CHECKING:
    from moat._native import AgentId

_BLOCK: Final = re.compile(
    rb"\s*-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n(.*?)\r?\n-----END \1-----\s*", re.DOTALL
)
_BEGIN: Final = b"-----BEGIN "
_MAGIC: Final = b"openssh-key-v1\0"
_TYPE: Final = b"ssh-ed25519"
_SEED, _PUBLIC, _SSH_BLOCK = 32, 32, 8
_OID: Final = bytes.fromhex("06032b6570")
"""id-Ed25519 (RFC 8410 §3), as DER."""
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")
"""DER of a PKCS#8 Ed25519 private key, version 1, before its 32 bytes (RFC 8410 §7)."""


def read_private(name: str, data: bytes) -> Identity:
    """Read the one Ed25519 private key in a file: PKCS#8 PEM, or OpenSSH's own form.

    ``MalformedInput`` for another kind of key, an encrypted one, several, or anything more.
    """
    label, text = _armour(data)
    if label == "OPENSSH PRIVATE KEY":
        return _from_openssh(name, _decoded(text))
    if label == "PRIVATE KEY" and _OID in (body := _decoded(text))[:24]:
        return Identity.from_pem(name, _pem(body))
    if label == "ENCRYPTED PRIVATE KEY":
        _refuse(
            "the key is encrypted; decrypt it on the way in, with `openssl pkey -in FILE | "
            "moat identity import NAME -`"
        )
    if label.endswith("PRIVATE KEY"):
        _refuse("not an Ed25519 key; make one with `openssl genpkey -algorithm ed25519`")
    return _refuse(f"a file that begins with `{label}` holds no private key; give the other file")


def public_line(key: AgentId, comment: str) -> str:
    """Write a public key as a line of ``authorized_keys``: type, base64, comment."""
    blob = base64.b64encode(_string(_TYPE) + _string(bytes(key))).decode()
    return f"{_TYPE.decode()} {blob} {comment}"


def _from_openssh(name: str, data: bytes) -> Identity:
    public, secret = _outside(data)
    point, pair = _inside(secret)
    identity = Identity.from_pem(name, _pem(_PKCS8 + pair[:_SEED]))
    derived = bytes(identity.id)
    blob = _string(_TYPE) + _string(derived)
    if point != derived or pair[_SEED:] != derived or public != blob:
        _refuse("the key is damaged: its public part is not that of its secret")
    return identity


def _outside(data: bytes) -> tuple[bytes, bytes]:
    """The public key, and the part that a passphrase would encrypt."""
    outer = _Reader(data)
    if outer.take(len(_MAGIC)) != _MAGIC:
        _refuse("not OpenSSH's form of a private key, `openssh-key-v1`")
    cipher, kdf, options = outer.string(), outer.string(), outer.string()
    if (cipher, kdf, options) != (b"none", b"none", b""):
        _refuse(
            "the key is encrypted; copy it, decrypt the copy with `ssh-keygen -p -N '' -f COPY`, "
            "import that and delete it"
        )
    if outer.number() != 1:
        _refuse("the file holds several keys, or none; give a file with one")
    public, secret = outer.string(), outer.string()
    outer.end()
    if _Reader(public).string() != _TYPE:
        _refuse("not an Ed25519 key; make one with `ssh-keygen -t ed25519`")
    return public, secret


def _inside(secret: bytes) -> tuple[bytes, bytes]:
    """The public key once more, and the secret with the public key behind it."""
    inner = _Reader(secret)
    if len(secret) % _SSH_BLOCK:
        _refuse("the key is damaged: it is cut off")
    if inner.number() != inner.number():
        _refuse("the key is damaged: its check numbers differ")
    if inner.string() != _TYPE:
        _refuse("the key is damaged: it is of two kinds")
    point, pair = inner.string(), inner.string()
    inner.string()  # the comment
    padding = inner.rest()
    if len(padding) >= _SSH_BLOCK or padding != bytes(range(1, len(padding) + 1)):
        _refuse("the key is damaged: its padding is wrong")
    if len(pair) != _SEED + _PUBLIC:
        _refuse("the key is damaged: it has a wrong length")
    return point, pair


def _armour(data: bytes) -> tuple[str, bytes]:
    """Take the one PEM block that the file is: its label and its text."""
    if data.count(_BEGIN) > 1:
        _refuse("the file holds several keys; give a file with one")
    found = _BLOCK.fullmatch(data)
    if found is None:
        _refuse("not a private key: neither PKCS#8 PEM nor OpenSSH's form, and nothing besides")
    return found[1].decode("ascii"), found[2]


def _decoded(text: bytes) -> bytes:
    joined, body = re.sub(rb"\r?\n", b"", text), b""
    with suppress(binascii.Error):
        body = base64.b64decode(joined, validate=True)
    if not body or base64.b64encode(body) != joined:
        _refuse("the key is damaged: its text is not base64")
    return body


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"


def _string(data: bytes) -> bytes:
    """An SSH string (RFC 4251 §5)."""
    return len(data).to_bytes(4, "big") + data


class _Reader:
    """Takes SSH's values from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            _refuse("the key is damaged: it ends too early")
        found, self._at = self._data[self._at : end], end
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self.rest():
            _refuse("the key is damaged: something follows its end")


def _refuse(message: str) -> NoReturn:
    raise MalformedInput(message)
