"""``AuditLog``: where a log lies, what it is anchored to, and the lines and proofs it gives."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from moat import _files
from moat._native import Gate, verify_log
from moat.errors import AuditError, AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike
    from types import TracebackType
    from typing import Self, TypeAlias

    from moat._native import (
        AgentId,
        Checkpoint,
        ConsistencyProof,
        Identity,
        InclusionProof,
        Report,
    )


class _Default(enum.Enum):
    ANCHOR = "in the user's state directory"


DEFAULT_ANCHOR: Final = _Default.ANCHOR
"""Keep the anchor where ``anchor_path`` says."""

if TYPE_CHECKING:
    Anchor: TypeAlias = str | PathLike[str] | Literal[_Default.ANCHOR] | None


def anchors() -> Path:
    """Name the directory of the default anchors."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path("~/.local/state").expanduser()
    return state / "moat" / "anchors"


def anchor_path(log: AgentId) -> Path:
    """Name the default anchor file of a log.

    It is ``$XDG_STATE_HOME/moat/anchors/<32 hex digits of the SHA-256 of the gate's key>``; an
    unset or relative ``XDG_STATE_HOME`` means ``~/.local/state`` (XDG Base Directory 0.8).
    """
    return anchors() / hashlib.sha256(bytes(log)).hexdigest()[:32]


