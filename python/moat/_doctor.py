"""What is configured in a state folder against what is really enforced; for `moat doctor`.

Nothing is changed but one unnamed file that is written to measure a sync. Modes and owners are
asked with the rules of `_files`, so what is said here is what opening would say.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moat import AuditLog, Checkpoint, _files, _handles, _machine, _succession
from moat._config import CONFIG, read_config
from moat._machine import Finding, guarded
from moat.audit import anchor_path
from moat.errors import MoatError
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moat import AgentId
    from moat._config import Config

SKEW: Final = 60
"""Seconds that a clock may be behind the log (spec/message.md)."""
CHECKPOINT_ENTRIES: Final = 256
"""How far a checkpoint is behind at most (spec/audit.md), under light load."""
READ_WHOLE: Final = 64 << 20
"""Bytes of a log up to which it is verified here."""
LINE: Final = 65_535
FEW_BYTES, FEW_FILES = 100 << 20, 1000
SLOW, INSTANT = 0.05, 20e-6
"""Seconds of a sync that is slow; and below which hardly anything was written."""

MOUNTS: Final = Path("/proc/self/mountinfo")

_VOLATILE: Final = {"tmpfs", "ramfs", "devtmpfs"}
_NETWORK: Final = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "afs",
    "glusterfs",
    "lustre",
}
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def examine(state: Path) -> Iterator[Finding]:
    """Check the machine, then the state folder where there is one."""
    yield from _machine.examine()
    if not state.exists() and not state.is_symlink():
        message = f"there is no state folder at `{state}`, so only the machine was checked"
        yield Finding("state", "skip", message, "name one with `--state DIR`")
        return
    yield from _folder(state)
    if not (state / CONFIG).exists():
        message = f"`{state}` has no {CONFIG}"
        yield Finding("config", "fail", message, "restore it, or name the right folder")
        return
    for name, found in (
        ("config", _config(state)),
        ("keys", _keys(state)),
        ("control", _control(state)),
        ("cache", _cache(state)),
        ("secrets", _secrets(state / _handles.FOLDER)),
    ):
        yield from guarded(name, found)
    homes = sorted(state.glob("gates/*"))
    if not homes:
        yield Finding("log", "warn", "there is no gate yet", "open one with `Moat.open`")
    for home in homes:
        yield from _gate(home)


def _gate(home: Path) -> Iterator[Finding]:
    """Check one gate: its files, its disk, its process, its anchor, its checkpoint, its clock."""
    log = home / "log"
    for check, found in (
        ("log", _log(log)),
        ("space", _space(log)),
        ("file_system", _file_system(log)),
        ("sync", _sync(log)),
        ("lock", _lock(log)),
        ("anchor", _anchor(home)),
        ("checkpoint", _checkpoint(log)),
        ("log_time", _time(log)),
        ("former", _former(home)),
    ):
        for finding in guarded(check, found):
            message = f"gate `{home.name}`: {finding.message}"
            yield Finding(finding.check, finding.status, message, finding.next)


# --- files and their modes ---


def _folder(state: Path) -> Iterator[Finding]:
    report = partial(Finding, "state")
    if state.is_symlink():
        message = f"`{state}` is a symbolic link; who can change it chooses the folder"
        yield report("warn", message, f"name `{state.resolve()}` itself")
    found = state.stat()
    above = [path for path in state.resolve().parents if _takeable(path)]
    if found.st_uid != os.geteuid():
        yield report("fail", f"`{state}` belongs to another user", "use a folder of your own")
    elif found.st_mode & _OTHERS_WRITE:
        message = f"others can write into `{state}`, and put their own files in the place of yours"
        yield report("fail", message, f"look what is new in it, then `chmod 700 {state}`")
    elif above:
        message = (
            f"others can write into `{above[0]}`, and put another folder in the place of yours"
        )
        yield report("fail", message, f"`chmod go-w {above[0]}`, or move the state folder")
    elif found.st_mode & _OTHERS:
        yield report("warn", f"others can look into `{state}`", f"`chmod 700 {state}`")
    else:
        yield report("ok", f"`{state}` is yours alone")


def _takeable(path: Path) -> bool:
    """Whether others can rename what lies in a directory: the sticky bit keeps them from it."""
    found = path.stat()
    strange = found.st_uid not in {0, os.geteuid()}
    return strange or bool(found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX)


def _keys(state: Path) -> Iterator[Finding]:
    """Load every key as the gate would, and compare it with its public file."""
    report, count, good = partial(Finding, "keys"), 0, True
    for folder in (state / "keys", *sorted(state.glob("gates/*/key"))):
        store = KeyStore(folder)
        for name in store.names():
            count += 1
            if problem := _key_problem(store, name):
                good = False
                yield report("fail", problem, "look who could change it, and who could read it")
    if good:
        yield report("ok", f"keys: {count}, each closed to others, each with its public file")


def _key_problem(store: KeyStore, name: str) -> str | None:
    try:
        same = store.load(name).id == store.public(name)
    except MoatError as error:
        return str(error)
    return None if same else f"the public file of key `{name}` names another key"


def _config(state: Path) -> Iterator[Finding]:
    report = partial(Finding, "config")
    try:
        config = read_config(state)
    except MoatError as error:
        yield report("fail", str(error), "no gate opens like this; restore the file")
        return
    roots, operators = len(config.roots), len(config.operators)
    if not roots:
        yield report("fail", "no root is trusted, so nothing is allowed", f"restore {CONFIG}")
    else:
        yield report("ok", f"trusted roots: {roots}, operators: {operators}")
    count = len(config.policy.attestations)
    said = f"{count} attestations of every message" if count else "nothing but what tokens require"
    yield Finding("policy", "ok", f"gates require {said} (policy {config.policy.hash.hex()[:16]})")
    yield from _near(state, config)


def _near(state: Path, config: Config) -> Iterator[Finding]:
    """Find the keys of those who are trusted lying beside the gate that trusts them."""
    store, near = KeyStore(state / "keys"), list[str]()
    for name in store.names():
        key = store.public(name)
        near += [f"root `{name}`"] * (key in config.roots)
        near += [f"operator `{name}`"] * (key in config.operators)
    if near:
        message = f"the secret key of {', '.join(near)} lies beside the gate that trusts it"
        then = "keep it on another machine: who takes this folder can sign any token"
        yield Finding("root_keys", "warn", message, then)
    else:
        yield Finding("root_keys", "ok", "no key that the gate trusts lies in the folder")


def _control(state: Path) -> Iterator[Finding]:
    folder, report = state / "control", partial(Finding, "control")
    if folder.is_dir() or folder.is_symlink():
        try:
            _files.require_private_dir(folder)
        except MoatError as error:
            yield report("fail", str(error), "others could drop statements into it or remove them")
            return
        yield report("ok", f"`{folder}` is yours alone, with {len(list(folder.iterdir()))} files")


def _cache(state: Path) -> Iterator[Finding]:
    """Look at compiled code, which is run as it is found, and at the secret of its entries."""
    folder, report = state / "cache" / "code", partial(Finding, "cache")
    if not folder.exists() and not folder.is_symlink():
        return
    try:
        _files.require_private_dir(folder)
        _files.read(state / "keys" / "code.key", secret=True)
    except (MoatError, FileNotFoundError) as error:
        then = "remove both; code is compiled again"
        yield report("fail", f"compiled code cannot be believed: {error}", then)
        return
    sizes = [path.lstat().st_size for path in folder.iterdir()]
    yield report("ok", f"compiled code: {len(sizes)} files, {sum(sizes) >> 20} MiB, yours alone")


def _secrets(folder: Path) -> Iterator[Finding]:
    """Look at the handles, at every file beside them, and at where values are kept."""
    report = partial(Finding, "secrets")
    if not folder.is_dir() and not folder.is_symlink():
        yield report("ok", "no secrets are bound here")
        return
    try:
        _files.require_private_dir(folder)
    except MoatError as error:
        yield report("fail", str(error), "look who read or changed it; new values where in doubt")
        return
    wrong = 0
    for path in sorted(folder.rglob("*")):
        if problem := _problem(path.lstat()):
            wrong += 1
            then = f"`moat secret rotate` each value, then `chmod go-rwx {path}`"
            yield report("fail", f"`{path}`: {problem}", then)
    handles = _handles.Handles(folder)
    count, kinds = len(handles.names()), handles.kinds()
    for backend in kinds:
        for problem in handles.problems(backend):
            wrong += 1
            yield report("fail", problem, "what is bound to it is not filled; put it right")
    if not wrong:
        kept = ", ".join(f"`{name}` ({kind})" for name, kind in kinds.items()) or "none"
        yield report("ok", f"handles: {count}, each file closed to others; backends: {kept}")
    for path in handles.beside():
        message = f"the identity `{path}` lies beside the values that it opens"
        then = "keep it elsewhere (`moat secret set --identity`): who takes this folder has both"
        yield Finding("secret_keys", "warn", message, then)


def _log(folder: Path) -> Iterator[Finding]:
    """Walk a log: only directories and plain files, ours, closed to others."""
    report, wrong = partial(Finding, "log"), 0
    for path in (folder, *sorted(folder.rglob("*"))):
        found = path.lstat()
        problem = _problem(found)
        if problem is not None:
            wrong += 1
            status: _machine.Status = "warn" if problem == "others can read it" else "fail"
            then = "look who could change it, `moat audit verify`, then `chmod -R go-rwx`"
            yield report(status, f"`{path}`: {problem}", then)
    if not wrong:
        yield report("ok", "every file of the log is yours alone")


def _problem(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return "it is neither a file nor a directory"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    if found.st_mode & _OTHERS_WRITE:
        return "others can write to it"
    return "others can read it" if found.st_mode & _OTHERS else None


# --- the disk ---


def _space(log: Path) -> Iterator[Finding]:
    report, free = partial(Finding, "space"), shutil.disk_usage(log).free
    files = os.statvfs(log)
    if free < FEW_BYTES:
        message = f"{free >> 20} MiB are free; a full disk denies everything"
        yield report("warn" if free >> 20 else "fail", message, "make room")
    elif files.f_files and files.f_favail < FEW_FILES:
        message = f"{files.f_favail} more files fit; without any, everything is denied"
        yield report("warn" if files.f_favail else "fail", message, "remove files")
    else:
        yield report("ok", f"{free >> 30} GiB are free")


def _file_system(log: Path) -> Iterator[Finding]:
    """Look up what the log lies on in /proc/self/mountinfo (proc(5))."""
    report = partial(Finding, "file_system")
    if sys.platform != "linux":
        yield report("skip", "not checked on this system")
        return
    kind, options = mounted(log, MOUNTS.read_text(errors="replace"))
    if "ro" in options:
        yield report("fail", f"the log lies on a read-only {kind}", "use another place")
    elif kind in _VOLATILE:
        message = f"the log lies on {kind}: the log is gone when the machine restarts"
        yield report("warn", message, "keep it on a disk, or revocations and replay marks go too")
    elif kind in _NETWORK or kind.startswith("fuse"):
        message = f"the log lies on {kind}: its locks and syncs are only as good as the server's"
        yield report("warn", message, "keep one machine's gate on that machine's own disk")
    elif kind == "overlay":
        message = "the log lies in a container's own layer, and goes when the container goes"
        yield report("warn", message, "mount a volume for it")
    elif {"nobarrier", "barrier=0", "data=writeback"} & options:
        message = f"{kind} is mounted so that a sync may be lost in a power failure"
        yield report("warn", message, "mount it with barriers")
    else:
        yield report("ok", f"the log lies on {kind}")


def mounted(path: Path, table: str) -> tuple[str, set[str]]:
    """Find the type and the options of the file system that a path lies on."""
    real, best = path.resolve(), (-1, "an unknown file system", set[str]())
    for line in table.splitlines():
        head, _, tail = line.partition(" - ")
        fields, (kind, _, options) = head.split(" "), tail.split(" ", 2)
        point = Path(fields[4].encode().decode("unicode_escape"))
        depth = len(point.parts)
        # A later mount on the same place covers an earlier one.
        if real.is_relative_to(point) and depth >= best[0]:
            best = (depth, kind, {*fields[5].split(","), *options.split(",")} - {""})
    return best[1], best[2]


def _sync(log: Path) -> Iterator[Finding]:
    """Write one page to an unnamed file beside the log, and time its sync."""
    report = partial(Finding, "sync")
    with tempfile.TemporaryFile(dir=log) as file:
        file.write(os.urandom(4096))
        file.flush()
        start = time.perf_counter()
        os.fsync(file.fileno())
        took = time.perf_counter() - start
    told = f"a sync takes {took * 1000:.2g} ms"
    if took > SLOW:
        yield report("warn", f"{told}, and every decision waits for one", "use a faster disk")
    elif took < INSTANT:
        message = f"{told}: it hardly reaches a disk"
        yield report("warn", message, "see that the disk honours a flush")
    else:
        yield report("ok", f"{told}, which every group of decisions waits for")


# --- one gate ---


def _lock(log: Path) -> Iterator[Finding]:
    report, file = partial(Finding, "lock"), log / "lock"
    if sys.platform != "linux":
        yield report("skip", "not checked on this system")
    elif not file.exists():
        yield report("ok", "no process has ever had it")
    elif (pid := holder(file, Path("/proc/locks").read_text())) is None:
        yield report("ok", "no process has it")
    else:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            name = "not seen from here"
        yield report("ok", f"process {pid} ({name}) has it")


def holder(file: Path, table: str) -> int | None:
    """Find who holds a flock in /proc/locks (proc(5)); several devices may number a file alike."""
    found = file.stat()
    exact = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    rows = [line.split() for line in table.splitlines() if " FLOCK " in line and "->" not in line]
    for row in rows:
        if row[5] == exact:
            return int(row[4])
    alike = [row for row in rows if row[5].endswith(f":{found.st_ino}")]
    return int(alike[0][4]) if alike else None


def _anchor(home: Path) -> Iterator[Finding]:
    """Compare the log with what is remembered outside of its folder."""
    report, key = partial(Finding, "anchor"), KeyStore(home / "key").public(home.name)
    file = anchor_path(key)
    if not file.exists():
        message = f"there is no anchor at `{file}`: a cut tail or a restored copy cannot be told"
        yield report("warn", message, "open the gate once as the user who runs it, or bring it")
        return
    if file.resolve().is_relative_to(home.parent.parent.resolve()):
        message = f"the anchor `{file}` lies in the state folder, and is restored along with it"
        yield report("fail", message, "set `XDG_STATE_HOME` to a place outside")
        return
    problem = _problem(file.lstat())
    if problem is not None and problem != "others can read it":
        yield report("fail", f"the anchor `{file}`: {problem}", "look who could change it")
        return
    # The log's own is written first: read in this order, it is never behind the anchor.
    anchor, checkpoint = _note(file, key), _note(home / "log" / "checkpoint", key)
    if anchor.size > checkpoint.size:
        message = f"the log is behind its anchor ({checkpoint.size} of {anchor.size} entries)"
        yield report("fail", message, "it was restored or cut; find the newer copy")
    elif _bytes(home / "log") > READ_WHOLE:
        message = f"the anchor covers {anchor.size} of {checkpoint.size} signed entries"
        yield report("ok", message, "`moat audit verify` compares every line with it")
    else:
        found = AuditLog.verify(home / "log", log=key, anchor=file)
        yield report("ok", f"the anchor covers {found.anchored} of {found.entries} entries")


def _bytes(log: Path) -> int:
    return sum(path.stat().st_size for path in (log / "seg").iterdir())


def _note(file: Path, key: AgentId) -> Checkpoint:
    note = Checkpoint.parse(_files.read(file, secret=False).decode())
    note.verify(key)
    return note


def _checkpoint(log: Path) -> Iterator[Finding]:
    report, file = partial(Finding, "checkpoint"), log / "checkpoint"
    last = last_line(log)
    if last is None:
        yield report("ok", "the log is empty")
        return
    if not file.exists():
        yield report("warn", "nothing is signed yet", "open and close the gate once")
        return
    size = Checkpoint.parse(_files.read(file, secret=False).decode()).size
    behind, age = last["i"] + 1 - size, max(0, time.time() - file.stat().st_mtime)
    told = f"the newest checkpoint is {age:.0f} s old and leaves out {behind} entries"
    if behind > CHECKPOINT_ENTRIES or (behind > 0 and age > SKEW):
        then = "open and close the gate once; where one is running, see why it does not sign"
        yield report("warn", f"{told}, which nobody but the gate can check", then)
    else:
        yield report("ok", told)


def _former(home: Path) -> Iterator[Finding]:
    """Look at the logs of earlier keys, of which no secret may be left, and at a rotation."""
    report = partial(Finding, "former")
    if (home / _succession.NEXT).exists():
        message = "a rotation of its key is not finished; once it is signed, everything is denied"
        yield report("warn", message, "open the gate once, which finishes it")
    for one in _succession.formers(home):
        if secret := sorted((one.path / "key").glob("*.pem")):
            message = f"`{secret[0]}` is the secret of a former key, and of no use but to a thief"
            yield report("fail", message, "remove it, and find out how it came there")
        signed = _note(one.log / "checkpoint", one.id).size
        last = last_line(one.log)
        if last is None or last["i"] + 1 != signed:
            message = f"former log {one.number} does not end where its gate signed it"
            yield report("fail", message, "put it back from a backup, and `moat audit verify`")
        else:
            yield report("ok", f"former log {one.number} has the {signed} entries that it signed")


def _time(log: Path) -> Iterator[Finding]:
    report, last = partial(Finding, "log_time"), last_line(log)
    ahead = (last["t"] if last else 0) - time.time()
    if ahead > SKEW:
        message = f"the last line is {ahead:.0f} s ahead of the clock, so everything is denied"
        yield report("fail", message, "set the clock; if the log was wrong, wait until then")
    elif ahead > 1:
        message = f"the last line is {ahead:.0f} s ahead of the clock"
        yield report("warn", message, "find out what set the clock")
    else:
        yield report("ok", "the clock is not behind the log")


def last_line(log: Path) -> dict[str, Any] | None:
    """Parse the last whole line of a log, unverified; None where there is none."""
    for part in sorted((log / "seg").glob("*.jsonl"), reverse=True):
        with part.open("rb") as file:
            file.seek(max(0, part.stat().st_size - 2 * (LINE + 1)))
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            line: dict[str, Any] = json.loads(whole.rpartition(b"\n")[2])
            return line
    return None
