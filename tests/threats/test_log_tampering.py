"""A log that was edited, cut, extended, swapped or taken back, by someone with write access."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import forge
from forge import NOW
from moat import AuditError, ChainBroken, MoatError, RolledBack
from moat._native import Report, verify_log
from threats.victim import TESTS, Victim
from threats.world import GATE, RIVAL, ROOT, WORKER, World, agent, open_gate

Lines = list[bytes]


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    """Where the gate remembers its newest checkpoint, outside the folder."""
    return tmp_path / "anchor"


@pytest.fixture
def folder(tmp_path: Path, anchor: Path) -> Path:
    """A closed log of ten decisions, allowed and denied."""
    folder = tmp_path / "log"
    fill(folder, anchor, range(10))
    return folder


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
    lines[-1] = lines[-1].replace(b'"allow":false', b'"allow":true')
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


def test_the_log_of_another_gate(tmp_path: Path, anchor: Path) -> None:
    fill(tmp_path / "rival", None, range(3), signer=RIVAL)
    detected(tmp_path / "rival", None)


# --- tails and copies ---


def cut(folder: Path, keep: int) -> None:
    """Drop the last lines."""
    write(folder, read(folder)[:keep])


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_cut_tail_with_an_anchor(folder: Path, anchor: Path, lost: int) -> None:
    cut(folder, len(read(folder)) - lost)
    for path in folder.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(RolledBack):
        check(folder, anchor)
    with pytest.raises(RolledBack):
        open_gate(folder, anchor=anchor)


def test_a_cut_tail_without_an_anchor_is_behind_the_checkpoint_beside_it(folder: Path) -> None:
    cut(folder, len(read(folder)) - 1)
    with pytest.raises(RolledBack):
        check(folder, None)
    with pytest.raises(RolledBack):
        open_gate(folder)


def test_a_cut_tail_and_checkpoint_without_an_anchor_cannot_be_seen_and_this_is_said(
    folder: Path,
) -> None:
    keep = len(read(folder)) - 2
    cut(folder, keep)
    (folder / "checkpoint").unlink()
    report = check(folder, None)
    assert report.entries == keep
    assert report.signed is None
    assert any("anchor" in text for text in report.unchecked)
    assert any("checkpoint" in text for text in report.unchecked)


def test_a_tail_cut_within_a_line_is_torn_only_where_nothing_was_signed(tmp_path: Path) -> None:
    """After a kill nothing vouches for the last lines; a torn one is cut and recorded, at
    whatever byte it tore, and the lines before it stay."""
    chain = forge.first(ROOT, WORKER)
    wires = [forge.message(chain, GATE.public, stream=bytes(16), number=n) for n in range(2)]
    story = Victim(tmp_path / "log").run(wires, kill=True)
    assert story.acknowledged == [0, 1]
    good = segment(tmp_path / "log").read_bytes()
    lines = good.splitlines(keepends=True)
    whole = len(good) - len(lines[-1])
    for end in [*range(whole + 1, len(good), 37), len(good) - 1]:
        copy = tmp_path / f"at {end}"
        shutil.copytree(tmp_path / "log", copy)
        segment(copy).write_bytes(good[:end])
        gate = open_gate(copy)
        kinds = [json.loads(gate.read(at))["kind"] for at in range(len(gate))]
        assert kinds[len(lines) - 1] == "torn"
        assert segment(copy).read_bytes()[:whole] == good[:whole]
        gate.close()
        assert check(copy, None).torn == 0


def test_a_folder_restored_from_a_copy(tmp_path: Path, folder: Path, anchor: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    fill(folder, anchor, range(10, 13))
    shutil.rmtree(folder)
    copy.rename(folder)
    with pytest.raises(RolledBack):
        check(folder, anchor)
    with pytest.raises(RolledBack):
        open_gate(folder, anchor=anchor)
    gate = open_gate(folder, anchor=anchor, accept_restored=True)
    assert gate.anchor_state == "overruled"
    assert "restored" in [json.loads(gate.read(at))["kind"] for at in range(len(gate))]
    gate.close()
    gate = open_gate(folder, anchor=anchor)
    assert gate.anchor_state == "matched"
    gate.close()


def test_an_accepted_restored_copy_forgets_no_replay_mark(
    tmp_path: Path, folder: Path, anchor: Path
) -> None:
    """What was used after the copy was made is not in the copy, and still not fresh."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    chain = forge.first(ROOT, WORKER)
    asks = {"now": NOW + 30, "lifetime": 300}
    lost = [
        forge.message(chain, GATE.public, stream=bytes(16), number=100, **asks),
        forge.message(chain, GATE.public, **asks),
        forge.message(forge.first(ROOT, forge.key("other")), GATE.public, now=NOW + 60),
    ]
    gate = open_gate(folder, anchor=anchor)
    assert all(d.allowed for d in gate.decide_many(lost, now=NOW))
    gate.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    gate = open_gate(folder, anchor=anchor, accept_restored=True, now=NOW + 1)
    for decision in gate.decide_many(lost, now=NOW + 1):
        assert not decision.allowed, "a message was used twice"
    later = NOW + 400
    wire = forge.message(chain, GATE.public, now=later)
    assert gate.decide(wire, now=later).allowed
    gate.close()


