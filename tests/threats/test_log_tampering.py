"""A log that was edited, extended, reordered or swapped, by someone with write access."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

import forge
from forge import NOW
from moat import AuditError, ChainBroken, MoatError, RolledBack
from threats.ledger import chained, check, detected, fill, read, segment, unopened, write
from threats.victim import Victim, environment
from threats.world import GATE, RIVAL, ROOT, WORKER, World, agent, open_gate


def test_an_honest_log_verifies_and_opens(folder: Path, anchor: Path) -> None:
    report = check(folder, anchor)
    assert report.entries == len(read(folder)) == report.anchored
    assert report.torn == 0
    assert [json.loads(line)["i"] for line in read(folder)] == list(range(report.entries))
    gate = open_gate(folder, anchor=anchor)
    assert gate.anchor_state == "matched"
    gate.close()


# --- lines ---


def test_one_byte_of_any_line_edited(folder: Path, anchor: Path) -> None:
    """Every line, at places spread over index, time, hash, kind, body and MAC.

    The first line that is wrong is named. Where the two last lines contradict each other and
    there is no third to side with one of them, it is one of the two.
    """
    good = read(folder)
    for at, line in enumerate(good):
        for place in range(0, len(line), max(1, len(line) // 40)):
            edited = bytearray(line)
            edited[place] ^= 1
            if edited[place] in b"\n\r":
                continue
            write(folder, [*good[:at], bytes(edited), *good[at + 1 :]])
            with pytest.raises(AuditError) as found:
                check(folder, anchor)
            if at < len(good) - 2:
                assert isinstance(found.value, ChainBroken)
                assert found.value.index == at, place
            else:
                assert getattr(found.value, "index", at) >= len(good) - 2, place
    write(folder, good)
    check(folder, anchor)


def test_bytes_of_a_mebibyte_edited(tmp_path: Path, anchor: Path) -> None:
    """Anywhere in a long log, by any bit; every byte is tried in ``rust/log/src/flips.rs``."""
    folder, r = tmp_path / "log", Random(1)
    fill(folder, anchor, range(1400))
    path = segment(folder)
    good = path.read_bytes()
    assert len(good) > 1 << 20
    with path.open("r+b") as file:
        for _ in range(150):
            at = r.randrange(len(good))
            line, lines = good.count(b"\n", 0, at), good.count(b"\n")
            os.pwrite(file.fileno(), bytes([good[at] ^ 1 << r.randrange(8)]), at)
            with pytest.raises(AuditError) as found:
                check(folder, anchor)
            assert line >= lines - 2 or getattr(found.value, "index", None) == line, at
            os.pwrite(file.fileno(), good[at : at + 1], at)
    assert check(folder, anchor).entries == len(read(folder))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"allow":false', b'"allow":true'),
        (b'"reason":"not_granted"', b'"reason":"not_grantee"'),
        (b"tool://shell", b"tool://shelf"),
    ],
)
def test_a_decision_edited(folder: Path, anchor: Path, old: bytes, new: bytes) -> None:
    lines = read(folder)
    at = next(at for at, line in enumerate(lines) if old in line)
    lines[at] = lines[at].replace(old, new)
    write(folder, lines)
    detected(folder, anchor, at)
    write(folder, chained(lines, at + 1))
    detected(folder, anchor)
    detected(folder, None)


def test_the_last_line_edited(folder: Path, anchor: Path) -> None:
    lines = read(folder)
    lines[-1] = lines[-1].replace(b'"decisions":[', b'"decisions":[0,')
    write(folder, lines)
    detected(folder, anchor)
    detected(folder, None)


def test_a_line_deleted(folder: Path, anchor: Path) -> None:
    good = read(folder)
    for at in range(len(good) - 1):
        write(folder, [*good[:at], *good[at + 1 :]])
        detected(folder, anchor, at)
        if at:
            write(folder, chained([*good[:at], *good[at + 1 :]], at))
            detected(folder, None)


def test_a_line_inserted(folder: Path, anchor: Path) -> None:
    good = read(folder)
    for at in range(1, len(good)):
        for inserted in (good[at], good[-1]):
            write(folder, [*good[:at], inserted, *good[at:]])
            detected(folder, anchor)
        write(folder, chained([*good[:at], good[at - 1], *good[at:]], at))
        detected(folder, None)


def test_lines_reordered(folder: Path, anchor: Path) -> None:
    good = read(folder)
    for at in range(len(good) - 1):
        swapped = [*good[:at], good[at + 1], good[at], *good[at + 2 :]]
        write(folder, swapped)
        detected(folder, anchor, at)
        if at:
            write(folder, chained(swapped, at))
            detected(folder, None)


def test_a_line_appended_by_someone_without_the_gates_key(folder: Path, anchor: Path) -> None:
    """Chained as it should be, with a MAC that is another line's or made up. A verifier without
    the gate's key cannot see it, and says so; the gate does not open such a log."""
    good = read(folder)
    for mac in (good[-1][-34:-2], b"0" * 32):
        line = good[-1][:-34] + mac + good[-1][-2:]
        write(folder, chained([*good, line], len(good)))
        report = check(folder, anchor)
        assert report.entries == report.anchored + 1
        assert any("after the newest checkpoint" in text for text in report.unchecked)
        unopened(folder, anchor)
        unopened(folder, None)


