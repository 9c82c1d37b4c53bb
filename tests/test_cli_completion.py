"""`moat completion`: a shell gets a script that works and names that are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from cli_kit import USAGE, Cli, fresh
from moat import REASONS, Moat
from moat.cli import cli, completers
from moat.cli.completion import SHELLS, VARIABLE, completer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def moat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A state folder with a planner and a worker, and a second gate."""
    made = fresh(tmp_path, "planner", "worker")
    Moat.open(made.state, gate="second").close()
    monkeypatch.setenv("MOAT_STATE", str(made.state))
    return made


def offered(*words: str) -> list[str]:
    """What comes to mind for the last of these words."""
    *args, begun = words
    return [item.value for item in completer("bash", cli).get_completions(args, begun)]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell(moat: Cli, shell: str) -> None:
    found = moat.json("completion", shell)
    assert set(found) == {"shell", "script"}
    assert found["shell"] == shell
    assert f"{VARIABLE}={shell}_complete" in found["script"]
    assert moat("completion", shell).stdout == found["script"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_one_of_its_shell(moat: Cli, shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    script = tmp_path / "script"
    script.write_text(moat("completion", shell).stdout)
    subprocess.run([program, "-n", script], check=True)


def test_another_shell_is_wrong_usage(moat: Cli) -> None:
    moat.error("completion", "csh", code=USAGE)
    moat.error("completion", code=USAGE)


def test_commands_and_options_are_offered() -> None:
    assert {"watch", "audit", "bench", "completion"} <= set(offered(""))
    assert "export" in offered("audit", "e")
    assert {"--from", "--format"} <= set(offered("audit", "export", "--f"))


@pytest.mark.parametrize(
    "words",
    [
        ("identity", "show"),
        ("token", "issue", "--to"),
        ("token", "issue", "--by"),
        ("token", "attenuate", "x", "--to"),
        ("token", "verify", "x", "--root"),
        ("run", "x", "--as"),
        ("revoke",),
        ("restore", "x", "--by"),
        ("audit", "show", "--agent"),
        ("audit", "export", "--agent"),
        ("watch", "--agent"),
    ],
    ids=" ".join,
)
def test_names_of_identities_are_offered(moat: Cli, words: tuple[str, ...]) -> None:
    assert offered(*words, "") == ["planner", "root", "worker"]
    assert offered(*words, "pl") == ["planner"]


@pytest.mark.parametrize(
    "words",
    [("watch",), ("run", "x"), ("revoke", "x"), ("audit", "verify"), ("audit", "export")],
    ids=" ".join,
)
def test_names_of_gates_are_offered(moat: Cli, words: tuple[str, ...]) -> None:
    assert offered(*words, "--gate", "") == ["main", "second"]
    assert offered(*words, "--gate", "s") == ["second"]


def test_the_state_folder_is_the_one_on_the_line(moat: Cli, tmp_path: Path) -> None:
    fresh(tmp_path / "other", "scribe")
    other = str(tmp_path / "other" / "state")
    assert offered("identity", "show", "--state", other, "") == ["root", "scribe"]
    assert offered("watch", "--state", other, "--gate", "") == ["main"]


def test_the_state_folder_may_be_the_one_here(
    moat: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moat.state.rename(tmp_path / completers.STATE)
    monkeypatch.delenv("MOAT_STATE")
    monkeypatch.chdir(tmp_path)
    assert offered("revoke", "w") == ["worker"]


@pytest.mark.parametrize(
    "words", [("watch",), ("audit", "show"), ("audit", "export")], ids=" ".join
)
def test_kinds_and_reasons_are_offered(moat: Cli, words: tuple[str, ...]) -> None:
    assert offered(*words, "--kind", "") == list(completers.KINDS)
    assert offered(*words, "--kind", "dec") == ["decision"]
    assert offered(*words, "--reason", "") == sorted(REASONS)


def test_every_kind_of_a_real_log_is_known(moat: Cli) -> None:
    moat("revoke", "worker")
    found = moat.json("audit", "verify")["kinds"]
    assert set(found) <= set(completers.KINDS)


def test_files_are_left_to_the_shell() -> None:
    items = completer("bash", cli).get_completions(["token", "inspect"], "my")
    assert [(item.type, item.value) for item in items] == [("file", "my")]


@pytest.mark.parametrize("broken", ["missing", "file", "closed"])
def test_a_completer_offers_nothing_where_it_cannot_look(
    moat: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "missing":
        monkeypatch.setenv("MOAT_STATE", str(tmp_path / "no"))
    elif broken == "file":
        shutil.rmtree(moat.state)
        moat.state.write_text("")
    else:
        monkeypatch.setattr(completers.KeyStore, "names", lambda _: 1 / 0)
    assert offered("identity", "show", "") == []


def test_a_shell_that_asks_is_answered(moat: Cli) -> None:
    """As the bash script does it, in a process of its own."""
    asked = {"COMP_WORDS": "moat revoke w", "COMP_CWORD": "2", VARIABLE: "bash_complete"}
    code = "import sys; sys.argv[0] = 'moat'; from moat.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == ("plain,worker\n", "")


def test_a_person_who_does_not_ask_sees_nothing_of_it(moat: Cli) -> None:
    env = {VARIABLE: None, "MOAT_STATE": str(moat.state)}
    assert "plain," not in CliRunner(env=env).invoke(cli, ["identity", "show"]).stdout
