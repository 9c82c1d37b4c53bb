"""A gate in a process of its own that several threads keep busy until somebody kills it.

What the gate acknowledged is said on standard output, a line each, after the call returned:

    opened
    d <entry> <SHA-256 of its line> <the message as hex>     a decision, allowed or denied
    o <entry> <SHA-256 of its line>                          an outcome
    c <entry> <SHA-256 of its line>                          a control statement
    a <entry> <SHA-256 of its line>                          a registration
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import forge
import forge_registration
from forge import NOW
from moat import Policy, Token
from moat._native import Gate, Sender
from moat.errors import Denied
from threats.world import GATE, PLANNER, ROOT, agent, identity, open_gate

if TYPE_CHECKING:
    from types import TracebackType

    from moat import Decision

THREADS: Final = 3
LIFE: Final = 31
"""Seconds of the gate's clock from the start of one life to the start of the next."""
PACE: Final = 50
"""Batches in a second of that clock."""
VICTIMS: Final = tuple(forge.key(f"victim {n}") for n in range(24))
"""Who is revoked and suspended, and restored and resumed."""
VERBS: Final = ("revoke", "restore", "suspend", "resume")


class Writer:
    """One life: a gate, its clock, and what its threads have in common."""

    def __init__(self, folder: Path, anchor: Path, life: int, segment_bytes: int) -> None:
        self.life = life
        self.start = NOW + life * LIFE
        self.batches = count()
        self.now = self.start
        self.gate: Gate = open_gate(
            folder, anchor=anchor, segment_bytes=segment_bytes, clock=lambda: self.now
        )
        say("opened")

    def work(self, place: int, r: Random) -> None:
        """Decide, act, withdraw and register without end."""
        holder = forge.key(f"worker-{place}")
        terms = {"exp": self.start + 3600, "nbf": self.start, "iat": self.start}
        chain = forge.first(ROOT, PLANNER, **terms).then(holder, **terms)
        sender = Sender(
            identity(holder),
            gate=agent(GATE),
            token=Token.from_bytes(chain.token),
            policy=Policy.CHAIN_ONLY.hash,
        )
        held: list[Decision] = []
        for turn in count():
            self.now = min(self.start + next(self.batches) // PACE, self.start + LIFE - 1)
            wires = [self.seal(sender, r) for _ in range(r.choice((1, 1, 1, 4, 16)))]
            one = len(wires) == 1
            made = [self.gate.decide(wires[0])] if one else self.gate.decide_many(wires)
            say(*(self.line("d", d.entry, w.hex()) for d, w in zip(made, wires, strict=True)))
            held += made
            while len(held) > r.choice((0, 3, 30)):
                self.end(held.pop(), r)
            if turn % 10 == 0:
                self.withdraw(r)
            if turn % 25 == 0:
                name = forge.key(f"name {self.life} {place} {turn}")
                self.register(name)

    def seal(self, sender: Sender, r: Random) -> bytes:
        """A message that is allowed, or one in ten times is not."""
        resource = "tool://search/web" if r.random() < 0.9 else "tool://shell"
        return sender.seal(action="call", resource=resource, now=self.now)

    def end(self, decision: Decision, r: Random) -> None:
        """Act on a permit, or let it die unopened."""
        if decision.permit is None or r.random() < 0.2:
            return
        try:
            with decision.permit as permit:
                permit.record(b"done")
        except Denied:
            return  # Thirty seconds unopened, on a clock that others move.
        say(self.line("o", permit.outcome))

    def withdraw(self, r: Random) -> None:
        """Revoke, restore, suspend or resume somebody."""
        verb, victim = r.choice(VERBS), r.choice(VICTIMS)
        statement = forge.control(ROOT, verb, victim, GATE.public, now=self.now)
        try:
            say(self.line("c", self.gate.control(statement)))
        except Denied:
            return  # Nobody takes back what does not stand.

    def register(self, key: forge.Key) -> None:
        """Give somebody a name."""
        name = key.name.replace(" ", "-")
        proof = forge_registration.registration(
            name, key, GATE.public, nonce=os.urandom(16), now=self.now
        )
        say(self.line("a", self.gate.register(proof)))

    def line(self, kind: str, entry: int | None, *more: str) -> str:
        """What is said of an entry."""
        if entry is None:
            raise RuntimeError("an answer without an entry")
        digest = hashlib.sha256(self.gate.read(entry)).hexdigest()
        return " ".join((kind, str(entry), digest, *more))


def say(*lines: str) -> None:
    """Say this at once; a line that is not finished was not said."""
    os.write(1, "".join(line + "\n" for line in lines).encode())


def main(folder: str, anchor: str, life: str, segment_bytes: str, seed: str) -> None:
    """Work until killed; any fault ends the process with another code."""
    sys.setswitchinterval(0.0005)
    threading.excepthook = _die
    writer = Writer(Path(folder), Path(anchor), int(life), int(segment_bytes))
    for place in range(THREADS):
        arguments = (place, Random(f"{seed} {life} {place}"))
        threading.Thread(target=writer.work, args=arguments).start()


def _die(failure: threading.ExceptHookArgs) -> None:
    kind: type[BaseException] = failure.exc_type
    trace: TracebackType | None = failure.exc_traceback
    sys.__excepthook__(kind, failure.exc_value or kind(), trace)
    os._exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
