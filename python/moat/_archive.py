"""The file that a backup is: a tar of known members in one spelling, a manifest at its end.

::

    config.json  [rules.toml]  keys/…
    gates/<gate>/[former/<N>/](key|log)/…
    MANIFEST.json  MANIFEST.sha256

Plain `tar` reads it. We read nothing but what we would have written ourselves, byte by byte: so
there are no links, no devices, no paths that lead elsewhere, and nothing behind the end.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from moat.errors import MalformedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

MANIFEST: Final = "MANIFEST.json"
SUM: Final = "MANIFEST.sha256"
VERSION: Final = 1
MANIFEST_BYTES: Final = 64 << 20
SMALL: Final = 64 << 10
"""Keys, configuration, rules, checkpoints."""
TILE: Final = 256 * 32
LARGE: Final = 8 << 30
"""More than a segment can have, less than a header can say."""

_LOG_FACTS: Final = {"anchor", "entries", "id", "root", "signed"}
_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_END: Final = bytes(2 * _BLOCK)
_KEY: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
_FORMER: Final = r"former/[1-9][0-9]?"
"""The logs of a gate's earlier keys; a name has at most 64."""
_LOG: Final = rf"gates/{_KEY}/({_FORMER}/)?log"
_TREE: Final = (
    (re.compile(r"config\.json|rules\.toml"), SMALL),
    (re.compile(rf"keys/{_KEY}\.(pem|pub)"), SMALL),
    (re.compile(rf"gates/({_KEY})/key/\1\.(pem|pub)"), SMALL),
    (re.compile(rf"gates/({_KEY})/{_FORMER}/key/\1\.pub"), SMALL),
    (re.compile(rf"{_LOG}/checkpoint"), SMALL),
    (re.compile(rf"{_LOG}/seg/([0-9]{{12}}|[1-9][0-9]{{12,15}})\.jsonl"), LARGE),
    (re.compile(rf"{_LOG}/tile/[0-9]{{1,2}}/(x[0-9]{{3}}/){{0,5}}[0-9]{{3}}"), TILE),
)


class Member(NamedTuple):
    """One file in a backup."""

    size: int
    sha256: str
    offset: int


class _Members:
    """Files in a backup, by name."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin with none."""
        self._file = file
        self.members: dict[str, Member] = {}

    def copy(self, name: str, write: Callable[[bytes], object]) -> None:
        """Copy a member; ``MalformedInput`` if it is not what it was any more."""
        member = self.members[name]
        self._file.seek(member.offset)
        digest, left = hashlib.sha256(), member.size
        while left and (data := self._file.read(min(_CHUNK, left))):
            digest.update(data)
            write(data)
            left -= len(data)
        if digest.hexdigest() != member.sha256:
            _refuse(f"`{name}` was changed while it was read")

    def read(self, name: str) -> bytes:
        """Read a small member."""
        parts: list[bytes] = []
        self.copy(name, parts.append)
        return b"".join(parts)


