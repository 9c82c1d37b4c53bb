"""``moat audit rerun``: does a deterministic run again, and compares it with what the log says."""

from __future__ import annotations

import hashlib
import re
import sys
from base64 import urlsafe_b64decode
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from moat import AuditLog, Identity, Message, Policy, Sandbox, Token, _show
from moat._native import read_log
from moat._succession import formers
from moat.audit import DEFAULT_ANCHOR
from moat.cli import bars, completers, entries, failure
from moat.cli.app import App, common, read_input
from moat.cli.audit import KEY, LOG, folder_of, key_of
from moat.cli.failure import fail
from moat.cli.run import INPUT_BYTES
from moat.cli.units import KeyValue
from moat.errors import MoatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypedDict, Unpack

    from rich.console import Console

    from moat import AgentId, SandboxOutcome

    class Given(TypedDict):
        """What the code was given, as far as its owner remembers."""

        wasm: Path
        argv: tuple[str, ...]
        env: tuple[tuple[str, str], ...]
        stdin: str | None


DETAIL_CHARACTERS = 256
"""What the log keeps of a detail."""
INDEX: Final = re.compile("[0-9]{1,19}")
"""How an entry is named by its place."""
_BY_CHANCE = {"timed_out", "interrupted", "not_run"}
"""Ends that say something about a machine or a moment, and nothing about the code."""


class Run(NamedTuple):
    """What a log says of one run."""

    decision: dict[str, Any]
    outcome: dict[str, Any]
    token: Token


@click.command()
@click.argument("entry", metavar="ENTRY")
@click.option(
    "--wasm", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completers.files, help="The code that ran.",
)  # fmt: skip
@click.option("--arg", "argv", multiple=True, help="An argument that it was given. Repeatable.")
@click.option("--env", type=KeyValue(), multiple=True, help="A variable it was given. Repeatable.")
@click.option("--stdin", metavar="FILE", help="File, or -, that it read as its input.")
@LOG
@KEY
@common(gate=True)
def rerun(
    app: App, *, entry: str, log: Path | None, key: str | None, **given: Unpack[Given]
) -> None:
    """Do the run of ENTRY again and compare its end, output and fuel with what the log says.

    ENTRY is a decision's index or its message's id, or the outcome's index. The log is verified
    first; code, arguments and input must be those of the decision, by their digests. The run was
    made with `moat run --deterministic`, and has no effect: no permit is needed, no line is
    written. Exit code 4 means that it came out otherwise, or that something else was given.
    """
    folder, gate = folder_of(app, log), key_of(app, key)
    earlier = formers(folder.parent) if log is None and key is None else []
    try:
        with bars.reading(folder, "verifying", quiet=app.json) as progress:
            AuditLog.verify(
                folder, log=gate, anchor=DEFAULT_ANCHOR, progress=progress,
                former=earlier[-1].log if earlier else None,
            )  # fmt: skip
    except MoatError as error:
        raise failure.verification(error) from error
    run = _find(folder, gate, entry)
    sandbox, payload = _same(run.decision["body"], given)
    found = sandbox.replay(
        run.token.limits, stdin=payload, args=given["argv"], env=dict(given["env"])
    )
    if found.status in _BY_CHANCE:
        message = f"it ended with `{found.status}` here, which says nothing about the code"
        fail("not_comparable", message, "try again where the machine has more time to spare")
    _tell(app, run, found)


# --- what the log says ---------------------------------------------------------------------------


def _find(folder: Path, gate: AgentId, wanted: str) -> Run:
    """Find the decision, its outcome, and the links of its token."""
    number = int(wanted) if INDEX.fullmatch(wanted) else None
    decision: dict[str, Any] | None = None
    links: dict[str, str] = {}
    for line in read_log(folder):
        one = entries.read(line)
        body = one["body"]
        if one["kind"] == "link":
            links[body["id"]] = body["link"]
        elif one["kind"] == "decision" and (one["i"] == number or body["message"] == wanted):
            decision = decision or one  # a copy of the message comes later, and was refused
        elif one["kind"] == "outcome" and one["i"] == number:
            return _find(folder, gate, str(body["decision"]))
        elif one["kind"] == "outcome" and decision and body["decision"] == decision["i"]:
            _require_repeatable(one)
            return Run(decision, one, _token(links, decision, gate))
    if decision is None:
        message = f"`{wanted}` is no decision of this log"
        return fail("no_entry", message, "see `moat audit show --kind decision`")
    message = f"entry {decision['i']} has no outcome: it did not run, or its end is not known"
    return fail("no_outcome", message, "see `moat audit show`")


