"""What a state folder says of secrets: which handle stands for what, for whom and where.

::

    secrets/handles.json      backends and handles; no value is in it
    secrets/values.age        values, where the backend is `age` and lies here
    secrets/age.key           the identity that opens them, unless it lies elsewhere

``handles.json`` has one spelling (sorted keys, no spaces, one line) and is read again when it was
changed, so a handle that was added or removed counts from the next fill on, in running gates too::

    {"backends":{NAME:{"kind":"age"|"env"|"keyring"|"vault",…}},
     "handles":{HANDLE:{"agents":[did],"backend":NAME,"hosts":[host],"name":text}},"version":1}
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from moat import _files
from moat._native import AgentId
from moat.backends import AgeFile, Keyring, Vault
from moat.errors import MalformedInput, MoatError, UnknownHandle
from moat.secrets import Binding, Environment, Writable, check_handle, read_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from moat.secrets import Backend

FOLDER: Final = "secrets"
FILE: Final = "handles.json"
_EMPTY: Final = b'{"backends":{},"handles":{},"version":1}\n'
_BACKEND: Final = {
    "age": {"file", "identity"},
    "env": {"prefix"},
    "keyring": {"service"},
    "vault": {"ca", "mount", "path", "token_file", "url"},
}
"""What each kind of backend is set up with; every value is text, and ``ca`` may be empty."""
_HANDLE: Final = {"agents", "backend", "hosts", "name"}


class Handles:
    """The handles of one state folder. Safe across threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Take the state folder's ``secrets``, which need not be there."""
        self._folder = folder
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._read: dict[str, Any] = json.loads(_EMPTY)
        self._open: dict[str, Backend] = {}  # by what they are set up with

    def find(self, handle: str) -> Binding | None:
        """Give what a handle stands for now; ``MoatError`` where the file cannot be trusted."""
        with self._lock:
            self._refresh()
            entry: dict[str, Any] | None = self._read["handles"].get(handle)
            return None if entry is None else self._binding(entry)

    def names(self) -> list[str]:
        """List the handles, sorted."""
        with self._lock:
            self._refresh()
            return sorted(self._read["handles"])

    def entry(self, handle: str) -> dict[str, Any]:
        """Give the entry of a handle; ``UnknownHandle`` where there is none."""
        with self._lock:
            self._refresh()
            entry = self._read["handles"].get(handle)
        if entry is None:
            message = f"`{handle}` is not bound here; `moat secret list` shows what is"
            raise UnknownHandle(message)
        return dict(entry)

    def kind(self, backend: str) -> str | None:
        """Name the kind of a backend; None where it is not set up."""
        with self._lock:
            self._refresh()
            found = self._read["backends"].get(backend)
        return None if found is None else str(found["kind"])

    def kinds(self) -> dict[str, str]:
        """Give the kind of each backend that is set up."""
        with self._lock:
            self._refresh()
            return {name: str(setup["kind"]) for name, setup in self._read["backends"].items()}

    def problems(self, backend: str) -> list[str]:
        """Say what keeps a backend from giving values, as far as the files here tell."""
        with self._lock:
            self._refresh()
            setup: dict[str, str] = self._read["backends"][backend]
        try:
            if setup["kind"] == "age":
                file, identity = self._places(setup)
                AgeFile(file, identity=identity).check()
            elif setup["kind"] == "vault":
                _files.read(self._folder / setup["token_file"], secret=True)
            else:
                self._made(backend, setup)
        except (MoatError, OSError) as error:
            return [f"backend `{backend}`: {error}"]
        return []

    def beside(self) -> list[Path]:
        """Give the identities that lie in the folder of the values that they open."""
        with self._lock:
            self._refresh()
            found = [setup for setup in self._read["backends"].values() if setup["kind"] == "age"]
        places = [self._places(setup) for setup in found]
        return [
            identity
            for file, identity in places
            if identity.exists() and identity.resolve().parent == file.resolve().parent
        ]

    def add(
        self,
        handle: str,
        entry: Mapping[str, Any],
        value: str | None,
        *,
        setup: Mapping[str, str] | None = None,
    ) -> None:
        """Bind a handle and put its value where it is kept; the value first.

        ``setup`` sets the backend up where it is not. Raises ``MoatError`` where the handle is
        bound already or the backend is set up in another way.
        """
        check_handle(handle)

        def change(read: dict[str, Any]) -> None:
            if handle in read["handles"]:
                message = f"`{handle}` is bound already; `moat secret rotate` gives a new value"
                raise MoatError(message)
            known = entry["backend"] in read["backends"]
            found = read["backends"].setdefault(entry["backend"], dict(setup or {}))
            if setup is not None and found != setup:
                message = f"backend `{entry['backend']}` is set up already, and in another way"
                raise MoatError(message)
            read["handles"][handle] = dict(entry)
            _check(read)
            if not known and found["kind"] == "age":  # never later: a key that is away may return
                file, identity = self._places(found)
                AgeFile.create(file, identity=identity)
            if value is not None:
                writable(self._backend(entry["backend"], found)).set(entry["name"], value)

        self._change(change)

    def drop(self, handle: str) -> None:
        """Make a handle unknown; its value goes too, where no other handle stands for it."""

        def change(read: dict[str, Any]) -> None:
            entry = read["handles"].pop(handle, None)
            if entry is None:
                message = f"`{handle}` is not bound here; `moat secret list` shows what is"
                raise UnknownHandle(message)
            place = (entry["backend"], entry["name"])
            if place in {(one["backend"], one["name"]) for one in read["handles"].values()}:
                return
            backend = self._backend(entry["backend"], read["backends"][entry["backend"]])
            if isinstance(backend, Writable):
                backend.remove(entry["name"])

        self._change(change)

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        _files.make_dirs(self._folder)
        with self._lock, self._alone():
            self._refresh()
            read = json.loads(json.dumps(self._read))
            change(read)
            data = _spell(read)
            if len(data) > _files.MAX_BYTES:
                message = f"`{self._file}` would be too large; remove handles"
                raise MoatError(message)
            _files.write(self._file, data, secret=True, overwrite=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out."""
        _files.require_private_dir(self._folder)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @property
    def _file(self) -> Path:
        return self._folder / FILE

    def _refresh(self) -> None:
        """Read the file again if it is another one, or was changed."""
        seen: tuple[int, ...]
        try:
            found = os.lstat(self._file)
            seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        except FileNotFoundError:
            seen = ()
        if seen == self._seen:
            return
        # What cannot be read stays unread: the next use fails in the same way.
        self._seen = None
        data = _files.read(self._file, secret=True) if seen else _EMPTY
        try:
            read = json.loads(data)
            _check(read)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _foreign(self._file) from error
        if _spell(read) != data:
            raise _foreign(self._file)
        self._read, self._seen = read, seen

    def _binding(self, entry: Mapping[str, Any]) -> Binding:
        name = entry["backend"]
        backend = self._backend(name, self._read["backends"][name])
        agents = frozenset(map(AgentId, entry["agents"]))
        return Binding(backend, name, entry["name"], agents, read_hosts(entry["hosts"]))

    def _places(self, setup: Mapping[str, str]) -> tuple[Path, Path]:
        return self._folder / setup["file"], self._folder / setup["identity"]

    def _backend(self, name: str, setup: Mapping[str, str]) -> Backend:
        """Make a backend, once: variables of the environment can be taken only once."""
        key = json.dumps(setup, sort_keys=True)
        if key not in self._open:
            self._open[key] = self._made(name, setup)
        return self._open[key]

    def _made(self, name: str, setup: Mapping[str, str]) -> Backend:
        place = {key: value for key, value in setup.items() if key != "kind"}
        match setup["kind"]:
            case "age":
                file, identity = self._places(place)
                return AgeFile(file, identity=identity)
            case "env":
                return Environment(place["prefix"])
            case "keyring":
                return Keyring(place["service"])
            case "vault":
                url, ca = place.pop("url"), place.pop("ca") or None
                token = self._folder / place.pop("token_file")
                return Vault(url, token_file=token, ca=ca, **place)
        message = f"backend `{name}` is of no kind that is known here"
        raise MalformedInput(message)


def writable(backend: Backend) -> Writable:
    """Give a backend whose values can be changed here, or ``MoatError``."""
    if not isinstance(backend, Writable):
        message = f"`{backend!r}` only reads; change the value where it is kept"
        raise MoatError(message)
    return backend


def _check(read: dict[str, Any]) -> None:
    """Refuse what is not known: a key more may be a restriction that is not understood."""
    if set(read) != {"backends", "handles", "version"} or read["version"] != 1:
        raise ValueError
    for setup in read["backends"].values():
        wanted = _BACKEND[setup["kind"]] | {"kind"}
        if set(setup) != wanted or not all(isinstance(text, str) for text in setup.values()):
            raise ValueError
    for handle, entry in read["handles"].items():
        check_handle(handle)
        if set(entry) != _HANDLE or entry["backend"] not in read["backends"]:
            raise ValueError
        for key in ("agents", "hosts"):
            if entry[key] != sorted(set(entry[key])):
                raise ValueError
        _ = (frozenset(map(AgentId, entry["agents"])), read_hosts(entry["hosts"]))
        if not isinstance(entry["name"], str) or not entry["name"]:
            raise ValueError


def _spell(read: Mapping[str, Any]) -> bytes:
    return json.dumps(read, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _foreign(file: Path) -> MoatError:
    return MalformedInput(f"`{file}` is not as Moat writes it; restore it, or remove it")
