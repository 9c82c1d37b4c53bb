"""What every attack starts from: a gate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "threats.world", "threats.victim", "threats.ledger", "threats.vouching"
)

from egress_kit import authority, base, server  # noqa: E402, F401 - fixtures
from threats import ledger  # noqa: E402 - as below
from threats.world import World  # noqa: E402 - after its assertions are made to explain themselves


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh gate that trusts one root, has one operator and keeps no anchor."""
    made = World.at(tmp_path / "log")
    yield made
    made.gate.close()


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    """Where the gate remembers its newest checkpoint, outside the folder."""
    return tmp_path / "anchor"


@pytest.fixture
def folder(tmp_path: Path, anchor: Path) -> Path:
    """A closed log of ten decisions, allowed and denied."""
    folder = tmp_path / "log"
    ledger.fill(folder, anchor, range(10))
    return folder
