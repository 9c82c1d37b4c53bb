"""The benches that need an extra, or minutes, still find what they import."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

BENCHES = Path(__file__).resolve().parents[2] / "benches"
OURS = {"moat", "calls", "table"}
"""What needs nothing but the project."""


@pytest.mark.parametrize("bench", ["bench_moat", "calls", "guests", "peers"])
def test_what_a_bench_imports_is_where_it_looks(bench, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHES))
    tree = ast.parse(Path(BENCHES, f"{bench}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if str(node.module).split(".")[0] in OURS]
    names = [(node.module, name.name) for node in ours for name in node.names]
    assert names
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
