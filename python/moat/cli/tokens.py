"""``moat token``: issue, attenuate, inspect, verify."""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moat import Host, Limits, Secret, Token, _files, _show
from moat.cli import completers, failure
from moat.cli.app import App, common, read_token
from moat.cli.failure import CommandError, fail
from moat.cli.units import (
    NONE,
    DenialText,
    Duration,
    Folder,
    Fuel,
    GrantText,
    HostText,
    RequirementText,
    SecretText,
    Size,
)
from moat.errors import AuditUnavailable, MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from typing import TypedDict, Unpack

    from rich.console import Console

    from moat import AgentId, Denial, Grant, Identity
    from moat.cli.units import Required

    class Terms(TypedDict):
        """What ``terms`` asks for."""

        to: str
        allow: tuple[Grant, ...]
        deny: tuple[Denial, ...]
        fuel: int | None
        memory: int | None
        wall: timedelta | None
        output: int | None
        hosts: tuple[Host | str, ...]
        read: tuple[str, ...]
        write: tuple[str, ...]
        secrets: tuple[Secret | str, ...]
        depth: int | None
        audience: str | None
        require: tuple[Required, ...]
        out: Path | None


T = TypeVar("T")


@click.group()
def token() -> None:
    """Issue tokens, narrow them, look at them and verify them.

    TOKEN is a file, `-` for standard input, or the text itself.
    """


