"""What went wrong, once: a code, a sentence, what to do next, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import click

from moat import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

ERROR, USAGE, DENIED, INVALID, DEAD = 1, 2, 3, 4, 5
"""Exit codes: any error, wrong usage, denied, verification failed, expired or revoked."""

_NEXT = {
    "expired": "ask the issuer for a new token, with `moat token issue` or `attenuate`",
    "revoked": "look with `moat audit show --kind control`; `moat restore` undoes a revocation",
    "not_granted": "ask for less, or ask the issuer of that link for a wider token",
    "not_attested": "have it signed (`moat attest sign`) and tell the gate (`moat attest add`)",
    "forbidden": "ask for something else: a denial in the chain cannot be undone by a holder",
    "wrong_holder": "sign as the token's holder, or have it delegated to you",
    "widened": "ask for at most what the parent link has; `moat token inspect` shows it",
    "replayed": "seal the request again: every message counts once",
    "streams_full": "wait a minute, or use one session and one token instead of many",
    "unknown_root": "use a token whose first link one of this gate's roots signed",
    "wrong_gate": "take it to the gate it names, or have it made for this one",
    "keys_exposed": "name a directory that neither holds the state folder nor its keys or log",
    "no_standing": "sign as a root; `moat audit show --kind control` shows what was said before",
    "malformed": "correct it, and check that the whole text or file was given",
    "chain_broken": "treat the log as edited from there on, and compare it with a copy",
    "rolled_back": "find the newer copy; put a backup back with `moat restore --from FILE`; where "
    "you know why this log is behind, `moat audit accept` says so in it",
    "gate_busy": "run this where no other process has the gate, or stop that one first",
    "suspended": "`moat resume` ends a suspension; `moat audit show --kind control` shows it",
    "name_taken": "choose another name; `moat agent list` shows those that are taken",
    "log_unavailable": "look whether another process has the gate, the disk is full, or a folder "
    "cannot be written; the anchor is in `$XDG_STATE_HOME`, else `~/.local/state`",
}


@dataclass
class CommandError(Exception):
    """An error that knows how the command line tells it."""

    code: str
    message: str
    next: str | None = None
    exit: int = ERROR
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the one shape of an error (``spec/cli.md``)."""
        head = {"code": self.code, "message": self.message, "next": self.next, "exit": self.exit}
        return {"error": head | {k: v for k, v in self.facts.items() if k not in head}}


def fail(
    code: str,
    message: str,
    then: str | None = None,
    status: int = ERROR,
    facts: Mapping[str, Any] | None = None,
) -> NoReturn:
    """Raise a failure; what to do next is that of the code unless it is said here."""
    raise CommandError(code, message, then or hint(code), status, dict(facts or {}))


def of(error: BaseException) -> CommandError:
    """Turn an exception into a failure."""
    match error:
        case CommandError():
            return error
        case click.UsageError():
            return _usage(error)
        case click.ClickException():
            return CommandError("error", error.format_message())
        case errors.Denied():
            return _denied(error)
        case errors.MoatError():
            return _ours(error)
        case OSError():
            where = f"`{error.filename}`: " if error.filename else ""
            return CommandError("os_error", where + (error.strerror or str(error)).lower())
    raise error


def verification(error: errors.MoatError) -> CommandError:
    """Make it the answer of a verifying command: 4, or 5 for what has died."""
    made = of(error)
    made.exit = DEAD if made.exit == DEAD else INVALID
    return made


def hint(code: str | None) -> str | None:
    """Say what to do next about a reason."""
    return _NEXT.get(code or "")


def _usage(error: click.UsageError) -> CommandError:
    path = error.ctx.command_path if error.ctx else "moat"
    return CommandError("usage", error.format_message(), f"`{path} --help` shows how", USAGE)


def _denied(error: errors.Denied) -> CommandError:
    decision = getattr(error, "decision", None)
    facts: Mapping[str, Any] = decision.to_dict() if decision is not None else _facts(error)
    reason = str(facts.get("reason") or error.reason or "denied")
    message = str(facts.get("detail") or error)
    return CommandError(reason, message, hint(reason), _exit_of(reason, DENIED), dict(facts))


def _ours(error: errors.MoatError) -> CommandError:
    exit_code, code = ERROR, error.reason
    match error:
        case errors.AttenuationViolation():
            exit_code, code = DENIED, code or "widened"
        case errors.InvalidSignature():
            exit_code, code = INVALID, code or "bad_signature"
        case errors.TokenRefused() | errors.MessageRefused():
            exit_code = _exit_of(code, INVALID)
        case errors.ChainBroken():
            exit_code, code = INVALID, "chain_broken"
        case errors.RolledBack():
            exit_code, code = INVALID, "rolled_back"
        case errors.GateBusy():
            code = "gate_busy"
        case errors.AuditUnavailable():
            code = "log_unavailable"
        case errors.MalformedInput():
            code = code or "malformed"
    code = code or _snake(type(error).__name__)
    return CommandError(code, str(error), hint(code), exit_code, _facts(error))


def _exit_of(reason: str | None, otherwise: int) -> int:
    return DEAD if reason in {"expired", "revoked"} else otherwise


def _facts(error: errors.MoatError) -> dict[str, Any]:
    """Give what an exception knows besides its text."""
    names = ("link", "caveat", "witness", "index", "limit")
    return {k: v for k in names if (v := getattr(error, k, None)) is not None}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
