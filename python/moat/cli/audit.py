"""``moat audit``: verify, show, prove, check, checkpoint."""

from __future__ import annotations

import json
import sys
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from moat import AgentId, AuditLog, Checkpoint, InclusionProof, _files, _show
from moat._native import read_log
from moat.audit import DEFAULT_ANCHOR
from moat.cli import failure
from moat.cli.app import App, common, dumps, read_input
from moat.cli.failure import CommandError, fail
from moat.errors import MalformedInput, MoatError
from moat.keystore import KeyStore, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Unpack

    from rich.console import Console

    from moat._native import Report

LONG = 16 << 20
"""Bytes from which a log takes long enough for a progress bar."""
PROOF_BYTES = 1 << 20


@click.group()
def audit() -> None:
    """Verify a gate's log, read it, and prove to others what it says."""


LOG = click.option(
    "--log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A log directory; left out, the gate's own.",
)
KEY = click.option("--key", metavar="DID", help="The gate's key; left out, the gate's own.")


def _folder(app: App, log: Path | None) -> Path:
    check_name(app.gate)
    return log or app.require_state() / "gates" / app.gate / "log"


def _key(app: App, key: str | None) -> AgentId:
    if key is not None:
        return AgentId(key)
    return KeyStore(app.require_state() / "gates" / app.gate / "key").public(app.gate)


# --- verify --------------------------------------------------------------------------------------


@audit.command()
@LOG
@KEY
@click.option("--anchor", type=click.Path(dir_okay=False, path_type=Path), help="Anchor file.")
@click.option("--no-anchor", is_flag=True, help="Compare with no anchor, and say so.")
@common(gate=True)
def verify(
    app: App, *, log: Path | None, key: str | None, anchor: Path | None, no_anchor: bool
) -> None:
    """Read the whole log as a stranger: form, chain, tree, checkpoint, anchor.

    Says what it could not check. Exit code 4 means that the log is not what its gate wrote.
    """
    folder, gate = _folder(app, log), _key(app, key)
    if no_anchor and anchor is not None:
        message = "`--anchor` and `--no-anchor` exclude each other"
        raise click.UsageError(message)
    compare = None if no_anchor else anchor or DEFAULT_ANCHOR
    try:
        with _progress(folder) as progress:
            report = AuditLog.verify(folder, log=gate, anchor=compare, progress=progress)
    except MoatError as error:
        raise failure.verification(error) from error
    document = {
        "ok": True,
        "log": str(gate),
        "entries": report.entries,
        "bytes": report.bytes,
        "root": report.root.hex(),
        "time": report.time,
        "signed": report.signed,
        "anchored": report.anchored,
        "torn": report.torn,
        "kinds": report.kinds,
        "unchecked": list(report.unchecked),
    }
    app.emit(document, lambda screen: _verified(screen, report))


def _verified(screen: Console, report: Report) -> None:
    screen.print(f"✓ {report.entries} entries hold, {_show.size(report.bytes)}", style="green")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
    rows = [("root", report.root.hex()), ("last", _show.moment(report.time)), ("kinds", kinds)]
    if report.signed is not None:
        rows.append(("checkpoint", f"the gate signed the first {report.signed}"))
    if report.anchored is not None:
        rows.append(("anchor", f"vouches for the first {report.anchored}"))
    if report.torn:
        rows.append(("torn", f"{report.torn} unfinished bytes at the end, as a crash leaves them"))
    screen.print(_show.fields(rows, indent=2))
    screen.print("  what it could not check:", style="yellow")
    for sentence in report.unchecked:
        screen.print(_show.Indented(Text(sentence), 4))