def terms(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what a link allows."""
    options = [
        click.option(
            "--to", "to", required=True, metavar="NAME|DID", shell_complete=completers.agents,
            help="Who may use it.",
        ),
        click.option(
            "--allow", type=GrantText(), multiple=True, metavar="'PATTERN ACTIONS'",
            help="A grant such as 'tool://search/** call,read'. Repeatable.",
        ),
        click.option(
            "--deny", type=DenialText(), multiple=True, metavar="'PATTERN ACTIONS'",
            help="Refuse this whatever is granted; '*' is any action. Repeatable.",
        ),
        click.option("--fuel", type=Fuel(), help="Instructions for code: 5M, or unmetered."),
        click.option("--memory", type=Size(), help="Memory for code, such as 64MiB."),
        click.option("--time", "wall", type=Duration(), help="Wall-clock time of a run: 2s."),
        click.option("--output", type=Size(), help="Output of a run, such as 1MiB."),
        click.option(
            "--host", "hosts", type=HostText(), multiple=True, metavar="'URL METHODS'",
            help="Requests code may send: 'https://a.example/v1/** GET,POST', or none.",
        ),
        click.option("--read", type=Folder(), multiple=True, help="Tree code may read, or none."),
        click.option("--write", type=Folder(), multiple=True, help="Tree code may write, or none."),
        click.option(
            "--secret", "secrets", type=SecretText(), multiple=True,
            metavar="'HANDLE HOST HEADER'",
            help="Filled in: 'secret://key https://a.example authorization', or none.",
        ),
        click.option("--depth", type=click.IntRange(0, 15), help="Further delegations allowed."),
        click.option(
            "--require", type=RequirementText(), multiple=True, metavar="'KIND SIGNERS AGE'",
            help="Let only code (skill, tool) run that is attested: 'code alice,bob 30d'.",
        ),
        click.option("--gate-only", "audience", metavar="DID", help="Bind it to one gate's key."),
        click.option(
            "--by", metavar="NAME", shell_complete=completers.agents, help="Whose key signs.",
        ),
        click.option(
            "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@token.command()
@terms
@click.option("--expires", type=Duration(), required=True, help="Lifetime: 15m, 1h, 7d.")
@click.option(
    "--standard", is_flag=True,
    help="Start from everyday limits (1G fuel, 256MiB, 10s, 1MiB output), not from none.",
)  # fmt: skip
@common()
def issue(
    app: App, *, expires: timedelta, standard: bool, by: str | None, **asked: Unpack[Terms]
) -> None:
    """Sign a first link as a root. What is not allowed here is not allowed at all."""
    if not asked["allow"]:
        message = "a token that allows nothing is of no use; give `--allow 'PATTERN ACTIONS'`"
        raise click.UsageError(message)
    signer = app.keys.load(by) if by else _root(app)
    limits = _limits(Limits.standard() if standard else Limits(), asked)
    app.keep_keys_from(limits)
    made = Token.issue(
        signer,
        holder=app.agent(asked["to"]),
        allow=asked["allow"],
        deny=asked["deny"],
        limits=limits,
        expires_in=expires,
        depth=asked["depth"] or 0,
        audience=_audience(app, asked["audience"]),
        attestations=[one.of(app.agent) for one in asked["require"]],
    )
    deliver(app, made, asked["out"])


@token.command()
@click.argument("parent", metavar="TOKEN", shell_complete=completers.files)
@terms
@click.option("--expires", type=Duration(), help="Lifetime, not beyond the parent's.")
@common()
def attenuate(
    app: App, *, parent: str, expires: timedelta | None, by: str | None, **asked: Unpack[Terms]
) -> None:
    """Sign a further, narrower link as the holder. What is left out stays as it is."""
    held = read_token(parent)
    made = held.attenuate(
        app.keys.load(by) if by else app.holder(held),
        holder=app.agent(asked["to"]),
        allow=asked["allow"] or None,
        deny=asked["deny"],
        limits=_limits(held.links[-1].limits, asked),
        expires_in=expires,
        depth=asked["depth"],
        audience=_audience(app, asked["audience"]),
        attestations=[one.of(app.agent) for one in asked["require"]],
    )
    deliver(app, made, asked["out"])


def _root(app: App) -> Identity:
    """Load the one root whose key lies here."""
    roots = app.config().roots
    names = [name for name in app.keys.names() if app.keys.public(name) in roots]
    if len(names) != 1:
        message = f"this state folder holds the keys of {len(names)} roots"
        fail("which_root", message, "say whose key signs with `--by NAME`")
    return app.keys.load(names[0])


def _audience(app: App, text: str | None) -> AgentId | None:
    return None if text is None else app.agent(text)


def _limits(base: Limits, asked: Terms) -> Limits:
    return base.replace(
        fuel=asked["fuel"],
        memory=asked["memory"],
        time=asked["wall"],
        output=asked["output"],
        hosts=_set(asked["hosts"], Host),
        read=_set(asked["read"], str),
        write=_set(asked["write"], str),
        secrets=_set(asked["secrets"], Secret),
    )


def _set(given: tuple[object, ...], kind: type[T]) -> list[T] | None:
    """Give the members, none where `none` is written out, or None to leave it as it is."""
    return [one for one in given if isinstance(one, kind) and one != NONE] if given else None


def deliver(app: App, made: Token, out: Path | None) -> None:
    """Print a token's text, or write it to a file and say what it is."""
    if out is not None:
        _files.write(out.absolute(), f"{made}\n".encode(), secret=True, overwrite=True)
    last = made.links[-1]
    document = {
        "token": str(made),
        "id": made.id.hex(),
        "holder": str(made.holder),
        "links": len(made.links),
        "expires": made.expires,
        "depth": last.depth,
        "out": None if out is None else str(out.resolve()),
    }

    def show(screen: Console) -> None:
        if out is None:
            click.echo(str(made))
            return
        screen.print(_show.token_tree(made, app.names(), int(time.time())))
        screen.print(f"\nwritten to {out}", style="dim", soft_wrap=True)

    app.emit(document, show)


# --- looking at one ------------------------------------------------------------------------------


@token.command()
@click.argument("text", metavar="TOKEN", shell_complete=completers.files)
@common()
def inspect(app: App, text: str) -> None:
    """Draw the delegation tree of TOKEN, with what each link dropped.

    Signatures, narrowing and times are checked; whether the root is to be trusted is for
    `moat token verify` to say.
    """
    held, names, now = read_token(text), app.names(), int(time.time())
    problem = _problem(held, now)
    links = held.links
    lost: list[Any] = [None]
    lost += [_show.dropped(parent, child) for parent, child in pairwise(links)]
    document = {
        "id": held.id.hex(),
        "root": _show.agent(held.root, names),
        "holder": _show.agent(held.holder, names),
        "expires": held.expires,
        "limits": _show.limits(held.limits),
        "links": [_show.link(x, names) | {"dropped": y} for x, y in zip(links, lost, strict=True)],
        "problem": None if problem is None else problem.to_dict()["error"],
    }

    def show(screen: Console) -> None:
        screen.print(_show.token_tree(held, names, now))
        screen.print()
        if problem is None:
            screen.print("✓ signatures hold and every link is narrower", style="green")
            return
        screen.print(f"✗ {problem.message}", style="bold red", soft_wrap=True)
        facts = [(k, str(problem.facts[k])) for k in ("caveat", "witness") if k in problem.facts]
        screen.print(_show.fields(facts, indent=2))

    app.emit(document, show)


def _problem(held: Token, now: int) -> CommandError | None:
    audience = next((entry.audience for entry in held.links if entry.audience), None)
    try:
        held.verify([held.root], gate=audience, now=now)
    except MoatError as error:
        return failure.verification(error)
    return None


@token.command()
@click.argument("text", metavar="TOKEN", shell_complete=completers.files)
@click.option(
    "--root", "roots", multiple=True, metavar="NAME|DID", help="Trust this root. Repeatable.",
    shell_complete=completers.agents,
)  # fmt: skip
@click.option("--can", nargs=2, metavar="ACTION RESOURCE", help="Also ask whether it permits this.")
@common(gate=True)
def verify(app: App, text: str, roots: tuple[str, ...], can: tuple[str, str] | None) -> None:
    """Verify TOKEN as the gate would: signatures, narrowing, times, root, revocation.

    Roots and revocations come from the state folder. With `--root` the folder is not needed;
    what was revoked then stays unknown, and the answer says so.
    """
    held, names = read_token(text), app.names()
    revocation = _verify(app, held, [app.agent(one) for one in roots])
    if can is not None:
        _permits(held, *can)
    document = {
        "valid": True,
        "id": held.id.hex(),
        "root": _show.agent(held.root, names),
        "holder": _show.agent(held.holder, names),
        "links": len(held.links),
        "expires": held.expires,
        "revocation": revocation,
        "can": None if can is None else {"action": can[0], "resource": can[1]},
    }

    def show(screen: Console) -> None:
        screen.print(f"✓ valid: {len(held.links)} links from {names(held.root)}", style="green")
        rows = [
            ("holder", names(held.holder)),
            ("expires", _show.until(held.expires, int(time.time()))),
            ("revocation", revocation),
        ]
        screen.print(_show.fields(rows, indent=2))

    app.emit(document, show)


def _verify(app: App, held: Token, roots: list[AgentId]) -> str:
    """Verify and say what is known about revocation."""
    if roots:
        with _verifying():
            held.verify(roots)
        return "not checked: no gate was asked"
    trusted = app.config().roots
    with _verifying():
        held.verify(trusted)
    try:
        with app.moat() as moat, _verifying():
            held.verify(trusted, gate=moat.id)
            moat.audit.gate.check_withdrawn(held)
    except AuditUnavailable as error:
        return f"not checked: {error}"
    return "not revoked"


@contextmanager
def _verifying() -> Iterator[None]:
    """Make a refusal of the token the answer of this command; a log in use is no refusal."""
    try:
        yield
    except AuditUnavailable:
        raise
    except MoatError as error:
        raise failure.verification(error) from error


def _permits(held: Token, action: str, resource: str) -> None:
    why = held.explain(action, resource)
    if why is not None:
        facts = {"action": action, "resource": resource}
        fail("not_granted", why, status=failure.DENIED, facts=facts)
