"""``Registry``: who is registered at a gate, by name, and with which keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from moat._native import AgentId, Registration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from moat._native import Gate, Identity

    Role: TypeAlias = Literal["agent", "root", "gate"]


@dataclass(frozen=True)
class Registered:
    """A name and every key it has had, newest last, each with the second since which it counts."""

    name: str
    role: Role
    keys: tuple[tuple[AgentId, int], ...]

    @property
    def id(self) -> AgentId:
        """The present key."""
        return self.keys[-1][0]


class Registry:
    """A view of the names in a gate's state; every change is an entry of its log.

    A name has 1 to 63 of ``a-z 0-9 . _ -`` after a letter or digit, and is given once: neither it
    nor one that looks like it can be taken again. A key belongs to one name for ever
    (spec/registry.md). Suspensions and counters follow an agent through its rotations; tokens do
    not: they name a key.
    """

    def __init__(self, gate: Gate) -> None:
        """Look at a native gate; ``Moat.registry`` is how one comes by it."""
        self._gate = gate

    def register(
        self, identity: Identity, name: str | None = None, *, now: int, role: Role = "agent"
    ) -> int:
        """Register a key under a name, its own when left out; its entry's index.

        Signing proves possession. Raises ``Denied`` (``name_taken``).
        """
        name = name or identity.name
        proof = Registration.sign(identity, name, gate=self._gate.id, role=role, now=now)
        return self.take(proof, now=now)

    def rotate(
        self,
        name: str,
        new: Identity,
        *,
        previous: Identity,
        now: int,
        role: Role = "agent",
    ) -> int:
        """Give a name another key, signed by both; its entry's index, or ``Denied``.

        Tokens of the former key live on until they expire or are revoked. A root's new key is
        trusted beside the former one. With the gate's own next key the gate has handed over and
        denies everything from then on: ``Moat.rotate_gate`` does that, and goes on.
        """
        proof = Registration.sign(
            new, name, gate=self._gate.id, previous=previous, role=role, now=now
        )
        return self.take(proof, now=now)

    def take(self, proof: bytes, *, now: int | None = None) -> int:
        """Take up a registration that was signed elsewhere; its entry's index, or ``Denied``."""
        return self._gate.register(proof, now=now)

    def current(self, name: str) -> AgentId | None:
        """Find the present key of a name."""
        return self._gate.named(name)

    def name_of(self, agent: AgentId) -> str | None:
        """Find the name whose present key this is; none for a former key."""
        return self._gate.agent(agent)

    def get(self, name: str) -> Registered | None:
        """Find a name with all its keys."""
        return next((one for one in self if one.name == name), None)

    def __iter__(self) -> Iterator[Registered]:
        """List everybody, by name."""
        for role, name, keys in self._gate.agents():
            yield Registered(name, cast("Role", role), tuple(keys))

    def __len__(self) -> int:
        """Count the names."""
        return len(self._gate.agents())

    def __contains__(self, name: object) -> bool:
        """Whether a name is taken."""
        return isinstance(name, str) and self._gate.named(name) is not None
