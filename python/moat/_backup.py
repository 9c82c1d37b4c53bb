"""Back up a state folder into one file, while its gates run; the copy is verified before it counts.

What a running gate writes is only ever added to: the anchor and the checkpoint are read first, then
each segment up to a whole line, so that the copy is a state that the log was in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from moat import _files
from moat._archive import Archive, Writer
from moat._succession import formers, require_settled
from moat.audit import AuditLog, anchor_path
from moat.errors import AuditError, MoatError
from moat.keystore import KeyStore, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from os import PathLike

    from moat._native import AgentId

    Progress = Callable[[str, int, int], None]

_LINE: Final = 64 << 10
_KNOWN: Final = {"config.json", "rules.toml", "keys", "gates", "control", ".gitignore"}


class GateCopy(NamedTuple):
    """One gate's log as it is in a backup."""

    name: str
    id: AgentId
    entries: int
    root: bytes
    signed: int
    """How many entries the checkpoint in it covers."""
    anchor: int | None
    """How many the anchor covered when the copy was made."""
    former: tuple[GateCopy, ...] = ()
    """The logs of the gate's earlier keys, the oldest first; their names are numbers."""


@dataclass(frozen=True)
class Backup:
    """A backup that was written and verified."""

    path: Path
    bytes: int
    sha256: str
    secret: bool
    """Whether secret keys are in it."""
    gates: tuple[GateCopy, ...]
    left_out: tuple[str, ...]
    """What else lies in the folder and is not in the backup."""


def backup(
    folder: Path,
    file: str | PathLike[str],
    *,
    gates: Sequence[str] = (),
    keys: bool = True,
    clock: Callable[[], int] | None = None,
    progress: Progress | None = None,
) -> Backup:
    """Write a state folder into a new file (0600), and verify what was written.

    ``gates`` are those to keep; all, if none is named. Without ``keys`` the secret keys stay out.
    ``progress(what, done, total)`` is called with bytes. Raises ``MoatError`` where the file is
    there already, ``RolledBack`` or ``ChainBroken`` where a log is not in order; then there is no
    file.
    """
    path = Path(file).absolute()
    if path.exists() or path.is_symlink():
        raise _taken(path)
    logs = [log for name in _gates(folder, gates) for log in _logs(folder / "gates" / name)]
    now = int(time.time()) if clock is None else clock()
    try:
        with _files.writing(path, secret=True, overwrite=False) as draft:
            writer = _write(draft, folder, logs, keys=keys, progress=progress)
            copies = _verified(writer, logs, path.parent, progress)
            writer.finish(_facts(copies, keys=keys, now=now))
            draft.flush()
            Archive(draft)
            digest, size = _digest(draft)
    except FileExistsError as error:
        raise _taken(path) from error
    left = sorted({entry.name for entry in folder.iterdir()} - _KNOWN)
    return Backup(path, size, digest, keys, copies, tuple(left))


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a directory (0700) that is gone in the end."""
    made = Path(tempfile.mkdtemp(prefix=".moat-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def extract(archive: Archive | Writer, names: Iterable[str], into: Path) -> None:
    """Write members below a directory, on the disk: 0700, files 0600 (``.pub`` 0644)."""
    made = {into}
    for name in names:
        target = into / name
        _files.make_dirs(target.parent)
        made |= {target.parent, *(p for p in target.parents if p.is_relative_to(into))}
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(target, flags, 0o644 if name.endswith(".pub") else 0o600)
        with os.fdopen(fd, "wb") as file:
            archive.copy(name, file.write)
            file.flush()
            os.fsync(file.fileno())
    for directory in made:
        _files.sync_dir(directory)


class _Log(NamedTuple):
    """What of a gate's log goes into a backup: decided once, in an order that holds together."""

    gate: str
    number: int | None
    """Of a former log."""
    id: AgentId
    anchor: bytes | None
    checkpoint: bytes
    segments: tuple[tuple[Path, int], ...]
    tiles: tuple[Path, ...]

    @property
    def at(self) -> str:
        """Where it and its key lie, below the state folder."""
        return f"gates/{self.gate}" + ("" if self.number is None else f"/former/{self.number}")

    @classmethod
    def read(cls, home: Path, name: str, number: int | None = None) -> _Log:
        gate = KeyStore(home / "key").public(name)
        # In this order: each is covered by what is read after it.
        anchor = _small(anchor_path(gate))
        checkpoint = _small(home / "log" / "checkpoint")
        if checkpoint is None:
            message = f"the log of gate `{name}` has no checkpoint; open the gate once"
            raise AuditError(message)
        found = sorted((home / "log" / "seg").glob("*.jsonl"), key=lambda path: int(path.stem))
        segments = [(path, _whole(path)) for path in found]
        pruned = bool(found) and int(found[0].stem) > 0
        tiles = (path for path in (home / "log" / "tile").rglob("*") if path.is_file())
        # From all lines tiles can be made again.
        kept = tuple(sorted(tiles)) if pruned else ()
        return cls(name, number, gate, anchor, checkpoint, tuple(segments), kept)


def _logs(home: Path) -> list[_Log]:
    """Read a gate's former logs, the oldest first, and then its own."""
    require_settled(home)
    name = home.name
    former = [_Log.read(one.path, name, one.number) for one in formers(home)]
    return [*former, _Log.read(home, name)]


