"""`moat bench`: every row is measured, compared and tidied away."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cli_kit import Cli, fresh
from moat import _bench
from moat._native import Module
from moat.cli import bench

if TYPE_CHECKING:
    from pathlib import Path

ONCE = _bench.Plan(seconds=0.0, least=1)
"""As short as it can be."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of each row."""
    monkeypatch.setattr(_bench, "FULL", ONCE)
    monkeypatch.setattr(_bench, "QUICK", ONCE)
    monkeypatch.setattr(_bench, "BATCH_NS", 1_000)


def test_every_row_is_measured_and_compared(tmp_path: Path, short: None) -> None:
    state = fresh(tmp_path)
    before = sorted(state.state.rglob("*"))
    found = state.json("bench", "--quick")
    assert set(found) == {
        "moat", "python", "machine", "cores", "disk", "quick", "seconds", "rows",
    }  # fmt: skip
    assert found["quick"] is True
    assert found["disk"] == str(state.state)
    rows = {row["name"]: row for row in found["rows"]}
    expected = set(_bench.ROWS)
    if _bench.in_memory() is None:
        expected -= {"authorize_1", "authorize_8", "sandbox"}
    assert set(rows) == expected
    for row in rows.values():
        assert set(row) == {"name", "what", "place", "ns", "ratio", "rounds"}
        assert row["ns"] > 0
        assert row["ratio"] > 0
        assert row["rounds"] >= 1
    assert {rows[name]["place"] for name in ("sync", "durable_1", "durable_8")} == {"disk"}
    assert sorted(state.state.rglob("*")) == before


def test_a_person_gets_a_table_of_80_columns(tmp_path: Path, short: None) -> None:
    state = fresh(tmp_path)
    told = state("bench", env={"COLUMNS": "80", "MOAT_STATE": str(state.state)}).stdout
    table, _, disk = told.rpartition("disk: ")
    assert max(map(len, table.splitlines())) <= 80
    assert disk == f"{state.state}\n"
    for what in _bench.ROWS.values():
        assert what in table
    assert "of a raw verify" in table


def test_no_state_folder_is_needed_or_made(tmp_path: Path, short: None) -> None:
    found = Cli(tmp_path / "not" / "there").json("bench")
    assert found["disk"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_files_in_memory_only_the_disk_is_tried(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bench, "in_memory", lambda: None)
    begun: list[str] = []
    found = list(_bench.measure(tmp_path, ONCE, begun.append))
    assert {figure.place for figure in found} == {None, "disk"}
    assert begun == [figure.what for figure in found]
    told = Cli(tmp_path)("bench").stdout
    assert "no place for files in memory" in told


def test_a_row_takes_its_time_and_no_more() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.125
        return now

    # It looks at its clock once for each of the least rounds that are over, and for each more.
    plan = _bench.Plan(seconds=1.0, least=3, clock=clock)
    assert list(plan.turns()) == list(range(3 + 7))
    slow = replace(plan, seconds=0.0)
    assert list(slow.turns()) == [0, 1, 2]


def test_all_rows_together_keep_the_promise() -> None:
    """15 and 3 seconds, with as much again for what prepares the rows."""
    rows = len(_bench.ROWS)
    assert rows * _bench.FULL.seconds <= 15 * 0.6
    assert rows * _bench.QUICK.seconds <= 3 * 0.6


def test_two_batches_take_turns_and_every_other_round_begins_with_the_other() -> None:
    order: list[str] = []

    def batch(name: str, cost: float) -> _bench.Batch:
        return lambda: order.append(name) or cost  # type: ignore[func-returns-value]

    pairs = _bench.alternate(batch("ours", 2.0), batch("raw", 4.0), range(4))
    assert pairs == [(2.0, 4.0)] * 4
    assert order == ["ours", "raw", "raw", "ours"] * 2


def test_the_empty_program_runs_and_does_nothing() -> None:
    with _bench.gated(None, 1, read=()) as (gate, messages):
        outcome = Module(_bench.EMPTY).run(gate.authorize(messages(1)[0], now=_bench.NOW))
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", b"", b"")
    assert outcome.fuel_used < 10


def test_a_sync_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(os, "fdatasync", done.append)
    with (tmp_path / "file").open("wb") as file:
        assert _bench.synced(file.fileno()) > 0
        assert done == [file.fileno()]
    assert (tmp_path / "file").stat().st_size == 1024


@pytest.mark.parametrize(
    ("ns", "told"),
    [(12.4, "12 ns"), (850, "850 ns"), (33_100, "33.1 µs"), (1.52e6, "1.52 ms"), (2e9, "2 s")],
)
def test_times_are_told_in_the_unit_that_fits(ns: float, told: str) -> None:
    assert bench.duration(ns) == told
