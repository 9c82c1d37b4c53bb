"""Attacks on those who look at a log: their terminals, their spreadsheets, their trust."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from cast import NOW
from cli_kit import INVALID, Cli, fresh
from log_kit import Log
from moat import AuditError, AuditLog
from moat._follow import Follower
from moat.cli import board, export, formats, verified, watch

if TYPE_CHECKING:
    from pathlib import Path

NASTY = "\x1b[2Jclear\x9b31m\u202egnp.exe\x07\r\n\u2028"
STEERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder."""
    return fresh(tmp_path)


@pytest.fixture
def nasty(moat: Cli) -> Log:
    """The log of a second gate, in which every word is an attack."""
    log = Log(moat.state / "gates" / "second" / "log")
    log.decide(**dict.fromkeys(("action", "resource", "holder", "reason"), NASTY), link=NASTY)
    for kind, fields in {
        "alert": ("rule", "agent", "then", "count"),
        "control": ("verb", "target", "id", "signer"),
        "agent": ("role", "name", "key"),
        "outcome": ("decision", "status"),
    }.items():
        log.add(kind, dict.fromkeys(fields, NASTY))
    log.add("summary", {"counts": {NASTY: NASTY}})
    log.add("unheard_of", {NASTY: NASTY})
    return log


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["line", "json"])
def test_no_word_in_a_log_steers_the_terminal_of_who_watches(
    moat: Cli, nasty: Log, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(watch, "pause", lambda seconds: seconds > 0)
    told = moat("watch", "--gate", "second", *options).stdout
    assert told.count("clear") > 7
    assert not STEERS.search(told)
    assert len(told.splitlines()) == len(nasty.lines)


def test_no_word_in_a_log_steers_the_live_view(nasty: Log) -> None:
    made = board.Board(clock=lambda: 0.0)
    for line in nasty.lines:
        made.add("main", json.loads(line), shown=True)
    screen = Console(width=300, height=24, color_system=None)
    with screen.capture() as capture:
        screen.print(board.draw(made, board.Scene(gates=(NASTY,), names={NASTY: NASTY})))
    assert capture.get().count("clear") > 7
    assert not STEERS.search(capture.get())


def test_no_word_in_a_log_steers_the_terminal_of_who_reads_it(moat: Cli, nasty: Log) -> None:
    told = moat("audit", "show", "--log", nasty.folder).stdout
    assert told.count("clear") > 7
    assert not STEERS.search(told)
    assert len(told.splitlines()) == len(nasty.lines)


def test_no_word_in_a_log_steers_the_terminal_it_is_exported_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    screen = io.BytesIO()
    monkeypatch.setattr("sys.stdout", Terminal(screen))
    with export._writing(None) as put:
        put("a\x1b[2Jb\x9bc\x7f\n".encode())
    assert screen.getvalue() == b"a?[2Jb?c?\n"


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", '=cmd|" /C calc"!A0'],
)
def test_no_word_in_a_log_is_a_formula_in_a_table(text: str) -> None:
    written: list[bytes] = []
    table = formats.Csv(written.append, {text: text}, None)
    body = {"holder": text, "action": text, "resource": f"a,{text}", "labels": [text]}
    assert table.write(b"", {"i": 0, "t": NOW, "kind": "decision", "body": body})
    (row,) = csv.DictReader(io.StringIO(b"".join(written).decode(), newline=""))
    assert row["holder"] == row["action"] == row["name"] == f"'{text}"
    assert row["resource"] == f"a,{text}"
    assert json.loads(row["labels"]) == [text]
    assert not [cell for cell in row.values() if re.match(r"[=+\-@\t\r\n\uff1d]", cell)]


@pytest.mark.parametrize("entry", [1, -1], ids=["middle", "last"])
def test_a_log_changed_between_verifying_and_exporting(
    moat: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: int
) -> None:
    """The lines are read a second time; even the last one, which nothing follows, is compared."""
    moat("revoke", "root", "--by", "root")
    out = tmp_path / "out"
    out.write_text("what was there")
    honest = AuditLog.verify

    def then_change(folder: Path, **more: Any) -> Any:
        report = honest(folder, **more)
        (part,) = (folder / "seg").iterdir()
        kept = part.read_bytes().splitlines(keepends=True)
        kept[entry] = re.sub(rb'"t":(\d+)', rb'"t":1\1', kept[entry])
        part.write_bytes(b"".join(kept))
        return report

    monkeypatch.setattr(verified.AuditLog, "verify", then_change)
    result = moat("audit", "export", "--out", out, "--json", code=INVALID)
    assert json.loads(result.stderr)["error"]["code"] == "chain_broken"
    assert out.read_text() == "what was there"
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_segment_that_is_no_file_is_not_followed(tmp_path: Path, kind: str) -> None:
    """A pipe would stop the reader; a link would show it another file."""
    log = Log(tmp_path / "log")
    log.segment.parent.mkdir(parents=True)
    if kind == "link":
        (tmp_path / "else").write_bytes(b"")
        log.segment.symlink_to(tmp_path / "else")
    elif kind == "pipe":
        os.mkfifo(log.segment)
    else:
        log.segment.mkdir()
    with pytest.raises(AuditError):
        Follower(log.folder).poll()
