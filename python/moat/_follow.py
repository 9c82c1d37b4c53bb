"""Follow logs while other processes write them: whole lines, in order, without a lock.

::

    log/seg/NNNNNNNNNNNN.jsonl    named by the index of its first line (spec/audit.md)

A log may not be there yet, go on in a new segment, or lose old ones. An unfinished last line is
left until its newline is there. Nothing is verified but that each line follows the one before it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from moat.errors import AuditError, ChainBroken, MalformedInput, RolledBack
from moat.keystore import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LINE_BYTES: Final = 65_535
"""The longest line, without its newline."""
BATCH: Final = 256
"""Lines of one gate that one look gives at most."""

_CHUNK: Final = 4 * (LINE_BYTES + 1)
_NAME: Final = re.compile(r"([0-9]{12})\.jsonl")
_HEAD: Final = re.compile(rb'\{"i":([0-9]{1,16}),"t":([0-9]{1,12}),"prev":"([0-9a-f]{64})",.*\}')
_INHERITED: Final = re.compile(
    rb'"kind":"inherited","body":\{"part":0,"of":[0-9]{1,16},"gate":"[^"]{1,128}",'
    rb'"entries":([0-9]{1,16}),'
)


class Seen(NamedTuple):
    """A line of a gate's log, without its newline."""

    gate: str
    line: bytes


