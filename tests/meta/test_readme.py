"""The README runs: its example, as it stands, and the two commands that `.ci/run` reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guests.build import wat

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch):
    (example,) = blocks("python")
    (tmp_path / "search.wasm").write_bytes(wat("echo"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["outcome"].check().stdout == b'{"q":"moat"}'
    assert names["pep"].id == names["gate"].id
    names["audit"].close()
    assert names["AuditLog"].verify("state/gates/main/log", log=names["gate"].id).entries > 0


def test_there_are_two_commands():
    first, second = (block.strip() for block in blocks("sh"))
    assert first == "pip install . && moat demo"
    assert re.fullmatch(r"pip install [^\n]*\[test\][^\n]* && python -m pytest[^\n]*", second)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README))
def test_links_lead_somewhere(path):
    assert (Path(__file__).resolve().parents[2] / path).exists()
