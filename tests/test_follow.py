"""Logs are followed while they are written, rotated, thinned out, restored and torn."""

from __future__ import annotations

import shutil
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast import NOW, seal
from log_kit import Log
from moat import ChainBroken, MalformedInput, RolledBack
from moat._follow import BATCH, LINE_BYTES, Feed, Follower, end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from moat import AuditLog, Pep


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log that is not there yet."""
    return Log(tmp_path / "log")


@pytest.fixture
def follower(log: Log) -> Iterator[Follower]:
    """Somebody who follows it from its first line."""
    made = Follower(log.folder)
    yield made
    made.close()


def test_a_log_may_come_later(log: Log, follower: Follower) -> None:
    assert follower.poll() == []
    log.folder.mkdir()
    assert follower.poll() == []
    log.append(b"")
    assert follower.poll() == []
    first, second = log.add(), log.add()
    assert follower.poll() == [first, second]
    assert follower.poll() == []
    third = log.add()
    assert follower.poll() == [third]


def test_it_gives_what_a_gate_writes(audit: AuditLog, pep: Pep) -> None:
    follower = Follower(audit.path)
    seen = follower.poll()
    with pep.authorize(seal(), now=NOW):
        seen += follower.poll()
    seen += follower.poll()
    assert seen == [audit.read(entry) for entry in range(len(audit))]
    assert b'"kind":"outcome"' in seen[-1]
    assert follower.missed == 0


def test_an_unfinished_line_is_left_until_its_newline_is_there(
    log: Log, follower: Follower
) -> None:
    first, second = log.add(), log.line()
    log.append(second[:40])
    assert follower.poll() == [first]
    log.append(second[40:])
    assert follower.poll() == []
    log.append(b"\n")
    assert follower.poll() == [second]


def test_what_a_crash_tore_is_not_believed_once_it_is_written_over(
    log: Log, follower: Follower
) -> None:
    first = log.add()
    log.append(b'{"i":1,"t":1800000000,"prev":"torn and longer than what comes in its place' * 9)
    assert follower.poll() == [first]
    with log.segment.open("r+b") as file:
        file.truncate(len(first) + 1)
    torn = log.add("torn", {"bytes": 9})
    assert follower.poll() == [torn]


def test_it_goes_on_in_a_new_segment(log: Log, follower: Follower) -> None:
    log.add()
    assert follower.poll() == log.lines
    log.rotate()
    assert follower.poll() == []
    log.add()
    log.rotate()
    log.add()
    assert follower.poll() == log.lines[1:]


def test_lines_written_just_before_a_rotation_come_first(
    log: Log, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the old segment was seen, then it grew, and only then the new one was found."""
    log.add()
    assert follower.poll() == log.lines
    names = follower._names

    def grows() -> list[int]:
        if len(log.lines) == 1:
            log.add()
            log.rotate()
            log.add()
        return names()

    monkeypatch.setattr(follower, "_names", grows)
    assert follower.poll() == log.lines[1:]
    assert follower.missed == 0


def test_an_open_segment_is_read_to_its_end_after_it_was_removed(
    log: Log, follower: Follower
) -> None:
    log.add()
    assert follower.poll() == log.lines
    log.add()
    log.rotate()
    log.drop(0)
    log.add()
    assert follower.poll() == log.lines[1:]
    assert follower.missed == 0


def test_lines_that_retention_removed_unseen_are_counted(log: Log, follower: Follower) -> None:
    for first in range(3):
        log.add()
        log.rotate()
        log.drop(first)
    newest = log.add()
    assert follower.poll() == [newest]
    assert follower.missed == 3


def test_lines_removed_while_it_slept_are_counted(log: Log, follower: Follower) -> None:
    log.add()
    assert follower.poll() == log.lines
    log.rotate()
    log.add()
    log.add()
    log.rotate()
    log.drop(0)
    log.drop(1)
    newest = log.add()
    assert follower.poll() == [newest]
    assert follower.missed == 2


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 11, 12])
def test_it_begins_at_any_line(log: Log, start: int) -> None:
    for count in range(12):
        log.add(body={"n": count})
        if count in {4, 8}:
            log.rotate()
    follower = Follower(log.folder, start)
    assert follower.poll() == log.lines[start:]
    newest = log.add()
    assert follower.poll() == [newest]


