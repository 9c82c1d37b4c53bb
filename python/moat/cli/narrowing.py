"""The options of ``moat run`` that narrow its token, and the key that is made for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import click

from moat import Host, Identity
from moat.cli import failure
from moat.cli.failure import fail
from moat.cli.units import NONE, Duration, FolderMode, Fuel, HostText, Size

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from moat import Limits, Secret, Token


class Flags(TypedDict):
    """What the command line narrows; what it does not name is None or empty."""

    hosts: tuple[Host | str, ...]
    dirs: tuple[tuple[str, bool], ...]
    secrets: tuple[str, ...]
    fuel: int | None
    memory: int | None
    wall: timedelta | None
    output: int | None


def narrowing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that narrow a token for one run."""
    options = [
        click.option(
            "--allow-host", "hosts", type=HostText(), multiple=True, metavar="'URL METHODS'",
            help="Of the token's hosts only this, as in `token issue --host`. Repeatable.",
        ),
        click.option(
            "--dir", "dirs", type=FolderMode(), multiple=True, metavar="PATH[:ro|:rw]",
            help="Of its trees only this, to read or to read and write. Repeatable.",
        ),
        click.option(
            "--secret", "secrets", multiple=True, metavar="HANDLE",
            help="Of its secrets only this. Repeatable.",
        ),
        click.option("--fuel", type=Fuel(), help="At most so many instructions, such as 5M."),
        click.option("--memory", type=Size(), help="At most so much memory, such as 64MiB."),
        click.option("--time", "wall", type=Duration(), help="At most so long: 2s."),
        click.option("--output", type=Size(), help="At most so much output, such as 1MiB."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def narrows(given: Flags) -> bool:
    """Whether the command line names any of them."""
    values = [given[name] for name in Flags.__annotations__]  # type: ignore[literal-required]
    return any(value is not None and value != () for value in values)


def mint(held: Token, holder: Identity, flags: Flags) -> tuple[Identity, Token]:
    """Make a key for one run, and the link that lets it in, with what the flags leave.

    The key is in this process alone and goes with it. Raises ``AttenuationViolation`` where a
    flag asks for more than the token has.
    """
    check_depth(held, "a flag that narrows")
    key = Identity.generate("run")
    return key, held.attenuate(holder, holder=key.id, limits=narrowed(held, flags), depth=0)


def check_depth(held: Token, what: str) -> None:
    """Fail where a token allows no further link, which this needs."""
    if held.depth == 0:
        message = f"{what} needs a further link, and the token allows none"
        then = "issue it with `--depth 1` or more, or run a module without narrowing flags"
        fail("depth_spent", message, then, failure.DENIED, {"caveat": "depth"})


def narrowed(held: Token, flags: Flags) -> Limits:
    """Narrow the axes that are named to what is named, and leave the others."""
    base = held.links[-1].limits
    if (dirs := flags["dirs"]) != ():
        read = [pattern for pattern, _ in dirs if pattern != NONE]
        write = [pattern for pattern, writable in dirs if writable]
        base = base.replace(read=read, write=write)
    if (hosts := flags["hosts"]) != ():
        base = base.replace(hosts=[host for host in hosts if isinstance(host, Host)])
    if (handles := flags["secrets"]) != ():
        base = base.replace(secrets=_named(base.secrets, handles))
    return base.replace(
        fuel=flags["fuel"], memory=flags["memory"], time=flags["wall"], output=flags["output"]
    )


def _named(secrets: tuple[Secret, ...], handles: tuple[str, ...]) -> list[Secret]:
    """Pick the secrets of these handles, wherever the token binds them."""
    known = {secret.handle for secret in secrets}
    for handle in handles:
        if handle != NONE and handle not in known:
            message = f"the token names no secret `{handle}`"
            facts = {"caveat": "secrets", "witness": handle}
            fail("widened", message, status=failure.DENIED, facts=facts)
    return [secret for secret in secrets if secret.handle in handles]
