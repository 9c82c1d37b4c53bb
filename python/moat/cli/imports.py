"""``moat identity import``."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moat import _openssh, _show
from moat.cli.app import App, common
from moat.cli.failure import fail
from moat.errors import MalformedInput
from moat.keystore import check_name

if TYPE_CHECKING:
    from rich.console import Console

MAX_BYTES = 16 * 1024
"""More than any file with one Ed25519 key."""

_OTHERS = 0o077


@click.command("import")
@click.argument("name")
@click.argument("file")
@common()
def import_(app: App, name: str, file: str) -> None:
    """Keep the Ed25519 key in FILE as identity NAME; `-` is standard input.

    FILE is what `openssl genpkey -algorithm ed25519` or `ssh-keygen -t ed25519` writes, without a
    passphrase. It is copied: delete it if it is not needed elsewhere.
    """
    check_name(name)
    if name in app.keys:
        message = f"there is a key `{name}` already"
        fail("exists", message, "choose another name")
    data, warning = _read(file)
    known = app.names().find(_openssh.read_private(name, data).id)
    if known is not None:
        message = f"this key is here already, as `{known}`"
        fail("exists", message, "use it by that name; a key has one name")
    made = app.keys.import_key(name, data)
    path = app.state / "keys" / f"{name}.pem"
    document = {
        "name": name,
        "id": str(made.id),
        "path": str(path.resolve()),
        "warning": warning,
    }

    def show(screen: Console) -> None:
        screen.print(_show.fields([(name, str(made.id)), ("key", str(path))]))
        if warning is not None:
            _show.console(stderr=True).print(f"warning: {warning}", style="yellow", soft_wrap=True)

    app.emit(document, show)


def _read(file: str) -> tuple[bytes, str | None]:
    """Read the key, and say what is to be said about the file that it lies in."""
    if file == "-":
        return _bounded(sys.stdin.buffer.read(MAX_BYTES + 1)), None
    fd = os.open(Path(file), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            message = f"`{file}` is not a regular file; give one, or `-` for standard input"
            raise MalformedInput(message)
        with os.fdopen(fd, "rb", closefd=False) as source:
            data = _bounded(source.read(MAX_BYTES + 1))
    finally:
        os.close(fd)
    if not found.st_mode & _OTHERS:
        return data, None
    return data, (
        f"other users may open `{file}`, so this key may be theirs too; make a new one, or "
        "`chmod go-rwx` it if nobody could"
    )


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        message = f"more than {MAX_BYTES} bytes are no file with one key"
        raise MalformedInput(message)
    return data