def test_a_beginning_that_is_still_to_come_is_waited_for(log: Log) -> None:
    log.add()
    follower = Follower(log.folder, 3)
    assert follower.poll() == []
    log.add()
    log.add()
    assert follower.poll() == []
    fourth = log.add()
    assert follower.poll() == [fourth]


def test_the_end_is_found_without_reading_all(log: Log) -> None:
    assert end(log.folder) == 0
    for count in range(5):
        log.add(body={"text": "x" * 40_000})
        assert end(log.folder) == count + 1
    log.append(b'{"i":5,"torn')
    assert end(log.folder) == 5
    log.rotate()
    assert end(log.folder) == 5


def test_the_end_of_what_is_no_log_is_refused(log: Log) -> None:
    log.append(b"some text\n")
    with pytest.raises(ChainBroken, match="moat audit verify"):
        end(log.folder)


def test_a_look_gives_a_bounded_part_in_bounded_memory(log: Log) -> None:
    for _ in range(200):
        log.line(body={"text": "x" * 50_000})
    log.append(b"".join(line + b"\n" for line in log.lines))
    follower = Follower(log.folder)
    tracemalloc.start()
    try:
        seen = 0
        while found := follower.poll(8):
            assert len(found) <= 8
            seen += len(found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == 200
    assert peak < 3 << 20  # of 10 MiB
    assert len(Follower(log.folder).poll()) <= BATCH


def test_a_changed_line_is_found_and_named(log: Log, follower: Follower) -> None:
    for _ in range(4):
        log.add(body={"text": "as it was"})
    log.segment.write_bytes(log.segment.read_bytes().replace(b"as it was", b"as it is!", 2))
    # The second line was changed, too, but its own text follows; what follows it does not.
    assert len(follower.poll()) == 1
    with pytest.raises(ChainBroken, match="line 1 of the log") as caught:
        follower.poll()
    assert caught.value.index == 1


def test_a_line_that_reads_wrong_once_is_read_again(log: Log, follower: Follower) -> None:
    first, second = log.add(), log.line()
    log.append(b"x" * len(second) + b"\n")
    assert follower.poll() == [first]
    with log.segment.open("r+b") as file:
        file.seek(len(first) + 1)
        file.write(second)
    assert follower.poll() == [second]


def test_a_missing_line_is_found(log: Log, follower: Follower) -> None:
    log.add()
    log.line()
    log.add()
    assert len(follower.poll()) == 1
    with pytest.raises(ChainBroken, match="line 1"):
        follower.poll()


def test_a_segment_that_is_named_wrongly_is_found(log: Log, follower: Follower) -> None:
    log.add()
    log.segment.rename(log.path(3))
    assert follower.poll() == []
    with pytest.raises(ChainBroken, match="line 3"):
        follower.poll()


def test_a_line_that_is_too_long_is_refused(log: Log, follower: Follower) -> None:
    log.append(b"x" * (LINE_BYTES + 1))
    with pytest.raises(ChainBroken, match="longer than a line can be"):
        follower.poll()


def test_a_log_that_was_cut_is_rolled_back(log: Log, follower: Follower) -> None:
    first = log.add()
    log.add()
    assert follower.poll() == log.lines
    with log.segment.open("r+b") as file:
        file.truncate(len(first) + 1)
    with pytest.raises(RolledBack, match="had 2 entries"):
        follower.poll()


def swapped(log: Log, other: Path) -> None:
    """Put another folder in the log's place."""
    shutil.move(log.folder, log.folder.with_name("old"))
    shutil.move(other, log.folder)


def test_a_shorter_copy_in_its_place_is_rolled_back(log: Log, follower: Follower) -> None:
    log.add()
    copy = shutil.copytree(log.folder, log.folder.with_name("copy"))
    log.add()
    assert follower.poll() == log.lines
    swapped(log, copy)
    with pytest.raises(RolledBack):
        follower.poll()


def test_a_copy_that_holds_what_was_seen_is_followed(log: Log, follower: Follower) -> None:
    log.add()
    assert follower.poll() == log.lines
    swapped(log, shutil.copytree(log.folder, log.folder.with_name("copy")))
    assert follower.poll() == []
    newest = log.add()
    assert follower.poll() == [newest]


def test_another_history_in_its_place_is_found(log: Log, follower: Follower) -> None:
    log.add()
    assert follower.poll() == log.lines
    other = Log(log.folder.with_name("other"))
    other.add(body={"another": "history"})
    other.add()
    swapped(log, other.folder)
    assert follower.poll() == []
    with pytest.raises(ChainBroken, match="line 1"):
        follower.poll()


def test_a_log_that_is_moved_away_is_waited_for(log: Log, follower: Follower) -> None:
    log.add()
    assert follower.poll() == log.lines
    away = shutil.move(log.folder, log.folder.with_name("away"))
    assert follower.poll() == []
    shutil.move(away, log.folder)
    newest = log.add()
    assert follower.poll() == [newest]


def test_other_files_are_left_alone(log: Log, follower: Follower) -> None:
    log.add()
    for name in ("notes.txt", "0.jsonl", "000000000001.jsonl.gz"):
        (log.folder / "seg" / name).write_text("not a segment")
    assert follower.poll() == log.lines


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_however_it_is_written_every_line_comes_once(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = Log(tmp_path_factory.mktemp("law") / "log")
    follower, seen = Follower(log.folder), []
    for step in data.draw(st.lists(st.integers(0, 3), max_size=25)):
        if step == 0:
            log.rotate()
        elif step == 1:
            seen += follower.poll(data.draw(st.integers(1, 4)))
        else:
            line = log.line(body={"text": "é" * data.draw(st.integers(0, 30))}) + b"\n"
            cut = data.draw(st.integers(0, len(line)))
            log.append(line[:cut])
            if step == 2:
                seen += follower.poll()
            log.append(line[cut:])
    while found := follower.poll():
        seen += found
    assert seen == log.lines
    assert follower.missed == 0
    follower.close()


# --- several gates -------------------------------------------------------------------------------


def gate(state: Path, name: str) -> Log:
    return Log(state / "gates" / name / "log")


def test_all_gates_come_in_one_stream_by_time(tmp_path: Path) -> None:
    one, two = gate(tmp_path, "one"), gate(tmp_path, "two")
    for second in range(3):
        one.add(at=NOW + 10 * second)
        two.add(at=NOW + 10 * second + 5)
    feed = Feed(tmp_path)
    assert feed.gates == ("one", "two")
    assert [seen.gate for seen in feed.poll()] == ["one", "two"] * 3
    feed.close()


def test_a_gate_that_comes_later_is_taken_up_from_its_first_line(tmp_path: Path) -> None:
    gate(tmp_path, "one").add()
    feed = Feed(tmp_path, last=0)
    assert feed.poll() == []
    line = gate(tmp_path, "two").add()
    assert feed.poll() == [("two", line)]
    assert feed.gates == ("one", "two")


def test_the_gates_that_are_named_are_followed_and_no_other(tmp_path: Path) -> None:
    gate(tmp_path, "one").add()
    feed = Feed(tmp_path, ["two"])
    assert feed.poll() == []
    assert (feed.gates, feed.missing) == (("two",), ("two",))
    line = gate(tmp_path, "two").add()
    assert feed.poll() == [("two", line)]
    assert feed.missing == ()
    with pytest.raises(MalformedInput):
        Feed(tmp_path, ["../one"])


def test_each_gate_begins_with_its_newest_lines(tmp_path: Path) -> None:
    logs = {name: gate(tmp_path, name) for name in ("one", "two")}
    for log in logs.values():
        for _ in range(4):
            log.add()
    logs["two"].rotate()
    logs["two"].add()
    found = Feed(tmp_path, last=2).poll()
    assert {name: [s.line for s in found if s.gate == name] for name in logs} == {
        name: log.lines[-2:] for name, log in logs.items()
    }


def test_folders_with_other_names_are_no_gates(tmp_path: Path) -> None:
    gate(tmp_path, "Not A Name").add()
    feed = Feed(tmp_path)
    assert feed.poll() == []
    assert feed.gates == ()
