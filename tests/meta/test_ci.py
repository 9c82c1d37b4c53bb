"""What `.ci/run` reads from the README is there, and it runs each tool that the project names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = (PROJECT / ".ci" / "run").read_text()


def readme(number: int) -> str:
    """What the script takes to be the README's nth command."""
    (function,) = re.findall(r"^readme\(\) \{.*?^\}$", SCRIPT, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["bash", "-c", f"{function}\nreadme {number}"],
        check=True, capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_first_command_installs_and_runs_the_demo():
    assert readme(1) == "pip install . && moat demo"


def test_the_second_command_installs_and_tests():
    command = r"pip install -c tests/constraints\.txt '\.\[test\]' && python -m pytest[^\n]*"
    assert re.fullmatch(command, readme(2))


def test_the_script_is_a_program_of_bash():
    assert (PROJECT / ".ci" / "run").stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ".ci/run"], check=True, cwd=PROJECT)


@pytest.mark.parametrize(
    "tool",
    ["ruff check", "ruff format --check", "mypy --strict", "mypy.stubtest moat._native",
     "lint-imports", "cargo fmt", "cargo clippy", "cargo test", "fuzz/run", "llvm-cov"],
)  # fmt: skip
def test_each_tool_is_run(tool):
    assert tool in SCRIPT
