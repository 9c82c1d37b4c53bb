"""``moat run``: authorise a WebAssembly module under a token, and run it."""

from __future__ import annotations

import base64
import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from moat import Limits, Message, Sandbox, _show, code
from moat._native import Egress
from moat.cli import completers, failure
from moat.cli.app import App, common, dumps, read_input, read_token
from moat.cli.failure import fail
from moat.cli.narrowing import Flags, check_depth, mint, narrowed, narrowing, narrows
from moat.cli.units import KeyValue
from moat.runtime import code_cache

if TYPE_CHECKING:
    from typing import TextIO, Unpack

    from moat import Identity, Permit, SandboxOutcome, Token
    from moat.code import Language

LIFETIME = timedelta(seconds=5)
"""Of the request: a gate keeps few streams of one holder, and every call here is a new one."""
INPUT_BYTES = 900 * 1024
"""Input travels in the message, which is at most 1 MiB."""
ISSUER_BYTES = 1 << 20
"""Many more certificates than a site has of its own."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_RAISE = {
    "out_of_fuel": "give a token with more `--fuel`, if the code deserves it",
    "out_of_memory": "give a token with more `--memory`",
    "timed_out": "give a token with more `--time`",
    "output_full": "give a token with more `--output`",
}


class Given(Flags):
    """What the code is given, what the gate is asked to run, and what narrows the token."""

    resource: str | None
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    stdin: str | None
    issuers: Path | None
    language: Language | None
    deterministic: bool


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--python",
    "language",
    flag_value="python",
    help="FILE is Python, to be run in an interpreter (extra `python`).",
)
@click.option(
    "--javascript",
    "language",
    flag_value="javascript",
    help="FILE is JavaScript (extra `javascript`).",
)
@click.option(
    "--token", "text", required=True, metavar="TOKEN", shell_complete=completers.files,
    help="File, - or text.",
)  # fmt: skip
@click.option(
    "--as", "name", metavar="NAME", shell_complete=completers.agents,
    help="Who asks; left out, the token's holder.",
)  # fmt: skip
@click.option("--resource", help="What the gate is asked to run; code://STEM of FILE if left out.")
@click.option("--arg", "argv", multiple=True, help="An argument for the code. Repeatable.")
@click.option("--env", type=KeyValue(), multiple=True, help="A variable for the code. Repeatable.")
@click.option("--stdin", metavar="FILE", help="File, or -, that the code reads as its input.")
@click.option(
    "--ca", "issuers", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trust the certificates in this file (PEM or DER) too, for hosts of your own.",
)  # fmt: skip
@click.option(
    "--deterministic", is_flag=True,
    help="With a clock and random bytes of its own, no files and no requests; `audit rerun` "
    "repeats it.",
)  # fmt: skip
@narrowing
@common(gate=True)
def run(app: App, *, file: Path, text: str, name: str | None, **given: Unpack[Given]) -> None:
    """Ask the gate for `run` on FILE under TOKEN, then run it with the token's limits.

    The token needs a grant such as 'code://FILE-STEM run'. The code gets its arguments,
    variables and input from here, the directories of the token, and nothing else. What it writes
    is passed through. Exit code 1 means that the code did not end well.

    With an option that narrows (`--allow-host` to `--output`) the run has a key of its own, and
    a link that lets it in with less: what is named is left to it, other limits stay.

    With `--python` or `--javascript` FILE is a text, and the gate is asked for `run` on
    'code://python' or 'code://javascript'. Such a run always has a key of its own.
    """
    held = read_token(text)
    app.require_state()
    if given["language"] is not None:
        _interpret(app, file, held, app.keys.load(name) if name else app.holder(held), given)
        return
    who = agent = app.keys.load(name) if name else app.holder(held)
    if narrows(given):
        who, held = mint(held, agent, given)
    app.keep_keys_from(held.limits)
    metered = held.limits.fuel != Limits.UNMETERED or given["deterministic"]
    sandbox = Sandbox(file, cache=code_cache(app.state), metered=metered)
    args = {"argv": list(given["argv"])}
    env = dict(given["env"])
    payload = read_input(given["stdin"], INPUT_BYTES) if given["stdin"] else b""
    with app.moat() as moat:
        wire = Message.seal(
            who,
            gate=moat.id,
            token=held,
            policy=moat.pep.policy.hash,
            action="run",
            resource=given["resource"] or f"code://{file.stem}",
            args=args | ({"env": env} if env else {}),
            payload=payload,
            code=sandbox.sha256,
            expires_in=LIFETIME,
        )
        permit = moat.pep.authorize(wire)
        outcome = sandbox.run(
            permit,
            stdin=payload,
            args=args["argv"],
            env=env,
            egress=_egress(given),
            secrets=moat.secrets.acting_for(agent.id),
            deterministic=given["deterministic"],
        )
    written = outcome.stdout, outcome.stderr
    ended = Ended(outcome.status, outcome.exit_code, *written, outcome)
    _tell(app, permit, ended, deterministic=given["deterministic"])


def _interpret(app: App, file: Path, held: Token, who: Identity, given: Given) -> None:
    """Run a text; it takes no arguments, variables or input."""
    if given["argv"] or given["env"] or given["stdin"] or given["deterministic"]:
        message = "`--arg`, `--env`, `--stdin` and `--deterministic` are for modules"
        raise click.UsageError(message)
    check_depth(held, "code in a language")
    limits = narrowed(held, given)
    app.keep_keys_from(limits)
    source = read_input(str(file), INPUT_BYTES)
    try:
        text = source.decode()
    except UnicodeDecodeError:
        fail("malformed", f"`{file}` is not text in UTF-8")
    with app.moat() as moat:
        ran = code.run(
            moat.session(who, held),
            text,
            language=cast("Language", given["language"]),
            resource=given["resource"],
            limits=limits,
            egress=_egress(given),
            cache=code_cache(app.state),
        )
    failed = ran.sandbox.status == "ok" and ran.exit_code != 0
    status = "exit" if failed else ran.sandbox.status
    written = ran.stdout.encode(), ran.stderr.encode()
    _tell(app, ran.permit, Ended(status, ran.exit_code, *written, ran.sandbox))


def _egress(given: Given) -> Egress | None:
    return Egress(anchors=_certificates(given["issuers"])) if given["issuers"] else None


def _certificates(file: Path) -> list[bytes]:
    """Read certificates, as DER."""
    data = read_input(str(file), ISSUER_BYTES)
    blocks = _PEM.findall(data)
    try:
        return [base64.b64decode(block) for block in blocks] or [data]
    except ValueError:
        fail("malformed", f"`{file}` holds a certificate that is no base64")


@dataclass(frozen=True)
class Ended:
    """How code ended, whatever ran it."""

    status: str
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    sandbox: SandboxOutcome


def _tell(app: App, permit: Permit, ended: Ended, *, deterministic: bool = False) -> None:
    if app.json:
        click.echo(dumps(_document(permit, ended) | {"deterministic": deterministic}))
    else:
        _pass(ended.stdout, sys.stdout)
        _pass(ended.stderr, sys.stderr)
    if ended.status == "ok":
        return
    if app.json:
        sys.exit(failure.ERROR)
    facts = {"entry": permit.entry, "status": ended.status, "exit_code": ended.exit_code}
    message = f"the code ended with `{ended.sandbox.trap or ended.status}`"
    fail("guest_failed", message, _RAISE.get(ended.status), failure.ERROR, facts)


def _pass(data: bytes, stream: TextIO) -> None:
    """Pass bytes through as they are; on a terminal, without what could steer it."""
    if stream.isatty():
        data = _show.tame(data)
    click.echo(data, file=getattr(stream, "buffer", stream), nl=False)


def _document(permit: Permit, ended: Ended) -> dict[str, Any]:
    cost = ended.sandbox
    return {
        "status": ended.status,
        "exit_code": ended.exit_code,
        "trap": cost.trap,
        "stdout": _text(ended.stdout),
        "stderr": _text(ended.stderr),
        "truncated": cost.truncated,
        "fuel_used": cost.fuel_used,
        "memory_peak": cost.memory_peak,
        "seconds": cost.elapsed.total_seconds(),
        "entry": permit.entry,
        "outcome_entry": permit.outcome,
        "resource": permit.resource,
        "code": permit.code.hex() if permit.code else None,
        "limits": _show.limits(permit.limits),
    }


def _text(data: bytes) -> str | dict[str, str]:
    """Text where the bytes are UTF-8; otherwise ``{"base64": …}``."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