def test_the_whole_log_rewritten_by_the_owner_of_the_key(
    tmp_path: Path, folder: Path, anchor: Path
) -> None:
    """Everything in the folder is signed as it should be; only the anchor knows better."""
    fill(tmp_path / "rewritten", None, range(1, 15))
    shutil.rmtree(folder)
    (tmp_path / "rewritten").rename(folder)
    check(folder, None)
    with pytest.raises(RolledBack):
        check(folder, anchor)
    with pytest.raises(RolledBack):
        open_gate(folder, anchor=anchor)


def test_the_end_of_the_log_rewritten_by_the_owner_of_the_key(
    tmp_path: Path, folder: Path, anchor: Path
) -> None:
    """A common beginning, then another history that is longer than the one anchored."""
    fork, side = tmp_path / "fork", tmp_path / "side anchor"
    fill(fork, side, range(10))
    fill(fork, side, range(11, 30))
    fill(folder, anchor, range(10, 12))
    shutil.rmtree(folder)
    fork.rename(folder)
    with pytest.raises(RolledBack):
        check(folder, anchor)
    with pytest.raises(RolledBack):
        open_gate(folder, anchor=anchor)


def test_a_checkpoint_signed_by_someone_else(tmp_path: Path, folder: Path, anchor: Path) -> None:
    fill(tmp_path / "rival", tmp_path / "rival anchor", range(3), signer=RIVAL)
    for mine, theirs in [(anchor, "rival anchor"), (folder / "checkpoint", "rival/checkpoint")]:
        kept = mine.read_bytes()
        mine.write_bytes((tmp_path / theirs).read_bytes())
        with pytest.raises(MoatError):
            check(folder, anchor)
        with pytest.raises(MoatError):
            open_gate(folder, anchor=anchor)
        mine.write_bytes(kept)
    check(folder, anchor)


def _grown(text: str) -> str:
    name, size, rest = text.split("\n", 2)
    return f"{name}\n{int(size) + 1}\n{rest}"


@pytest.mark.parametrize(
    "edit",
    [
        _grown,
        lambda text: text.replace("moat.log/", "moat.log2/", 1),
        lambda text: text[:-8] + "AAAA" + text[-4:],
        lambda text: text.split("\n\n")[0] + "\n\n",
        lambda text: "",
    ],
    ids=["size", "origin", "signature", "unsigned", "empty"],
)
def test_an_edited_checkpoint_or_anchor(
    folder: Path, anchor: Path, edit: Callable[[str], str]
) -> None:
    for path in (anchor, folder / "checkpoint"):
        kept = path.read_text()
        path.write_text(edit(kept))
        with pytest.raises(MoatError):
            check(folder, anchor)
        with pytest.raises(MoatError):
            open_gate(folder, anchor=anchor)
        path.write_text(kept)
    check(folder, anchor)


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
            env=os.environ | {"PYTHONPATH": str(TESTS)},
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
