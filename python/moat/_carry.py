"""What a log says that an older copy of it does not: statements, taken up again where they can be.

A statement that the gate took up once is judged again by the same gate, as of the second in which
it counted. What is not vouched for by a checkpoint, or is from a log that did not grow out of the
copy, can only withdraw: whoever can write a folder must not be able to lift anything.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from moat import _files
from moat._native import AgentId, Control, Policy, read_log
from moat.audit import AuditLog
from moat.errors import AuditUnavailable, MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from moat._native import Gate, Identity

Withdrawal: TypeAlias = Literal["revoke", "suspend"]

_KINDS: Final = tuple(
    f'"kind":"{kind}"'.encode()
    for kind in ("control", "alert", "agent", "rules", "snapshot", "inherited")
)
_WITHDRAWS: Final[dict[str, Withdrawal]] = {"revoke": "revoke", "suspend": "suspend"}
_UNDOES: Final[dict[str, Withdrawal]] = {"restore": "revoke", "resume": "suspend"}


class Lost(NamedTuple):
    """Something that the restored log does not say any more, and a person has to say again."""

    verb: Withdrawal | Literal["register"]
    target: str
    """An agent (did:key), or a link's id in hex."""
    why: str


@dataclass
class Carried:
    """What was carried over into a restored log."""

    statements: int = 0
    """Taken up again as they were signed."""
    signed: int = 0
    """Signed anew by a root that is kept here."""
    unread: str | None = None
    """Why the log that was replaced could not be read to its end."""
    lost: list[Lost] = field(default_factory=list)


@dataclass
class Source:
    """The log that is replaced."""

    path: Path
    verified: int
    """Entries that it holds and its gate has signed; 0 where it does not verify."""
    problem: str | None = None
    """Why it does not verify."""


def carry(
    copy: Path, old: Source, control: Path, *, signer: Identity, roots: Iterable[Identity], now: int
) -> Carried:
    """Bring a copy of a log up to what the log that it replaces says was withdrawn.

    ``control`` is a folder of statements that no gate has taken up. ``roots`` are kept here, and
    sign anew what cannot be taken up again; ``now`` is the second in which they do.
    """
    kept = _read(copy, old.path)
    work = _Carrying(Carried(unread=old.problem), signer, list(roots), kept)
    lines = _after(old.path, kept.size if kept.begins else 0, work.done, now)
    first = next(lines, None)
    waiting = sorted(control.glob("*.ctl"))
    if first is None and not waiting:
        return work.done
    start = now if first is None else first["t"]
    with AuditLog.open(copy, signer=signer, anchor=None, clock=lambda: start) as log:
        work.arm(log.gate, kept.rules)
        while first is not None:
            try:
                work.take(first, vouched=first["i"] < old.verified)
            except (LookupError, TypeError, ValueError, AttributeError):
                work.done.unread = work.done.unread or f"line {first['i']} does not read"
            first = next(lines, None)
        for path in waiting:
            with suppress(MoatError, FileNotFoundError):
                log.gate.control(_files.read(path, secret=True), now=now)
                work.done.statements += 1
        work.finish(now)
    return work.done


class _Copy(NamedTuple):
    """What a copy of a log holds."""

    size: int
    begins: bool
    """Whether the log that is replaced grew out of it."""
    rules: dict[str, Any] | None
    """What it last enforced."""
    known: frozenset[str]
    """The control statements in it."""


def _read(copy: Path, old: Path) -> _Copy:
    last, rules, known = b"", None, set()
    for last in read_log(copy):
        if _KINDS[0] in last:
            known.add(json.loads(last)["body"]["statement"])
        elif _KINDS[3] in last:
            rules = json.loads(last)["body"]
        elif _KINDS[4] in last or _KINDS[5] in last:
            items = json.loads(last)["body"]["items"]
            rules = next((one for one in items if one.get("is") == "rules"), rules)
    size, begins = json.loads(last)["i"] + 1 if last else 0, False
    with suppress(MoatError, OSError):
        begins = next(iter(read_log(old, start=size - 1)), None) == last
    return _Copy(size, begins, rules, frozenset(known))


def _after(log: Path, start: int, done: Carried, now: int) -> Iterator[dict[str, Any]]:
    """Give the entries that matter; where the log does not read on, say so and end."""
    try:
        for at, line in enumerate(read_log(log, start=start)):
            first = json.loads(line)["i"] if at == 0 else start
            if at == 0 and first > start:
                done.unread = f"entries {start} to {first - 1} were removed from it by `prune`"
            if any(kind in line for kind in _KINDS):
                entry = json.loads(line)
                if type(entry["i"]) is type(entry["t"]) is int and entry["t"] >= 0:
                    yield entry | {"t": min(entry["t"], now)}
    except (MoatError, OSError, ValueError, LookupError, TypeError) as error:
        done.unread = done.unread or f"a line of it does not read: {error}"


