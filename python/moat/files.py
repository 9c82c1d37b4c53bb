"""Open files for a tool of the host, where a permit's trees let it and nowhere else.

::

    with permit:
        with moat.files.open(permit, "/data/notes/first.txt") as file:
            text = file.read()

Collecting what code left in a tree, a host follows no link that lies there either::

    for path in moat.files.walk(permit, "/data/out"):
        with moat.files.open(permit, path, "rb") as file:
            keep(path, file.read())

What is opened is walked to from ``/`` one name at a time, below a directory that is held open: no
symbolic link is followed anywhere, and one that is put in the way meanwhile ends in a refusal. On
Linux the kernel keeps the last part of the walk beneath the tree (``openat2``), where it can.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import io
import os
import platform
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final

from moat.errors import MalformedInput, MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from moat._native import Permit

_BY_MODE: Final = {
    "r": os.O_RDONLY, "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT, "w+": os.O_RDWR | os.O_CREAT,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND, "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL, "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}  # fmt: skip
_LOOK: Final = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC
_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_IN_THE_WAY: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EXDEV})

_OPENAT2: Final = 437
"""The number of the system call on every architecture of Linux (5.6 and later)."""
_BENEATH: Final = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS (openat2(2))."""


def open(  # noqa: A001 (`files.open` says what it is)
    permit: Permit,
    path: str | PathLike[str],
    mode: str = "r",
    *,
    encoding: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """Open a regular file as the built-in ``open`` does, in a tree that the open permit grants.

    ``path`` is absolute, without ``.`` and ``..``. Reading asks for a tree of
    ``permit.limits.read``, writing for one of ``write``, ``+`` for both. Text is UTF-8 unless
    ``encoding`` says otherwise.

    Raises ``Denied`` where no tree holds the path, where it would be written and runs by itself
    (spec/files.md), or where the permit is not open; ``KeysExposed`` where a tree reaches the
    gate's keys; ``MoatError`` where something other than directories and a regular file is in the
    way, and where a file to be written has another name elsewhere (a hard link); and ``OSError``
    as ``open`` does. Nothing is emptied or made before all of it was checked.
    """
    plain, flags = mode.replace("t", "").replace("b", ""), None
    if len(mode) - len(plain) <= 1:
        flags = _BY_MODE.get(plain)
    if flags is None:
        message = f"`{mode}` is no mode; give one as `r`, `rb`, `w`, `a`, `x` or `r+`"
        raise MalformedInput(message)
    name = _text(path)
    writes = plain != "r"
    tree = permit.tree(name, read="r" in plain or "+" in plain, write=writes)
    fd = _open(tree, name, flags, writes=writes)
    file = os.fdopen(fd, plain.replace("x", "w") + "b")
    try:
        if plain[0] == "w":
            file.truncate(0)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding or "utf-8", newline=newline)
    except BaseException:
        file.close()
        raise


def walk(permit: Permit, path: str | PathLike[str]) -> Iterator[str]:
    """The regular files below a directory of a readable tree, by their whole paths, in order.

    ``path`` is that tree's directory or one below it, spelled as for ``open``. Links, pipes,
    sockets and devices are left out, and a link is not followed. ``open`` looks again at each.

    Raises as ``open`` does for reading: at once for ``path``, and on the way where the permit has
    ended meanwhile, where a folder was changed for something else, and where a name is no text.
    """
    name = _text(path)
    permit.tree(_inside(name), read=True)
    return _walk(permit, name)


def _walk(permit: Permit, path: str) -> Iterator[str]:
    folders = [path]
    while folders:
        place = folders.pop()
        tree = permit.tree(_inside(place), read=True)
        try:
            found = _listed(tree, place)
        except FileNotFoundError:
            if place == path:
                raise
            continue
        for name, mode in found:
            if stat.S_ISREG(mode):
                yield _inside(place, name)
        folders += [_inside(place, name) for name, mode in reversed(found) if stat.S_ISDIR(mode)]


def _inside(folder: str, name: str = "_") -> str:
    return f"/{name}" if folder == "/" else f"{folder}/{name}"


def _listed(tree: str, path: str) -> list[tuple[str, int]]:
    """Names in a directory and what each is, in order; without those that went meanwhile."""
    with _held(tree, path.removeprefix(tree).strip("/"), path) as at:
        fd = _beneath(at, ".", os.O_RDONLY | os.O_DIRECTORY | _SAFE, path)
    try:
        found = []
        for name in sorted(os.listdir(fd)):  # noqa: PTH208 (a descriptor)
            if any("\udc80" <= char <= "\udcff" for char in name):
                message = f"a name in `{path}` is not utf-8; rename `{os.fsencode(name)!r}`"
                raise MoatError(message)
            with suppress(FileNotFoundError):
                found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode))
        return found
    finally:
        os.close(fd)


