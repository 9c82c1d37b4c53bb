"""A log taken back: cut, torn, restored from a copy, or rewritten by the owner of its key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import forge
from forge import NOW
from moat import MoatError, RolledBack
from threats.ledger import check, fill, read, segment, write
from threats.victim import Victim
from threats.world import GATE, RIVAL, ROOT, WORKER, open_gate


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


def test_a_second_folder_for_the_same_gate(tmp_path: Path, folder: Path, anchor: Path) -> None:
    """An empty memory for a gate that has one: its anchor knows better."""
    with pytest.raises(RolledBack):
        open_gate(tmp_path / "second", anchor=anchor)
    shutil.rmtree(folder)
    with pytest.raises(RolledBack):
        open_gate(folder, anchor=anchor)


def test_an_anchor_that_was_taken_away(folder: Path, anchor: Path) -> None:
    """It cannot be told from one that never was; what is left says so."""
    anchor.unlink()
    assert any("anchor is missing" in text for text in check(folder, anchor).unchecked)
    gate = open_gate(folder, anchor=anchor)
    assert gate.anchor_state == "missing"
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
