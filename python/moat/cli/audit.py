"""``moat audit``: verify, show, prove, check, checkpoint."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from moat import AgentId, AuditLog, Checkpoint, InclusionProof, _files, _show
from moat._follow import first_entry
from moat._native import read_log
from moat._succession import FormerLog, formers
from moat.audit import DEFAULT_ANCHOR
from moat.cli import bars, completers, entries, failure
from moat.cli.app import App, common, dumps, read_input
from moat.cli.entries import Filters, filters
from moat.cli.failure import fail
from moat.errors import MalformedInput, MoatError
from moat.keystore import KeyStore, check_name

if TYPE_CHECKING:
    from typing import Unpack

    from rich.console import Console

    from moat._native import Report

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


def folder_of(app: App, log: Path | None) -> Path:
    """Find the log directory that was asked for."""
    check_name(app.gate)
    return log or app.require_state() / "gates" / app.gate / "log"


def key_of(app: App, key: str | None) -> AgentId:
    """Find the key that signs it."""
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

    The logs of the gate's earlier keys are read as well, each against the one before it. Says
    what it could not check. Exit code 4 means that a log is not what its gate wrote.
    """
    folder, gate = folder_of(app, log), key_of(app, key)
    if no_anchor and anchor is not None:
        message = "`--anchor` and `--no-anchor` exclude each other"
        raise click.UsageError(message)
    compare = None if no_anchor else anchor or DEFAULT_ANCHOR
    earlier = formers(folder.parent) if log is None and key is None else []
    found: list[tuple[FormerLog, Report]] = []
    before = None
    try:
        for one in earlier:
            kept = None if no_anchor else DEFAULT_ANCHOR
            title = f"verifying former log {one.number}"
            with bars.reading(one.log, title, quiet=app.json) as progress:
                found.append((one, AuditLog.verify(
                    one.log, log=one.id, anchor=kept, former=before, progress=progress
                )))  # fmt: skip
            before = one.log
        with bars.reading(folder, "verifying", quiet=app.json) as progress:
            report = AuditLog.verify(
                folder, log=gate, anchor=compare, former=before, progress=progress
            )
    except MoatError as error:
        raise failure.verification(error) from error
    former = [{"number": one.number} | _report(one.id, told) for one, told in found]
    document = {"ok": True} | _report(gate, report) | {"former": former}

    def tell(screen: Console) -> None:
        for one, told in found:
            screen.print(f"former log {one.number}, {one.id}", style="dim", soft_wrap=True)
            _verified(screen, told)
        _verified(screen, report)

    app.emit(document, tell)


def _report(gate: AgentId, report: Report) -> dict[str, Any]:
    inherited = None
    if report.former is not None:
        before, entries, root = report.former
        inherited = {"log": str(before), "entries": entries, "root": root.hex()}
    return {
        "log": str(gate),
        "entries": report.entries,
        "bytes": report.bytes,
        "root": report.root.hex(),
        "time": report.time,
        "signed": report.signed,
        "anchored": report.anchored,
        "torn": report.torn,
        "kinds": report.kinds,
        "inherited": inherited,
        "unchecked": list(report.unchecked),
    }


def _verified(screen: Console, report: Report) -> None:
    screen.print(f"✓ {report.entries} entries hold, {_show.size(report.bytes)}", style="green")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
    rows = [("root", report.root.hex()), ("last", _show.moment(report.time)), ("kinds", kinds)]
    if report.signed is not None:
        rows.append(("checkpoint", f"the gate signed the first {report.signed}"))
    if report.anchored is not None:
        rows.append(("anchor", f"vouches for the first {report.anchored}"))
    if report.former is not None:
        gate, entries, _ = report.former
        rows.append(("goes on after", f"the {entries} entries of {gate}"))
    if report.torn:
        rows.append(("torn", f"{report.torn} unfinished bytes at the end, as a crash leaves them"))
    screen.print(_show.fields(rows, indent=2))
    screen.print("  what it could not check:", style="yellow")
    for sentence in report.unchecked:
        screen.print(_show.Indented(Text(sentence), 4))


def _head(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "note": str(checkpoint),
    }


# --- show ----------------------------------------------------------------------------------------


@audit.command()
@LOG
@filters
@click.option("--last", type=click.IntRange(0), default=50, show_default=True, help="0 is all.")
@common(gate=True)
def show(app: App, *, log: Path | None, last: int, **wanted: Unpack[Filters]) -> None:
    """Read the log, newest last. Nothing is verified here: `moat audit verify` does that."""
    asked_for = entries.Choice(app, wanted)
    found = filter(asked_for, map(entries.read, read_log(folder_of(app, log))))
    kept = list(deque(found, maxlen=last) if last else found)

    def table(screen: Console) -> None:
        names = entries.known(app)
        for entry in kept:
            screen.print(entries.row(entry, names), soft_wrap=True)
        if not kept:
            screen.print("no such entry", style="dim")

    app.emit({"entries": kept}, table)


# --- prove, check, checkpoint --------------------------------------------------------------------


@audit.command()
@click.argument("entry", type=click.IntRange(0), required=False)
@click.option("--line", metavar="FILE", help="Prove this line, which somebody kept; `-` is stdin.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@common(gate=True)
def prove(app: App, *, entry: int | None, line: str | None, out: Path | None) -> None:
    """Prove that ENTRY is in the log: C2SP tlog-proof text, which holds the line itself.

    Whoever has it checks it with `moat audit check` and the gate's public key alone. An entry
    that was pruned is proved by its line, with `--line`.
    """
    if (entry is None) == (line is None):
        message = "give an ENTRY, or `--line FILE` with a line that was kept"
        raise click.UsageError(message)
    kept = None if line is None else read_input(line, PROOF_BYTES).removesuffix(b"\n")
    with app.moat() as moat:
        proof, gate = _proof(moat.audit, entry, kept), moat.id
    entry = proof.index
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


def _proof(log: AuditLog, entry: int | None, line: bytes | None) -> InclusionProof:
    if line is not None:
        return log.prove_line(line)
    if entry is None or entry >= len(log):
        message = f"the log has {len(log)} entries, counted from 0"
        fail("no_entry", message, "see `moat audit show`")
    oldest = first_entry(log.path)
    if entry < oldest:
        message = f"entry {entry} was pruned; the oldest that is here is {oldest}"
        then = "prove it with its line, from a backup or an export: `moat audit prove --line FILE`"
        fail("pruned", message, then)
    return log.prove(entry)


@audit.command()
@click.argument("proof", shell_complete=completers.files)
@KEY
@common(gate=True)
def check(app: App, proof: str, key: str | None) -> None:
    """Check PROOF, a file from `moat audit prove`, with nothing but the gate's public key."""
    gate = key_of(app, key)
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
        screen.print(entries.row(entries.read(made.line), entries.known(app)), soft_wrap=True)

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
