"""`moat audit`: verify, show, prove, check, checkpoint."""

from __future__ import annotations

import io
import re
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cli_kit import DENIED, ERROR, INVALID, READER, USAGE, Cli, fresh
from moat.cli import bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner, a worker and a stranger."""
    return fresh(tmp_path, "planner", "worker", "stranger")


@pytest.fixture
def busy(moat: Cli) -> Cli:
    """A gate that allowed a run, denied one, revoked an agent and restored it."""
    held = moat.issue("--allow", "code://reader run", "--standard")
    moat("run", READER, "--token", held, code=ERROR)
    moat("run", READER, "--token", held, "--resource", "code://other", code=DENIED)
    moat("revoke", "worker")
    moat("restore", "worker")
    return moat


def log(cli: Cli) -> Path:
    return cli.state / "gates" / "main" / "log"


def gate(cli: Cli) -> str:
    return str(cli.json("identity", "show", "main")["identities"][0]["id"])


def edited(cli: Cli, entry: int) -> Path:
    """A copy of the log with one byte of an entry changed."""
    copy = cli.state.parent / "copy"
    shutil.copytree(log(cli), copy)
    part = next(copy.rglob("*.jsonl"))
    lines = part.read_bytes().splitlines(keepends=True)
    assert b"code://other" in lines[entry]
    lines[entry] = lines[entry].replace(b"code://other", b"code://otter")
    part.write_bytes(b"".join(lines))
    return copy


def test_verify_says_what_holds_and_what_it_could_not_check(busy: Cli) -> None:
    found = busy.json("audit", "verify")
    assert set(found) == {
        "ok", "log", "entries", "bytes", "root", "time", "signed", "anchored", "torn",
        "kinds", "inherited", "unchecked", "former",
    }  # fmt: skip
    assert found["ok"] is True
    assert found["log"] == gate(busy)
    assert found["entries"] == len(busy.json("audit", "show", "--last", "0")["entries"])
    assert found["entries"] == sum(found["kinds"].values())
    assert found["kinds"]["decision"] == 2
    assert found["signed"] == found["anchored"] == found["entries"]
    without = busy.json("audit", "verify", "--no-anchor")
    assert without["anchored"] is None
    assert len(without["unchecked"]) > len(found["unchecked"])
    told = busy("audit", "verify", "--no-anchor").stdout
    assert "what it could not check:" in told
    assert "no anchor was given" in told


def test_verify_finds_the_entry_that_was_changed(busy: Cli) -> None:
    entry = busy.json("audit", "show", "--denied")["entries"][0]["i"]
    copy = edited(busy, entry)
    asked = ["audit", "verify", "--log", copy, "--key", gate(busy)]
    found = busy.error(*asked, code=INVALID)
    assert found["code"] == "chain_broken"
    assert found["index"] == entry
    assert str(entry) in busy(*asked, code=INVALID).stderr
    busy("audit", "verify")


def test_verify_needs_only_the_log_and_the_key(busy: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "nowhere")
    found = other.json("audit", "verify", "--log", log(busy), "--key", gate(busy), "--no-anchor")
    assert found["ok"] is True
    wrong = busy.did("stranger")
    other.error("audit", "verify", "--log", log(busy), "--key", wrong, "--no-anchor", code=INVALID)


def test_verify_finds_a_cut_tail_by_the_anchor(busy: Cli) -> None:
    part = next(log(busy).rglob("*.jsonl"))
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:-1]))
    busy.error("audit", "verify", code=INVALID)


def test_show_filters(busy: Cli) -> None:
    entries = busy.json("audit", "show", "--last", "0")["entries"]
    assert [one["i"] for one in entries] == list(range(len(entries)))
    assert {"decision", "outcome", "control", "link", "rules", "open"} <= {
        one["kind"] for one in entries
    }

    def shown(*options: str) -> list[int]:
        return [one["i"] for one in busy.json("audit", "show", *options)["entries"]]

    assert shown("--last", "2") == [one["i"] for one in entries[-2:]]
    decisions = [one for one in entries if one["kind"] == "decision"]
    assert shown("--kind", "decision") == [one["i"] for one in decisions]
    assert shown("--denied") == [one["i"] for one in decisions if not one["body"]["allow"]]
    planner = busy.did("planner")
    assert shown("--agent", "planner", "--kind", "decision") == [one["i"] for one in decisions]
    assert shown("--agent", planner, "--kind", "control") == []
    assert shown("--agent", "worker") == [one["i"] for one in entries if one["kind"] == "control"]


def test_show_tells_a_person_one_line_for_each_entry(busy: Cli) -> None:
    told = busy("audit", "show").stdout
    assert "allowed  planner  run code://reader" in told
    assert "denied   planner  run code://other  not_granted at link 0" in told
    assert "revoke agent worker by root" in told
    assert busy("audit", "show", "--kind", "none_such").stdout == "no such entry\n"


def test_a_proof_is_checked_with_the_public_key_alone(busy: Cli, tmp_path: Path) -> None:
    entry = busy.json("audit", "show", "--denied")["entries"][0]["i"]
    path = tmp_path / "proof"
    busy("audit", "prove", str(entry), "--out", path)
    text = path.read_text()
    assert text.startswith("c2sp.org/tlog-proof@v1\n")
    other = Cli(tmp_path / "nowhere")
    found = other.json("audit", "check", path, "--key", gate(busy))
    assert set(found) == {"ok", "log", "entry", "line", "checkpoint"}
    assert found["entry"] == entry
    assert "code://other" in found["line"]
    assert "denied" in other("audit", "check", path, "--key", gate(busy)).stdout
    assert busy.json("audit", "check", "-", input=text)["entry"] == entry


def test_a_proof_as_json(busy: Cli) -> None:
    made = busy.json("audit", "prove", "1")
    assert set(made) == {"entry", "log", "line", "hashes", "checkpoint", "proof", "out"}
    assert made["checkpoint"]["note"] in made["proof"]
    # What is printed is the proof itself, to be redirected into a file.
    printed = busy("audit", "prove", "1").stdout
    assert busy.json("audit", "check", "-", input=printed)["entry"] == 1


def test_a_changed_proof_does_not_hold(busy: Cli) -> None:
    text = busy("audit", "prove", "2").stdout
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        if line == "\n":
            continue
        half = (len(line) - 1) // 2
        swapped = line[:half] + ("B" if line[half] == "A" else "A") + line[half + 1 :]
        forged = "".join([*lines[:at], swapped, *lines[at + 1 :]])
        assert forged != text
        result = busy("audit", "check", "-", input=forged, code=INVALID)
        assert result.stdout == ""
    wrong = busy.did("stranger")
    busy.error("audit", "check", "-", "--key", wrong, input=text, code=INVALID)
    busy.error("audit", "check", "-", input="", code=INVALID)


def test_there_is_no_proof_of_an_entry_that_is_not_there(busy: Cli) -> None:
    assert busy.error("audit", "prove", "9999", code=ERROR)["code"] == "no_entry"
    busy.error("audit", "prove", "first", code=USAGE)


def test_a_checkpoint_kept_elsewhere_is_extended_by_the_log(busy: Cli, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text(busy("audit", "checkpoint").stdout)
    busy("revoke", "stranger")
    made = busy.json("audit", "checkpoint", "--extends", old)
    assert set(made) == {"origin", "size", "root", "note", "extends"}
    assert made["origin"] == f"moat.log/{gate(busy)}"
    assert made["extends"] < made["size"]
    assert made["note"].splitlines()[1] == str(made["size"])


def test_a_checkpoint_of_another_history_is_not_extended(busy: Cli, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text(busy("audit", "checkpoint").stdout.replace("a", "b", 1))
    assert busy.error("audit", "checkpoint", "--extends", old, code=INVALID)["exit"] == INVALID


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error that of a person, 80 columns wide, and any log a long one."""
    monkeypatch.setattr(bars, "LONG", 1)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", made := Terminal())
    return made


STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_a_long_log_shows_its_progress_on_a_terminal(
    busy: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch)
    with bars.reading(log(busy), "verifying", quiet=False) as progress:
        assert progress is not None
        for done in (1, 2, 3, 4):
            progress(done << 20, 4 << 20)
    shown = STEERING.sub("", screen.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, shown)) <= 80
    last = next(line for line in reversed(shown) if "verifying" in line)
    assert "4.0/4.0 MiB" in last  # how much
    assert re.search(r"[\d.]+ \w?B/s", last)  # how fast
    assert re.search(r"\d:\d\d:\d\d", last)  # how long still


def test_verifying_and_writing_tell_how_far_they_are(
    busy: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def reading(folder: Path, title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
        told[title] = []
        yield lambda done, total: told[title].append((done, total))

    monkeypatch.setattr(bars, "reading", reading)
    busy("audit", "export", "--out", tmp_path / "x")
    length = sum(part.stat().st_size for part in log(busy).rglob("*.jsonl"))
    assert told == {"verifying": [(length, length)], "writing": [(length, length)]}


def test_there_is_no_progress_bar_where_nobody_looks(
    busy: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, screen = log(busy), terminal(monkeypatch)
    with bars.reading(folder, "verifying", quiet=True) as progress:
        assert progress is None  # `--json`
    monkeypatch.setattr(bars, "LONG", 1 << 40)
    with bars.reading(folder, "verifying", quiet=False) as progress:
        assert progress is None  # a short log
    monkeypatch.setattr(bars, "LONG", 1)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bars.reading(folder, "verifying", quiet=False) as progress:
        assert progress is None  # a pipe
    assert screen.getvalue() == ""


@pytest.mark.parametrize("words", [("verify",), ("export", "--out", "x")], ids=" ".join)
def test_a_bar_is_asked_for_unless_it_is_for_a_machine(
    busy: Cli, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    @contextmanager
    def reading(folder: Path, title: str, *, quiet: bool) -> Iterator[None]:
        asked.append(quiet)
        yield None

    monkeypatch.setattr(bars, "reading", reading)
    monkeypatch.chdir(tmp_path)
    busy("audit", *words)
    assert asked
    assert not any(asked)
    asked.clear()
    busy.json("audit", *words)
    assert asked
    assert all(asked)


def test_an_anchor_and_none_exclude_each_other(busy: Cli, tmp_path: Path) -> None:
    busy.error("audit", "verify", "--no-anchor", "--anchor", tmp_path / "x", code=USAGE)


def test_a_gate_is_named_and_no_path(busy: Cli) -> None:
    assert "is not a name" in busy.error("audit", "show", "--gate", "../x", code=ERROR)["message"]
