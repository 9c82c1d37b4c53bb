"""A day in the life of a gate, on a clock that is told what time it is: memory stays flat.

    cd tests && MALLOC_ARENA_MAX=1 python -m soak.day --burst 10

With one arena, because glibc gives each thread its own and returns little of them: what one thread
has freed another does not use, which looks like a slow leak for as long as caches turn over.

In every minute of 24 simulated hours there are ``burst`` seconds of 200 messages each; then the
clock goes on to the next minute. With 60 it is the whole day, 17,280,000 messages. Forty agents
below eight others renew their links every quarter of an hour and their streams every ten minutes,
so both expire all day; twenty rules watch. Most messages are allowed; others are not granted,
throttled, replayed or noise. One permit in four is used, the others die. Old segments are removed
every hour. The gate keeps up to 2,048 verified chains; so many are shown to it before the day.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import forge
from forge import NOW
from moat import Identity, Permit, Policy, Token
from moat._native import Sender, verify_log
from moat.errors import Denied
from threats.world import GATE, OPERATOR, ROOT, Clock, agent, identity, open_gate

RATE: Final = 200
"""Messages in a second."""
TOLERANCE: Final = 0.03
"""How much more memory the last quarter of a day may take than the second."""
MINUTES: Final = 24 * 60
LINKS: Final = 15
"""Minutes after which an agent's links are renewed; they last one minute more."""
STREAMS: Final = 10
"""Minutes after which an agent goes over to a new stream."""
CHAINS: Final = 2 * 1024
"""What the gate's cache of verified chains holds at most (``rust/core/src/guard/cache.rs``)."""
PLANNERS: Final = tuple(forge.key(f"planner-{n}") for n in range(8))
WORKERS: Final = tuple(forge.key(f"worker-{n}") for n in range(40))
IDENTITIES: Final[tuple[Identity, ...]] = tuple(map(identity, WORKERS))


def rules() -> bytes:
    """Twenty rules of every kind; some are met all the time, some never."""
    some: list[dict[str, Any]] = [
        {"name": f"rate-{window}", "rate": {"limit": 5 * window, "window": window}, "then": "alert"}
        for window in (1, 5, 30, 60, 300, 900, 3600, 86_400)
    ]
    some += [
        {
            "name": f"slow-{n}",
            "match": {"resource": f"tool://search/{n}"},
            "rate": {"limit": 2, "window": 60 * n},
            "then": "throttle",
        }
        for n in range(1, 6)
    ]
    denied = {"verdict": "denied"}
    steps = [{"resource": "tool://search/6"}, {"resource": "tool://search/7"}]
    ways = [{"from": "calm", "to": "calm"}]
    some += [
        {"name": "denied", "match": denied, "rate": {"limit": 3, "window": 60}, "then": "alert"},
        {"name": "rogue", "match": denied, "rate": {"limit": 60, "window": 60}, "then": "suspend"},
        {"name": "cost", "cost": {"limit": 1000, "each": 3, "window": 3600}, "then": "alert"},
        {"name": "ever", "cost": {"limit": 1 << 40}, "then": "throttle"},
        {"name": "fuel", "cost": {"limit": 1, "of": "fuel", "window": 3600}, "then": "alert"},
        {"name": "steps", "sequence": {"steps": steps, "within": 30}, "then": "alert"},
        {"name": "calm", "machine": {"initial": "calm", "transitions": ways}, "then": "alert"},
    ]
    return json.dumps(some).encode()


