"""A log as a neighbour sees it: a file of lines that can be read, rewritten and chained anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import forge
from forge import NOW
from moat import AuditError, ChainBroken
from moat._native import Report, verify_log
from threats.world import GATE, ROOT, WORKER, agent, open_gate

Lines = list[bytes]


def fill(folder: Path, anchor: Path | None, numbers: range, *, signer: forge.Key = GATE) -> None:
    """Open, decide one message per number and close."""
    gate = open_gate(folder, anchor=anchor, signer=signer)
    chain = forge.first(ROOT, WORKER)
    for number in numbers:
        resource = f"tool://search/{number}" if number % 3 else "tool://shell"
        wire = forge.message(
            chain, signer.public, stream=bytes(16), number=number, resource=resource
        )
        assert gate.decide(wire, now=NOW).allowed == bool(number % 3)
    gate.close()


def segment(folder: Path) -> Path:
    """The one file with lines."""
    (found,) = folder.glob("seg/*.jsonl")
    return found


def read(folder: Path) -> Lines:
    """Its lines, without newlines."""
    return segment(folder).read_bytes().splitlines()


def write(folder: Path, lines: Lines) -> None:
    """Put other lines in their place."""
    segment(folder).write_bytes(b"".join(line + b"\n" for line in lines))


def chained(lines: Lines, start: int) -> Lines:
    """The same lines with places and ``prev`` put right from ``start`` on, as anybody can."""
    fixed = lines[:start]
    for line in lines[start:]:
        at = len(fixed)
        prev = hashlib.sha256(b"\0" + fixed[-1]).hexdigest()
        rest = line.split(b',"t":', 1)[1]
        time, rest = rest.split(b',"prev":"', 1)
        fixed.append(b'{"i":%d,"t":%s,"prev":"%s%s' % (at, time, prev.encode(), rest[64:]))
    return fixed


def check(folder: Path, anchor: Path | None) -> Report:
    """Verify as anybody can who has the gate's public key."""
    return verify_log(folder, agent(GATE), anchor=anchor)


def detected(folder: Path, anchor: Path | None, index: int | None = None) -> None:
    """Verification fails, at this line where it is given, and the gate does not open it."""
    with pytest.raises(AuditError) as found:
        check(folder, anchor)
    if index is not None:
        assert isinstance(found.value, ChainBroken), found.value
        assert found.value.index == index
    unopened(folder, anchor)


def unopened(folder: Path, anchor: Path | None) -> None:
    """The gate refuses the folder and leaves it as it was."""
    before = segment(folder).read_bytes()
    with pytest.raises(AuditError):
        open_gate(folder, anchor=anchor)
    assert segment(folder).read_bytes() == before
