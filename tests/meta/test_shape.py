"""The project stays small to read: lengths of lines, functions and files; and it is portable."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = {".py", ".pyi", ".rs", ".c"}
RUST_TESTS = re.compile(r"rust/.*/tests?(/.*|\.rs)")
"""Tables of cases: a row may be longer than a line, a table than a function."""


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project: what git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=False,
        capture_output=True,
        cwd=PROJECT,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so its files are not known")
    paths = (PROJECT / name for name in listed.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def texts(*suffixes: str) -> list[tuple[str, str]]:
    """Names and contents of all files with one of these suffixes."""
    return [
        (str(path.relative_to(PROJECT)), path.read_text())
        for path in files()
        if path.suffix in suffixes
    ]


def test_files_are_under_500_lines():
    sources = texts(".py", ".rs", ".c")
    assert len(sources) > 50
    assert {name: n for name, text in sources if (n := len(text.splitlines())) >= 500} == {}


def test_lines_are_at_most_100_columns():
    wide = [
        f"{name}:{number}"
        for name, text in texts(*SOURCES)
        if not RUST_TESTS.fullmatch(name)
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > 100
    ]
    assert wide == []


def test_python_functions_are_under_70_lines():
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, text in texts(".py")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= 70
    ]
    assert long == []


def test_rust_functions_are_under_70_lines():
    """A function starts at its ``fn`` and ends at the brace in the same column."""
    body = re.compile(r"(?ms)^( *)(?:pub(?:\([a-z]+\))? )?(?:const )?fn (\w+)[^;{]*\{.*?^\1\}")
    long = [
        f"{name} {found[2]}"
        for name, text in texts(".rs")
        if not RUST_TESTS.fullmatch(name)
        for found in body.finditer(text)
        if found[0].count("\n") >= 70
    ]
    assert long == []


def test_no_file_knows_the_machine_it_was_written_on():
    homes = "|".join(("/" + "work/", "/" + "root/", "/" + "home/", "/" + "Users/", "/" + "tmp/b"))
    known = re.compile(rf"(?<!\w)(?:{homes})[\w.]")
    found = []
    for path in files():
        if path.suffix in {".wasm", ".bin"}:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if known.search(line):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_dependencies_of_the_tests_are_exact_versions():
    lines = (PROJECT / "tests" / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 20
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