@pytest.mark.parametrize(
    "junk", [b"{}\n", b"\n", b"\0" * 600 + b"\n", b"x" * 70_000 + b"\n"], ids=len
)
def test_junk_appended_as_a_line(folder: Path, anchor: Path, junk: bytes) -> None:
    end = len(read(folder))
    with segment(folder).open("ab") as file:
        file.write(junk)
    detected(folder, anchor, end)


def test_a_line_in_another_spelling(folder: Path, anchor: Path) -> None:
    """The same JSON with a space: one line has one spelling."""
    lines = read(folder)
    lines[3] = lines[3].replace(b',"kind"', b', "kind"', 1)
    write(folder, lines)
    detected(folder, anchor, 3)


LARGEST = 2**64 - 1
WATCHED = (
    {"name": "steps", "sequence": {"steps": [{}, {}], "within": 60}, "then": "alert"},
    {"name": "fuel", "cost": {"limit": 9, "of": "fuel"}, "then": "alert"},
    {"name": "rate", "rate": {"limit": 999, "window": 60}, "then": "alert"},
)


@pytest.mark.parametrize(
    ("item", "field", "value"),
    [
        ("time", "time", LARGEST),
        ("steps", "starts", [[0, LARGEST]]),
        ("steps", "starts", [[LARGEST, 0]]),
        ("rate", "buckets", [[LARGEST, 1]]),
        ("rate", "mute", LARGEST),
        ("row", "open", 2**32 - 1),
        ("link", "expires", LARGEST),
        ("stream", "newest", LARGEST),
        ("pending", "decisions", [LARGEST]),
    ],
)
def test_numbers_at_their_limits_in_a_made_up_snapshot(
    tmp_path: Path, item: str, field: str, value: object
) -> None:
    """Where the older segments are gone, who verifies without the gate's key takes it on faith;
    it is refused or believed like any other, and crashes nobody."""
    folder, chain = tmp_path / "log", forge.first(ROOT, WORKER)
    gate = open_gate(folder, rules=WATCHED, segment_bytes=3000)
    asks = [forge.message(chain, GATE.public, stream=bytes(16), number=n) for n in range(40)]
    permits = [gate.decide(wire, now=NOW).permit for wire in asks]
    gate.close()
    assert None not in permits
    *older, last = sorted(folder.glob("seg/*.jsonl"))
    for gone in (*older, folder / "checkpoint"):
        gone.unlink()
    first, *rest = last.read_bytes().splitlines()
    line = json.loads(first)
    line["body"]["pruned"] = line["i"]
    found(line["body"]["items"], item)[field] = value
    lines = [json.dumps(line, separators=(",", ":")).encode()]
    for after in rest:
        head, tail = after.split(b',"prev":"', 1)
        prev = hashlib.sha256(b"\0" + lines[-1]).hexdigest().encode()
        lines.append(head + b',"prev":"' + prev + tail[64:])
    write(folder, lines)
    with suppress(ChainBroken):
        assert check(folder, None).signed is None


