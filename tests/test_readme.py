"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from moat import cli as command_line

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_examples_run_in_an_empty_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said: dict[str, object] = {}
    for example, shown in zip(
        blocks("python"), ("line 1: what a moat is for", "WHAT A MOAT IS FOR"), strict=True
    ):
        exec(compile(example, "README.md", "exec"), said)
        assert shown in capsys.readouterr().out
    said["audit"].close()  # type: ignore[attr-defined]


def test_the_shell_session_runs_in_an_empty_directory(tmp_path: Path) -> None:
    session = next(block for block in blocks("sh") if "moat init" in block)
    here = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "MOAT_STATE": "moat-state"}
    said = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "line 1: what a WORD is for" in said.stdout
    assert "revoked agent planner" in said.stdout


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_commands_it_names_exist() -> None:
    assert files("moat").joinpath("_demo/reader.wasm").is_file()
    for name in re.findall(r"`moat ([a-z]+)[ `]", README):
        assert name in command_line.cli.commands
