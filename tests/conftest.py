"""Shared fixtures: a gate over a folder of its own, its log, and a home that is not the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cast import GATE, ROOT, clock
from moat import AuditLog, Pep, Policy, code
from moat.sandbox import CodeCache
from town import Town, Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from moat.router import Bounds


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


@pytest.fixture
def open_town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    """Build routers, each over a gate of its own."""
    towns: list[Town] = []

    def build(bounds: Bounds | None = None) -> Town:
        towns.append(Town(tmp_path / f"log{len(towns)}", bounds))
        return towns[-1]

    yield build
    for town in towns:
        town.close()


@pytest.fixture
def town(open_town: Callable[..., Town]) -> Town:
    """A router with the bounds that it has when nothing is said."""
    return open_town()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Tells when somebody waits."""
    return Waits(monkeypatch)


@pytest.fixture(scope="session")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the interpreters of `moat.code` ready, compiled once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen") else base
    cache = CodeCache.open(shared / "code", key=shared / "keys" / "code.key")
    for language in code.LANGUAGES:
        code.interpreter(language, cache=cache)
