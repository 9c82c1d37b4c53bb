"""A gate under attack: its cast, a good chain and message, and what "refused" has to mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import forge
from forge import NOW, Chain, Key
from moat import REASONS, AgentId, Decision, Identity, Permit, Policy
from moat._native import Gate

ROOT, GATE, PLANNER, RESEARCHER, WORKER, OPERATOR, MALLORY, RIVAL = (
    forge.key(name)
    for name in (
        "root", "gate", "planner", "researcher", "worker", "operator", "mallory", "rival"
    )
)  # fmt: skip

UNLOGGED: Final = {"replayed", "streams_full", "clock_behind", "log_unavailable", "internal"}
"""Reasons beyond stage ``authentic`` that leave no line of their own (spec/message.md)."""


def identity(key: Key) -> Identity:
    """The native identity of a forged key."""
    return Identity.from_pem(key.name, key.pem())


def agent(key: Key | bytes) -> AgentId:
    """The native name of a forged key."""
    return AgentId.from_bytes(key if isinstance(key, bytes) else key.public)


class Clock:
    """The clock that a gate is given: it shows what it was told last."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def open_gate(
    folder: Path,
    *,
    now: int = NOW,
    clock: Clock | None = None,
    anchor: Path | None = None,
    signer: Key = GATE,
    roots: Sequence[Key] = (ROOT,),
    rules: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> Gate:
    """Open (or create) a gate over ``folder`` and arm it with the cast's root and operator."""
    gate = Gate.open(folder, identity(signer), anchor=anchor, clock=clock or Clock(now), **more)
    gate.arm(
        policy=Policy.CHAIN_ONLY,
        roots=map(agent, roots),
        operators=[agent(OPERATOR)],
        rules=json.dumps(list(rules)).encode(),
    )
    return gate


@dataclass
class World:
    """One gate in one folder, and its clock."""

    folder: Path
    clock: Clock
    gate: Gate
    rules: Sequence[dict[str, Any]] = ()

    @classmethod
    def at(cls, folder: Path, rules: Sequence[dict[str, Any]] = ()) -> World:
        """A gate over this folder, with rules of a monitor."""
        clock = Clock()
        return cls(folder, clock, open_gate(folder, clock=clock, rules=rules), rules)

    @staticmethod
    def chain(**terms: Any) -> Chain:
        """Root to planner to researcher to worker; ``terms`` are stated by every link."""
        return forge.first(ROOT, PLANNER, **terms).then(RESEARCHER, **terms).then(WORKER, **terms)

    def ask(self, chain: Chain | None = None, **ask: Any) -> bytes:
        """A message to this gate by the chain's holder."""
        return forge.message(chain or self.chain(), GATE.public, **ask)

    def control(self, signer: Key, verb: str, target: Key | bytes, **more: Any) -> bytes:
        """A control statement for this gate."""
        return forge.control(signer, verb, target, GATE.public, **more)

    def entries(self, start: int = 0) -> list[dict[str, Any]]:
        """The log's lines from ``start`` on."""
        return [json.loads(self.gate.read(at)) for at in range(start, len(self.gate))]

    def kinds(self, start: int = 0) -> list[str]:
        """What kinds of line the log has from ``start`` on."""
        return [entry["kind"] for entry in self.entries(start)]

    @contextmanager
    def growing_by(self, *kinds: str) -> Iterator[None]:
        """Within, the log grows by lines of exactly these kinds.

        Three kinds are left aside: a link, logged when a chain with it is first seen, the summary
        of what has no line of its own, one a minute, and permits that died unopened.
        """
        before = len(self.gate)
        yield
        grown = [kind for kind in self.kinds(before) if kind not in {"link", "summary", "unused"}]
        assert grown == list(kinds)

    def allow(self, wire: bytes, *, now: int = NOW) -> Permit:
        """The gate says yes, in one decision line, and gives a permit."""
        self.clock.now = now
        with self.growing_by("decision"):
            decision = self.gate.decide(wire)
            assert decision.allowed, decision.explain()
        assert decision.reason is None
        assert decision.permit is not None
        assert decision.entry == len(self.gate) - 1
        return decision.permit

    def refuse(
        self,
        wire: bytes,
        reason: str,
        *,
        link: int | None = None,
        caveat: str | None = None,
        now: int = NOW,
    ) -> Decision:
        """The gate says no for exactly this reason, at this link and caveat where they are given.

        No permit exists, and the log grows by the decision's line where the message is fresh and
        authentic, and by nothing at all where it is not.
        """
        self.clock.now = now
        logged = REASONS[reason] != "authentic" and reason not in UNLOGGED
        with self.growing_by(*["decision"] * logged):
            decision = self.gate.decide(wire)
            assert_refused(decision, reason, link=link, caveat=caveat)
        assert (decision.entry is not None) == logged
        return decision

    def restart(self, *, now: int = NOW) -> None:
        """Close the gate and open it again."""
        self.clock.now = now
        self.gate.close()
        self.gate = open_gate(self.folder, clock=self.clock, rules=self.rules)


def assert_refused(
    decision: Decision, reason: str, *, link: int | None = None, caveat: str | None = None
) -> None:
    """A no for exactly this reason, with no permit."""
    assert not decision.allowed
    assert decision.permit is None
    found = (decision.reason, decision.link, decision.caveat)
    expected = (
        reason,
        decision.link if link is None else link,
        decision.caveat if caveat is None else caveat,
    )
    assert found == expected, decision.explain()
    assert decision.stage == REASONS[reason]
