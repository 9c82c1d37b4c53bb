"""`moat`, `moat init`, `moat identity`: and how every command fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from cli_kit import DENIED, ERROR, USAGE, Cli, fresh
from moat import AgentId, __version__
from moat.cli import cli
from moat.cli.failure import CommandError, of
from moat.errors import (
    AttenuationViolation,
    AuditUnavailable,
    ChainBroken,
    InvalidSignature,
    MalformedInput,
    MessageRefused,
    RolledBack,
    SandboxError,
    TokenRefused,
)

if TYPE_CHECKING:
    import click


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner, a worker and a stranger."""
    return fresh(tmp_path, "planner", "worker", "stranger")


def commands(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command that does something."""
    inner = getattr(group, "commands", {})
    found = [one for name, part in inner.items() for one in commands(part, (*path, name))]
    return found if inner else [path]


@pytest.mark.parametrize("path", commands(cli), ids=" ".join)
def test_every_command_has_json_and_says_what_it_does(
    path: tuple[str, ...], tmp_path: Path
) -> None:
    told = Cli(tmp_path)(*path, "--help").stdout
    assert "--json" in told
    assert "--state" in told
    assert len(told.splitlines()[2].split()) > 3


def test_the_commands_are_these() -> None:
    assert {" ".join(path) for path in commands(cli)} == {
        "init", "identity new", "identity show", "identity import", "token issue",
        "token attenuate", "token renew", "token inspect", "token verify", "audit verify",
        "audit show", "audit prove", "audit check", "audit checkpoint", "audit export",
        "audit prune", "audit accept", "audit rerun", "backup",
        "watch", "bench", "completion", "revoke", "restore", "suspend", "resume", "doctor",
        "agent register", "agent rotate", "agent list", "agent history", "gate rotate",
        "gate require",
        "attest sign", "attest verify", "attest add", "run", "demo",
        "secret set", "secret list", "secret rotate", "secret rm",
    }  # fmt: skip


def test_it_says_its_version(tmp_path: Path) -> None:
    assert __version__ in Cli(tmp_path)("--version").stdout


def test_init_makes_a_root_and_a_gate(tmp_path: Path) -> None:
    state = Cli(tmp_path / "s")
    made = state.json("init", "--root", "boss")
    assert set(made) == {"state", "root", "gate"}
    assert made["state"] == str(tmp_path / "s")
    assert made["root"]["name"] == "boss"
    assert made["root"]["id"] == str(AgentId(made["root"]["id"]))
    assert (tmp_path / "s" / ".gitignore").read_text() == "*\n"
    shown = state.json("identity", "show")["identities"]
    assert [(one["name"], one["role"]) for one in shown] == [("boss", "root"), ("main", "gate")]
    assert shown[1]["id"] == made["gate"]["id"]


def test_init_tells_a_person_what_comes_next(tmp_path: Path) -> None:
    told = Cli(tmp_path / "s")("init").stdout
    assert "did:key:z6Mk" in told
    assert "moat identity new" in told


def test_init_does_not_touch_a_folder_that_is_there(moat: Cli) -> None:
    before = moat.did("root")
    assert moat.error("init", code=ERROR)["code"] == "exists"
    assert moat.did("root") == before


@pytest.mark.parametrize("above", ["moat", "."])
def test_a_state_folder_does_not_hold_the_anchors(above: str, state_home: Path) -> None:
    found = Cli(state_home / above).error("init", code=ERROR)
    assert "anchors" in found["message"]
    assert not any(state_home.iterdir())


def test_the_state_folder_is_an_option_a_variable_or_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Cli(tmp_path / "variable")
    named("init", "--state", tmp_path / "option")
    assert (tmp_path / "option" / "config.json").is_file()
    assert not (tmp_path / "variable").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOAT_STATE", raising=False)
    code = "from moat.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, "init"], check=True, capture_output=True)
    assert (tmp_path / "moat-state" / "config.json").is_file()


def test_a_missing_state_folder_says_how_to_make_one(tmp_path: Path) -> None:
    found = Cli(tmp_path / "no").error("identity", "show", code=ERROR)
    assert found["code"] == "no_state"
    assert "moat init" in found["next"]


def test_identity_new_makes_a_key_that_only_its_owner_can_read(moat: Cli) -> None:
    made = moat.json("identity", "new", "scribe")
    assert set(made) == {"name", "id", "path"}
    assert Path(made["path"]).stat().st_mode & 0o777 == 0o600
    assert moat.did("scribe") == made["id"]


def test_identity_new_does_not_replace_a_key(moat: Cli) -> None:
    before = moat.did("worker")
    moat.error("identity", "new", "worker", code=ERROR)
    assert moat.did("worker") == before


@pytest.mark.parametrize("name", ["Ünused", "../up", "a b", ""])
def test_identity_names_are_plain(moat: Cli, name: str) -> None:
    moat.error("identity", "new", name, code=ERROR)


def test_identity_show_shows_one_or_all(moat: Cli) -> None:
    names = [one["name"] for one in moat.json("identity", "show")["identities"]]
    assert names == ["planner", "root", "stranger", "worker", "main"]
    told = moat("identity", "show").stdout
    assert moat.did("worker") in told
    assert len(moat("identity", "show", "worker").stdout.splitlines()) == 1
    moat.error("identity", "show", "nobody", code=ERROR)


def test_wrong_usage_is_exit_code_2_in_both_forms(moat: Cli) -> None:
    for args in (["nothing"], ["identity", "new"], ["token", "issue", "--fuel", "lots"]):
        found = moat.error(*args, code=USAGE)
        assert found["code"] == "usage"
        assert "--help" in found["next"]


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (MalformedInput("x"), "malformed", 1),
        (InvalidSignature("x"), "bad_signature", 4),
        (AttenuationViolation("x"), "widened", 3),
        (AuditUnavailable("x"), "log_unavailable", 1),
        (RolledBack("x"), "rolled_back", 4),
        (ChainBroken("x"), "chain_broken", 4),
        (SandboxError("x"), "sandbox_error", 1),
        (FileNotFoundError(2, "No such file or directory", "f"), "os_error", 1),
    ],
)
def test_every_error_has_a_code_and_an_exit_code(
    error: Exception, code: str, exit_code: int
) -> None:
    made = of(error)
    assert (made.code, made.exit) == (code, exit_code)


@pytest.mark.parametrize("kind", [TokenRefused, MessageRefused])
def test_what_has_died_is_exit_code_5(kind: type[TokenRefused | MessageRefused]) -> None:
    for reason, exit_code in (("expired", 5), ("revoked", 5), ("unknown_root", 4), ("stale", 4)):
        error = kind("x")
        error.reason = reason
        assert of(error).exit == exit_code


def test_an_error_of_our_own_making_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        of(ZeroDivisionError())


def test_facts_do_not_replace_the_head_of_an_error() -> None:
    made = CommandError("a", "b", None, DENIED, {"code": "z", "link": 1}).to_dict()["error"]
    assert made == {"code": "a", "message": "b", "next": None, "exit": 3, "link": 1}


def test_a_reader_that_stops_early_is_no_crash(tmp_path: Path) -> None:
    fresh(tmp_path)
    code = "from moat.cli import main; main()"
    command = f'"{sys.executable}" -c "{code}" audit show --json --state state | true'
    run = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=False)
    assert b"Traceback" not in run.stderr
    assert b"Exception" not in run.stderr


def test_no_colour_and_pipes_are_respected(tmp_path: Path) -> None:
    state = fresh(tmp_path)
    assert "\x1b" not in state("identity", "show").stdout
    assert "\x1b" not in state("audit", "verify").stdout
    assert json.loads(state("identity", "show", "--json").stdout)


def test_no_color_turns_colour_off_and_nothing_else(tmp_path: Path) -> None:
    fresh(tmp_path)
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    for no_color, wanted in ((None, True), ("1", False)):
        env = {"MOAT_STATE": str(tmp_path / "state"), "FORCE_COLOR": "1", "NO_COLOR": no_color}
        told = CliRunner(env=env).invoke(cli, ["audit", "verify"]).stdout
        assert "entries hold" in told
        assert bool(coloured.search(told)) is wanted


def test_no_command_prints_the_help(tmp_path: Path) -> None:
    for group in ((), ("token",), ("audit",)):
        told = Cli(tmp_path)(*group, code=USAGE).stderr
        assert told.startswith("Usage: moat")
