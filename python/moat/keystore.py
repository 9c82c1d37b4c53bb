"""Key files: one PKCS#8 PEM file per identity, that only its owner can read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from moat import _files, _openssh
from moat._native import AgentId, Identity
from moat.errors import MalformedInput, MoatError

if TYPE_CHECKING:
    from os import PathLike

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class KeyStore:
    """A directory of keys (0700), two files for each.

    ``<name>.pem`` is the secret (0600, PKCS#8, RFC 8410); ``<name>.pub`` is the ``did:key`` that
    may be shown to anybody.

    Writing is atomic and durable. A file that is a symbolic link, belongs to somebody else or is
    open to others is refused with a ``MoatError`` that names it.
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        """Take a directory; it is made when the first key is saved."""
        self._dir = Path(directory)

    def create(self, name: str) -> Identity:
        """Generate an identity and save it; ``MoatError`` where the name is taken."""
        check_name(name)
        identity = Identity.generate(name)
        self.save(identity)
        return identity

    def import_key(self, name: str, data: bytes) -> Identity:
        """Save an Ed25519 key from a file of `openssl` (PKCS#8 PEM) or `ssh-keygen`, unencrypted.

        ``MalformedInput`` where the file holds anything else, ``MoatError`` where the name is
        taken or the key is here already.
        """
        check_name(name)
        identity = _openssh.read_private(name, data)
        known = next((other for other in self.names() if self.public(other) == identity.id), None)
        if known is not None and known != name:
            message = f"this key is here already, as `{known}`; a key has one name"
            raise MoatError(message)
        self.save(identity)
        return identity

    def save(self, identity: Identity, *, overwrite: bool = False) -> None:
        """Write both files; ``MoatError`` where the name is taken and not to be overwritten."""
        _files.make_dirs(self._dir)
        _files.require_private_dir(self._dir)
        pem, public = self._paths(identity.name)
        try:
            _files.write(pem, identity.to_pem().encode(), secret=True, overwrite=overwrite)
        except FileExistsError as error:
            message = f"there is a key `{identity.name}` already; choose another name"
            raise MoatError(message) from error
        # The secret is there first: a crash in between leaves a key that `public` still finds.
        _files.write(public, f"{identity.id}\n".encode(), secret=False, overwrite=True)

    def load(self, name: str) -> Identity:
        """Read an identity; ``MoatError`` where there is none or its file cannot be trusted."""
        pem, _ = self._paths(name)
        try:
            _files.require_private_dir(self._dir)
            data = _files.read(pem, secret=True)
        except FileNotFoundError as error:
            message = f"there is no key `{name}` in `{self._dir}`; create it first"
            raise MoatError(message) from error
        return Identity.from_pem(name, _text(data, pem))

    def public(self, name: str) -> AgentId:
        """Read the public part of an identity; the secret is opened only where it is missing."""
        _, public = self._paths(name)
        try:
            data = _files.read(public, secret=False)
        except FileNotFoundError:
            return self.load(name).id
        return AgentId(_text(data, public).removesuffix("\n"))

    def names(self) -> list[str]:
        """List the names of all identities here, sorted."""
        found = (path.name.removesuffix(".pem") for path in self._dir.glob("*.pem"))
        return sorted(name for name in found if _NAME.fullmatch(name))

    def __contains__(self, name: str) -> bool:
        """Whether there is a key file of this name, good or not."""
        return self._paths(name)[0].exists()

    def _paths(self, name: str) -> tuple[Path, Path]:
        check_name(name)
        return self._dir / f"{name}.pem", self._dir / f"{name}.pub"


def check_name(name: str) -> None:
    """Refuse a name that could mean another file than its own; ``Identity`` has the same rule."""
    if not _NAME.fullmatch(name):
        message = f"`{name}` is not a name; use 1 to 63 of a-z 0-9 . _ - after a letter or digit"
        raise MalformedInput(message)


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        message = f"`{path}` is not a key file"
        raise MalformedInput(message) from error
