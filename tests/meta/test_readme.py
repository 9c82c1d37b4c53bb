"""The README runs: its example, as it stands, and the two commands that `.ci/run` reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from moat import AuditLog

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch):
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    names["audit"].close()
    assert b"what a moat is for" in names["outcome"].check().stdout
    assert names["permit"].limits == names["narrow"].limits
    report = AuditLog.verify("state/gates/main/log", log=names["gate"].id)
    assert report.entries == report.signed == report.anchored > names["permit"].outcome


def test_the_first_two_commands_install_and_run_and_test():
    first, second, *_ = (block.strip() for block in blocks("sh"))
    assert first == "pip install . && moat demo"
    assert re.fullmatch(r"pip install [^\n]*\[test\][^\n]* && python -m pytest[^\n]*", second)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README))
def test_links_lead_somewhere(path):
    assert (Path(__file__).resolve().parents[2] / path).exists()
