"""Tools that a test needs: without them it skips, or fails where ``MOAT_REQUIRE_TOOLS=1``."""

from __future__ import annotations

import os
import shutil

import pytest


def need(tool: str) -> str:
    """The path of a tool; without it skip, or fail where ``MOAT_REQUIRE_TOOLS=1``."""
    path = shutil.which(tool)
    if path is None:
        missing(f"`{tool}` is not installed")
    assert path is not None
    return path


def need_root() -> None:
    """Go on as root alone; else skip, or fail where ``MOAT_REQUIRE_TOOLS=1``."""
    if os.geteuid() != 0:
        missing("only root may mount a file system")


def missing(why: str) -> None:
    """Skip with a reason, or fail where ``MOAT_REQUIRE_TOOLS=1``."""
    if os.environ.get("MOAT_REQUIRE_TOOLS") == "1":
        pytest.fail(why)
    pytest.skip(why)
