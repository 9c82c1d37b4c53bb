"""`moat audit prune`, and what other commands make of a log that was pruned."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cli_kit import ERROR, INVALID, OK, USAGE, Cli, fresh
from moat import AuditError, AuditLog, Checkpoint, Grant, InclusionProof, Moat, Policy, Sender
from moat._follow import Feed

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 1 << 14
"""Bytes after which these logs go on in a new file."""


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A log of several files."""
    made = fresh(tmp_path, "worker")
    with Moat.open(made.state, segment_bytes=SMALL) as running:
        worker = running.identity("worker")
        allow, hour = [Grant("tool://search/**", {"call"})], timedelta(hours=1)
        token = running.issue(holder=worker.id, allow=allow, expires_in=hour)
        sender = Sender(worker, gate=running.id, token=token, policy=Policy.CHAIN_ONLY.hash)
        for _ in range(400):
            wire = sender.seal(action="call", resource="tool://search/web")
            with running.pep.authorize(wire):
                pass
    return made


def segments(cli: Cli) -> list[int]:
    return sorted(int(path.stem) for path in log(cli).glob("seg/*.jsonl"))


def log(cli: Cli) -> Path:
    return cli.state / "gates" / "main" / "log"


def test_what_goes_is_said_first_and_asked(moat: Cli) -> None:
    before = segments(moat)
    assert len(before) > 3
    would = moat.json("audit", "prune", "--before", str(before[2]), "--dry-run")
    assert would["dry_run"] is True
    assert would["oldest"] == would["entries"] == before[2]
    assert would["segments"] == [f"{first:012}.jsonl" for first in before[:2]]
    assert would["bytes"] > SMALL
    assert moat.error("audit", "prune", "--keep", "0", code=ERROR)["code"] == "not_confirmed"
    assert segments(moat) == before
    done = moat.json("audit", "prune", "--before", str(before[2]), "--yes")
    assert done["segments"] == would["segments"]
    assert segments(moat) == before[2:]
    again = moat.json("audit", "prune", "--before", str(before[2]))
    assert again["segments"] == []
    assert "nothing goes" in moat("audit", "prune", "--before", "0").stdout


def test_it_tells_a_person_what_stays_provable(moat: Cli) -> None:
    told = moat("audit", "prune", "--keep", "1", "--yes").stdout
    assert "are gone" in told
    assert "moat audit prove --line" in told


def test_a_size_keeps_at_least_that_much(moat: Cli) -> None:
    moat("audit", "prune", "--keep", "40KiB", "--yes")
    kept = sum(path.stat().st_size for path in log(moat).glob("seg/*"))
    assert kept >= 40 << 10
    assert segments(moat)[0] > 0
    assert moat.json("audit", "prune", "--keep", "1GiB")["segments"] == []


def test_a_time_keeps_what_is_newer(moat: Cli) -> None:
    assert moat.json("audit", "prune", "--older-than", "1h", "--dry-run")["segments"] == []
    would = moat.json("audit", "prune", "--older-than", "2100-01-01", "--dry-run")
    assert would["oldest"] == segments(moat)[-1]


def test_one_bound_is_asked_for(moat: Cli) -> None:
    moat.error("audit", "prune", code=USAGE)
    moat.error("audit", "prune", "--keep", "1", "--before", "1", code=USAGE)


def test_a_gate_that_another_process_has_is_not_pruned(moat: Cli) -> None:
    before = segments(moat)
    with Moat.open(moat.state):
        assert moat.error("audit", "prune", "--keep", "0", code=ERROR)["code"] == "gate_busy"
    assert segments(moat) == before


def test_a_pruned_log_verifies_and_says_so(moat: Cli) -> None:
    old = Checkpoint.parse(moat.json("audit", "checkpoint")["note"])
    moat("audit", "prune", "--keep", "0", "--yes")
    report = moat.json("audit", "verify")
    assert report["ok"]
    assert any("were removed" in text for text in report["unchecked"])
    file = moat.state.parent / "old"
    file.write_text(str(old))
    assert moat.json("audit", "checkpoint", "--extends", file)["extends"] == old.size


