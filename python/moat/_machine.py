"""What this machine really does of what Moat counts on: tried where it can be, not assumed.

Nothing here changes anything. What exists on Linux alone is `skip` elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from moat import Grant, Limits, Moat, Sandbox, _clash, _native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Status: TypeAlias = Literal["ok", "warn", "fail", "skip"]
"""``fail``: something is not enforced or will not work; ``warn``: it depends; ``skip``: unknown."""


@dataclass(frozen=True)
class Finding:
    """What one check found: a sentence, and what to do next where something should be done."""

    check: str
    status: Status
    message: str
    next: str | None = None


def examine() -> Iterator[Finding]:
    """Check the machine: interpreter, package, sandbox, kernel, memory, clock."""
    offset = time.time() - time.monotonic()
    for name, check in _CHECKS.items():
        yield from guarded(name, check())
    for name, check in _ON_LINUX.items():
        if sys.platform == "linux":
            yield from guarded(name, check())
        else:
            yield Finding(name, "skip", f"not checked on {platform.system()}")
    yield from guarded("clock", _clock(offset))


def guarded(name: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Turn a check that broke into a finding: it has not passed."""
    try:
        yield from findings
    except Exception as error:  # noqa: BLE001 (of whatever kind)
        told = str(error) or type(error).__name__
        yield Finding(name, "fail", f"`{name}` cannot be checked: {told}", "look at it by hand")


# --- Python and the package ---


def _python() -> Iterator[Finding]:
    told = f"Python {platform.python_version()} ({platform.python_implementation()})"
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        yield Finding("python", "ok", told)
    else:
        message = f"{told} runs without its global lock, which Moat is not tested with"
        yield Finding("python", "warn", message, "use the ordinary build of Python")


def _package() -> Iterator[Finding]:
    home = Path(_native.__file__ or "").parent
    report = partial(Finding, "package")
    if names := _clash.foreign():
        message = f"another project, `{names[0]}`, installs a package `moat` here"
        yield report("fail", message, "uninstall both, then install this one again")
    elif others := _others(home):
        message = f"`{others[0]}` is on the path too; which `moat` is imported depends on the order"
        yield report("warn", message, "take it off `PYTHONPATH`, or start in another directory")
    else:
        yield report("ok", f"one package `moat` is on the path, in `{home}`")


def _others(home: Path) -> list[Path]:
    """List what else `import moat` could find."""
    places = dict.fromkeys(Path(entry or ".").resolve() for entry in sys.path)
    found = [place / "moat" / "__init__.py" for place in places] + [p / "moat.py" for p in places]
    return [one for one in found if one.is_file() and one.parent != home.resolve()]


def _native_module() -> Iterator[Finding]:
    """Compare the native module in use with the one that was installed (RECORD, PEP 376)."""
    from importlib.metadata import (  # noqa: PLC0415 - slow to import
        PackageNotFoundError,
        distribution,
    )

    used = Path(_native.__file__ or "")
    report = partial(Finding, "native")
    again = "install it again: `pip install --force-reinstall .`"
    try:
        installed = distribution("moat")
    except PackageNotFoundError:
        yield report("warn", "the package was not installed, so its version is unknown", again)
        return
    recorded = {Path(str(installed.locate_file(f))): f.hash for f in installed.files or ()}
    digest = recorded.get(used)
    if digest is None:
        message = f"`{used}` is not the native module that version {installed.version} installed"
        yield report("warn", message, again)
    elif _digest(used) != digest.value:
        yield report("fail", f"`{used}` was changed after it was installed", again)
    else:
        yield report("ok", f"the native module is that of version {installed.version}, unchanged")


def _digest(path: Path) -> str:
    return urlsafe_b64encode(sha256(path.read_bytes()).digest()).rstrip(b"=").decode()


# --- the sandbox, tried ---

_HEAD: Final = "0061736d01000000010401600000030201000503010001"
_START: Final = "071302066d656d6f72790200065f737461727400000a"
IDLE: Final = bytes.fromhex(_HEAD + _START + "040102000b")
"""``(func (export "_start"))``: does nothing."""
SPIN: Final = bytes.fromhex(_HEAD + _START + "0901070003400c000b0b")
"""``(func (export "_start") (loop $again (br $again)))``: never ends."""
GREEDY: Final = bytes.fromhex(_HEAD.replace("0503010001", "050401008020") + _START + "040102000b")
"""The first, with a memory of 256 MiB."""

