"""Say something signed to gates: to those that run through the folder ``control``."""

from __future__ import annotations

import base64
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

from moat import Moat
from moat._control import ATTESTATION, REGISTRATION, STATEMENT, ControlFolder
from moat._follow import Follower, end
from moat.attest import unpack
from moat.cli import failure
from moat.cli.failure import CommandError, fail
from moat.errors import GateBusy, MoatError
from moat.keystore import KeyStore
from moat.runtime import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from moat import AgentId
    from moat.cli.app import App

WAIT = 10.0
"""Seconds in which a running gate must have answered; it looks several times a second."""
_PAUSE = 0.02
_PARTS = ("gates/*/key", "gates/*/log")
_ENTRIES = {
    STATEMENT: ("control", "statement"),
    REGISTRATION: ("agent", "statements"),
    ATTESTATION: ("attested", "envelope"),
}
"""Kind of the entry about what was said, and where it has its bytes."""


def say(
    app: App,
    sign: Callable[[AgentId], bytes],
    kind: str = STATEMENT,
) -> list[dict[str, Any]]:
    """Say it to every gate that was asked for, and give each one's answer.

    A gate that refuses or does not answer does not keep it from the others; the first such
    failure is raised in the end, with the names of all those gates and all answers.
    """
    answers, refused, failed = [], [], None
    for name in gates(app):
        answer: dict[str, Any] = {"name": name, "id": None, "entry": None, "via": None}
        try:
            gate = KeyStore(app.state / "gates" / name / "key").public(name)
            answer["id"] = str(gate)
            answer |= _tell(app, name, sign(gate), kind)
        except (CommandError, MoatError, OSError) as error:
            made = failure.of(error)
            answer["error"] = {"code": made.code, "message": made.message}
            refused.append(f"`{name}`")
            failed = failed or made
        answers.append(answer)
    if failed is not None:
        failed.message = f"gate {', '.join(refused)}: {failed.message}"
        failed.facts["gates"] = answers
        raise failed
    return answers


def gates(app: App) -> list[str]:
    """Name the gates that were asked for, or all that are here."""
    app.require_state()
    # One whose key is gone from here may run all the same: it has read it.
    known = sorted({path.parent.name for kind in _PARTS for path in app.state.glob(kind)})
    unknown = next((name for name in app.gates if name not in known), None)
    if unknown is not None:
        fail("no_gate", f"there is no gate `{unknown}` here", "`moat identity show` lists them")
    if not known:
        fail("no_gate", f"there is no gate in `{app.state}`", "nobody was told; restore the folder")
    return list(app.gates) or known


def _tell(app: App, name: str, statement: bytes, kind: str) -> dict[str, Any]:
    begin = end(_log(app, name))
    try:
        with Moat.open(app.state, gate=name, create=False) as moat:
            entry = moat.take(statement, kind)
    except GateBusy:
        return _leave(app, name, statement, kind, begin)
    return {"entry": entry, "via": "gate"}


def _leave(app: App, name: str, statement: bytes, kind: str, begin: int) -> dict[str, Any]:
    """Leave it for the process that has the gate, and wait for the entry."""
    folder = ControlFolder(app.state / CONTROL)
    left = folder.drop(statement, kind)
    until = time.monotonic() + WAIT
    with closing(Follower(_log(app, name), begin)) as follower:
        while True:
            for line in follower.poll():
                if _is(line, statement, kind):
                    return {"entry": json.loads(line)["i"], "via": "control"}
            if refusal := folder.refusal(left):
                fail(refusal["reason"], refusal["detail"], status=failure.DENIED)
            if time.monotonic() >= until:
                _no_answer(name)
            time.sleep(_PAUSE)


def _no_answer(name: str) -> NoReturn:
    message = f"the gate `{name}` has not taken it up in {WAIT:.0f} s; it is left in `control`"
    fail("no_answer", message, "look whether the process that has it is alive")


def _log(app: App, name: str) -> Path:
    return app.state / "gates" / name / "log"


def _is(line: bytes, statement: bytes, kind: str) -> bool:
    """Whether an entry is the one about this statement: it holds its bytes."""
    wanted, field = _ENTRIES[kind]
    if f'"kind":"{wanted}"'.encode() not in line:
        return False
    held = json.loads(line)["body"][field]
    said = unpack(statement)[0] if kind == ATTESTATION else statement
    return all(_bytes(text) in said for text in ([held] if isinstance(held, str) else held))


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
