"""Lines of a log that was verified: what is read again is compared with what was found."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from moat import AuditLog
from moat._native import read_log
from moat.cli import bars
from moat.errors import ChainBroken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from moat import AgentId, Report

_HEAD: Final = re.compile(rb'\{"i":([0-9]{1,16}),"t":[0-9]{1,12},"prev":"([0-9a-f]{64})",')


class Verified:
    """One log, verified when it is made.

    A log is read once to verify it and once for its lines, and somebody may change it in
    between. So the lines have to have the tree's root that was found, or the chain's order where
    the oldest of them are gone; ``lines`` raises ``ChainBroken`` at the end if they have not.
    """

    def __init__(self, log: Path, gate: AgentId, *, quiet: bool) -> None:
        """Verify; raises as ``AuditLog.verify``."""
        self._log, self._quiet = log, quiet
        with bars.reading(log, "verifying", quiet=quiet) as progress:
            self.report: Report = AuditLog.verify(log, log=gate, progress=progress)
        self.complete = True
        """Whether the lines go back to the first entry, so that the root could be compared."""

    def lines(self) -> Iterator[bytes]:
        """Give the lines that were verified; a gate may have written more since."""
        report, tree, done = self.report, Tree(), 0
        with bars.reading(self._log, "writing", quiet=self._quiet) as progress:
            for line in read_log(self._log):
                if tree.size == report.entries:
                    break
                tree.add(line)
                done += len(line) + 1
                if progress is not None and (not tree.size % 4096 or tree.size == report.entries):
                    progress(done, max(done, report.bytes))
                yield line
        self.complete = tree.complete
        if tree.size != report.entries or (tree.complete and tree.root() != report.root):
            raise _changed(tree.size)


class Tree:
    """The RFC 6962 tree over lines as they come, in memory that grows with its height."""

    def __init__(self) -> None:
        """Begin with no line."""
        self.size = 0
        """The index of the next line."""
        self.complete = True
        self._leaf: bytes | None = None
        self._peaks: list[bytes] = []

    def add(self, line: bytes) -> None:
        """Take the next line; the first may be a later one, where older ones are gone."""
        head = _HEAD.match(line)
        index = self.size if head is None else int(head[1])
        if self._leaf is None:
            self.size, self.complete = index, index == 0
        elif head is None or index != self.size or bytes.fromhex(head[2].decode()) != self._leaf:
            raise _changed(self.size)
        self._leaf = node = hashlib.sha256(b"\0" + line).digest()
        if self.complete:
            full = self.size
            while full & 1:
                node = hashlib.sha256(b"\1" + self._peaks.pop() + node).digest()
                full >>= 1
            self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Give the root over all of them (RFC 6962 §2.1)."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        *left, root = self._peaks
        for peak in reversed(left):
            root = hashlib.sha256(b"\1" + peak + root).digest()
        return root


def _changed(index: int) -> ChainBroken:
    error = ChainBroken(f"the log was changed at line {index} after it was verified")
    error.index = index
    return error