def _gates(folder: Path, asked: Sequence[str]) -> list[str]:
    known = sorted(path.parent.name for path in folder.glob("gates/*/log"))
    for name in (*asked, *known):
        check_name(name)
        if name not in known:
            message = f"there is no gate `{name}` in `{folder}`; it has {', '.join(known)}"
            raise MoatError(message)
    return sorted(set(asked)) or known


def _write(
    draft: BinaryIO, folder: Path, logs: Sequence[_Log], *, keys: bool, progress: Progress | None
) -> Writer:
    sources = _sources(folder, logs, keys=keys)
    total = sum(size for size, _ in sources.values())
    writer, done = Writer(draft), 0
    for name in sorted(sources):
        size, source = sources[name]
        with _opened(source) as data:
            writer.add(name, size, data)
        done += size
        if progress is not None:
            progress("writing", done, total)
    return writer


def _sources(
    folder: Path, logs: Sequence[_Log], *, keys: bool
) -> dict[str, tuple[int, Path | bytes]]:
    """Name every member with its size and where it comes from; small files are read at once."""
    small = {"config.json": folder / "config.json", "rules.toml": folder / "rules.toml"}
    own = [log for log in logs if log.number is None]
    for home in ("keys", *(f"{log.at}/key" for log in own)):
        store = KeyStore(folder / home)
        for name in store.names():
            if keys and store.load(name).id != store.public(name):
                message = f"the two files of key `{name}` in `{folder / home}` do not agree"
                raise MoatError(message)
            kinds = (".pem", ".pub") if keys else (".pub",)
            small |= {f"{home}/{name}{kind}": folder / home / f"{name}{kind}" for kind in kinds}
    for log in logs:
        public = f"{log.at}/key/{log.gate}.pub"
        small[public] = folder / public
    sources: dict[str, tuple[int, Path | bytes]] = {}
    for name, path in small.items():
        data = _small(path, secret=not name.endswith((".pub", ".toml")))
        if data is not None:
            sources[name] = (len(data), data)
    for log in logs:
        at = f"{log.at}/log"
        sources[f"{at}/checkpoint"] = (len(log.checkpoint), log.checkpoint)
        for path, size in log.segments:
            sources[f"{at}/seg/{path.name}"] = (size, path)
        for path in log.tiles:
            name = path.relative_to(folder / at).as_posix()
            sources[f"{at}/{name}"] = (path.stat().st_size, path)
    return sources


def _verified(
    writer: Writer, logs: Sequence[_Log], beside: Path, progress: Progress | None
) -> tuple[GateCopy, ...]:
    """Read copied logs back as a stranger: against checkpoint, anchor, and the log before."""
    copies: list[GateCopy] = []
    for gate, of in groupby(logs, key=lambda log: log.gate):
        former: list[GateCopy] = []
        with scratch(beside) as place:
            before = None
            for log in of:
                extract(writer, [name for name in writer.members
                                 if name.startswith(f"{log.at}/log/")], place)  # fmt: skip
                anchor = None
                if log.anchor is not None:
                    anchor = place / "anchor"
                    anchor.write_bytes(log.anchor)
                told = None if progress is None else partial(progress, f"verifying {gate}")
                here = place / log.at / "log"
                found = AuditLog.verify(
                    here, log=log.id, anchor=anchor, former=before, progress=told
                )
                copy = GateCopy(
                    name=gate if log.number is None else str(log.number),
                    id=log.id,
                    entries=found.entries,
                    root=found.root,
                    signed=found.signed or 0,
                    anchor=found.anchored,
                )
                before = here
                former.append(copy)
        copies.append(former.pop()._replace(former=tuple(former)))
    return tuple(copies)


def _facts(copies: Iterable[GateCopy], *, keys: bool, now: int) -> dict[str, Any]:
    gates = {
        copy.name: _fact(copy)
        | ({"former": {one.name: _fact(one) for one in copy.former}} if copy.former else {})
        for copy in copies
    }
    return {"gates": gates, "keys": keys, "time": now}


def _fact(copy: GateCopy) -> dict[str, Any]:
    return {
        "anchor": copy.anchor,
        "entries": copy.entries,
        "id": str(copy.id),
        "root": copy.root.hex(),
        "signed": copy.signed,
    }


def _small(path: Path, *, secret: bool = False) -> bytes | None:
    try:
        return _files.read(path, secret=secret)
    except FileNotFoundError:
        return None


def _whole(path: Path) -> int:
    """Give the length of a segment's whole lines: the last one may be half written."""
    with _files.reading(path, secret=True) as file:
        length = file.seek(0, os.SEEK_END)
        begin = file.seek(max(0, length - _LINE))
        return begin + file.read(length - begin).rfind(b"\n") + 1


@contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield BytesIO(source)
        return
    try:
        with _files.reading(source, secret=True) as file:
            yield file
    except FileNotFoundError as error:
        message = f"`{source}` was removed meanwhile, as `moat audit prune` does; back up again"
        raise MoatError(message) from error


def _digest(file: BinaryIO) -> tuple[str, int]:
    digest = hashlib.sha256()
    file.seek(0)
    while data := file.read(1 << 20):
        digest.update(data)
    return digest.hexdigest(), file.tell()


def _taken(path: Path) -> MoatError:
    return MoatError(f"there is something at `{path}` already; a backup replaces nothing")