def found(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """An item of a snapshot by its kind, a row of the monitor, or a cell by its rule."""
    rows = [it["of"]["row"] for it in items if it["is"] == "monitor" and "row" in it["of"]]
    cells = {cell["rule"]: cell for row in rows for cell in row["cells"]}
    return {"row": rows[0], **cells, **{it["is"]: it for it in items}}[name]


def test_the_log_of_another_gate(tmp_path: Path, anchor: Path) -> None:
    fill(tmp_path / "rival", None, range(3), signer=RIVAL)
    detected(tmp_path / "rival", None)


# --- the folder itself ---


def test_two_writers_in_one_process(world: World) -> None:
    with pytest.raises(AuditError):
        open_gate(world.folder)
    world.allow(world.ask())
    world.restart()
    world.allow(world.ask())


def test_two_writers_in_two_processes(world: World) -> None:
    before = segment(world.folder).read_bytes()
    story = Victim(world.folder).run([world.ask()])
    assert story.code != 0
    assert not story.said
    assert segment(world.folder).read_bytes() == before
    world.allow(world.ask())


def test_two_processes_that_start_at_once(tmp_path: Path) -> None:
    """One opens the log; the other says why it does not."""
    command = [sys.executable, "-m", "threats.victim", str(tmp_path / "log"), "", "close"]
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(),
        )
        for _ in range(2)
    ]  # fmt: skip
    first = [process.stdout.readline() for process in started if process.stdout]
    said = [process.communicate(b"")[1] for process in started]
    assert sorted(first) == [b"", b'{"opened": true}\n'], said
    assert sorted(process.returncode != 0 for process in started) == [False, True]


@pytest.mark.parametrize("name", ["seg", "seg/000000000000.jsonl", "lock", "checkpoint"])
def test_a_symbolic_link_in_the_folder(
    tmp_path: Path, folder: Path, anchor: Path, name: str
) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError):
        open_gate(folder, anchor=anchor)


def test_an_anchor_that_is_a_symbolic_link(tmp_path: Path, folder: Path, anchor: Path) -> None:
    anchor.rename(tmp_path / "elsewhere")
    anchor.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError):
        open_gate(folder, anchor=anchor)


def test_a_pipe_in_the_place_of_the_segment_does_not_make_the_gate_wait(
    folder: Path, anchor: Path
) -> None:
    path = segment(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AuditError):
        open_gate(folder, anchor=anchor)


def test_the_segment_replaced_while_the_gate_is_open(world: World, tmp_path: Path) -> None:
    """The gate goes on writing the file it holds; the one in its place does not verify as the
    log that the checkpoint signs."""
    world.allow(world.ask())
    path = segment(world.folder)
    early = path.read_bytes()
    world.allow(world.ask())
    path.unlink()
    path.write_bytes(early)
    world.gate.close()
    with pytest.raises(RolledBack):
        check(world.folder, None)
    with pytest.raises(RolledBack):
        open_gate(world.folder)
    fresh = tmp_path / "fresh"
    world.gate = open_gate(fresh)


def test_what_the_log_creates_belongs_to_its_owner_alone(folder: Path, anchor: Path) -> None:
    for path in [folder, anchor, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_inclusion_proof_for_another_line(world: World) -> None:
    world.allow(world.ask())
    world.allow(world.ask())
    checkpoint = world.gate.checkpoint()
    last = len(world.gate) - 1
    proof = world.gate.prove(last)
    proof.verify(checkpoint, log=agent(GATE))
    text = str(proof)
    type(proof).parse(text).verify(checkpoint, log=agent(GATE))
    extra = next(line for line in text.splitlines() if line.startswith("extra "))
    line = base64.b64decode(extra.removeprefix("extra "))
    assert line == proof.line
    swapped = base64.b64encode(line.replace(b"tool://search/web", b"tool://search/wet"))
    other = type(proof).parse(text.replace(extra, "extra " + swapped.decode()))
    with pytest.raises(MoatError):
        other.verify(checkpoint, log=agent(GATE))
    with pytest.raises(MoatError):
        proof.verify(checkpoint, log=agent(RIVAL))


def test_a_gate_opened_with_another_key(folder: Path, anchor: Path) -> None:
    with pytest.raises(AuditError):
        open_gate(folder, anchor=anchor, signer=RIVAL)
