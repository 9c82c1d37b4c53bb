"""``Pep``: the gate as a person sees it. Nothing is verified here; the native gate does that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from moat._native import AgentId, Attestation, Control, Identity, Link, Token, Toolbox
from moat.errors import MalformedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike

    from moat._native import Decision, Permit, Policy, Reply, Sender
    from moat.audit import AuditLog
    from moat.monitor import Monitor

Verb: TypeAlias = Literal["revoke", "restore", "suspend", "resume"]
"""What a control statement does."""

Described: TypeAlias = (
    "tuple[str, str, str, bytes | None, list[tuple[str, str | None]], "
    "Callable[[bytes, Reply], None]]"
)
"""A tool as ``Toolbox`` has it."""

Target: TypeAlias = AgentId | Identity | Token | Link | bytes
"""What can be revoked: an agent's key, or one link by its 32-byte id. A token is its last link."""


class Pep:
    """A policy enforcement point: bytes go in, a logged ``Permit`` comes out, or ``Denied``.

    It enforces ``policy`` and the chain of links from one of ``roots``. Operators may revoke and
    restore anything. Safe across threads: decisions fall in log order, and threads share a sync.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        roots: Iterable[AgentId],
        audit: AuditLog,
        operators: Iterable[AgentId] = (),
        protected: Iterable[str | PathLike[str]] = (),
        monitor: Monitor | None = None,
    ) -> None:
        """Arm the gate that writes ``audit``; a change of what is enforced is logged.

        Code that runs with its permits reaches no ``protected`` folder, and never the log's own:
        a token with such a directory is ``KeysExposed``. ``monitor`` has the rules that every
        decision is counted by, and is told when one is met.
        """
        self._audit = audit
        self._gate = audit.gate
        self._gate.protect(list(protected))
        self._gate.arm(
            policy=policy,
            roots=roots,
            operators=operators,
            rules=None if monitor is None else monitor.rules_json(),
            on_alert=None if monitor is None else lambda line: monitor.watch([line]),
        )

    @property
    def id(self) -> AgentId:
        """The gate's public key: what a message is sealed for."""
        return self._gate.id

    @property
    def policy(self) -> Policy:
        """The active policy; a message must name its hash."""
        return self._gate.policy

    def now(self) -> int:
        """Give the second by this gate's clock: what ``now`` is where it is left out."""
        return self._audit.now()

    def authorize(self, wire: bytes, *, now: int | None = None) -> Permit:
        """Decide one message; raise ``Denied`` (``.decision``) unless it is allowed."""
        return self._gate.authorize(wire, now=now)

    def decide(self, wire: bytes, *, now: int | None = None) -> Decision:
        """Decide one message. A denial is an answer here: look at ``permit`` or ``reason``."""
        return self._gate.decide(wire, now=now)

    def authorize_many(self, wires: Sequence[bytes], *, now: int | None = None) -> list[Decision]:
        """Decide a batch in order, with one sync; several may be denied, so nothing raises."""
        return self._gate.decide_many(wires, now=now)

    async def authorize_async(self, wire: bytes, *, now: int | None = None) -> Permit:
        """Decide one message as ``authorize`` does, without blocking the event loop.

        If the waiting task is cancelled the decision may still be logged; its Permit then dies
        unopened.
        """
        import asyncio  # noqa: PLC0415 - slow to import, and not needed by synchronous callers

        return await asyncio.to_thread(self.authorize, wire, now=now)

    def toolbox(self, sender: Sender, tools: list[Described]) -> Toolbox:
        """Offer tools to one run of code, as messages of this sender; use ``session.toolbox``."""
        return Toolbox(self._gate, sender, tools)

    def revoke(self, target: Target, *, by: Identity, now: int | None = None) -> int:
        """Withdraw trust from an agent or a link and all that descends from it.

        Guests that run under it are stopped. ``by`` signs the statement: a root, an operator, a
        delegator of the target or the target itself. Returns the entry's index; raises ``Denied``
        (``no_standing``).
        """
        return self._state("revoke", target, by, now)

    def restore(self, target: Target, *, by: Identity, now: int | None = None) -> int:
        """Lift a revocation; only its signer or a root can. Returns the entry's index."""
        return self._state("restore", target, by, now)

    def suspend(self, target: Target, *, by: Identity, now: int | None = None) -> int:
        """Pause an agent or a link and all that descends from it; guests it runs are stopped.

        ``by`` is a root, an operator or a delegator of the target. Returns the entry's index.
        """
        return self._state("suspend", target, by, now)

    def resume(self, target: Target, *, by: Identity, now: int | None = None) -> int:
        """Lift a suspension; its signer or a root can, and an operator if a rule suspended."""
        return self._state("resume", target, by, now)

    def control(self, statement: bytes, *, now: int | None = None) -> int:
        """Take up a signed control statement; its entry's index, or ``Denied``."""
        return self._gate.control(statement, now=now)

    def attest(
        self,
        attestation: Attestation | bytes,
        *,
        signers: Iterable[AgentId] | None = None,
        now: int | None = None,
    ) -> int:
        """Take up an attestation; its entry's index, or ``Denied``. It survives a restart.

        An envelope (``bytes``) is verified with ``signers``, at most 16 keys that may count; left
        out, with those of an ``Attestation``. Trust in them is the tokens' to give: a key that no
        token requires vouches for nothing. What a revoked or suspended key said does not count.
        """
        if signers is None:
            signers = attestation.signers if isinstance(attestation, Attestation) else ()
        return self._gate.attest(bytes(attestation), signers=signers, now=now)

    def is_revoked(self, target: Target) -> bool:
        """Whether any standing revocation names this very agent or link."""
        return self._gate.is_revoked(_target(target))

    def is_suspended(self, target: Target) -> bool:
        """Whether any standing suspension names this very agent or link."""
        return self._gate.is_suspended(_target(target))

    def check_withdrawn(self, token: Token) -> None:
        """Refuse a token with a revoked or suspended agent or link, as a decision would."""
        self._gate.check_withdrawn(token)

    def _state(self, verb: Verb, target: Target, by: Identity, now: int | None) -> int:
        now = self.now() if now is None else now
        statement = Control.sign(by, verb, _target(target), gate=self.id, now=now)
        return self.control(statement, now=now)


def _target(target: Target) -> AgentId | bytes:
    if isinstance(target, AgentId | bytes):
        return target
    if isinstance(target, Identity | Token | Link):
        return target.id
    message = f"`{type(target).__name__}` is no target; give an agent, a token or a link's id"
    raise MalformedInput(message)
