"""A log's folder as a gate leaves it, written by hand: chained lines, segments, torn ends.

The MACs are zeros: only a gate could make them, and who reads without its key cannot check them.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cast import NOW

if TYPE_CHECKING:
    from pathlib import Path

    Body = dict[str, Any] | None

DECISION = {
    "allow": True, "stage": "capability", "holder": "did:key:z6MkPlanner", "token": "00",
    "message": "00", "recipient": "did:key:z6MkGate", "action": "call",
    "resource": "tool://search/web", "args": "00", "payload": "00", "policy": "00",
    "stream": "00", "number": 0, "expires": NOW + 60,
}  # fmt: skip
"""The body of an allowed call."""


class Log:
    """One log directory."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet."""
        self.folder = folder
        self.lines: list[bytes] = []
        self._leaf = "0" * 64
        self._segment = 0

    @property
    def segment(self) -> Path:
        """The newest segment."""
        return self.path(self._segment)

    def path(self, first: int) -> Path:
        """The segment that begins with this line."""
        return self.folder / "seg" / f"{first:012}.jsonl"

    def line(
        self, kind: str = "note", body: dict[str, Any] | None = None, *, at: int = NOW
    ) -> bytes:
        """Make the next line and remember it; it is not in any file yet."""
        text = json.dumps({} if body is None else body, ensure_ascii=False, separators=(",", ":"))
        head = f'{{"i":{len(self.lines)},"t":{at},"prev":"{self._leaf}","kind":"{kind}"'
        made = f'{head},"body":{text},"mac":"{"0" * 32}"}}'.encode()
        self._leaf = hashlib.sha256(b"\0" + made).hexdigest()
        self.lines.append(made)
        return made

    def append(self, data: bytes) -> None:
        """Write bytes to the end of the newest segment."""
        self.segment.parent.mkdir(parents=True, exist_ok=True)
        with self.segment.open("ab") as file:
            file.write(data)

    def add(
        self, kind: str = "note", body: dict[str, Any] | None = None, *, at: int = NOW
    ) -> bytes:
        """Make and write a line."""
        made = self.line(kind, body, at=at)
        self.append(made + b"\n")
        return made

    def decide(self, *, at: int = NOW, **body: Any) -> int:
        """Write a decision; its index. ``reason`` makes it a denial."""
        denial = {"allow": False} if "reason" in body else {}
        self.add("decision", DECISION | denial | body, at=at)
        return len(self.lines) - 1

    def rotate(self) -> None:
        """Begin a new segment."""
        self._segment = len(self.lines)
        self.append(b"")

    def drop(self, first: int) -> None:
        """Remove an old segment, as retention does."""
        self.path(first).unlink()
