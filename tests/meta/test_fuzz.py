"""What arrives from outside is fuzzed: every target has a corpus, made from the vectors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
TARGETS = sorted(path.stem for path in (FUZZ / "targets").glob("*.rs"))


def test_every_target_is_built():
    named = re.findall(
        r'^path = "targets/(\w+)\.rs"$', (FUZZ / "Cargo.toml").read_text(), re.MULTILINE
    )
    assert sorted(named) == TARGETS
    assert set(TARGETS) >= {
        "attest", "checkpoint", "control", "line", "message", "pattern", "token", "url",
    }  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_small(target):
    files = list((FUZZ / "corpus" / target).iterdir())
    assert 20 < len(files) <= 64
    assert max(path.stat().st_size for path in files) <= 8192


def test_the_corpus_is_that_of_the_vectors():
    done = subprocess.run(
        [sys.executable, str(FUZZ / "seed.py"), "--check"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_heart_is_fuzzed_with_the_dependencies_that_it_ships_with():
    def locked(path: Path) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        pairs = re.findall(r'^name = "(.+)"\nversion = "(.+)"$', path.read_text(), re.MULTILINE)
        for name, version in pairs:
            found.setdefault(name, set()).add(version)
        return found

    shipped, fuzzed = locked(FUZZ.parent / "Cargo.lock"), locked(FUZZ / "Cargo.lock")
    both = shipped.keys() & fuzzed.keys()
    assert len(both) > 50
    assert {name for name in both if not fuzzed[name] <= shipped[name]} == set()


def test_the_scripts_are_programs_of_a_shell():
    for name in ("run", "rustc"):
        assert (FUZZ / name).stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(FUZZ / name)], check=True)
