"""Put a backed-up state folder back: all of it or nothing, logged, and no replay mark forgotten.

Everything is made and checked beside the folder, and takes its name in one step. Each log says in a
line `restored` that it was, so whatever was signed before that is stale (spec/audit.md).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from moat import _files
from moat._archive import Archive
from moat._backup import extract, scratch
from moat._carry import Carried, Source, carry
from moat._config import CONFIG, Config
from moat._native import Policy
from moat._succession import formers, require_settled, unopened
from moat.audit import DEFAULT_ANCHOR, AuditLog, anchor_path, ready_anchor
from moat.errors import AuditError, MalformedInput, MoatError
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from moat._backup import Progress
    from moat._native import AgentId, Identity, Requirement
    from moat.audit import Anchor

SKEW: Final = 60
"""Seconds by which clocks may differ (spec/message.md)."""
_SPARE: Final = 16 << 20


class GateRestored(NamedTuple):
    """One gate after a restore."""

    name: str
    id: AgentId
    entries: int
    """How many entries the backup has."""
    replaced: int | None
    """How many the log had that was replaced; None where there was none, or it does not read."""
    carried: Carried


@dataclass(frozen=True)
class Restored:
    """A state folder that was put back."""

    path: Path
    before: Path | None
    """Where the folder is that was replaced."""
    made: int
    """When the backup was made, Unix seconds."""
    gates: tuple[GateRestored, ...]
    trusted_again: tuple[AgentId, ...]
    """Roots and operators of the backup that the replaced folder did not trust any more."""
    required_no_more: tuple[Requirement, ...]
    """What the gates of the replaced folder required, and those of the backup do not."""


def restore(
    file: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    replace: bool = False,
    clock: Callable[[], int] | None = None,
    progress: Progress | None = None,
) -> Restored:
    """Put a backup into a new folder, or in the place of one with ``replace``.

    A folder that is replaced is kept, as ``<folder>.before-<time>``. Raises ``MalformedInput`` for
    a file that is not exactly a backup, ``GateBusy`` while a process has one of the gates, and
    what ``AuditLog.verify`` raises; then nothing has changed.
    """
    target = Path(folder).absolute().resolve()
    replaced = _place(target, replace=replace)
    with _files.reading(Path(file).absolute(), secret=True) as data, ExitStack() as stack:
        told = None if progress is None else partial(progress, "checking")
        archive = Archive(data, told)
        config = Config.from_bytes(_required(archive, CONFIG))
        _files.make_dirs(target.parent)
        _require_room(archive, target.parent)
        if replaced is not None:
            for name in _gates_of(replaced):
                stack.enter_context(unopened(replaced / "gates" / name / "log"))
        beside = stack.enter_context(scratch(target.parent))
        work = _Work(archive, beside / "state", replaced, clock, progress)
        work.extract()
        gates = [work.ready(name, stack) for name in sorted(archive.facts["gates"])]
        again, no_more = _weakened(replaced, config) if replaced else ((), ())
        before = _swap(work.staged, target, replaced, work.now)
        for gate in gates:
            work.settle(gate.id)
    return Restored(target, before, archive.facts["time"], tuple(gates), again, no_more)


class _Work:
    """A state folder in the making."""

    def __init__(
        self,
        archive: Archive,
        staged: Path,
        replaced: Path | None,
        clock: Callable[[], int] | None,
        progress: Progress | None,
    ) -> None:
        self.staged = staged
        self.now = int(time.time()) if clock is None else clock()
        self._archive, self._replaced, self._progress = archive, replaced, progress
        self._anchors: dict[AgentId, Path] = {}

    def extract(self) -> None:
        """Write all files, and take secret keys that are not in the backup from the old folder."""
        self.staged.mkdir(mode=0o700)
        extract(self._archive, self._archive.members, self.staged)
        for name in self._archive.members:
            pem = Path(name).with_suffix(".pem")
            if name.endswith(".pub") and str(pem) not in self._archive.members:
                self._bring(pem)

    def _bring(self, pem: Path) -> None:
        if self._replaced is None:
            return
        here = KeyStore(self.staged / pem.parent)
        with suppress(MoatError):
            old = KeyStore(self._replaced / pem.parent).load(pem.stem)
            if old.id == here.public(pem.stem):
                here.save(old, overwrite=True)

    def ready(self, name: str, stack: ExitStack) -> GateRestored:
        """Verify a log, carry over what was withdrawn since, and have it say that it is a copy."""
        signer, log = self._signer(name), self.staged / "gates" / name / "log"
        facts = self._archive.facts["gates"][name]
        before = None
        for number, told in sorted(facts.get("former", {}).items(), key=lambda one: int(one[0])):
            here = self.staged / "gates" / name / "former" / number
            gate = KeyStore(here / "key").public(name)
            if str(gate) != told["id"]:
                message = f"the key of former log {number} of gate `{name}` is not the log's"
                raise MalformedInput(message)
            self._verified(here / "log", gate, told, before, anchor=DEFAULT_ANCHOR)
            before = here / "log"
        last = self._verified(log, signer.id, facts, before)
        old = self._old(name, signer.id)
        anchor = anchor_path(signer.id)
        ready_anchor(DEFAULT_ANCHOR)
        times = [last, _written(anchor), *([] if old is None else [old[1]])]
        now = self._second(max(times))
        carried = Carried()
        if old is not None and self._replaced is not None:
            roots = _identities(KeyStore(self.staged / "keys"))
            control = self._replaced / "control"
            carried = carry(log, old[0], control, signer=signer, roots=roots, now=now)
        copy = anchor.with_name(f".{secrets.token_hex(8)}.tmp")
        stack.callback(copy.unlink, missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(anchor, copy)
        _mark(log, signer, copy, now)
        AuditLog.verify(log, log=signer.id, anchor=copy)
        # Until the anchor is the new log's, nobody opens it.
        stack.enter_context(unopened(log))
        self._anchors[signer.id] = copy
        size = None if old is None or old[0].problem else old[0].verified
        return GateRestored(name, signer.id, facts["entries"], size, carried)

    def settle(self, gate: AgentId) -> None:
        """Make the anchor the new log's."""
        anchor = anchor_path(gate)
        self._anchors[gate].replace(anchor)
        _files.sync_dir(anchor.parent)

    def _signer(self, name: str) -> Identity:
        keys, facts = KeyStore(self.staged / "gates" / name / "key"), self._archive.facts["gates"]
        if name not in keys:
            message = (
                f"the backup has no secret key of gate `{name}`; restore it over a folder that "
                "has, with `--replace`"
            )
            raise MoatError(message)
        signer = keys.load(name)
        if str(signer.id) != facts[name]["id"]:
            message = f"the key of gate `{name}` in the backup is not the one of its log"
            raise MalformedInput(message)
        return signer

    def _verified(
        self,
        log: Path,
        gate: AgentId,
        facts: dict[str, object],
        former: Path | None,
        anchor: Anchor = None,
    ) -> int:
        told = None if self._progress is None else partial(self._progress, "verifying")
        found = AuditLog.verify(log, log=gate, anchor=anchor, former=former, progress=told)
        said = (facts["entries"], facts["root"], facts["signed"])
        if (found.entries, found.root.hex(), found.signed) != said:
            message = "the log in the backup is not the one that its manifest tells of"
            raise AuditError(message)
        return found.time

    def _old(self, name: str, gate: AgentId) -> tuple[Source, int] | None:
        """The log that is replaced, and when it was last written."""
        if self._replaced is None:
            return None
        home = self._replaced / "gates" / name
        if not (home / "log").is_dir():
            return None
        require_settled(home)
        with suppress(FileNotFoundError):
            if gate in {one.id for one in formers(home)}:
                message = (
                    f"gate `{name}` in `{self._replaced}` has another key since the backup was "
                    "made, and the former key would forget what was withdrawn since; use a newer "
                    "backup"
                )
                raise MalformedInput(message)
            if KeyStore(home / "key").public(name) != gate:
                message = f"gate `{name}` in `{self._replaced}` is another one than the backup's"
                raise MalformedInput(message)
        try:
            found = AuditLog.verify(home / "log", log=gate)
        except (MoatError, OSError) as error:
            return Source(home / "log", 0, str(error)), _newest(home / "log")
        return Source(home / "log", found.signed or 0), found.time

    def _second(self, known: int) -> int:
        """The second that a `restored` line is dated with: after all that may have been lost."""
        if known > self.now + SKEW:
            message = (
                f"the clock shows {self.now}, but what is replaced was written at {known}; set "
                "the clock right first, or what was used in between could be used again"
            )
            raise AuditError(message)
        return max(known, self.now)


