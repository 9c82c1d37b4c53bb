"""Backends of ``SecretProxy`` whose values lie outside this process; each is an extra.

============= =============================================== ==================================
``Keyring``   the keyring of the operating system             ``pip install 'moat[keyring]'``
``AgeFile``   a file encrypted with age (age-encryption.org)  ``pip install 'moat[age]'``
``Vault``     HashiCorp Vault or OpenBao, KV version 2        ``pip install 'moat[vault]'``
============= =============================================== ==================================

All are asked at every fill, so a value that is changed or removed where it is kept counts from
the next fill on, whoever changed it. ``Memory`` and ``Environment`` are in ``moat.secrets``.
Values are Python strings on their way here, and those cannot be wiped.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from moat import _files
from moat.errors import MalformedInput, MoatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

SECONDS: Final = 5
"""How long a server may take to answer."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class Keyring:
    """The keyring of the operating system, through ``keyring``; values by service and name.

    One that keeps nothing, or keeps it readable, is refused: there would be no secret in it.
    """

    def __init__(self, service: str = "moat") -> None:
        """Take the keyring that is set up for this user; ``MoatError`` where there is none."""
        self._ring = _extra("keyring").get_keyring()
        self._service = service
        kind = type(self._ring)
        unfit = ("keyring.backends.fail", "keyring.backends.null")
        if kind.__module__ in unfit or "plaintext" in kind.__name__.lower():
            message = f"there is no keyring here that keeps a secret, but `{kind.__name__}`; "
            raise MoatError(message + "set one up, or use another backend")

    def get(self, name: str) -> str:
        """Give a value; ``LookupError`` where there is none."""
        value = self._ring.get_password(self._service, name)
        if value is None:
            raise LookupError(name)
        return str(value)

    def set(self, name: str, value: str) -> None:
        """Put a value in the place of the one before."""
        self._ring.set_password(self._service, name, value)

    def remove(self, name: str) -> None:
        """Forget a value."""
        if self._ring.get_password(self._service, name) is not None:
            self._ring.delete_password(self._service, name)

    def __repr__(self) -> str:
        """Show the service."""
        return f"<Keyring: {self._service}>"