class Writer(_Members):
    """Writes a backup into an empty file, piece by piece; ``finish`` ends it."""

    def add(self, name: str, size: int, source: BinaryIO) -> None:
        """Copy exactly ``size`` bytes; names come sorted, and are those of the tree."""
        _require_known(name, size)
        _require_next(name, self.members)
        offset = self._begin(name, size)
        digest, left = hashlib.sha256(), size
        while left and (data := source.read(min(_CHUNK, left))):
            digest.update(data)
            self._file.write(data)
            left -= len(data)
        if left:
            message = f"`{name}` became shorter while it was read; back up again"
            raise MalformedInput(message)
        self._pad(size)
        self.members[name] = Member(size, digest.hexdigest(), offset)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the manifest: these facts and all members."""
        found = {name: {"sha256": m.sha256, "size": m.size} for name, m in self.members.items()}
        data = _spelled({**facts, "members": found, "version": VERSION})
        self._file.seek(0, 2)
        for name, told in ((MANIFEST, data), (SUM, _sum(data))):
            self._begin(name, len(told))
            self._file.write(told)
            self._pad(len(told))
        self._file.write(_END)

    def _begin(self, name: str, size: int) -> int:
        self._file.write(_header(name, size))
        return self._file.tell()

    def _pad(self, size: int) -> None:
        self._file.write(bytes(-size % _BLOCK))


class Archive(_Members):
    """A backup that was read to its end and is in order: tree, sizes, digests, manifest."""

    def __init__(self, file: BinaryIO, progress: Callable[[int, int], None] | None = None) -> None:
        """Read and check all of it; ``MalformedInput`` says what is wrong. Nothing is written."""
        super().__init__(file)
        self._total = file.seek(0, 2)
        self._progress = progress
        file.seek(0)
        name, size = self._next()
        while name != MANIFEST:
            _require_known(name, size)
            _require_next(name, self.members)
            offset = file.tell()
            digest = hashlib.sha256()
            for data in self._data(name, size):
                digest.update(data)
            self.members[name] = Member(size, digest.hexdigest(), offset)
            name, size = self._next()
        self.facts = self._manifest(size)

    @property
    def length(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members.values())

    def _next(self) -> tuple[str, int]:
        block = self._file.read(_BLOCK)
        try:
            found = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            name, size = found.name, found.size
            same = block == _header(name, size)
        except (tarfile.HeaderError, ValueError) as error:
            where = f"at byte {self._file.tell()}, where a file of a backup would begin"
            _refuse(f"there is no header {where}", error)
        if not same:
            _refuse(f"`{ascii(name)[1:-1]}` is not written as a backup writes a file")
        return name, size

    def _data(self, name: str, size: int) -> Iterator[bytes]:
        left = size
        while left:
            data = self._file.read(min(_CHUNK, left))
            if not data:
                _refuse(f"it ends in the middle of `{name}`")
            left -= len(data)
            if self._progress is not None:
                self._progress(self._file.tell(), self._total)
            yield data
        if self._file.read(-size % _BLOCK) != bytes(-size % _BLOCK):
            _refuse(f"there is something behind `{name}`")

    def _manifest(self, size: int) -> dict[str, Any]:
        if size > MANIFEST_BYTES:
            _refuse("its manifest is too large")
        data = b"".join(self._data(MANIFEST, size))
        if self._next() != (SUM, len(_sum(data))):
            _refuse(f"there is no `{SUM}` behind its manifest")
        if b"".join(self._data(SUM, len(_sum(data)))) != _sum(data):
            _refuse("its manifest is not what was written")
        if self._file.read(len(_END) + 1) != _END:
            _refuse("it does not end behind its manifest")
        try:
            facts = json.loads(data)
            said = {name: (one["size"], one["sha256"]) for name, one in facts["members"].items()}
            spelled = _spelled(facts) == data and facts["version"] == VERSION
            _check_facts(facts, {name.partition("/log/")[0] for name in self.members
                                 if "/log/" in name})  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _refuse("its manifest does not read", error)
        if not spelled:
            _refuse("its manifest has another spelling or version")
        found = {name: (one.size, one.sha256) for name, one in self.members.items()}
        if wrong := sorted(name for name in said.keys() | found.keys()
                           if said.get(name) != found.get(name)):  # fmt: skip
            _refuse(f"`{wrong[0]}` is not what its manifest says")
        return dict(facts)


def _header(name: str, size: int) -> bytes:
    """Write the one header that a file may have: ustar, 0600, of nobody, of no time."""
    made = tarfile.TarInfo(name)
    made.size, made.mode = size, 0o600
    return made.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _require_known(name: str, size: int) -> None:
    most = next((most for pattern, most in _TREE if pattern.fullmatch(name)), None)
    if most is None:
        _refuse(f"`{ascii(name)[1:-1]}` is no file of a state folder")
    if size > most or (most == TILE and size != TILE):
        _refuse(f"`{name}` has {size} bytes, which no such file has")


def _require_next(name: str, members: dict[str, Member]) -> None:
    if members and name <= next(reversed(members)):
        _refuse(f"`{name}` is there twice, or not in its place")


def _check_facts(facts: dict[str, Any], logs: set[str]) -> None:
    """Refuse facts of another shape, or of other logs than are here."""
    if set(facts) != {"gates", "keys", "members", "time", "version"}:
        raise ValueError(MANIFEST)
    _require_types(facts, {"keys": bool, "time": int})
    told = set()
    for name, gate in facts["gates"].items():
        former = gate.get("former", {})
        if "former" in gate and not former:
            raise ValueError(MANIFEST)
        found = {f"gates/{name}/former/{number}": log for number, log in former.items()}
        for at, log in (found | {f"gates/{name}": gate}).items():
            if set(log) - ({"former"} if log is gate else set()) != _LOG_FACTS:
                raise ValueError(MANIFEST)
            _require_types(log, {"entries": int, "id": str, "root": str, "signed": int})
            told.add(at)
    if told != logs:
        raise ValueError(MANIFEST)


def _require_types(facts: Mapping[str, Any], types: Mapping[str, type]) -> None:
    if any(type(facts[name]) is not kind for name, kind in types.items()):
        raise TypeError(MANIFEST)


def _sum(data: bytes) -> bytes:
    """Write the line that `sha256sum --check` reads."""
    return f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()


def _spelled(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _refuse(why: str, error: Exception | None = None) -> NoReturn:
    message = f"the backup is refused: {why}; use another copy of it"
    raise MalformedInput(message) from error
