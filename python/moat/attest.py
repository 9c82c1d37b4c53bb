"""Attestations of files: measure code, a skill folder or a tool's description, and sign for it.

What is measured is what was read. A skill's ``files`` are the bytes that the digest is of: hand
those to whoever uses the skill, for the folder may have changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from moat._native import AgentId, Attestation, skill_digest, tool_digest
from moat.errors import MalformedInput, MoatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat._native import Identity

Kind: TypeAlias = Literal["code", "skill", "tool"]
"""What a digest is the digest of."""
KINDS: Final = cast("tuple[Kind, ...]", get_args(Kind))

SKILL_FILES: Final = 256
"""Files of one skill, folders counted as well."""
FILE_BYTES: Final = 64 << 20
"""Bytes of one file, or of a skill's files together."""
BUNDLE_BYTES: Final = 1 << 20
"""Bytes of a Sigstore bundle."""


@dataclass(frozen=True)
class Measured:
    """What was read from a path, and its digest."""

    kind: Kind
    name: str
    digest: bytes
    files: dict[str, bytes]
    """Bytes by path below the folder; for code and tools one file, under its name."""

    def sign(self, *signers: Identity, now: int | None = None) -> Attestation:
        """Vouch for it (``Attestation.sign``)."""
        subject = self.files if self.kind == "skill" else self.digest
        return Attestation.sign(signers, self.kind, subject, name=self.name, now=now)


def measure(kind: Kind, path: str | os.PathLike[str]) -> Measured:
    """Read a file of code, the folder of a skill or the JSON of a tool's description.

    In a skill every file counts: links, pipes, devices, empty folders and names that no resource
    has (spec/attest.md) are ``MalformedInput``. A file may be at most 64 MiB.
    """
    where = Path(path)
    name = where.resolve().name
    if kind == "skill":
        files = _folder(where)
        return Measured(kind, name, skill_digest(files), files)
    data = _file(where)
    digest = tool_digest(data) if kind == "tool" else hashlib.sha256(data).digest()
    return Measured(kind, name, digest, {name: data})


def from_sigstore(
    bundle: bytes,
    measured: Measured,
    *,
    identity: str,
    issuer: str,
    signers: Iterable[Identity],
    trust_root: str | os.PathLike[str] | None = None,
    now: int | None = None,
) -> Attestation:
    """Vouch for a file because a Sigstore bundle shows that somebody else signed for it.

    ``identity`` and ``issuer`` are exact, as the certificate has them; ``trust_root`` is a file
    ``trusted_root.json``, else the roots that the package ``sigstore`` (an extra) came with.
    Nothing asks the network. Who it was stands in the statement (spec/attest.md). Raises
    ``InvalidSignature`` and ``NotAttested`` where it does not hold, ``MalformedInput`` for what
    cannot be read and for a skill, which is no file.
    """
    if measured.kind == "skill":
        message = "a skill is a folder, and Sigstore signs for files; sign for it without a bundle"
        raise MalformedInput(message)
    if len(bundle) > BUNDLE_BYTES:
        message = f"the bundle is too large; at most {BUNDLE_BYTES >> 20} MiB are read"
        raise MalformedInput(message)
    try:
        from moat import _sigstore  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "this needs `sigstore`; run `pip install 'moat[sigstore]'`"
        raise MoatError(message) from error
    (data,) = measured.files.values()
    said = _sigstore.verify(bundle, data, identity=identity, issuer=issuer, trust_root=trust_root)
    subject = {
        "name": measured.name,
        "digest": {"sha256": measured.digest.hex()},
        "annotations": {"sigstore": said},
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": "urn:moat:manifest:v1",
        "predicate": {"kind": measured.kind, "issued": int(time.time()) if now is None else now},
    }
    return Attestation.sign_statement(signers, json.dumps(statement).encode())


def pack(envelope: bytes, signers: Iterable[AgentId]) -> bytes:
    """Write an envelope and the keys to verify it with, as it waits in the folder ``control``."""
    keys = [str(signer) for signer in signers]
    return json.dumps({"envelope": envelope.decode("utf-8", "strict"), "signers": keys}).encode()


def unpack(packed: bytes) -> tuple[bytes, list[AgentId]]:
    """Read what ``pack`` wrote; anything else is ``MalformedInput``."""
    try:
        found: dict[str, Any] = json.loads(packed)
        return found["envelope"].encode(), [AgentId(text) for text in found["signers"]]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        message = "not an envelope with the keys to verify it with; use `moat attest add`"
        raise MalformedInput(message) from error


def _file(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return _read(file, str(path), FILE_BYTES)


def _folder(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _walk(root, "", files, [FILE_BYTES, SKILL_FILES])
    finally:
        os.close(root)
    return files


def _walk(folder: int, prefix: str, files: dict[str, bytes], left: list[int]) -> None:
    """Read a folder through its own handle, so that a link put in its place leads nowhere."""
    names = sorted(os.listdir(folder))
    if not names:
        message = f"the folder `{prefix or '.'}` is empty, and no digest would say so; remove it"
        raise MalformedInput(message)
    for name in names:
        where = prefix + name
        left[1] -= 1
        if left[1] < 0:
            message = f"a skill has at most {SKILL_FILES} files and folders"
            raise MalformedInput(message)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            found = os.open(name, flags, dir_fd=folder)
        except OSError as error:
            message = f"`{where}` of the skill cannot be read, or is a link; copy it in"
            raise MalformedInput(message) from error
        if stat.S_ISDIR(os.fstat(found).st_mode):
            try:
                _walk(found, f"{where}/", files, left)
            finally:
                os.close(found)
        else:
            files[where] = _read(found, where, left[0])
            left[0] -= len(files[where])


def _read(file: int, name: str, most: int) -> bytes:
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            message = f"`{name}` is not a file"
            raise MalformedInput(message)
        data = opened.read(most + 1)
    if len(data) > most:
        message = f"`{name}` is too large; at most {FILE_BYTES >> 20} MiB are read"
        raise MalformedInput(message)
    return data
