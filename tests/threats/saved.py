"""A state folder that is backed up and put back, with a clock to turn."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from moat import (
    Grant,
    Identity,
    Message,
    Moat,
    Policy,
    Token,
)
from moat.audit import anchor_path

NOW = 1_900_000_000
"""Later than any file of these tests: anchors carry the second in which they were written."""


class Place:
    """A state folder, its clock, and an agent who has something to hide."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOW
        self.state, self.file = folder / "state", folder / "backup"
        with self.open(create=True) as moat:
            self.agent = moat.identity("agent", create=True)
            self.gate = moat.id
            self.token = self.issue(moat, self.agent)
        self.use(self.ask())

    def clock(self) -> int:
        return self.now

    def open(self, **more) -> Moat:
        return Moat.open(self.state, clock=self.clock, **{"create": False} | more)

    def issue(self, moat: Moat, holder: Identity) -> Token:
        allow, life = [Grant("tool://search/**", {"call"})], timedelta(days=1)
        return moat.issue(holder=holder.id, allow=allow, expires_in=life, depth=2)

    def ask(self, token: Token | None = None, sender: Identity | None = None) -> bytes:
        """A message that lives as long as one can."""
        return Message.seal(
            sender or self.agent, gate=self.gate, token=token or self.token,
            policy=Policy.CHAIN_ONLY.hash, action="call", resource="tool://search/web",
            now=self.now, expires_in=timedelta(seconds=300),
        )  # fmt: skip

    def use(self, *wires: bytes) -> None:
        with self.open() as moat:
            for wire in wires:
                moat.pep.authorize(wire)

    def back_up(self) -> None:
        with self.open() as moat:
            moat.backup(self.file)

    def restore(self, *, replace: bool = True, state: Path | None = None):
        return Moat.restore_from(self.file, state or self.state, replace=replace, clock=self.clock)

    def reason(self, wire: bytes) -> str | None:
        with self.open() as moat:
            return moat.pep.decide(wire).reason

    def kinds(self) -> list[str]:
        with self.open() as moat:
            return [entry["kind"] for entry in moat.audit.entries()]

    def picture(self) -> dict[str, bytes]:
        """Every file of the state folder, the anchor, and nothing beside them."""
        files = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name not in {"lock", "backup"}
        }
        return files | {"anchor": anchor_path(self.gate).read_bytes()}
