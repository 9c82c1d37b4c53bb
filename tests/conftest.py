"""Shared fixtures: a gate over a folder of its own, its log, and a home that is not the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cast import GATE, ROOT, clock
from moat import AuditLog, Pep, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep default anchors out of the user's own state directory."""
    home = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    """A fresh log at ``NOW``, without an anchor."""
    log = AuditLog.open(tmp_path / "log", signer=GATE, anchor=None, clock=clock)
    yield log
    log.close()


@pytest.fixture
def pep(audit: AuditLog) -> Pep:
    """A gate that trusts one root."""
    return Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=audit)
