"""``spec/threats.md`` names tests that exist, and every file of attacks is in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = (HERE.parents[1] / "spec" / "threats.md").read_text()


def names_of(path: Path) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


FILES = {path.name: names_of(path) for path in sorted(HERE.glob("test_*.py"))}


def test_every_named_test_exists() -> None:
    known = set().union(*FILES.values())
    named = set(re.findall(r"\b(test_\w+)(?!\w|\.py)", PAGE))
    assert named - known - {name.removesuffix(".py") for name in FILES} == set()
    assert len(named) > 100


def test_every_named_file_exists() -> None:
    for name in set(re.findall(r"`((?:laws/)?test_\w+\.py)", PAGE)):
        path = HERE / name if "/" not in name else HERE.parent / name
        assert path.is_file(), name


def test_every_file_of_attacks_has_its_place() -> None:
    for name in FILES.keys() - {"test_page.py"}:
        assert f"`{name}`" in PAGE, name


def test_a_test_stands_in_the_section_of_its_file() -> None:
    for section in PAGE.split("\n## ")[1:]:
        head, _, body = section.partition("\n")
        files = re.findall(r"^`(test_\w+\.py)`", body)
        files += re.findall(r", `(test_\w+\.py)`", body.split("\n", 1)[0])
        if not files:
            continue
        here = set().union(*(FILES[name] for name in files))
        for name in re.findall(r"`(test_\w+)`", body):
            assert name in here, (head, name)
