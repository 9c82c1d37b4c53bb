"""Who plays in the tests: identities made from their names, and one fixed second."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from moat import Grant, Identity, Limits, Message, Policy, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from moat import AgentId

NOW = 1_800_000_000
"""2027-01-15 08:00:00 UTC."""


def clock() -> int:
    """Stand still."""
    return NOW


HOUR = timedelta(hours=1)


def rng(seed: str) -> Callable[[int], bytes]:
    """Make a source of bytes that gives the same ones for the same seed."""
    count = 0

    def give(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(size)

    return give


def identity(name: str) -> Identity:
    """Make the identity that this name always has."""
    return Identity.generate(name, rng=rng(name))


ROOT, GATE, PLANNER, WORKER, MALLORY = map(
    identity, ("root", "gate", "planner", "worker", "mallory")
)

SEARCH = Grant("tool://search/**", {"call"})
LIMITS = Limits(fuel=5_000_000, memory=64 << 20, time=timedelta(seconds=2), output=1 << 20)


def issue(root: Identity = ROOT, *, holder: AgentId = PLANNER.id, **terms: Any) -> Token:
    """Issue a first link at ``NOW``: search, one hour, two delegations."""
    asked = {
        "allow": [SEARCH],
        "limits": LIMITS,
        "expires_in": HOUR,
        "depth": 2,
        "now": NOW,
        "rng": rng("cti"),
    }
    return Token.issue(root, holder=holder, **(asked | terms))


def seal(
    token: Token | None = None, sender: Identity = PLANNER, gate: Identity = GATE, **asked: Any
) -> bytes:
    """Seal one request at ``NOW``, on a fresh stream."""
    words = {"action": "call", "resource": "tool://search/web", "now": NOW}
    return Message.seal(
        sender,
        gate=gate.id,
        token=token or issue(),
        policy=Policy.CHAIN_ONLY.hash,
        **(words | asked),
    )
