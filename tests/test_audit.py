"""A log is opened, anchored, read, proved and verified by its path."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from cast import GATE, MALLORY, ROOT, clock, seal
from moat import (
    AuditError,
    AuditLog,
    AuditUnavailable,
    ChainBroken,
    Checkpoint,
    InvalidSignature,
    Pep,
    Policy,
    RolledBack,
)
from moat.audit import anchor_path


@pytest.fixture
def filled(audit, pep):
    """A log with five decisions in it."""
    for decision in pep.authorize_many([seal() for _ in range(5)]):
        assert decision.allowed
    return audit


def work(folder: Path) -> None:
    """Open a log with the default anchor, decide once more, close it."""
    log = AuditLog.open(folder, signer=GATE, clock=clock)
    Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=log).authorize(seal())
    log.close()


def lines_of(folder: Path) -> list[bytes]:
    return b"".join(path.read_bytes() for path in sorted((folder / "seg").iterdir())).splitlines()


def test_a_log_is_named_by_the_key_that_signs_it(audit):
    assert audit.id == GATE.id
    assert audit.checkpoint().origin == f"moat.log/{GATE.id}"
    audit.checkpoint().verify(GATE.id)


def test_its_directories_are_closed_to_others(tmp_path):
    AuditLog.open(tmp_path / "a" / "b" / "log", signer=GATE, anchor=None, clock=clock).close()
    for folder in ("a", "a/b", "a/b/log"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_entries_are_numbered_and_read_back(filled):
    entries = list(filled.entries())
    assert len(entries) == len(filled)
    assert [entry["i"] for entry in entries] == list(range(len(filled)))
    assert [entry["kind"] for entry in entries].count("decision") == 5
    assert list(filled.entries(len(filled) - 2)) == entries[-2:]


def test_an_entry_is_proved_to_a_stranger(filled):
    checkpoint = Checkpoint.parse(str(filled.checkpoint()))
    for entry in range(len(filled)):
        proof = filled.prove(entry)
        proof.verify(checkpoint, log=GATE.id)
        assert proof.line == filled.read(entry)


def test_a_proof_of_another_log_is_refused(filled):
    with pytest.raises(InvalidSignature):
        filled.prove(0).verify(filled.checkpoint(), log=MALLORY.id)


def test_growth_is_proved_consistent(filled, pep):
    old = filled.checkpoint()
    pep.authorize(seal())
    new = filled.checkpoint()
    assert new.size > old.size
    filled.consistency(old.size).verify(old, new, log=GATE.id)


def test_an_entry_beyond_the_end_is_an_error(filled):
    with pytest.raises(Exception, match=str(len(filled))):
        filled.prove(len(filled))


def test_verify_counts_what_is_there_and_says_what_it_could_not_check(filled):
    filled.close()
    seen = []
    report = AuditLog.verify(
        filled.path, log=GATE.id, anchor=None, progress=lambda *at: seen.append(at)
    )
    assert report.entries == sum(report.kinds.values()) == len(lines_of(filled.path))
    assert report.kinds["decision"] == 5
    assert report.torn == 0
    assert report.anchored is None
    assert any("anchor" in sentence for sentence in report.unchecked)
    assert seen[-1] == (report.bytes, report.bytes)


def test_verify_finds_the_edited_line(filled):
    filled.close()
    (segment,) = (filled.path / "seg").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"', b"'", 1)
    segment.write_bytes(b"".join(lines))
    with pytest.raises(ChainBroken) as caught:
        AuditLog.verify(filled.path, log=GATE.id, anchor=None)
    assert caught.value.index == 3


def test_the_default_anchor_lies_in_the_users_state_directory(tmp_path, state_home):
    with AuditLog.open(tmp_path / "log", signer=GATE, clock=clock) as log:
        assert log.anchor_state == "matched"
    anchor = anchor_path(GATE.id)
    assert anchor.parent == state_home / "moat" / "anchors"
    assert len(anchor.name) == 32
    assert anchor.is_file()
    assert stat.S_IMODE(anchor.parent.stat().st_mode) == 0o700
    anchor.unlink()
    with AuditLog.open(tmp_path / "log", signer=GATE, clock=clock) as log:
        assert log.anchor_state == "missing"


@pytest.mark.parametrize("value", [None, "", "not/absolute"])
def test_an_unset_or_relative_state_home_is_the_home_directorys(value, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("XDG_STATE_HOME")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", value)
    assert anchor_path(GATE.id).is_relative_to(tmp_path / ".local" / "state" / "moat")


def test_no_anchor_is_kept_when_none_is_asked_for(audit, state_home):
    assert audit.anchor_state == "none"
    assert list(state_home.iterdir()) == []


def test_a_restored_copy_is_seen_and_can_be_accepted(tmp_path):
    work(tmp_path / "log")
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    work(tmp_path / "log")
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "copy").rename(tmp_path / "log")
    with pytest.raises(RolledBack):
        AuditLog.open(tmp_path / "log", signer=GATE, clock=clock)
    with pytest.raises(RolledBack):
        AuditLog.verify(tmp_path / "log", log=GATE.id)
    accepted = AuditLog.open(tmp_path / "log", signer=GATE, accept_restored=True, clock=clock)
    assert accepted.anchor_state == "overruled"
    accepted.close()
    report = AuditLog.verify(tmp_path / "log", log=GATE.id)
    assert report.anchored == report.entries
    assert report.kinds["restored"] == 1


def test_a_default_anchor_that_is_not_there_is_none(filled):
    filled.close()
    assert AuditLog.verify(filled.path, log=GATE.id).anchored is None


def test_a_named_anchor_that_is_not_there_is_an_error(filled, tmp_path):
    filled.close()
    with pytest.raises(AuditError, match="there is no anchor at `.*lost`"):
        AuditLog.verify(filled.path, log=GATE.id, anchor=tmp_path / "lost")


def test_one_process_has_a_log(audit):
    with pytest.raises(AuditUnavailable):
        AuditLog.open(audit.path, signer=GATE, anchor=None, clock=clock)


def test_a_log_is_opened_with_its_own_key(filled):
    filled.close()
    with pytest.raises(Exception, match="key|gate|log"):
        AuditLog.open(filled.path, signer=MALLORY, anchor=None, clock=clock)


def test_a_closed_log_allows_nothing(audit, pep):
    audit.close()
    assert pep.decide(seal()).reason == "log_unavailable"


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AuditUnavailable, match="cannot make `.*file"):
        AuditLog.open(tmp_path / "file" / "log", signer=GATE, anchor=None, clock=clock)