@contextmanager
def _progress(folder: Path) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, where the log is long."""
    length = sum(file.stat().st_size for file in folder.rglob("*.jsonl"))
    if not sys.stderr.isatty() or length < LONG:
        yield None
        return
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_show.console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=length)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _head(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "note": str(checkpoint),
    }


class Filters(TypedDict):
    """What ``show`` is asked for."""

    kind: str | None
    agent: str | None
    denied: bool


# --- show ----------------------------------------------------------------------------------------


@audit.command()
@LOG
@click.option("--kind", help="Only this kind: decision, outcome, control, link …")
@click.option("--agent", metavar="NAME|DID", help="Only lines that name this agent.")
@click.option("--denied", is_flag=True, help="Only denials.")
@click.option("--last", type=click.IntRange(0), default=50, show_default=True, help="0 is all.")
@common(gate=True)
def show(app: App, *, log: Path | None, last: int, **wanted: Unpack[Filters]) -> None:
    """Read the log, newest last. Nothing is verified here: `moat audit verify` does that."""
    agent = None if wanted["agent"] is None else str(app.agent(wanted["agent"]))
    found: Iterable[dict[str, Any]] = (
        entry
        for entry in map(_entry, read_log(_folder(app, log)))
        if (wanted["kind"] in {None, entry["kind"]})
        and (agent is None or agent in _strings(entry["body"]))
        and (not wanted["denied"] or entry["body"].get("allow") is False)
    )
    kept = list(deque(found, maxlen=last) if last else found)

    def table(screen: Console) -> None:
        names = _texts(app)
        for entry in kept:
            screen.print(_row(entry, names), soft_wrap=True)
        if not kept:
            screen.print("no such entry", style="dim")

    app.emit({"entries": kept}, table)


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        if isinstance(entry["body"], dict) and isinstance(entry["kind"], str):
            entry["i"], entry["t"] = int(entry["i"]), int(entry["t"])
            return cast("dict[str, Any]", entry)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable() from error
    raise _unreadable()


def _unreadable() -> CommandError:
    message, then = "a line of the log does not read", "run `moat audit verify` to see where"
    return CommandError("chain_broken", message, then, failure.INVALID)


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)


def _texts(app: App) -> dict[str, str]:
    return {str(key): name for key, name in app.names().known.items()}


def _row(entry: dict[str, Any], names: dict[str, str]) -> Text:
    """One line for a person."""
    body = entry["body"]

    def who(key: str) -> str:
        return names.get(str(body.get(key)), _show.short(str(body.get(key))))

    place = f"{entry['i']:>5}  {_show.moment(entry['t'])}  "
    row = Text.assemble((place, "dim"), f"{entry['kind']:9} ")
    match entry["kind"]:
        case "decision" if body.get("allow"):
            row.append("allowed  ", "green")
            row.append(f"{who('holder')}  {body.get('action')} {body.get('resource')}")
        case "decision":
            row.append("denied   ", "bold red")
            row.append(f"{who('holder')}  {body.get('action')} {body.get('resource')}")
            row.append(f"  {body.get('reason')}", "red")
            if body.get("link") is not None:
                row.append(f" at link {body['link']}", "red")
        case "outcome":
            row.append(f"of {body.get('decision')}: {body.get('status')}")
            row.append("" if body.get("fuel") is None else f", {body['fuel']:,} fuel", "dim")
        case "control":
            row.append(f"{body.get('verb')} {body.get('target')} ", "yellow")
            row.append(f"{who('id')} by {who('signer')}")
        case "link":
            row.append(_show.short(str(body.get("id"))), "dim")
        case _:
            row.append(json.dumps(body, ensure_ascii=False), "dim")
    return row


# --- prove, check, checkpoint --------------------------------------------------------------------


@audit.command()
@click.argument("entry", type=click.IntRange(0))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@common(gate=True)
def prove(app: App, entry: int, out: Path | None) -> None:
    """Prove that ENTRY is in the log: C2SP tlog-proof text, which holds the line itself.

    Whoever has it checks it with `moat audit check` and the gate's public key alone.
    """
    with app.moat() as moat:
        if entry >= len(moat.audit):
            message = f"the log has {len(moat.audit)} entries, counted from 0"
            fail("no_entry", message, "see `moat audit show`")
        proof, gate = moat.audit.prove(entry), moat.id
    text = str(proof)
    if out is not None:
        _files.write(out.absolute(), text.encode(), secret=False, overwrite=True)
    document = {
        "entry": entry,
        "log": str(gate),
        "line": proof.line.decode(),
        "hashes": [one.hex() for one in proof.hashes],
        "checkpoint": _head(proof.checkpoint),
        "proof": text,
        "out": None if out is None else str(out.resolve()),
    }

    def tell(screen: Console) -> None:
        if out is None:
            click.echo(text, nl=False)
        else:
            screen.print(f"proof of entry {entry} written to {out}", soft_wrap=True)
            check = f"anyone checks it: moat audit check {out} --key {gate}"
            screen.print(check, style="dim", soft_wrap=True)

    app.emit(document, tell)


@audit.command()
@click.argument("proof")
@KEY
@common(gate=True)
def check(app: App, proof: str, key: str | None) -> None:
    """Check PROOF, a file from `moat audit prove`, with nothing but the gate's public key."""
    gate = _key(app, key)
    try:
        made = InclusionProof.parse(read_input(proof, PROOF_BYTES).decode())
        made.verify(made.checkpoint, log=gate)
    except (MoatError, UnicodeDecodeError) as error:
        wrapped = error if isinstance(error, MoatError) else MalformedInput("the proof is no text")
        raise failure.verification(wrapped) from error
    document = {
        "ok": True,
        "log": str(gate),
        "entry": made.index,
        "line": made.line.decode(),
        "checkpoint": _head(made.checkpoint),
    }

    def tell(screen: Console) -> None:
        of = f"entry {made.index} is in the log of {made.checkpoint.size} that the gate signed"
        screen.print(f"✓ {of}", style="green")
        screen.print(_row(_entry(made.line), _texts(app)), soft_wrap=True)

    app.emit(document, tell)


@audit.command()
@click.option(
    "--extends", "old", metavar="FILE",
    help="A checkpoint kept earlier; prove that the log still begins with what it covers.",
)  # fmt: skip
@common(gate=True)
def checkpoint(app: App, old: str | None) -> None:
    """Print a signed checkpoint: keep one elsewhere, and nobody can rewrite what it covers."""
    text = None if old is None else read_input(old, PROOF_BYTES).decode(errors="replace")
    with app.moat() as moat:
        head = moat.audit.checkpoint()
        try:
            earlier = None if text is None else _extended(moat.audit, text, head)
        except MoatError as error:
            raise failure.verification(error) from error
    document = _head(head) | {"extends": earlier}
    if app.json:
        click.echo(dumps(document))
    else:
        click.echo(str(head), nl=False)


def _extended(log: AuditLog, text: str, new: Checkpoint) -> int:
    """Prove that an older checkpoint's log is the beginning of this one; its size."""
    old = Checkpoint.parse(text)
    old.verify(log.id)
    if old.size > new.size:
        message = f"the log has {new.size} entries and had {old.size}: its end was cut off"
        fail("rolled_back", message, status=failure.INVALID)
    if old.size:
        log.consistency(old.size, size=new.size).verify(old, new, log=log.id)
    return old.size
