"""What every attack starts from: a gate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("threats.world", "threats.victim")

from threats.world import World  # noqa: E402 - after its assertions are made to explain themselves


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh gate that trusts one root, has one operator and keeps no anchor."""
    made = World.at(tmp_path / "log")
    yield made
    made.gate.close()