def _text(path: str | PathLike[str]) -> str:
    name = os.fspath(path)
    if not isinstance(name, str):
        message = "give the path as text"
        raise MalformedInput(message)
    return name


@contextmanager
def _held(tree: str, below: str, path: str) -> Iterator[int]:
    """Hold a directory in a tree, walked to from the root through no link."""
    with ExitStack() as held:

        def look(at: int | None, name: str) -> int:
            fd = _beneath(at, name, _LOOK | os.O_DIRECTORY, path)
            held.callback(os.close, fd)
            return fd

        at = look(None, "/")
        for part in filter(None, tree.split("/")):
            at = look(at, part)
        yield look(at, below) if below else at


def _open(tree: str, path: str, flags: int, *, writes: bool) -> int:
    """Walk to the file and open it; what it is was asked of what was opened."""
    below, _, last = path.removeprefix(tree).strip("/").rpartition("/")
    with _held(tree, below, path) as at, ExitStack() as held:
        if flags & os.O_CREAT:
            try:
                return _checked(
                    _beneath(at, last, flags | os.O_EXCL | _SAFE, path), path, writes=True
                )
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
        held.callback(os.close, found := _beneath(at, last, _LOOK, path))
        _check(os.fstat(found), path, writes=writes)
        return _reopen(found, at, last, flags & ~os.O_CREAT, path)


def _reopen(found: int, at: int, name: str, flags: int, path: str) -> int:
    """Open for use the very file that was looked at."""
    if not hasattr(os, "O_PATH"):
        fd = _beneath(at, name, flags | _SAFE, path)
    else:
        try:
            fd = os.open(f"/proc/self/fd/{found}", flags | _SAFE & ~os.O_NOFOLLOW)
        except FileNotFoundError as error:
            message = "`/proc` is not mounted, and files are opened through it; mount it"
            raise MoatError(message) from error
    one, other = os.fstat(fd), os.fstat(found)
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino):
        os.close(fd)
        message = f"`{path}` was changed for another file meanwhile; try again"
        raise MoatError(message)
    return _checked(fd, path, writes=flags & os.O_ACCMODE != os.O_RDONLY)


def _checked(fd: int, path: str, *, writes: bool) -> int:
    try:
        _check(os.fstat(fd), path, writes=writes)
    except BaseException:
        os.close(fd)
        raise
    os.set_blocking(fd, True)
    return fd


def _check(found: os.stat_result, path: str, *, writes: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _in_the_way(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        message = f"`{path}` is a device, a pipe or a socket; only regular files are opened"
        raise MoatError(message)
    if writes and found.st_nlink > 1:
        message = f"`{path}` is the same file as another one elsewhere (a hard link); copy it"
        raise MoatError(message)


def _beneath(at: int | None, name: str, flags: int, path: str) -> int:
    """Open a name, or names, below a directory without following a link."""
    try:
        if at is None:
            return os.open(name, flags)
        if (fd := _openat2(at, name, flags)) is not None:
            return fd
        return _by_hand(at, name.split("/"), flags)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise _in_the_way(path) from error
        raise type(error)(error.errno, os.strerror(error.errno or 0), path) from None


def _by_hand(at: int, names: list[str], flags: int) -> int:
    with ExitStack() as held:
        for name in names[:-1]:
            at = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=at)
            held.callback(os.close, at)
        return os.open(names[-1], flags, 0o666, dir_fd=at)


def _in_the_way(path: str) -> MoatError:
    message = f"a symbolic link, or what is no directory, is in the way of `{path}`; "
    return MoatError(message + "name the real place")


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(at: int, name: str, flags: int) -> int | None:
    """Ask the kernel; None where it has no such call, or one that is not let through."""
    if platform.system() != "Linux":
        return None
    how = _How(flags, 0o666 if flags & os.O_CREAT else 0, _BENEATH)
    call, number = _syscall(), 0
    for _ in range(64):
        size = ctypes.c_size_t(ctypes.sizeof(how))
        text = ctypes.c_char_p(os.fsencode(name))
        fd = call(ctypes.c_long(_OPENAT2), ctypes.c_int(at), text, ctypes.byref(how), size)
        if fd >= 0:
            return int(fd)
        # The kernel could not tell whether it stayed beneath: something was being renamed.
        if (number := ctypes.get_errno()) != errno.EAGAIN:
            break
    if number in {errno.ENOSYS, errno.EPERM}:
        return None
    raise OSError(number, os.strerror(number), name)


@functools.cache
def _syscall() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call
