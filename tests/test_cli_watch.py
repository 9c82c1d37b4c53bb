"""`moat watch`: what gates decide, seen from another process."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from cast import NOW
from cli_kit import ERROR, INVALID, USAGE, Cli, fresh
from log_kit import DECISION, Log
from moat import Moat
from moat.cli import board, entries, watch

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130
PLANNER = DECISION["holder"]


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner."""
    return fresh(tmp_path, "planner")


@pytest.fixture
def log(moat: Cli) -> Log:
    """The log of a second gate, written by hand."""
    return Log(moat.state / "gates" / "second" / "log")


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What happens while the command waits, one thing each time; then a person has enough."""

    def script(*events: Callable[[], object]) -> None:
        left = list(events)

        def pause(seconds: float) -> bool:
            assert 0 <= seconds <= watch.PAUSE
            if seconds and not left:
                return True
            if seconds:
                left.pop(0)()
            return False

        monkeypatch.setattr(watch, "pause", pause)

    return script


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- in a pipe -----------------------------------------------------------------------------------


def test_one_document_for_each_entry_as_it_comes(
    moat: Cli, log: Log, between: Callable[..., None]
) -> None:
    log.add()
    between(log.decide, lambda: None, log.decide)
    found = documents(moat("watch", "--gate", "second", "--json").stdout)
    assert [set(one) for one in found] == [{"gate", "entry"}] * 3
    assert [one["gate"] for one in found] == ["second"] * 3
    assert [one["entry"] for one in found] == [json.loads(line) for line in log.lines]


def test_one_line_for_each_decision(moat: Cli, log: Log, between: Callable[..., None]) -> None:
    def more() -> None:
        log.add("link", {"id": "ab" * 32, "link": "AA"})
        log.decide(holder=moat.did("planner"))
        log.add("outcome", {"decision": 1, "status": "ok"})
        log.decide(holder=moat.did("planner"), reason="not_granted", link=1)
        log.add("snapshot", {"part": 0})

    between(more)
    told = moat("watch", "--gate", "second").stdout.splitlines()
    assert [line.split(maxsplit=2)[2] for line in told] == [
        "decision  allowed  planner  call tool://search/web",
        "decision  denied   planner  call tool://search/web  not_granted at link 1",
    ]


def test_an_effect_that_failed_has_a_line(
    moat: Cli, log: Log, between: Callable[..., None]
) -> None:
    between()
    log.decide()
    log.add("outcome", {"decision": 0, "status": "out_of_fuel", "fuel": 5_000})
    told = moat("watch", "--gate", "second").stdout
    assert "of 0: out_of_fuel, 5,000 fuel" in told


def test_what_gates_do_besides_is_told_in_words(
    moat: Cli, log: Log, between: Callable[..., None]
) -> None:
    planner, root = moat.did("planner"), moat.did("root")
    log.add("alert", {"rule": "burst", "agent": planner, "then": "suspend", "count": 12})
    log.add("control", {"verb": "suspend", "target": "agent", "id": planner, "signer": root})
    log.add("agent", {"role": "agent", "name": "scribe", "key": "did:key:z6MkNewNewNew"})
    log.add("agent", {"role": "root", "name": "boss", "key": "did:key:z", "previous": "did:key:y"})
    log.add("pruned", {"before": 100})
    log.add("restored", {"entries": 3, "signed": 4, "witness": "anchor"})
    log.add("summary", {"since": NOW, "counts": {"stale": 2, "replayed": 1}})
    between()
    told = moat("watch", "--gate", "second").stdout
    for words in (
        "alert     burst: planner, 12 times → suspend",
        "control   suspend agent planner by root",
        "agent     registered agent scribe",
        "agent     replaced root boss",
        'pruned    {"before": 100}',
        'restored  {"entries": 3, "signed": 4, "witness": "anchor"}',
        "summary   refused without a line: 2 stale, 1 replayed",
    ):
        assert words in told


def test_filters_choose(moat: Cli, log: Log, between: Callable[..., None]) -> None:
    log.decide(holder=moat.did("planner"))
    log.decide(holder=moat.did("root"), reason="revoked")
    log.decide(holder=moat.did("planner"), reason="not_granted")
    log.add("outcome", {"decision": 0, "status": "ok"})

    def chosen(*options: str) -> list[int]:
        between()
        told = moat("watch", "--gate", "second", "--json", *options).stdout
        return [one["entry"]["i"] for one in documents(told)]

    assert chosen() == [0, 1, 2, 3]
    assert chosen("--denied") == [1, 2]
    assert chosen("--denied", "--agent", "planner") == [2]
    assert chosen("--reason", "revoked") == [1]
    assert chosen("--kind", "outcome") == [3]
    assert chosen("--from", "2") == [2, 3]
    assert chosen("--last", "1") == [3]
    assert chosen("--last", "0") == []
    between()
    assert "of 0: ok" in moat("watch", "--gate", "second", "--kind", "outcome").stdout


def test_wrong_usage(moat: Cli) -> None:
    moat.error("watch", "--from", "1", "--last", "1", code=USAGE)
    moat.error("watch", "--reason", "none_such", code=USAGE)
    moat.error("watch", "--gate", "../main", code=ERROR)
    assert moat.error("watch", "--agent", "nobody", code=ERROR)["exit"] == ERROR


def test_all_gates_are_watched_and_named(
    moat: Cli, log: Log, between: Callable[..., None], tmp_path: Path
) -> None:
    third = Log(moat.state / "gates" / "third" / "log")
    log.decide(resource="tool://from/second")
    between(lambda: third.decide(resource="tool://from/third"))
    told = moat("watch").stdout.splitlines()
    assert any(line.startswith("main  ") for line in told)
    assert any(line.startswith("second  ") and "from/second" in line for line in told)
    assert told[-1].startswith("third  ")
    assert "from/third" in told[-1]


def test_a_gate_that_is_not_there_yet_is_waited_for(
    moat: Cli, log: Log, between: Callable[..., None]
) -> None:
    between(log.decide)
    result = moat("watch", "--gate", "second")
    assert result.stderr == "waiting for gate `second`\n"
    assert "call tool://search/web" in result.stdout


def test_a_running_gate_is_watched_and_not_touched(moat: Cli, between: Callable[..., None]) -> None:
    """The gate has its lock all the time; files and their times stay as they are."""
    folder = moat.state / "gates" / "main"

    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}

    with Moat.open(moat.state) as running:
        before = state()
        between(lambda: running.revoke(running.identity("planner")))
        told = moat("watch", "--last", "0")
        assert "revoke agent planner by root" in told.stdout
        written = {path for path, found in state().items() if found != before.get(path)}
        assert written <= {folder / "log" / "seg" / "000000000000.jsonl"} | {
            path for path in state() if path.parent == folder / "log" or "tile" in path.parts
        }
        quiet = state()
        between()
        moat("watch")
        assert state() == quiet


def test_a_log_that_was_edited_ends_the_view(
    moat: Cli, log: Log, between: Callable[..., None]
) -> None:
    log.decide()
    log.decide()

    def edit() -> None:
        log.segment.write_bytes(log.segment.read_bytes() + b'{"i":7}\n')

    between(edit, lambda: None)
    result = moat("watch", "--gate", "second", "--json", code=INVALID)
    assert len(documents(result.stdout)) == 2
    found = json.loads(result.stderr)["error"]
    assert (found["code"], found["index"]) == ("chain_broken", 2)


def test_a_state_folder_is_needed(tmp_path: Path) -> None:
    assert Cli(tmp_path / "no").error("watch", code=ERROR)["code"] == "no_state"


# --- on a terminal -------------------------------------------------------------------------------


def drawn(made: board.Board, width: int = 80, **more: Any) -> str:
    """The picture as text."""
    screen = Console(width=width, height=24, color_system=None, markup=False, highlight=False)
    scene = board.Scene(gates=more.pop("gates", ("main",)), names={PLANNER: "planner"}, **more)
    with screen.capture() as capture:
        screen.print(board.draw(made, scene))
    return capture.get()


def picture(*seen: tuple[dict[str, Any], bool], width: int = 80, **more: Any) -> str:
    made = board.Board(clock=lambda: 0.0)
    for entry, shown in seen:
        made.add("main", entry, shown=shown)
    return drawn(made, width, **more)


def decision(index: int, at: int = NOW, **body: Any) -> dict[str, Any]:
    denial = {"allow": False} if "reason" in body else {}
    return {"i": index, "t": at, "kind": "decision", "body": DECISION | denial | body}


def outcome(index: int, of: object, status: str, at: int = NOW) -> dict[str, Any]:
    return {"i": index, "t": at, "kind": "outcome", "body": {"decision": of, "status": status}}


def test_the_newest_decision_is_on_top_with_its_answer_and_its_end() -> None:
    told = picture(
        (decision(0), True),
        (decision(1, resource="tool://mail/send", reason="not_granted"), True),
        (decision(2, resource="code://slow", action="run"), True),
        (outcome(3, 0, "ok"), False),
        (outcome(4, 2, "out_of_fuel", NOW + 3), False),
    ).splitlines()
    assert told[1].startswith("allowed 2   denied 1   alerts 0   pending 0   entries 5")
    assert told[2].split() == ["time", "agent", "asked", "answer", "ended"]
    assert [line.split() for line in told[3:]] == [
        ["08:00:00", "planner", "run", "code://slow", "allowed", "out_of_fuel", "3", "s"],
        ["08:00:00", "planner", "call", "tool://mail/send", "not_granted"],
        ["08:00:00", "planner", "call", "tool://search/web", "allowed", "ok"],
    ]


def test_the_newest_alert_stays_in_sight() -> None:
    alert = {"rule": "burst", "agent": PLANNER, "then": "suspend", "count": 12}
    told = picture(({"i": 0, "t": NOW, "kind": "alert", "body": alert}, True))
    assert "alerts 1" in told
    assert told.count("burst: planner, 12 times → suspend") == 2


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize("gates", [("main",), ("main", "a-gate-with-a-very-long-name")])
def test_it_fits_the_terminal(width: int, gates: tuple[str, ...]) -> None:
    long = {"holder": "did:key:z" + "6" * 80, "resource": "tool://" + "long" * 60}
    seen = [(decision(n, **long, reason="sandbox" * 9), True) for n in range(100)]
    told = picture(
        *seen, width=width, gates=gates, chosen="kind " + "x" * 90, missed=7
    ).splitlines()
    assert len(told) <= 24
    assert max(map(len, told)) <= width


def test_pending_decisions_go_when_they_end_or_are_recovered() -> None:
    made = board.Board(clock=lambda: 0.0)
    for index in range(4):
        made.add("main", decision(index), shown=True)
    made.add("other", outcome(4, 0, "ok"), shown=False)
    assert len(made.pending) == 4  # another gate's
    made.add("main", outcome(5, 0, "ok"), shown=False)
    recovered = {"i": 6, "t": NOW, "kind": "recovered", "body": {"pending": [1, 2]}}
    made.add("main", recovered, shown=True)
    assert [*made.pending] == [("main", 3)]


def test_a_view_that_runs_for_weeks_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "OPEN", 50)
    now = 0.0
    made = board.Board(clock=lambda: now)
    for index in range(5_000):
        now += 0.2
        made.add("main", decision(index), shown=True)
        made.tick()
    assert len(made.pending) == 50
    assert len(made.rows(9_999)) == board.KEPT
    assert len(made._marks) <= board.WINDOW / 0.2 + 2
    assert "pending 50+" in drawn(made)
    assert made.rate == pytest.approx(5.0)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = 0.0
    made = board.Board(clock=lambda: now)
    made.add("main", decision(0), shown=True)
    made.tick()
    assert made.rate == 0.0  # what was there before is no rate
    for second in (1, 2):
        now = float(second)
        for index in range(30):
            made.add("main", decision(index), shown=True)
        made.tick()
    assert made.rate == pytest.approx(30.0)
    now = 60.0
    made.tick()
    now = 61.0
    made.tick()
    assert made.rate == 0.0


def test_names_are_looked_up_again(moat: Cli) -> None:
    now = 0.0
    named = watch._Named(watch.App(moat.state, json=False), lambda: now)
    moat("identity", "new", "scribe")
    scribe = moat.did("scribe")
    assert scribe not in named.known
    now = watch.RENAMED
    assert named.known[scribe] == "scribe"


def test_a_filter_says_itself(moat: Cli) -> None:
    app = watch.App(moat.state, json=False)
    wanted = entries.Filters(kind="decision", agent="planner", denied=True, reason="revoked")
    told = str(entries.Choice(app, wanted))
    assert told == "denied, kind decision, agent planner, reason revoked"
    nothing = entries.Filters(kind=None, agent=None, denied=False, reason=None)
    assert str(entries.Choice(app, nothing)) == ""


class Terminal:
    """`moat watch` in a terminal of its own, read until it says something."""

    def __init__(self, state: Path, **env: str) -> None:
        self.ours, theirs = pty.openpty()
        self._settings = termios.tcgetattr(self.ours)
        known = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
        self.run = subprocess.Popen(
            [sys.executable, "-m", "moat.cli", "watch", "--state", str(state)],
            stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True, start_new_session=True,
            env=known | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | env,
        )  # fmt: skip
        os.close(theirs)
        self.told = ""

    def until(self, words: str) -> str:
        """Read until these words were shown."""
        while words not in self.told:
            ready, _, _ = select.select([self.ours], [], [], 30)
            assert ready, self.told
            self.told += os.read(self.ours, 65536).decode()
        return self.told

    def end(self, how: Callable[[], object]) -> int:
        """End it and give its exit code."""
        how()
        try:
            while os.read(self.ours, 65536):
                pass
        except OSError:
            pass  # the other end is closed
        code = self.run.wait(30)
        assert termios.tcgetattr(self.ours) == self._settings
        os.close(self.ours)
        return code


COLOURED = re.compile(r"\x1b\[[0-9;]*3[0-7]")


def test_q_ends_the_view_well(moat: Cli) -> None:
    view = Terminal(moat.state)
    assert COLOURED.search(view.until("answer"))
    assert view.end(lambda: os.write(view.ours, b"q")) == 0


def test_ctrl_c_is_told_as_interrupted(moat: Cli) -> None:
    view = Terminal(moat.state, NO_COLOR="1")
    assert not COLOURED.search(view.until("answer"))
    assert view.end(lambda: view.run.send_signal(signal.SIGINT)) == INTERRUPTED


def test_a_terminal_that_can_do_little_gets_lines(moat: Cli) -> None:
    view = Terminal(moat.state, TERM="dumb")
    assert "\x1b" not in view.until("rules")
    assert view.end(lambda: view.run.send_signal(signal.SIGINT)) == INTERRUPTED
