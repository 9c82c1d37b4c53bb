"""Where the external vectors lie: beside the project, read in place, never copied."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def external() -> Path:
    """The folder of external vectors, or a skip that says it is absent."""
    folder = ROOT.parent / "shared" / "vectors"
    if not folder.is_dir():
        pytest.skip("the external vectors are not beside the project (`../shared/vectors`)")
    return folder
