"""`moat audit export`: only what was verified leaves, and it harms nobody who opens it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cast import NOW
from cli_kit import DENIED, ERROR, INVALID, READER, USAGE, Cli, fresh
from log_kit import Log
from moat import AuditLog, ChainBroken, Moat
from moat._native import read_log
from moat.cli import export, formats, verified
from moat.cli.units import Moment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def busy(tmp_path: Path) -> Cli:
    """A gate that allowed a run, denied one, revoked an agent and restored it."""
    moat = fresh(tmp_path, "planner", "worker")
    held = moat.issue("--allow", "code://reader run", "--standard")
    moat("run", READER, "--token", held, code=ERROR)
    moat("run", READER, "--token", held, "--resource", "code://other", code=DENIED)
    moat("revoke", "worker")
    moat("restore", "worker")
    return moat


def segment(cli: Cli) -> Path:
    (found,) = (cli.state / "gates" / "main" / "log" / "seg").iterdir()
    return found


def lines(cli: Cli) -> list[bytes]:
    return segment(cli).read_bytes().splitlines()


def damage(cli: Cli) -> None:
    """Change one byte of the denial."""
    path = segment(cli)
    path.write_bytes(path.read_bytes().replace(b"code://other", b"code://otter"))


def rows(text: bytes | str) -> list[dict[str, str]]:
    plain = text.decode() if isinstance(text, bytes) else text
    return list(csv.DictReader(io.StringIO(plain, newline="")))


# --- what is written -----------------------------------------------------------------------------


def test_all_of_a_log_is_written_as_it_is(busy: Cli, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    found = busy.json("audit", "export", "--out", out)
    assert out.read_bytes() == segment(busy).read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert set(found) == {
        "log", "format", "out", "entries", "first", "last", "sha256", "verified", "problem",
        "of", "root", "unreadable", "unchecked", "proofs",
    }  # fmt: skip
    count = len(lines(busy))
    assert (found["entries"], found["first"], found["last"]) == (count, 0, count - 1)
    assert found["of"] == count
    assert found["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert found["root"] == busy.json("audit", "verify")["root"]
    assert (found["verified"], found["problem"], found["proofs"]) == (True, None, None)
    assert found["unchecked"] == busy.json("audit", "verify")["unchecked"]
    told = busy("audit", "export", "--out", out).stdout
    assert f"✓ {count} entries of {count}, all verified written to" in told


def test_without_a_file_it_goes_to_standard_output(busy: Cli) -> None:
    result = busy("audit", "export")
    assert result.stdout_bytes == segment(busy).read_bytes()
    assert "all verified" in result.stderr
    assert busy.json("audit", "export", code=USAGE)["error"]["code"] == "usage"


def test_entries_are_chosen_by_index_time_and_content(busy: Cli) -> None:
    entries = [json.loads(line) for line in lines(busy)]

    def chosen(*options: str) -> list[int]:
        told = busy("audit", "export", *options).stdout
        return [json.loads(line)["i"] for line in told.splitlines()]

    assert chosen("--from", "2", "--to", "4") == [2, 3, 4]
    assert chosen("--from", "9999") == []
    assert chosen("--kind", "decision") == [e["i"] for e in entries if e["kind"] == "decision"]
    (denied,) = chosen("--denied")
    assert chosen("--reason", "not_granted") == [denied]
    assert chosen("--reason", "revoked") == []
    assert denied in chosen("--agent", "planner")
    assert chosen("--since", "1h") == [e["i"] for e in entries]
    assert chosen("--until", "1h") == []
    first, last = (datetime.fromtimestamp(entries[n]["t"], UTC) for n in (0, -1))
    assert chosen("--since", (last + timedelta(seconds=1)).isoformat()) == []
    assert chosen("--until", (first - timedelta(seconds=1)).isoformat()) == []
    assert chosen("--since", str(entries[0]["t"]), "--until", last.isoformat()) == chosen()


def test_names_are_added_after_the_line_as_it_was(busy: Cli) -> None:
    told = busy("audit", "export", "--names", "--denied").stdout
    entry = json.loads(told)
    assert entry["names"] == {busy.did("planner"): "planner"}
    raw, _, _ = told.partition(',"names":')
    assert f"{raw}}}".encode() in lines(busy)


def test_a_table_has_a_row_for_each_decision_and_outcome(busy: Cli, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    found = busy.json("audit", "export", "--format", "csv", "--names", "--out", out)
    table = rows(out.read_bytes())
    assert found["entries"] == len(table) == 3
    allowed, ended, denied = table
    assert [row["kind"] for row in table] == ["decision", "outcome", "decision"]
    assert allowed["decision"] == allowed["entry"] == ended["decision"] != ended["entry"]
    assert (allowed["allow"], denied["allow"], ended["allow"]) == ("yes", "no", "")
    assert (allowed["name"], allowed["holder"]) == ("planner", busy.did("planner"))
    assert (denied["action"], denied["resource"]) == ("run", "code://other")
    assert (denied["reason"], denied["link"]) == ("not_granted", "0")
    assert ended["status"] == "exit"
    assert int(ended["fuel"]) > 0
    assert {row["verified"] for row in table} == {"yes"}
    written = datetime.fromisoformat(allowed["time"]).timestamp()
    assert written == json.loads(lines(busy)[int(allowed["entry"])])["t"]
    busy.error("audit", "export", "--format", "csv", "--kind", "control", code=USAGE)


def test_cells_of_every_kind_of_value() -> None:
    found = [formats.cell(value) for value in (None, True, False, 0, 12, "", "a", [], {"b": 1})]
    assert found == ["", "yes", "no", "0", "12", "", "a", "[]", '{"b": 1}']


def test_what_is_no_text_is_written_without_harm() -> None:
    written: list[bytes] = []
    table = formats.Csv(written.append, None, None)
    body = {"action": "\ud800", "resource": 'quoted "," and\nbroken', "holder": ["list"]}
    table.write(b"", {"i": 0, "t": NOW, "kind": "decision", "body": body})
    (row,) = rows(b"".join(written))
    assert (row["action"], row["resource"]) == ("\\ud800", 'quoted "," and\nbroken')


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("1800000000", NOW),
        ("2027-01-15", NOW - 8 * 3600),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15 08:00", NOW),
        ("2027-01-15T10:00:00+02:00", NOW),
    ],
)
def test_a_time_is_utc_unless_it_says_so(text: str, second: int) -> None:
    assert Moment().parse(text) == second


def test_a_time_may_be_so_long_ago() -> None:
    assert Moment().parse("1h30m") == timedelta(minutes=90)
    assert export._second(timedelta(hours=1), NOW, 0) == NOW - 3600
    assert export._second(None, NOW, 7) == 7
    for wrong in ("yesterday", "2027-13-01", "", "5x"):
        with pytest.raises(ValueError, match="is not a"):
            Moment().parse(wrong)


# --- what is not verified ------------------------------------------------------------------------


def test_a_broken_log_is_not_written(busy: Cli, tmp_path: Path) -> None:
    damage(busy)
    out = tmp_path / "out"
    found = busy.error("audit", "export", "--out", out, code=INVALID)
    assert found["code"] == "chain_broken"
    assert "--unverified" in found["next"]
    assert b"code://otter" in lines(busy)[found["index"]]
    assert busy("audit", "export", code=INVALID).stdout == ""
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_broken_log_that_is_asked_for_says_so_itself(busy: Cli, tmp_path: Path) -> None:
    damage(busy)
    segment(busy).write_bytes(segment(busy).read_bytes() + b"no line\n")
    out = tmp_path / "out"
    found = busy.json("audit", "export", "--unverified", "--out", out)
    assert found["verified"] is False
    assert found["problem"]["code"] == "chain_broken"
    assert (found["of"], found["root"], found["unreadable"]) == (None, None, 1)
    heading, *rest = out.read_bytes().splitlines()
    assert json.loads(heading) == {"unverified": found["problem"]}
    assert rest == lines(busy)[:-1]
    told = busy("audit", "export", "--unverified", "--out", out).stdout
    assert "entries of a log that does not hold" in told
    assert "verified" not in told
    table = rows(busy("audit", "export", "--unverified", "--format", "csv").stdout)
    assert {row["verified"] for row in table} == {"no"}


def test_a_log_of_another_gate_is_not_written(busy: Cli, tmp_path: Path) -> None:
    wrong = busy.did("planner")
    busy.error("audit", "export", "--key", wrong, "--out", tmp_path / "out", code=INVALID)
    folder = busy.state / "gates" / "main" / "log"
    key = busy.json("identity", "show", "main")["identities"][0]["id"]
    nowhere = Cli(tmp_path / "nowhere")
    told = nowhere("audit", "export", "--log", folder, "--key", key).stdout_bytes
    assert told == segment(busy).read_bytes()


def test_entries_written_meanwhile_are_left_for_the_next_time(
    busy: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = segment(busy).read_bytes()
    honest = AuditLog.verify

    def then_grow(*given: Any, **more: Any) -> Any:
        report = honest(*given, **more)
        with Moat.open(busy.state) as moat:
            moat.revoke(moat.identity("planner"))
        return report

    monkeypatch.setattr(verified.AuditLog, "verify", then_grow)
    assert busy("audit", "export").stdout_bytes == before
    assert segment(busy).read_bytes() != before


def test_the_tree_is_that_of_the_gate(busy: Cli) -> None:
    folder = busy.state / "gates" / "main" / "log"
    tree = verified.Tree()
    for line in read_log(folder):
        tree.add(line)
    assert tree.root().hex() == busy.json("audit", "verify")["root"]
    assert verified.Tree().root() == hashlib.sha256(b"").digest()


def reference(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = reference(leaves[:half]), reference(leaves[half:])
    return hashlib.sha256(b"\1" + left + right).digest()


def test_the_tree_is_that_of_the_rfc(tmp_path: Path) -> None:
    log, tree = Log(tmp_path), verified.Tree()
    for size in range(1, 70):
        tree.add(log.line())
        leaves = [hashlib.sha256(b"\0" + line).digest() for line in log.lines]
        assert (tree.size, tree.root()) == (size, reference(leaves))


def test_lines_without_the_oldest_ones_are_compared_with_each_other(tmp_path: Path) -> None:
    log, tree = Log(tmp_path), verified.Tree()
    for _ in range(9):
        log.line()
    for line in log.lines[4:8]:
        tree.add(line)
    assert (tree.size, tree.complete) == (8, False)
    changed = log.lines[8].replace(b'"prev":"', b'"prev":"0', 1)
    with pytest.raises(ChainBroken) as caught:
        tree.add(changed)
    assert caught.value.index == 8
    with pytest.raises(ChainBroken):
        tree.add(log.lines[4])
    tree.add(log.lines[8])


# --- files, terminals, proofs --------------------------------------------------------------------


def test_a_link_is_not_written_through(busy: Cli, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "out").symlink_to(tmp_path / "victim")
    busy.error("audit", "export", "--out", tmp_path / "out", code=ERROR)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_proof_for_each_entry_that_was_written(busy: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "proofs"
    asked = ["audit", "export", "--denied", "--out", tmp_path / "out", "--proofs", folder]
    found = busy.json(*asked)
    assert found["proofs"] == {"dir": str(folder), "written": 1, "problem": None}
    (proof,) = folder.iterdir()
    assert proof.name == f"{found['first']}.proof"
    checked = busy.json("audit", "check", proof)
    assert f"{checked['line']}\n" == (tmp_path / "out").read_text()


def test_there_are_no_proofs_while_another_has_the_gate(busy: Cli, tmp_path: Path) -> None:
    asked = ["audit", "export", "--out", tmp_path / "out", "--proofs", tmp_path / "proofs"]
    with Moat.open(busy.state):
        found = busy.json(*asked)
    assert found["verified"] is True
    assert found["proofs"]["written"] == 0
    assert "without it there are no proofs" in found["proofs"]["problem"]
    assert (tmp_path / "out").read_bytes().splitlines() == lines(busy)[: found["entries"]]


def test_proofs_need_the_gates_own_log(busy: Cli, tmp_path: Path) -> None:
    folder = busy.state / "gates" / "main" / "log"
    asked = ["audit", "export", "--log", folder, "--proofs", tmp_path / "proofs"]
    busy.error(*asked, code=USAGE)
    assert not (tmp_path / "proofs").exists()
