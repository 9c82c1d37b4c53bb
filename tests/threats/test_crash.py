"""A busy gate that is killed with SIGKILL at random moments, again and again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from moat._bench import in_memory
from soak.kills import Campaign

KILLS: Final = 50 if os.environ.get("CI") == "true" else 10


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory where the system has a place for that: the process dies, not the disk."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        yield Path(folder)


def test_a_gate_that_is_killed_keeps_every_word_that_it_gave(place: Path) -> None:
    """Entries, replay marks, withdrawals, names and open effects; snapshots on the way."""
    campaign = Campaign(place / "log", place / "anchor", seed=1, mean=60)
    for _ in range(KILLS):
        campaign.kill(verify=campaign.lives % 10 == 9)
    assert campaign.verify().entries == campaign.model.size
    assert campaign.segments() > 2
    kinds = {"decision", "outcome", "control", "agent", "snapshot", "recovered"}
    assert kinds <= campaign.model.kinds.keys()
    assert campaign.figures["entries acknowledged"] > KILLS * 20
    assert campaign.figures["replays refused"] > KILLS * 10


def test_entries_that_a_kill_had_lost_would_be_noticed(place: Path) -> None:
    """The control: what was acknowledged last is cut from the file before it is read again."""
    campaign = Campaign(place / "log", place / "anchor", seed=2, segment_bytes=64 << 20)
    while not (said := campaign.live()).entries:
        campaign.lives += 1
    (segment,) = campaign.folder.glob("seg/*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[: max(entry for entry, _ in said.entries)]))
    campaign.model.read_on(campaign.folder)
    with pytest.raises(AssertionError, match="is lost"):
        campaign.hold(said)