def ready_anchor(anchor: Anchor) -> None:
    """Make the directory that an anchor will lie in; ``AuditUnavailable`` where that cannot be.

    Asked before keys are written, so that nothing is left half made.
    """
    if anchor is None:
        return
    folder = anchors() if isinstance(anchor, _Default) else Path(anchor).parent
    _make(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"cannot write in `{folder}`, where the anchor of the log lies; make it writable"
        raise AuditUnavailable(message)


class Pruned(NamedTuple):
    """What went with ``AuditLog.prune``, or would go."""

    before: int
    """The oldest entry that stays."""
    entries: int
    """How many entries go."""
    bytes: int
    """How many bytes of lines go."""
    segments: tuple[str, ...]
    """The names of the files that go, oldest first."""


class AuditLog:
    """One gate's log directory, open for writing by this process alone.

    Every line is chained, MACed and a leaf of an RFC 6962 tree with signed checkpoints
    (spec/audit.md). Entries are counted from 0. Close it, or use it in a ``with`` statement.
    """

    def __init__(self, gate: Gate, path: Path, clock: Callable[[], int] | None) -> None:
        """Take an open native gate; ``AuditLog.open`` is how one comes by it."""
        self._gate = gate
        self._path = path
        self._clock = clock

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        signer: Identity,
        anchor: Anchor = DEFAULT_ANCHOR,
        accept_restored: bool = False,
        segment_bytes: int | None = None,
        clock: Callable[[], int] | None = None,
    ) -> Self:
        """Open a log directory, or create it; recovery runs here.

        ``signer`` is the gate's key, which signs this log and nothing else. ``anchor`` is a file
        outside the log that remembers its last checkpoint; None keeps none, and then a cut tail
        or a restored copy cannot be told. A log behind its anchor raises ``RolledBack``, unless
        ``accept_restored`` says that a person knows why: a line `restored` says so, everything
        dated before it or up to 60 s after it is stale, and revocations in the lost lines are
        lost (``moat restore --from`` carries them over). After ``segment_bytes`` (32 MiB) the log
        goes on in a new file. ``clock`` gives Unix seconds and is the system's when left out.
        Raises ``ChainBroken`` for an edited log and ``GateBusy`` where another process has it.
        """
        folder, file = Path(path), anchor_file(anchor, signer.id)
        _make(folder)
        ready_anchor(anchor)
        gate = Gate.open(
            folder,
            signer,
            anchor=file,
            accept_restored=accept_restored,
            segment_bytes=segment_bytes,
            clock=clock,
        )
        return cls(gate, folder, clock)

    @staticmethod
    def verify(
        path: str | PathLike[str],
        *,
        log: AgentId,
        anchor: Anchor = DEFAULT_ANCHOR,
        former: str | PathLike[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Check a whole log as a stranger, in constant memory; it may be open elsewhere.

        ``log`` is the gate's public key. ``progress(done, total)`` is called with bytes. Raises
        ``ChainBroken`` (``.index``), ``RolledBack`` or ``InvalidSignature``; read
        ``Report.unchecked`` for what could not be checked. A default anchor that is not there is
        no anchor. ``former`` is the log that this one goes on after, under the gate's former key:
        that is read too, and what was inherited is compared with it.
        """
        file = anchor_file(anchor, log)
        if file is not None and not file.exists():
            if anchor is not DEFAULT_ANCHOR:
                message = f"there is no anchor at `{file}`; name the one kept for this log"
                raise AuditError(message)
            file = None
        return verify_log(path, log, anchor=file, former=former, progress=progress)

    @property
    def gate(self) -> Gate:
        """The native gate that writes this log; ``Pep`` arms it."""
        return self._gate

    @property
    def path(self) -> Path:
        """The log directory."""
        return self._path

    @property
    def id(self) -> AgentId:
        """The gate's public key, which names and signs this log."""
        return self._gate.id

    @property
    def anchor_state(self) -> str:
        """What opening could compare with: ``none``, ``missing``, ``matched``, ``overruled``."""
        return self._gate.anchor_state

    @property
    def pending(self) -> tuple[int, ...]:
        """Decisions that a crash left without an outcome, as found when opening."""
        return self._gate.pending

    def __len__(self) -> int:
        """Count the durable entries."""
        return len(self._gate)

    def now(self) -> int:
        """Give the second by the clock of this log."""
        return int(time.time()) if self._clock is None else self._clock()

    def checkpoint(self) -> Checkpoint:
        """Sign the tree as it stands (C2SP tlog-checkpoint)."""
        return self._gate.checkpoint()

    def prove(self, entry: int, *, size: int | None = None) -> InclusionProof:
        """Prove that an entry is in the tree of ``size`` entries, or of all."""
        return self._gate.prove(entry, size=size)

    def prove_line(self, line: bytes, *, size: int | None = None) -> InclusionProof:
        """Prove a line that somebody kept, without its newline, also after it was removed here.

        Raises ``AuditError`` where it is not this log's line at its index.
        """
        return self._gate.prove_line(line, size=size)

    def prune(self, before: int, *, dry_run: bool = False) -> Pruned:
        """Remove the oldest segments, as far as they lie before an entry and before a snapshot.

        What goes is checked first, and the hashes of it stay: checkpoints of every size stay
        provable, and so is a removed line for whoever kept it (``prove_line``). Back up the tiles:
        they cannot be made again. Raises ``ChainBroken`` where what would go is not in order.
        """
        oldest, entries, size, files = self._gate.prune(before, dry_run=dry_run)
        return Pruned(oldest, entries, size, tuple(files))

    def consistency(self, old: int, *, size: int | None = None) -> ConsistencyProof:
        """Prove that the tree of ``old`` entries is a prefix of that of ``size``, or of all."""
        return self._gate.consistency(old, size=size)

    def read(self, entry: int) -> bytes:
        """Give the bytes of one line, without its newline."""
        return self._gate.read(entry)

    def entries(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Parse lines one by one, from an index to the end as it is when asked."""
        for entry in range(start, len(self)):
            yield json.loads(self.read(entry))

    def close(self) -> None:
        """Sign a last checkpoint and let go of the directory; every later decision is denied."""
        self._gate.close()

    def __enter__(self) -> Self:
        """Return itself; ``close`` is called at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def anchor_file(anchor: Anchor, log: AgentId) -> Path | None:
    """Name the file that an anchor means for a log; None for no anchor."""
    if anchor is None:
        return None
    return anchor_path(log) if isinstance(anchor, _Default) else Path(anchor)


def _make(folder: Path) -> None:
    try:
        _files.make_dirs(folder)
    except OSError as error:
        message = f"cannot make `{error.filename}`: {os.strerror(error.errno or 0).lower()}"
        raise AuditUnavailable(message) from error