def _mark(log: Path, signer: Identity, anchor: Path, now: int) -> None:
    """Have a log say that it was restored."""
    if _accepted(log, signer, anchor, now):
        return
    # Nothing says that there was more, but nobody knows: on a new machine there is no anchor, and
    # the last lines before a crash may have reached none. So the log is made one line longer,
    # that is anchored, and taken back.
    last = max((log / "seg").iterdir(), key=lambda path: int(path.stem))
    size = last.stat().st_size
    with AuditLog.open(log, signer=signer, anchor=anchor, clock=lambda: now) as made:
        entries = len(made)
        for roots in ([], [signer.id]):
            if len(made) == entries:
                made.gate.arm(policy=Policy.CHAIN_ONLY, roots=roots, operators=[])
    for segment in (log / "seg").iterdir():
        if int(segment.stem) > int(last.stem):
            segment.unlink()
    os.truncate(last, size)
    if not _accepted(log, signer, anchor, now):
        message = "the restored log does not say that it was restored"
        raise AuditError(message)


def _accepted(log: Path, signer: Identity, anchor: Path, now: int) -> bool:
    with AuditLog.open(
        log, signer=signer, anchor=anchor, accept_restored=True, clock=lambda: now
    ) as made:
        return made.anchor_state == "overruled"


