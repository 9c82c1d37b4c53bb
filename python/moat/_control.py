"""The ``control`` folder: signed statements from other processes on their way to running gates.

One file for each statement, named by its SHA-256. Whoever can write here is the owner of the
state folder, or root; what a statement may do is decided by its signature alone. A gate takes up
what is for it, leaves what is for another, and answers a refusal beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from moat import _files
from moat._native import REASONS
from moat.errors import AuditUnavailable, Denied, MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOG = logging.getLogger("moat.control")

STATEMENT: Final = ".ctl"
REGISTRATION: Final = ".reg"
ATTESTATION: Final = ".att"
REFUSED: Final = ".refused"
_NAME: Final = re.compile(r"(?P<digest>[0-9a-f]{64})(?P<kind>\.ctl|\.reg|\.att)")
_ANSWER: Final = re.compile(r"[0-9a-f]{64}\.refused")

STATEMENT_BYTES: Final = 2048
"""No statement is longer (spec/message.md, spec/registry.md)."""
ATTESTATION_BYTES: Final = 72 * 1024
"""No envelope with its keys is longer, packed as JSON (spec/attest.md)."""
TAKE: Final = 256
"""Statements that one look reads; the next one reads on."""
LEFT: Final = 10_000
"""Names that are remembered as nothing for this gate."""
TIDY: Final = 60.0
"""Seconds between two looks for what is too old."""
ANSWERS: Final = 256
"""Refusals that are kept for those who wait for them."""
LIFE: Final = 3600
"""Seconds after which no statement can be valid any more."""
PERIOD: Final = 0.2
"""Seconds between two looks."""


class ControlFolder:
    """The folder of one state folder; made (0700) where it is missing."""

    def __init__(self, path: Path) -> None:
        """Take its place."""
        self.path = path
        self._left: set[str] = set()
        self._tidied = 0.0

    def drop(self, statement: bytes, kind: str = STATEMENT) -> str:
        """Leave a statement for the gate that it names; its file's name."""
        _files.make_dirs(self.path)
        _files.require_private_dir(self.path)
        name = hashlib.sha256(statement).hexdigest() + kind
        with suppress(FileExistsError):  # said already
            _files.write(self.path / name, statement, secret=True, overwrite=False)
        return name

    def refusal(self, name: str) -> dict[str, str] | None:
        """Read and remove the answer to a statement that was refused."""
        answer = self._answer(name)
        try:
            found = json.loads(_files.read(answer, secret=True))
        except (FileNotFoundError, ValueError):
            return None
        answer.unlink(missing_ok=True)
        return {key: str(found.get(key)) for key in ("reason", "detail")}

    def _answer(self, name: str) -> Path:
        return self.path / (name.partition(".")[0] + REFUSED)

    def take(self, accept: Callable[[bytes, str], int]) -> int:
        """Take up what is there; how many statements counted.

        ``accept(statement, kind)`` gives an entry or raises ``Denied``. Links, pipes, long files
        and files of others are removed unread; more than fits in one look waits for the next.
        """
        try:
            with self._opened() as folder:
                return self._take(folder, accept)
        except FileNotFoundError:
            return 0

    def drain(self, accept: Callable[[bytes, str], int]) -> None:
        """Take up all that is there now, before the gate that it is for is gone."""
        with suppress(FileNotFoundError):
            for _ in range(LEFT // TAKE):
                with self._opened() as folder:
                    if not self._waiting(folder):
                        return
                    self._take(folder, accept)

    def _take(self, folder: int, accept: Callable[[bytes, str], int]) -> int:
        counted = 0
        for name in self._waiting(folder):
            statement = _statement(folder, name)
            if statement is None:
                self._leave(name)  # what cannot be removed is not looked at again
            else:
                counted += self._said(folder, name, statement, accept)
        return counted

    def _waiting(self, folder: int) -> list[str]:
        """Name what is to be read now; what is too old to count is removed once a minute."""
        waiting: list[str] = []
        now = time.time()
        if tidy := abs(now - self._tidied) >= TIDY:
            self._tidied = now
        with os.scandir(folder) as found:
            for entry in found:
                statement = _NAME.fullmatch(entry.name)
                if tidy and (statement or _ANSWER.fullmatch(entry.name)) and _old(entry, now):
                    _unlink(folder, entry.name)
                elif statement and entry.name not in self._left and len(waiting) < TAKE:
                    waiting.append(entry.name)
        return waiting

    def _leave(self, name: str) -> None:
        if len(self._left) >= LEFT:
            self._left.clear()
        self._left.add(name)

    def _said(
        self, folder: int, name: str, statement: bytes, accept: Callable[[bytes, str], int]
    ) -> bool:
        kind = name[64:]
        try:
            accept(statement, kind)
        except AuditUnavailable:
            raise  # it stays for whoever opens the gate next
        except MoatError as refusal:
            reason = str(refusal.reason or "error")
            if reason == "wrong_gate":
                self._leave(name)
                return False
            if REASONS.get(reason, "gate") == "gate":
                return False  # the gate's own trouble: a revocation is not lost for it
            # What counted before, or was taken up by a look that was cut short, is no refusal.
            if reason != "replayed":
                self._refuse(folder, name, refusal, reason)
            _unlink(folder, name)
            return False
        _unlink(folder, name)
        return True

    def _refuse(self, folder: int, name: str, refusal: MoatError, reason: str) -> None:
        decision = getattr(refusal, "decision", None) if isinstance(refusal, Denied) else None
        detail = str(getattr(decision, "detail", None) or refusal)
        _LOG.warning("a statement in the control folder was refused: %s: %s", reason, detail)
        answers = sum(1 for other in os.listdir(folder) if _ANSWER.fullmatch(other))
        if answers < ANSWERS:
            answer = json.dumps({"reason": reason, "detail": detail}).encode()
            with suppress(OSError):
                _files.write(self._answer(name), answer, secret=True, overwrite=True)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        _files.require_private_dir(self.path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = os.open(self.path, flags)
        try:
            yield folder
        finally:
            os.close(folder)


def _statement(folder: int, name: str) -> bytes | None:
    """Read a statement, or remove what cannot be one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:  # a link, a socket, or no right to read it
        _unlink(folder, name)
        return None
    try:
        found = os.fstat(file)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid in {0, os.geteuid()}
        most = ATTESTATION_BYTES if name.endswith(ATTESTATION) else STATEMENT_BYTES
        if ours and found.st_size <= most:
            statement = os.read(file, most + 1)
            if hashlib.sha256(statement).hexdigest() == name[:64]:
                return statement
    finally:
        os.close(file)
    _unlink(folder, name)
    return None


def _old(entry: os.DirEntry[str], now: float) -> bool:
    with suppress(FileNotFoundError):
        return entry.stat(follow_symlinks=False).st_mtime < now - LIFE
    return False


def _unlink(folder: int, name: str) -> None:
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        os.unlink(name, dir_fd=folder)


class Watcher:
    """Looks into the folder a few times a second, on a thread of its own, until it is stopped."""

    def __init__(self, folder: ControlFolder, accept: Callable[[bytes, str], int]) -> None:
        """Start looking."""
        self._folder = folder
        self._accept = accept
        self._stop = threading.Event()
        self._told: str | None = None
        self._thread = threading.Thread(target=self._run, name="moat-control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the last look is over."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            try:
                self._folder.take(self._accept)
                self._told = None
            except BaseException as error:  # noqa: BLE001 - also a fault of the gate's, or nobody
                # would hear of a revocation any more; the next look may be well
                if str(error) != self._told:  # once, not five times a second
                    self._told = str(error)
                    _LOG.error("the control folder cannot be read: %s", error)