class Feed:
    """The logs of a state folder as one stream; gates that come later are taken up too."""

    def __init__(
        self, state: Path, gates: Sequence[str] = (), *, start: int = 0, last: int | None = None
    ) -> None:
        """Follow these gates, or all of them.

        Each log begins at entry ``start``, or with its ``last`` entries of now; one that is not
        there yet, with its first.
        """
        self._gates = state / "gates"
        self._wanted = tuple(gates)
        for gate in self._wanted:
            check_name(gate)
        self._open: dict[str, Follower] = {}
        for gate in self._here():
            begin = start if last is None else max(0, end(self._log(gate)) - last)
            self._open[gate] = Follower(self._log(gate), begin)

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that are followed, then those that were asked for and are not there yet."""
        return tuple(self._open) + self.missing

    @property
    def missing(self) -> tuple[str, ...]:
        """Gates that were asked for and are not there yet."""
        return tuple(gate for gate in self._wanted if gate not in self._open)

    @property
    def missed(self) -> int:
        """Count the lines that were removed before they could be read."""
        return sum(one.missed for one in self._open.values())

    def poll(self) -> list[Seen]:
        """Give what is new, by time where there are several gates; never waits."""
        for gate in self._here():
            if gate not in self._open:
                self._open[gate] = Follower(self._log(gate))
        found = [Seen(gate, line) for gate, one in self._open.items() for line in one.poll()]
        return sorted(found, key=_time) if len(self._open) > 1 else found

    def close(self) -> None:
        """Let go of all files."""
        for one in self._open.values():
            one.close()

    def _here(self) -> list[str]:
        if self._wanted:
            return [gate for gate in self._wanted if self._log(gate).is_dir()]
        found = []
        for path in sorted(self._gates.glob("*/log")):
            with suppress(MalformedInput):
                check_name(path.parent.name)
                found.append(path.parent.name)
        return found

    def _log(self, gate: str) -> Path:
        return self._gates / gate / "log"


class Follower:
    """The lines of one log directory from an index on, as they come."""

    def __init__(self, log: Path, start: int = 0) -> None:
        """Take a log directory, which need not be there yet."""
        self._segments = log / "seg"
        self._start = start
        self._part: _Part | None = None
        self._leaf: str | None = None
        self._doubted: int | None = None
        self.missed = 0
        """Lines that were removed before they could be read."""

    def poll(self, most: int = BATCH) -> list[bytes]:
        """Give new whole lines, at most so many; never waits.

        Raises ``ChainBroken`` for a line that does not follow the one before it, ``RolledBack``
        for a log that has become shorter, ``AuditError`` for a segment that is no regular file.
        """
        return list(islice(self._ready(), most))

    def close(self) -> None:
        """Let go of the file."""
        if self._part is not None:
            os.close(self._part.fd)
            self._part = None

    def _ready(self) -> Iterator[bytes]:
        while part := self._part or self._enter(self._first()):
            data = os.pread(part.fd, _CHUNK, part.offset)
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                yield from self._lines(part, whole)
                if self._doubted == part.at:
                    return
            elif len(data) > LINE_BYTES:
                raise _broken(part.at, "is longer than a line can be")
            elif not self._turn(part, len(data)):
                return

    def _lines(self, part: _Part, whole: bytes) -> Iterator[bytes]:
        count = whole.count(b"\n")
        if part.at + count <= self._start:
            part.at, part.offset = part.at + count, part.offset + len(whole)
            return
        for line in whole.split(b"\n")[:-1]:
            if part.at < self._start:
                part.at, part.offset = part.at + 1, part.offset + len(line) + 1
                continue
            if not self._follows(part, line):
                return
            self._start = part.at = part.at + 1
            part.offset += len(line) + 1
            self._leaf = hashlib.sha256(b"\0" + line).hexdigest()
            yield line

    def _follows(self, part: _Part, line: bytes) -> bool:
        """Whether a line is the next one. It is read again before it is called wrong.

        No lock is held: what a crash left unfinished may be written over while we read it.
        """
        head = _HEAD.fullmatch(line)
        if head and int(head[1]) == part.at and self._leaf in {None, head[3].decode()}:
            return True
        if self._doubted == part.at:
            raise _broken(part.at, "does not follow the one before it")
        self._doubted = part.at
        return False

    # --- from segment to segment ---

    def _turn(self, part: _Part, rest: int) -> bool:
        """Go on where a segment has no whole line left; whether there may be more."""
        if os.fstat(part.fd).st_size < part.offset:
            raise self._shorter()
        here = self._names()
        newer = next((first for first in here if first > part.first), None)
        if newer is not None:
            if os.pread(part.fd, 1, part.offset + rest):
                return True  # it has grown since we looked, and these lines come first
            return self._enter(newer) is not None
        if self._same(part):
            if part.at < self._start and self._leaf is not None:
                raise self._shorter()
            return False
        # Another log lies in its place, or none: what is there has to hold what was seen.
        self.close()
        entries = _inherited(self._segments)
        if entries is not None and entries >= self._start:
            # The gate goes on under another key, in a log that begins anew after this one.
            self.missed += entries - self._start
            self._start, self._leaf, self._doubted = 0, None, None
        return self._enter(self._first()) is not None

    def _first(self) -> int | None:
        """Name the segment that has the next line, or the oldest where that one is gone."""
        here = self._names()
        oldest = min(here, default=None)
        return next((first for first in reversed(here) if first <= self._start), oldest)

    def _enter(self, first: int | None) -> _Part | None:
        """Open a segment; None where it is not there (any more)."""
        if first is None:
            return None
        try:
            fd = _open(self._segments / f"{first:012}.jsonl")
        except FileNotFoundError:
            return None
        self.close()
        self._part = _Part(fd, first)
        if first > self._start:
            self.missed += first - self._start
            self._start, self._leaf = first, None
        return self._part

    def _names(self) -> list[int]:
        return _names(self._segments)

    def _same(self, part: _Part) -> bool:
        with suppress(FileNotFoundError):
            path = self._segments / f"{part.first:012}.jsonl"
            return os.path.samestat(path.lstat(), os.fstat(part.fd))
        return False

    def _shorter(self) -> RolledBack:
        message = f"the log had {self._start} entries and has fewer now; run `moat audit verify`"
        return RolledBack(message)


class _Part:
    """An open segment, and where in it we are: line ``at`` begins at ``offset``."""

    def __init__(self, fd: int, first: int) -> None:
        self.fd = fd
        self.first = self.at = first
        self.offset = 0


def end(log: Path) -> int:
    """Count the entries of a log, whole lines only; 0 where there is none."""
    for first in reversed(_names(log / "seg")):
        try:
            fd = _open(log / "seg" / f"{first:012}.jsonl")
        except FileNotFoundError:
            continue
        try:
            length = os.fstat(fd).st_size
            begin = max(0, length - 2 * (LINE_BYTES + 1))
            tail = os.pread(fd, length - begin, begin)
        finally:
            os.close(fd)
        lines = tail[: tail.rfind(b"\n") + 1].split(b"\n")
        if len(lines) > 1:
            head = _HEAD.fullmatch(lines[-2])
            if head is None:
                raise _broken(first, "or one after it does not read")
            return int(head[1]) + 1
        return first
    return 0


def first_entry(log: Path) -> int:
    """Name the oldest entry of a log whose line is there; 0 where there is no log."""
    return min(_names(log / "seg"), default=0)


def _inherited(segments: Path) -> int | None:
    """Count the entries of the log that this one goes on after; None where it is the first."""
    try:
        fd = _open(segments / f"{0:012}.jsonl")
    except FileNotFoundError:
        return None
    try:
        lines = os.pread(fd, 2 * (LINE_BYTES + 1), 0).split(b"\n", 2)
    finally:
        os.close(fd)
    found = _INHERITED.search(lines[1]) if len(lines) > 2 else None  # noqa: PLR2004 - whole lines
    return int(found[1]) if found else None


def _names(folder: Path) -> list[int]:
    try:
        found = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name[1]) for name in found if name)


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"cannot open `{path}`: {os.strerror(error.errno or 0).lower()}"
        raise AuditError(message) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        message = f"`{path}` is not a regular file; run `moat audit verify`"
        raise AuditError(message)
    return fd


def _broken(index: int, why: str) -> ChainBroken:
    error = ChainBroken(f"line {index} of the log {why}; run `moat audit verify`")
    error.index = index
    return error


def _time(seen: Seen) -> int:
    head = _HEAD.fullmatch(seen.line)
    return int(head[2]) if head else 0