def _swap(staged: Path, target: Path, replaced: Path | None, now: int) -> Path | None:
    """Give the new folder its name; the old one keeps its files under another."""
    if replaced is None:
        with suppress(FileNotFoundError):
            target.rmdir()  # only where it is empty
        staged.rename(target)
        _files.sync_dir(target.parent)
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    before = target.with_name(f"{target.name}.before-{stamp}")
    count = 1
    while before.exists():
        count += 1
        before = target.with_name(f"{target.name}.before-{stamp}-{count}")
    made = staged.stat()
    staged.rename(before)
    try:
        swapped = _files.exchange(before, target)
    finally:
        # What stays in the staging place is removed, so only the new folder may go back there.
        if os.path.samestat(before.stat(), made):
            before.rename(staged)
    if not swapped:
        target.rename(before)
        try:
            staged.rename(target)
        except BaseException:
            before.rename(target)
            raise
    _files.sync_dir(target.parent)
    return before


def _place(target: Path, *, replace: bool) -> Path | None:
    """Which folder is replaced, if that was asked for; a new one has to be new."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        if replace:
            message = f"there is nothing at `{target}` to replace; leave `--replace` out"
            raise MoatError(message)
        return None
    if not replace:
        message = f"there is something at `{target}`; name a new folder, or write `--replace`"
        raise MoatError(message)
    if not (target / CONFIG).exists() and not (target / "gates").is_dir():
        message = f"`{target}` is no state folder, so it is not replaced"
        raise MoatError(message)
    return target


def _gates_of(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("gates/*/log") if path.is_dir())


def _weakened(folder: Path, now: Config) -> tuple[tuple[AgentId, ...], tuple[Requirement, ...]]:
    """Whom a folder does not trust and this configuration does; what it requires and this not."""
    try:
        then = Config.from_bytes(_files.read(folder / CONFIG, secret=True))
    except (MoatError, FileNotFoundError):
        return tuple(sorted({*now.roots, *now.operators}, key=str)), ()
    again = {*now.roots, *now.operators} - {*then.roots, *then.operators}
    no_more = set(then.policy.attestations) - set(now.policy.attestations)
    return tuple(sorted(again, key=str)), tuple(sorted(no_more, key=str))


def _identities(keys: KeyStore) -> list[Identity]:
    return [keys.load(name) for name in keys.names()]


def _required(archive: Archive, name: str) -> bytes:
    if name not in archive.members:
        message = f"the backup is refused: it has no `{name}`; use another copy of it"
        raise MalformedInput(message)
    return archive.read(name)


def _require_room(archive: Archive, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if archive.length + _SPARE > free:
        message = f"the backup needs {archive.length} bytes, and `{folder}` has {free} free"
        raise MoatError(message)


def _written(file: Path) -> int:
    try:
        return int(file.stat().st_mtime)
    except FileNotFoundError:
        return 0


def _newest(log: Path) -> int:
    return max(map(_written, log.glob("seg/*.jsonl")), default=0)
