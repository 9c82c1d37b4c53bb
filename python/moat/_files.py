"""Files that only their owner can read or change: bounded reads, atomic and durable writes.

Nothing here follows a symbolic link in the last part of a path, and nothing is trusted for lying
in the right place: owner, kind and mode are asked of the file that was opened.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moat.errors import MoatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MAX_BYTES = 64 * 1024
"""Nothing kept this way is larger: keys, public keys, one configuration."""

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE (renameat2(2), Linux 3.15)."""

_OTHERS_MAY_WRITE = 0o022
_OTHERS_MAY_READ_OR_WRITE = 0o077


def make_dirs(path: Path) -> None:
    """Make a directory and its missing parents, each 0700; what exists is left as it is."""
    for part in reversed([path, *path.parents]):
        if not part.is_dir():
            part.mkdir(mode=0o700, exist_ok=True)


def require_private_dir(path: Path) -> None:
    """Refuse a directory that others can look into, or that is not ours."""
    with _opened(path, os.O_DIRECTORY) as fd:
        _require_ours(path, os.fstat(fd), _OTHERS_MAY_READ_OR_WRITE)


def read(path: Path, *, secret: bool) -> bytes:
    """Read a whole small file that is ours.

    A secret one must be closed to everybody else; another one only closed to their writing.
    Raises ``FileNotFoundError`` where there is none and ``MoatError`` where it cannot be trusted.
    """
    with reading(path, secret=secret) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        message = f"`{path}` is larger than {MAX_BYTES} bytes; it is not a file of ours"
        raise MoatError(message)
    return data


@contextmanager
def reading(path: Path, *, secret: bool) -> Iterator[BinaryIO]:
    """Read a file of any length that is ours, as ``read``."""
    with _opened(path, os.O_NONBLOCK) as fd:
        _require_file(path, os.fstat(fd), secret=secret)
        with os.fdopen(fd, "rb", closefd=False) as file:
            yield file


def exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step; False where this system cannot, and nothing is done."""
    library = ctypes.CDLL(None, use_errno=True)
    swap = getattr(library, "renameat2", None)
    if swap is None:
        return False
    if swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in {errno.EINVAL, errno.ENOSYS}:
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock (flock(2)) on a directory, or on a file that is made where it is missing.

    Raises ``BlockingIOError`` where somebody else has it; nobody waits.
    """
    kind = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT
    lock = os.open(path, kind | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def sync_dir(path: Path) -> None:
    """Put the names in a directory on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, data: bytes, *, secret: bool, overwrite: bool) -> None:
    """Write a whole file so that a crash leaves the old one, or none, or the new one.

    Raises ``FileExistsError`` where there is one and ``overwrite`` is not asked for. A symbolic
    link is never written through.
    """
    with writing(path, secret=secret, overwrite=overwrite) as file:
        file.write(data)


@contextmanager
def writing(path: Path, *, secret: bool, overwrite: bool) -> Iterator[BinaryIO]:
    """Write a file piece by piece; it has its name only once the block has ended well.

    As ``write``; after an exception nothing is left. What was written can be read back.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    draft = f".{secrets.token_hex(8)}.tmp"
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(draft, flags, 0o600 if secret else 0o644, dir_fd=folder)
        try:
            with os.fdopen(fd, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _publish(folder, draft, path, overwrite=overwrite)
        except BaseException:
            os.unlink(draft, dir_fd=folder)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _publish(folder: int, draft: str, path: Path, *, overwrite: bool) -> None:
    """Give a finished draft its name: a rename replaces, a hard link never does."""
    if path.is_symlink():
        message = f"`{path}` is a symbolic link; remove it"
        raise MoatError(message)
    if overwrite:
        os.rename(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.link(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.unlink(draft, dir_fd=folder)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        link = " (a symbolic link)" if path.is_symlink() else ""
        message = f"cannot open `{path}`{link}: {os.strerror(error.errno or 0).lower()}"
        raise MoatError(message) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _require_file(path: Path, found: os.stat_result, *, secret: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        message = f"`{path}` is not a regular file; move it away"
        raise MoatError(message)
    _require_ours(path, found, _OTHERS_MAY_READ_OR_WRITE if secret else _OTHERS_MAY_WRITE)


def _require_ours(path: Path, found: os.stat_result, forbidden: int) -> None:
    if found.st_uid != os.geteuid():
        message = f"`{path}` belongs to another user; use files of your own"
        raise MoatError(message)
    if found.st_mode & forbidden:
        closed = "go-rwx" if forbidden == _OTHERS_MAY_READ_OR_WRITE else "go-w"
        message = f"`{path}` is open to other users; look who could use it, then `chmod {closed}`"
        raise MoatError(message)