_LITTLE: Final = Limits(
    fuel=1_000_000, memory=1 << 20, time=timedelta(milliseconds=200), output=1 << 10
)
TRIALS: Final = {
    "an empty guest": (IDLE, _LITTLE, "ok"),
    "a guest that spins, by its fuel": (SPIN, _LITTLE, "out_of_fuel"),
    "a guest that spins, by the clock": (SPIN, _LITTLE.replace(fuel=1 << 60), "timed_out"),
    "a guest that wants 256 MiB, by its memory": (GREEDY, _LITTLE, "out_of_memory"),
}
"""What is tried: a module, its limits, and how it must end."""


def _engine() -> Iterator[Finding]:
    """Run each trial with a permit of a gate of its own, in a folder that is then removed."""
    report = partial(Finding, "engine")
    try:
        with tempfile.TemporaryDirectory(prefix="moat-doctor-") as place:
            ends = {name: _try(Path(place), *trial[:2]) for name, trial in TRIALS.items()}
    except Exception as error:  # noqa: BLE001 (whatever it is, it does not run)
        yield report("fail", f"the sandbox does not run: {error}", "install the package again")
        return
    wrong = [name for name, end in ends.items() if end != TRIALS[name][2]]
    for name in wrong:
        message = f"{name}: ended as `{ends[name]}`, not as `{TRIALS[name][2]}`"
        yield report("fail", message, "do not run untrusted code here; install the package again")
    if not wrong:
        yield report("ok", "the sandbox stops a guest by its fuel, the clock and its memory")


def _try(place: Path, module: bytes, limits: Limits) -> str:
    with Moat.open(place / "state", anchor=None) as moat:
        agent = moat.identity("agent", create=True)
        token = moat.issue(
            holder=agent.id,
            allow=[Grant("code://trial", {"run"})],
            limits=limits,
            expires_in=timedelta(minutes=1),
        )
        return moat.session(agent, token).run(Sandbox(module), resource="code://trial").status


# --- the kernel ---