class _Carrying:
    """The work on one log."""

    def __init__(self, done: Carried, signer: Identity, roots: list[Identity], kept: _Copy) -> None:
        self.done = done
        self._signer, self._roots = signer, roots
        self._begins, self._known = kept.begins, kept.known
        self._gate: Gate | None = None
        self._open: dict[tuple[Withdrawal, str], dict[str, str]] = {}
        """Withdrawals that stand and could not be taken up: by whom, and why not."""

    def arm(self, gate: Gate, rules: dict[str, Any] | None) -> None:
        """Enforce what the log says was enforced."""
        self._gate = gate
        if rules is not None:
            gate.arm(
                policy=Policy(rules["policy"]),
                roots=map(AgentId, rules["roots"]),
                operators=map(AgentId, rules["operators"]),
                rules=json.dumps(rules.get("monitor", [])).encode(),
            )

    def take(self, entry: dict[str, Any], *, vouched: bool) -> None:
        """Take up one entry of the old log, if it can be believed so far."""
        full, body = vouched and self._begins, entry["body"]
        match entry["kind"]:
            case "control" if body["statement"] not in self._known:
                self._control(entry["t"], body, full=full)
                if vouched and body["verb"] in _UNDOES:
                    self._lifted(body)
            case "alert" if body["then"] == "suspend":
                rule = f"the rule `{body['rule']}`"
                self._stands("suspend", body["agent"], rule, f"{rule} did it")
            case "agent":
                self._register(entry["t"], body, full=full)
            case "rules" if full and self._gate is not None:
                self.arm(self._gate, body)
            case "snapshot" | "inherited" if not full or self.done.unread:
                self._withdrawn(body)

    def _control(self, at: int, body: dict[str, Any], *, full: bool) -> None:
        verb = body["verb"]
        if verb in _UNDOES and not full:
            return
        why = self._taken(lambda gate: gate.control(_bytes(body["statement"]), now=at))
        if why is not None and verb in _WITHDRAWS:
            self._stands(verb, body["id"], body["signer"], why)

    def _register(self, at: int, body: dict[str, Any], *, full: bool) -> None:
        why = "it is not signed by the gate" if not full else self._taken(
            lambda gate: gate.register(_array(map(_bytes, body["statements"])), now=at)
        )  # fmt: skip
        if why is not None:
            self.done.lost.append(Lost("register", body["name"], f"key {body['key']}: {why}"))

    def _withdrawn(self, body: dict[str, Any]) -> None:
        """What a snapshot says stands, where the lines before it are gone or not believed."""
        for one in body["items"]:
            if one.get("is") == "withdrawn":
                target = one.get("agent") or one["link"]
                self._stands(one["verb"], target, _author(one), "only a snapshot says so")

    def _stands(self, verb: str, target: str, by: str, why: str) -> None:
        _target(target)  # or it would not be one that can be said again
        self._open.setdefault((_WITHDRAWS[verb], target), {})[by] = why

    def _lifted(self, body: dict[str, Any]) -> None:
        """Forget what an undoing lifted: all where it was the gate's, else its signer's own."""
        about = (_UNDOES[body["verb"]], body["id"])
        standing = self._open.get(about, {})
        if body["scope"] == "gate":
            standing.clear()
        standing.pop(body["signer"], None)
        if not standing:
            self._open.pop(about, None)

    def _taken(self, take: Callable[[Gate], int]) -> str | None:
        why = self._tried(take)
        self.done.statements += why is None
        return why

    def _tried(self, take: Callable[[Gate], int]) -> str | None:
        """Try it; why not, if it was refused."""
        if self._gate is None:
            return "the gate is not open"
        try:
            take(self._gate)
        except AuditUnavailable:
            raise
        except MoatError as error:
            return str(error)
        return None

    def finish(self, now: int) -> None:
        """Have a root say again what could not be taken up; list what is still not said."""
        for (verb, target), standing in self._open.items():
            about = _target(target)
            if any(self._said(root, verb, about, now) for root in self._roots):
                self.done.signed += 1
            else:
                self.done.lost.append(Lost(verb, target, "; ".join(standing.values())))

    def _said(self, root: Identity, verb: Withdrawal, about: AgentId | bytes, now: int) -> bool:
        statement = Control.sign(root, verb, about, gate=self._signer.id, now=now)
        return self._tried(lambda gate: gate.control(statement, now=now)) is None


def _author(withdrawn: dict[str, Any]) -> str:
    """Name who withdrew, in an item of a snapshot, as ``_stands`` is told of it elsewhere."""
    rule: str | None = withdrawn.get("rule")
    return str(withdrawn["signer"]) if rule is None else f"the rule `{rule}`"


def _target(text: str) -> AgentId | bytes:
    return AgentId(text) if text.startswith("did:") else bytes.fromhex(text)


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _array(parts: Iterable[bytes]) -> bytes:
    """Make a registration of its statements: a CBOR array of byte strings (spec/registry.md)."""
    found = list(parts)
    data = bytes([0x80 | len(found)])
    for one in found:
        size = len(one)
        data += b"\x58" + bytes([size]) if size < 1 << 8 else b"\x59" + size.to_bytes(2, "big")
        data += one
    return data