def test_a_pruned_entry_is_proved_by_whoever_kept_its_line(moat: Cli, tmp_path: Path) -> None:
    lines = (log(moat) / "seg" / f"{0:012}.jsonl").read_bytes().splitlines(keepends=True)
    moat("audit", "prune", "--keep", "0", "--yes")
    found = moat.error("audit", "prove", "3", code=ERROR)
    assert found["code"] == "pruned"
    assert "--line" in found["next"]
    kept, proof = tmp_path / "line", tmp_path / "proof"
    kept.write_bytes(lines[3])
    made = moat.json("audit", "prove", "--line", kept, "--out", proof)
    assert made["entry"] == 3
    assert moat.json("audit", "check", proof)["line"].encode() + b"\n" == lines[3]
    kept.write_bytes(lines[3].replace(b'"t":1', b'"t":2'))
    moat.error("audit", "prove", "--line", kept, code=ERROR)
    moat.error("audit", "prove", "3", "--line", kept, code=USAGE)
    moat.error("audit", "prove", code=USAGE)
    assert moat.json("audit", "prove", str(segments(moat)[0]))["entry"] == segments(moat)[0]


def test_lines_of_a_pruned_log_are_shown_and_exported(moat: Cli, tmp_path: Path) -> None:
    moat("audit", "prune", "--keep", "0", "--yes")
    first = segments(moat)[0]
    shown = moat.json("audit", "show", "--last", "0")["entries"]
    assert shown[0]["i"] == first
    assert [entry["i"] for entry in shown] == list(range(first, first + len(shown)))
    out = tmp_path / "out.jsonl"
    moat("audit", "export", "--out", out)
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert len(rows) == len(shown)


def test_a_pruned_log_is_followed_from_what_is_there(moat: Cli) -> None:
    moat("audit", "prune", "--keep", "0", "--yes")
    first = segments(moat)[0]
    with closing(Feed(moat.state)) as feed:
        seen = feed.poll()
        assert feed.missed == first
    assert json.loads(seen[0].line)["i"] == first


def test_a_backup_of_a_pruned_log_has_its_tiles(moat: Cli, tmp_path: Path) -> None:
    line = next(iter((log(moat) / "seg" / f"{0:012}.jsonl").read_bytes().splitlines()))
    moat("audit", "prune", "--keep", "0", "--yes")
    moat("backup", tmp_path / "backup")
    other = Cli(tmp_path / "other")
    other("restore", "--from", tmp_path / "backup")
    assert segments(other)[0] == segments(moat)[0]
    kept = tmp_path / "line"
    kept.write_bytes(line)
    assert other.json("audit", "prove", "--line", kept)["entry"] == 0
    assert other.json("audit", "verify")["ok"]


def test_a_withdrawal_that_was_pruned_is_not_lost_by_a_restore(moat: Cli, tmp_path: Path) -> None:
    """The line is gone from the log that is replaced; the snapshot after it still says so."""
    moat("identity", "new", "late")
    moat("backup", tmp_path / "backup")
    did = moat.did("late")
    moat("revoke", "late")
    with Moat.open(moat.state, segment_bytes=1) as running:
        for _ in range(60):
            running.suspend(running.identity("worker"))
            running.resume(running.identity("worker"))
    moat("audit", "prune", "--keep", "0", "--yes")
    found = moat.json("restore", "--from", tmp_path / "backup", "--replace")["gates"][0]
    assert "were removed" in found["unread"]
    with Moat.open(moat.state) as opened:
        assert opened.is_revoked(opened.identity("late"))
    assert moat.did("late") == did


def test_the_library_prunes_and_proves(moat: Cli) -> None:
    with Moat.open(moat.state) as running:
        audit = running.audit
        line = audit.read(2)
        would = audit.prune(len(audit), dry_run=True)
        done = audit.prune(len(audit))
        assert done == would
        assert done.segments
        proof = audit.prove_line(line)
        assert isinstance(proof, InclusionProof)
        proof.verify(audit.checkpoint(), log=running.id)
        with pytest.raises(AuditError):
            audit.prove_line(line.replace(b"{", b"[", 1))
    assert AuditLog.verify(log(moat), log=running.id).entries


def test_a_broken_segment_is_not_removed(moat: Cli) -> None:
    first = log(moat) / "seg" / f"{0:012}.jsonl"
    data = first.read_bytes()
    middle = len(data) // 2
    first.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    before = segments(moat)
    found = moat.error("audit", "prune", "--keep", "0", "--yes", code=INVALID)
    assert found["code"] == "chain_broken"
    assert segments(moat) == before


@pytest.mark.parametrize(("answer", "code"), [("y", OK), ("n", ERROR), ("", ERROR)])
def test_on_a_terminal_a_person_is_asked(
    moat: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    before = segments(moat)
    asked: list[str] = []

    def confirm(question: str, **_: object) -> bool:
        asked.append(question)
        return answer == "y"

    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    monkeypatch.setattr("click.confirm", confirm)
    moat("audit", "prune", "--keep", "0", code=code)
    assert asked == [f"remove entries up to {before[-1] - 1} of gate `main` for good?"]
    assert (segments(moat) == before) == (answer != "y")