class AgeFile:
    """Values in one file, encrypted with age to one X25519 identity, through ``pyrage``.

    The identity is a file as ``age-keygen`` writes it. Both files are 0600 and small, and are
    refused where others can read them. Who has both has the values: keep the identity somewhere
    else than the copies of the file. Safe across threads and processes.
    """

    def __init__(self, file: str | PathLike[str], *, identity: str | PathLike[str]) -> None:
        """Take the places of both; neither is read before it is needed."""
        self._pyrage = _extra("pyrage")
        self._file, self._identity = Path(file), Path(identity)

    @classmethod
    def create(cls, file: str | PathLike[str], *, identity: str | PathLike[str]) -> AgeFile:
        """Make what is missing: an identity, and a file without values."""
        made = cls(file, identity=identity)
        if not os.path.lexists(made._identity):
            key = made._pyrage.x25519.Identity.generate()
            text = f"# public key: {key.to_public()}\n{key}\n"
            _files.make_dirs(made._identity.parent)
            _files.write(made._identity, text.encode(), secret=True, overwrite=False)
        if not os.path.lexists(made._file):
            _files.make_dirs(made._file.parent)
            with made._locked():
                made._write({}, overwrite=False)
        return made

    def get(self, name: str) -> str:
        """Give a value; ``LookupError`` where there is none."""
        return self._read()[name]

    def set(self, name: str, value: str) -> None:
        """Put a value in the place of the one before."""
        with self._locked():
            self._write(self._read() | {name: value})

    def remove(self, name: str) -> None:
        """Forget a value; the file is written anew without it."""
        with self._locked():
            values = self._read()
            if values.pop(name, None) is not None:
                self._write(values)

    def check(self) -> None:
        """Raise ``MoatError`` unless the file is there and opens with the identity."""
        self._read()

    def __repr__(self) -> str:
        """Show the file."""
        return f"<AgeFile: {self._file}>"

    def _key(self) -> Any:  # noqa: ANN401 (an identity of a library that may not be here)
        text = _files.read(self._identity, secret=True).decode("ascii", "replace")
        lines = [line for line in text.split() if line.startswith("AGE-SECRET-KEY-1")]
        try:
            (line,) = lines
            return self._pyrage.x25519.Identity.from_str(line)
        except (ValueError, self._pyrage.IdentityError):
            message = f"`{self._identity}` holds no age identity; make one with `age-keygen -o`"
        raise MoatError(message)

    def _read(self) -> dict[str, str]:
        sealed = _files.read(self._file, secret=True)
        try:
            values = json.loads(self._pyrage.decrypt(sealed, [self._key()]))
        except (ValueError, RecursionError, self._pyrage.DecryptError):
            values = None
        if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
            return values
        message = f"`{self._file}` does not open with `{self._identity}`; restore either"
        raise MoatError(message)

    def _write(self, values: dict[str, str], *, overwrite: bool = True) -> None:
        plain = json.dumps(values, sort_keys=True).encode()
        sealed = self._pyrage.encrypt(plain, [self._key().to_public()])
        if len(sealed) > _files.MAX_BYTES:
            message = f"`{self._file}` would be larger than {_files.MAX_BYTES} bytes; "
            raise MoatError(message + "remove values, or use another backend")
        _files.write(self._file, sealed, secret=True, overwrite=overwrite)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out: the identity is never replaced, so it is what is locked."""
        with _files.reading(self._identity, secret=True) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Vault:
    """A HashiCorp Vault or OpenBao server, KV version 2, through ``hvac``.

    The value of ``name`` is the field ``value`` of the secret ``<path>/<name>`` below ``mount``.
    Setting one writes a new version; removing one destroys all versions. The server is spoken to
    by https (or http on loopback); proxies and other settings of the environment are ignored, and
    redirects are not followed.
    """

    def __init__(
        self,
        url: str,
        *,
        token_file: str | PathLike[str],
        mount: str = "secret",
        path: str = "moat",
        ca: str | PathLike[str] | None = None,
    ) -> None:
        """Take the server, and the file (0600) with a token for it; it is read at each use.

        ``ca`` is a file of certificates to trust in the place of the public ones.
        """
        self._hvac, self._requests = _extra("hvac", "vault"), _extra("requests", "vault")
        where = urlsplit(url)
        if where.scheme != "https" and (where.scheme, where.hostname in _LOOPBACK) != (
            "http", True,
        ):  # fmt: skip
            message = f"`{url}` is not spoken to by https; secrets would be read on the way"
            raise MalformedInput(message)
        if where.username or where.password or where.query or where.fragment:
            message = f"`{where.hostname}`: a server has no user name, query or fragment here"
            raise MalformedInput(message)
        self._url, self._token_file = url, Path(token_file)
        self._mount, self._path, self._ca = mount, path.strip("/"), ca

    def get(self, name: str) -> str:
        """Give the newest value; ``LookupError`` where there is none."""
        with self._kv() as kv:
            try:
                read = kv.read_secret_version(
                    self._at(name), mount_point=self._mount, raise_on_deleted_version=True
                )
            except self._hvac.exceptions.InvalidPath:
                read = None
        if read is None or not isinstance(value := read["data"]["data"].get("value"), str):
            raise LookupError(name)
        return value

    def set(self, name: str, value: str) -> None:
        """Write a new version."""
        with self._kv() as kv:
            kv.create_or_update_secret(self._at(name), {"value": value}, mount_point=self._mount)

    def remove(self, name: str) -> None:
        """Destroy all versions."""
        with self._kv() as kv:
            kv.delete_metadata_and_all_versions(self._at(name), mount_point=self._mount)

    def __repr__(self) -> str:
        """Show the server."""
        return f"<Vault: {self._url}>"

    @contextmanager
    def _kv(self) -> Iterator[Any]:
        token = _files.read(self._token_file, secret=True).decode("ascii", "replace").strip()
        with self._requests.Session() as session:
            session.trust_env = False  # no proxies, no netrc, no certificates from variables
            session.verify = str(self._ca) if self._ca else True
            client = self._hvac.Client(
                self._url, token=token, session=session, timeout=SECONDS, allow_redirects=False,
                verify=session.verify,
            )  # fmt: skip
            yield client.secrets.kv.v2

    def _at(self, name: str) -> str:
        if any(part in {"", ".", ".."} for part in name.split("/")):
            message = f"`{name}` is no name of a secret; use parts joined by single slashes"
            raise MalformedInput(message)
        return f"{self._path}/{name}".removeprefix("/")


def _extra(module: str, extra: str | None = None) -> Any:  # noqa: ANN401 (a module)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = extra or {"pyrage": "age"}.get(module, module)
        message = f"this backend needs `{module}`; run `pip install 'moat[{wanted}]'`"
        raise MoatError(message) from error
