"""What the README shows is what happens."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from cli_kit import READER, Cli
from moat import cli as command_line

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_example_runs_in_an_empty_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    said: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), said)
    assert "line 1: what a moat is for" in capsys.readouterr().out
    said["audit"].close()  # type: ignore[attr-defined]


def test_the_shell_session_runs_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = next(block for block in blocks("sh") if "moat init" in block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("a WORD\n")
    (tmp_path / "reader.wasm").write_bytes(READER.read_bytes())
    moat = Cli(tmp_path / "moat-state")
    lines = re.sub(r"\s*#.*|\\\n", "", session.replace("\\\n", " ")).splitlines()
    for line in (part for whole in lines for part in whole.split(" && ")):
        words = re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line)
        assert words[0] == "moat"
        asked = [word.strip("'\"").replace("$PWD", str(tmp_path)) for word in words[1:]]
        result = moat(*asked)
        if asked[0] == "run":
            assert "line 1: a WORD" in result.stdout


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_commands_it_names_exist() -> None:
    assert files("moat").joinpath("_demo/reader.wasm").is_file()
    for name in re.findall(r"`moat ([a-z]+)[ `]", README):
        assert name in command_line.cli.commands
