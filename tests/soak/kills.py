"""Kill a busy gate at random, again and again, and hold it to every word that it gave.

    cd tests && python -m soak.kills --kills 1000 --entries 1000000

After every kill: what was acknowledged is in the log, at its place and with the same bytes; what
was answered once is not answered again; and what the opened gate goes by is what a model finds
that reads every line from the first. A process is killed here, not a machine: what was written
but not synced survives. Syncs that fail are in ``threats/test_log_faults.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from forge import NOW
from moat import AuditLog
from moat._native import read_log
from soak.writer import LIFE, VICTIMS
from threats.victim import environment
from threats.world import GATE, agent, open_gate

if TYPE_CHECKING:
    from moat._native import Gate, Report

DEADLINE: Final = 60.0
"""Seconds after which a life that never came to its end is a failure."""


@dataclass
class Model:
    """What the lines of a log add up to, folded one by one and without the library."""

    size: int = 0
    last: bytes = b""
    revoked: set[str] = field(default_factory=set)
    suspended: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    digests: dict[int, str] = field(default_factory=dict)
    """Of the lines read last."""
    kinds: Counter[str] = field(default_factory=Counter)

    def read_on(self, folder: Path) -> None:
        """Fold the lines that are new; those that were read must still be there."""
        lines = iter(read_log(folder, start=max(0, self.size - 1)))
        if self.size:
            assert next(lines) == self.last, "a line that was read is not there any more"
        self.digests.clear()
        for line in lines:
            self.digests[self.size] = hashlib.sha256(line).hexdigest()
            self.fold(json.loads(line))
            self.last = line

    def fold(self, entry: dict[str, Any]) -> None:
        """Take in one line."""
        assert entry["i"] == self.size
        self.size += 1
        self.kinds[entry["kind"]] += 1
        match entry["kind"], entry["body"]:
            case "decision", {"allow": True}:
                self.pending.add(entry["i"])
            case "outcome", {"decision": done}:
                self.pending.remove(done)
            case ("unused", {"decisions": done}) | ("recovered", {"pending": done}):
                self.pending.difference_update(done)
            case "agent", {"name": name, "key": key}:
                self.names[name] = key
            case "control", {"verb": verb, "id": target}:
                standing = self.revoked if verb in {"revoke", "restore"} else self.suspended
                (standing.add if verb in {"revoke", "suspend"} else standing.discard)(target)


@dataclass
class Said:
    """What a gate had acknowledged when it was killed."""

    opened: bool
    entries: list[tuple[int, str]]
    wires: list[bytes]

    @classmethod
    def read(cls, text: str) -> Said:
        """From its words; the last one may be half a line."""
        lines = text[: text.rfind("\n") + 1].splitlines()
        said = [line.split(" ") for line in lines if line != "opened"]
        return cls(
            "opened" in lines,
            [(int(entry), digest) for _, entry, digest, *_ in said],
            [bytes.fromhex(more[0]) for kind, _, _, *more in said if kind == "d"],
        )


@dataclass
class Campaign:
    """One log that is written and killed in turn; ``mean`` acknowledgements in a life."""

    folder: Path
    anchor: Path
    seed: int
    mean: int = 300
    segment_bytes: int = 64 << 10
    lives: int = 0
    model: Model = field(default_factory=Model)
    figures: Counter[str] = field(default_factory=Counter)
    vain: set[str] = field(default_factory=set)
    """Segments that a kill left without a complete snapshot."""

    def kill(self, *, verify: bool = True) -> None:
        """Let it live, kill it, and check all that must hold; ``verify`` reads the whole log."""
        said = self.live()
        self.lives += 1
        self.figures["lives that never opened"] += not said.opened
        self.figures["entries acknowledged"] += len(said.entries)
        if not any(self.folder.glob("seg/*.jsonl")):
            assert not said.entries
            return
        if verify:
            self.verify()
        self.model.read_on(self.folder)
        self.hold(said)
        self.vain |= self.began_in_vain()
        decided = self.model.kinds["decision"]
        self.reopen(said)
        self.model.read_on(self.folder)
        assert self.model.kinds["decision"] == decided, "a message was decided twice"
        if verify:
            self.verify()

    def hold(self, said: Said) -> None:
        """All that was acknowledged is among the lines read last, with the same bytes."""
        for entry, digest in said.entries:
            assert self.model.digests.get(entry) == digest, f"acknowledged entry {entry} is lost"

    def live(self) -> Said:
        """Start a writer and kill it at a moment that the seed chooses."""
        r = Random(f"{self.seed} kill {self.lives}")
        words = self.folder.parent / "words"
        command = [
            sys.executable, "-m", "soak.writer", str(self.folder), str(self.anchor),
            str(self.lives), str(self.segment_bytes), str(self.seed),
        ]  # fmt: skip
        with words.open("wb") as out, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment())
            try:
                self.wait(process, words, r)
            finally:
                process.kill()
                code = process.wait()
            errors.seek(0)
            assert code == -signal.SIGKILL, errors.read().decode()
        return Said.read(words.read_text())

    def wait(self, process: subprocess.Popen[bytes], words: Path, r: Random) -> None:
        """Until a moment while it starts, after so many words, or when it begins a segment."""
        end = time.monotonic() + DEADLINE
        mode = r.choices(("start", "words", "rotation"), (15, 55, 30))[0]
        if mode == "start":
            time.sleep(r.uniform(0.0, 0.3))
            return
        wanted = r.randrange(2 * self.mean) if mode == "words" else 4 * self.mean
        heard, folder = 0, self.folder / "seg"
        listed = folder.stat().st_mtime_ns if folder.exists() else 0
        with words.open("rb") as file:
            while heard <= wanted and process.poll() is None:
                heard += file.read().count(b"\n")
                if mode == "rotation" and heard > 1 and folder.stat().st_mtime_ns != listed:
                    break
                assert time.monotonic() < end, "it neither works nor ends"
                time.sleep(0.0003)
        time.sleep(r.choice((0.0, r.uniform(0.0, 0.003))))

    def reopen(self, said: Said) -> None:
        """Open the log again: nothing is forgotten, and nothing is answered a second time."""
        now = NOW + self.lives * LIFE - 1
        gate = open_gate(self.folder, anchor=self.anchor, now=now, segment_bytes=self.segment_bytes)
        try:
            self.compare(gate)
            for entry, digest in said.entries[:: max(1, len(said.entries) // 50)]:
                assert hashlib.sha256(gate.read(entry)).hexdigest() == digest
            for decision in gate.decide_many(said.wires):
                assert decision.reason == "replayed", decision.explain()
                assert decision.entry is None
            self.figures["replays refused"] += len(said.wires)
        finally:
            gate.close()

    def compare(self, gate: Gate) -> None:
        """What the gate goes by is what all lines add up to."""
        model = self.model
        assert set(gate.pending) == model.pending
        assert {name: str(keys[-1][0]) for _, name, keys in gate.agents()} == model.names
        for victim in VICTIMS:
            assert gate.is_revoked(agent(victim)) == (victim.did in model.revoked)
            assert gate.is_suspended(agent(victim)) == (victim.did in model.suspended)
        self.figures["effects without an outcome"] += len(model.pending)

    def verify(self) -> Report:
        """As a stranger, who compares every snapshot with the entries before it."""
        self.figures["whole verifications"] += 1
        anchor = self.anchor if self.anchor.exists() else None
        return AuditLog.verify(self.folder, log=agent(GATE), anchor=anchor)

    def segments(self) -> int:
        """How many files there are."""
        return sum(1 for _ in self.folder.glob("seg/*.jsonl"))

    def began_in_vain(self) -> set[str]:
        """The last segment, where it has no complete snapshot."""
        last = max(self.folder.glob("seg/*.jsonl"))
        lines = [json.loads(line) for line in last.read_bytes().split(b"\n")[:-1]]
        parts = [line["body"] for line in takewhile(lambda line: line["kind"] == "snapshot", lines)]
        whole = int(last.stem) == 0 or (parts and parts[0]["of"] <= len(parts))
        return set() if whole else {last.name}

    def report(self) -> str:
        """Figures, a line each."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.model.kinds.most_common())
        rows = {
            "kills": self.lives, "entries": self.model.size, "segments": self.segments(),
            "segments begun in vain": len(self.vain),
        }  # fmt: skip
        return "\n".join(
            [f"{count:>9,} {name}" for name, count in (rows | self.figures).items()] + [kinds]
        )


def main() -> None:
    """Kill until there were enough kills and entries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=1_000_000, help="in the log at the end")
    parser.add_argument("--segment-bytes", type=int, default=1 << 20)
    parser.add_argument("--verify-every", type=int, default=50, help="kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be tried")
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        folder, anchor = Path(place, "log"), Path(place, "anchor")
        campaign = Campaign(folder, anchor, asked.seed, segment_bytes=asked.segment_bytes)
        while campaign.lives < asked.kills or campaign.model.size < asked.entries:
            # What is missing, spread over the kills that are left.
            left = max(1, asked.kills - campaign.lives)
            campaign.mean = max(100, (asked.entries - campaign.model.size) // left)
            due = (campaign.lives + 1) % asked.verify_every == 0
            campaign.kill(verify=due)
            if due:
                print(f"{time.monotonic() - begun:7.0f} s\n{campaign.report()}", flush=True)
        campaign.verify()
        print(f"{time.monotonic() - begun:7.0f} s, all held\n{campaign.report()}")


if __name__ == "__main__":
    main()