_OPENAT2: Final = 437
_LANDLOCK_CREATE_RULESET: Final = 444
_RESOLVE_BENEATH: Final = 8
_PR_GET_DUMPABLE: Final = 3
_STA_UNSYNC: Final = 0x40
_PROC: Final = Path("/proc")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _beneath() -> Iterator[Finding]:
    """Leave a directory with ``openat2(…, RESOLVE_BENEATH)``, which must not work."""
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE_BENEATH)
    folder = os.open(_PROC / "self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _libc().syscall(_OPENAT2, folder, b"..", ctypes.byref(how), ctypes.sizeof(how))
        code = ctypes.get_errno()
    finally:
        os.close(folder)
    report = partial(Finding, "openat2")
    if fd >= 0:
        os.close(fd)
        message = "openat2 leaves the directory that it is to stay beneath"
        yield report("fail", message, "give code no directories on this kernel")
    elif code == errno.EXDEV:
        yield report("ok", "the kernel keeps lookups beneath a guest's directory (openat2)")
    else:
        told = errno.errorcode.get(code, str(code))
        message = f"openat2 is not to be had here ({told}); lookups are kept in by slower means"
        yield report("warn", message, "use Linux 5.6 or newer, or allow openat2 in the container")


def _confinement() -> Iterator[Finding]:
    """Say what the kernel could add; Moat's sandbox does not rest on either."""
    abi = _libc().syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    landlock = f"Landlock ABI {abi}" if abi > 0 else "no Landlock"
    known = (_PROC / "sys/kernel/seccomp/actions_avail").exists()
    seccomp = "seccomp" if known else "no seccomp"
    on = {"0": "no filter on", "2": "a filter on"}.get(_status("Seccomp") or "", "state unknown")
    message = f"{landlock}, {seccomp} ({on} this process); Moat does not rely on them"
    yield Finding("confinement", "ok", message)


def _status(field: str) -> str | None:
    for line in _text("self/status").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return None


def _text(name: str) -> str:
    """Read a file of /proc; nothing where there is none or it is closed to us."""
    try:
        return (_PROC / name).read_text(errors="replace")
    except OSError:
        return ""


# --- who could read secrets in memory ---


def _cores() -> Iterator[Finding]:
    import resource  # noqa: PLC0415 - not on every system

    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    handler = _text("sys/kernel/core_pattern").strip()
    report = partial(Finding, "core_dumps")
    if _libc().prctl(_PR_GET_DUMPABLE) == 0:
        yield report("ok", "this process leaves no core dump")
    elif handler.startswith("|"):
        # core(5): a limit of zero does not keep a dump from a program.
        message = "a crash hands all memory, keys and secrets in it, to a program of the system"
        then = f"look what `{handler[1:].split(' ')[0]}` keeps (`Storage=none` for systemd)"
        yield report("warn", message, then)
    elif soft != 0:
        message = "a crash writes all memory, keys and secrets in it, to a file"
        yield report("warn", message, "`ulimit -c 0`, or `LimitCORE=0` in the unit")
    else:
        yield report("ok", "core dumps are off (limit 0)")


def _ptrace() -> Iterator[Finding]:
    scope = _text("sys/kernel/yama/ptrace_scope").strip()
    report = partial(Finding, "ptrace")
    if scope in {"1", "2", "3"}:
        yield report("ok", f"other processes of this user cannot read memory (scope {scope})")
    else:
        message = "any process of this user can read keys and secrets in the gate's memory"
        then = "run agents' tools as another user, or set kernel.yama.ptrace_scope to 1"
        yield report("warn", message, then)


def _swap() -> Iterator[Finding]:
    rows = [line.split()[0] for line in _text("swaps").splitlines()[1:] if line.strip()]
    report = partial(Finding, "swap")
    if not (_PROC / "swaps").exists():
        yield report("skip", "whether there is swap is not known")
    elif all("/zram" in row for row in rows):
        yield report("ok", "no memory is swapped to a disk")
    else:
        message = f"memory may be swapped to `{rows[0]}`, keys and secrets with it"
        yield report("warn", message, "turn it off, or see that it is encrypted")


def _user() -> Iterator[Finding]:
    report = partial(Finding, "user")
    if os.geteuid() == 0:
        message = "this is root: file modes protect nothing from it, nor from what it starts"
        yield report("warn", message, "run the gate as a user of its own")
    else:
        yield report("ok", f"an ordinary user ({os.geteuid()})")


# --- the clock ---


def _ntp() -> Iterator[Finding]:
    """Ask the kernel whether its clock is disciplined (adjtimex(2))."""
    buffer = (ctypes.c_long * 64)()
    state = _libc().adjtimex(ctypes.byref(buffer))
    words = memoryview(buffer).cast("B")
    after = 5 * ctypes.sizeof(ctypes.c_long)  # modes, offset, freq, maxerror, esterror; status
    status = int.from_bytes(words[after : after + 4], sys.byteorder)
    report = partial(Finding, "ntp")
    if state < 0:
        yield report("skip", "whether the clock is synchronised is not known")
    elif status & _STA_UNSYNC:
        message = "the kernel does not know its clock to be synchronised; expiry goes by it"
        yield report("warn", message, "run an NTP client, or see that the host of this VM does")
    else:
        yield report("ok", "the clock is synchronised")


def _clock(offset: float) -> Iterator[Finding]:
    moved = time.time() - time.monotonic() - offset
    report = partial(Finding, "clock")
    # No clock is right that is behind the moment when this package was written to the disk.
    made = Path(_native.__file__ or "").stat().st_mtime
    if time.time() < made:
        yield report("fail", "the clock is behind the package's own files", "set the clock")
    elif abs(moved) > 1:
        message = f"the clock was set by {moved:+.0f} s while this ran"
        yield report("warn", message, "find out what sets it, and let it slew instead")
    else:
        yield report("ok", "the clock goes evenly and is not behind the package's own files")


_CHECKS: Final[dict[str, Callable[[], Iterator[Finding]]]] = {
    "python": _python,
    "package": _package,
    "native": _native_module,
    "engine": _engine,
}
_ON_LINUX: Final[dict[str, Callable[[], Iterator[Finding]]]] = {
    "openat2": _beneath,
    "confinement": _confinement,
    "core_dumps": _cores,
    "ptrace": _ptrace,
    "swap": _swap,
    "user": _user,
    "ntp": _ntp,
}
