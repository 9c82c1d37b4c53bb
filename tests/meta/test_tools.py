"""The stub, the layers and the types hold, as the tools see them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).resolve().parents[2]
SAMPLES = PROJECT / "tests" / "typing"


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, cwd=PROJECT
    )


def test_the_stub_is_the_native_module():
    """With an empty allowlist: there is no ``--allowlist`` here."""
    done = python("-m", "mypy.stubtest", "moat._native", "--mypy-config-file", "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_arrows_point_down_only():
    # In a process of its own: the linter switches off every logger that it finds.
    lint = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(cache_dir=None))"
    done = python("-c", lint)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_layers_are_read_from_real_imports():
    graph = grimp.build_graph("moat", cache_dir=None)
    assert "moat.pep" in graph.find_modules_directly_imported_by("moat.session")
    assert "moat.errors" in graph.find_modules_directly_imported_by("moat.pep")


@pytest.fixture(scope="module")
def complaints() -> dict[tuple[str, int], set[str]]:
    """What mypy says about the samples: file and line, and the codes of its errors there."""
    done = python("-m", "mypy", "--strict", "--show-error-codes", "--no-pretty", str(SAMPLES))
    found: dict[tuple[str, int], set[str]] = {}
    for file, line, code in re.findall(
        r"^(\S+?):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE
    ):
        found.setdefault((Path(file).name, int(line)), set()).add(code)
    assert found, done.stdout + done.stderr
    return found


def test_right_use_has_no_type_errors(complaints):
    assert [where for where in complaints if where[0] == "right.py"] == []


def test_wrong_use_has_the_type_errors_that_it_says(complaints):
    expected = {
        ("wrong.py", number): set(line.partition("# error: ")[2].split(", "))
        for number, line in enumerate((SAMPLES / "wrong.py").read_text().splitlines(), 1)
        if "# error: " in line
    }
    assert len(expected) > 10
    assert {where: codes for where, codes in complaints.items() if where[0] == "wrong.py"} == (
        expected
    )
