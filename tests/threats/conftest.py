"""What every attack starts from: a gate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from threats.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh gate that trusts one root, has one operator and keeps no anchor."""
    made = World.at(tmp_path / "log")
    yield made
    made.gate.close()