@dataclass
class Day:
    """One gate and what it has lived through; ``burst`` seconds of each minute are full."""

    folder: Path
    burst: float
    seed: int = 1
    minutes: int = MINUTES
    used: float = 0.25
    """Which part of the permits is used; the others die unopened."""
    clock: Clock = field(default_factory=Clock)
    answers: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    """Bytes resident, at the end of every half hour."""
    state: list[int] = field(default_factory=list)
    """Bytes of the newest snapshot then."""

    def __post_init__(self) -> None:
        self.r = Random(self.seed)
        self.gate = open_gate(
            self.folder / "log", anchor=self.folder / "anchor", clock=self.clock,
            segment_bytes=256 << 10,
        )  # fmt: skip
        self.gate.arm(
            policy=Policy.CHAIN_ONLY,
            roots=[agent(ROOT)],
            operators=[agent(OPERATOR)],
            rules=rules(),
            on_alert=lambda rule, *_: self.alerts.update([rule]),
        )
        self.tokens: list[Token] = []
        self.senders: list[Sender] = []
        self.old: list[bytes] = []
        self.warm()

    def warm(self) -> None:
        """Show the gate as many chains as it keeps, like those of the day, and let them expire."""
        wires: list[bytes] = []
        for n in range(CHAINS):
            terms = {"exp": NOW + 60, "nbf": NOW - 1 - n, "iat": NOW - 1 - n}
            chain = forge.first(ROOT, PLANNERS[0], **terms).then(WORKERS[0], **terms)
            wires.append(forge.message(chain, GATE.public, stream=bytes(16), number=n))
        for start in range(0, CHAINS, RATE):
            for decision in self.gate.decide_many(wires[start : start + RATE]):
                assert decision.permit is not None, decision.explain()
                self.use(decision.permit)

    def live(self, *, tell: bool = False) -> None:
        """Live through the minutes."""
        begun = time.monotonic()
        for minute in range(self.minutes):
            self.clock.now = NOW + 60 * minute
            self.begin(minute)
            for _ in range(max(1, round(self.burst))):
                self.second(round(RATE * min(1.0, self.burst)))
                self.clock.now += 1
            if minute % 30 == 29:
                self.measure()
            if minute % 60 == 59:
                self.gate.prune(len(self.gate))
                if tell:
                    seconds = time.monotonic() - begun
                    print(f"{seconds:7.0f} s, hour {minute // 60 + 1}: {self.report()}", flush=True)

    def begin(self, minute: int) -> None:
        """Renew what is due, and let go whom a rule has suspended."""
        if minute % LINKS == 0:
            now = self.clock.now
            terms = {"exp": now + 60 * (LINKS + 1), "nbf": now, "iat": now}
            firsts = [forge.first(ROOT, planner, **terms) for planner in PLANNERS]
            self.tokens = [
                Token.from_bytes(firsts[n % len(firsts)].then(worker, **terms).token)
                for n, worker in enumerate(WORKERS)
            ]
            for one in (*WORKERS, *PLANNERS):
                if self.gate.is_suspended(agent(one)):
                    again = forge.control(OPERATOR, "resume", one, GATE.public, now=now)
                    self.gate.control(again)
                    self.answers["resumed"] += 1
        if minute % LINKS == 0 or minute % STREAMS == 0:
            self.senders = [
                Sender(who, gate=agent(GATE), token=token, policy=Policy.CHAIN_ONLY.hash)
                for who, token in zip(IDENTITIES, self.tokens, strict=True)
            ]

    def second(self, messages: int) -> None:
        """So many messages in one batch; what is allowed is used, or not."""
        wires: list[bytes] = []
        for _ in range(messages):
            wires.append(self.message((self.old + wires)[-20:]))
        self.old = wires[-20:]
        for decision in self.gate.decide_many(wires):
            self.answers[decision.reason or "allowed"] += 1
            if decision.permit is not None and self.r.random() < self.used:
                self.use(decision.permit)

    def use(self, permit: Permit) -> None:
        """Act on it, unless a rule has suspended its holder since."""
        try:
            with permit:
                permit.record(b"done")
        except Denied as denied:
            self.answers[f"{denied.reason} when opened"] += 1

    def message(self, recent: list[bytes]) -> bytes:
        """Mostly something that is granted."""
        chance = self.r.random()
        if chance < 0.02:
            return self.r.randbytes(200)
        if chance < 0.05 and recent:
            return self.r.choice(recent)
        place = f"search/{self.r.randrange(40)}" if chance < 0.92 else "shell"
        # A few agents ask more often than others.
        sender = self.senders[min(self.r.randrange(48), len(self.senders) - 1)]
        return sender.seal(action="call", resource=f"tool://{place}", now=self.clock.now)

    def measure(self) -> None:
        """Note what is in memory, and how large the state is."""
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(resident * os.sysconf("SC_PAGE_SIZE"))
        last = max(self.folder.glob("log/seg/*.jsonl"))
        lines = last.read_bytes().splitlines()
        self.state.append(sum(len(line) for line in lines if b'"kind":"snapshot"' in line))

    def drift(self) -> float:
        """How the last quarter's memory compares with the second's: 0.01 is one in a hundred
        more."""
        quarter = len(self.memory) // 4
        early = statistics.median(self.memory[quarter : 2 * quarter])
        return statistics.median(self.memory[-quarter:]) / early - 1

    def report(self) -> str:
        """Figures, in a line."""
        answers = ", ".join(f"{count:,} {name}" for name, count in self.answers.most_common())
        sizes = f"{self.memory[-1] / (1 << 20):.1f} MiB, snapshot {self.state[-1]:,} bytes"
        return f"{sizes}, {len(self.gate):,} entries; {answers}"

    def end(self) -> int:
        """Close and verify; how many entries there were."""
        self.gate.close()
        report = verify_log(self.folder / "log", agent(GATE), anchor=self.folder / "anchor")
        return report.entries


def main() -> None:
    """Live a day and say whether memory stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--burst", type=float, default=10, help="full seconds of each minute")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--used", type=float, default=Day.used, help="part of the permits")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be tried")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        day = Day(Path(place), asked.burst, asked.seed, used=asked.used)
        day.live(tell=True)
        print("resident MiB:", " ".join(f"{size / (1 << 20):.1f}" for size in day.memory))
        print("snapshot bytes:", *day.state)
        print("alerts:", dict(day.alerts))
        print(f"{day.end():,} entries verified; drift {day.drift():+.2%}")
        if day.drift() > TOLERANCE:
            raise SystemExit("memory is not flat")


if __name__ == "__main__":
    main()