def _require_repeatable(outcome: Mapping[str, Any]) -> None:
    body = outcome["body"]
    if body.get("deterministic") is not True:
        message = f"the run of entry {body['decision']} was not deterministic"
        fail("not_deterministic", message, "run it with `moat run --deterministic`")
    if body["status"] in _BY_CHANCE:
        message = f"the run ended with `{body['status']}`, which says nothing about the code"
        fail("not_comparable", message, "run it again with a token with more `--time`")


def _token(links: Mapping[str, str], decision: Mapping[str, Any], gate: AgentId) -> Token:
    """Put the token of a decision together again, from the links that the log has once each."""
    chain: list[bytes] = []
    parent: str | None = decision["body"]["token"]
    while parent is not None:
        if parent not in links:
            message = (
                "a link of its token is not in this log: it was pruned, or lies in an earlier one"
            )
            fail("pruned", message, "name a backup of the whole log with `--log`")
        chain.insert(0, urlsafe_b64decode(links[parent] + "=="))
        above = _joined(chain[:1]).links[0].parent
        parent = None if above is None else above.hex()
    token = _joined(chain)
    try:
        token.verify([token.root], gate=gate, now=decision["t"])
    except MoatError as error:
        raise failure.verification(error) from error
    return token


def _joined(links: list[bytes]) -> Token:
    """Make a token of links: a CBOR array of byte strings (spec/token.md)."""
    items = (_head(len(link)) + link for link in links)
    return Token.from_bytes(bytes([0x80 + len(links)]) + b"".join(items))


def _head(size: int) -> bytes:
    return b"\x58" + bytes([size]) if size < 1 << 8 else b"\x59" + size.to_bytes(2, "big")


# --- what is given -------------------------------------------------------------------------------


def _same(decision: Mapping[str, Any], given: Given) -> tuple[Sandbox, bytes]:
    """Require that code, arguments and input are those of the decision."""
    sandbox = Sandbox(given["wasm"])
    payload = read_input(given["stdin"], INPUT_BYTES) if given["stdin"] else b""
    args: dict[str, Any] = {"argv": list(given["argv"])}
    if given["env"]:
        args["env"] = dict(given["env"])
    compared = {
        "code": (sandbox.sha256.hex(), decision.get("code"), "give the file with `--wasm`"),
        "args": (_digest(args), decision["args"], "give them with `--arg` and `--env`"),
        "payload": (_sha256(payload), decision["payload"], "give it with `--stdin`"),
    }
    for what, (found, wanted, then) in compared.items():
        if found != wanted:
            message = f"the {_SAID[what]} given is not what the gate decided about"
            facts = {"axis": what, "given": found, "logged": wanted}
            fail("other_input", message, f"{then}, as it was for the run", failure.INVALID, facts)
    return sandbox, payload


_SAID = {"code": "code", "args": "list of arguments", "payload": "input"}


def _digest(args: Mapping[str, Any]) -> str:
    """Digest arguments as a gate does, who reads them from a message."""
    someone = Identity.generate("nobody")
    token = Token.issue(someone, holder=someone.id, allow=(), expires_in=timedelta(minutes=1))
    wire = Message.seal(
        someone, gate=someone.id, token=token, policy=Policy.CHAIN_ONLY.hash, action="run",
        resource="code://any", args=args,
    )  # fmt: skip
    return _sha256(Message.from_bytes(wire).args_json)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- what came out -------------------------------------------------------------------------------


def _tell(app: App, run: Run, found: SandboxOutcome) -> None:
    names = ("status", "result", "fuel", "detail")
    logged = {name: run.outcome["body"].get(name) for name in names}
    detail = found.detail and found.detail[:DETAIL_CHARACTERS]
    values = (found.status, _sha256(found.stdout), found.fuel_used, detail)
    again = dict(zip(names, values, strict=True))
    differs = [name for name in names if logged[name] != again[name]]
    document = {
        "equal": not differs,
        "entry": run.decision["i"],
        "outcome_entry": run.outcome["i"],
        "code": run.decision["body"]["code"],
        "differs": differs,
        "logged": logged,
        "found": again,
    }

    def show(screen: Console) -> None:
        if not differs:
            text = f"✓ the same again: {found.status}, {found.fuel_used:,} fuel, the same output"
            screen.print(text, style="green")
            return
        screen.print(f"✗ entry {run.decision['i']} came out otherwise", style="bold red")
        rows = [(name, f"{logged[name]}, now {again[name]}") for name in differs]
        screen.print(_show.fields([(name, _show.clean(text)) for name, text in rows], indent=2))

    app.emit(document, show)
    sys.exit(failure.INVALID if differs else 0)
