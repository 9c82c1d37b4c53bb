"""`moat run`, `moat revoke`, `moat restore`."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cli_kit import DEAD, DENIED, ERROR, READER, USAGE, Cli, fresh
from guests.build import wat
from moat import AgentId, Grant, Limits, Token
from moat._tree import tree
from moat.cli import run
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner, a worker and a stranger."""
    return fresh(tmp_path, "planner", "worker", "stranger")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with one file, and a file outside it."""
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "a.txt").write_text("one token\ntwo\n")
    (tmp_path / "secret.txt").write_text("a token that is secret\n")
    return folder


def token(cli: Cli, desk: Path, *more: str) -> Path:
    grant = ("--allow", "code://reader run", "--standard", "--read", str(desk), "--depth", "1")
    return cli.issue(*grant, *more)


def test_run_passes_through_what_the_code_writes(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    done = moat("run", READER, "--token", held, "--arg", "token", "--arg", str(desk / "a.txt"))
    assert "line 1: one token" in done.stdout
    assert done.stderr == ""


def test_code_is_compiled_by_the_first_run_alone(moat: Cli, desk: Path) -> None:
    """In another process, as this one has it in memory."""
    held = token(moat, desk)
    asked = ["run", str(READER), "--token", str(held), "--arg", "x", "--arg", str(desk / "a.txt")]
    argv = [sys.executable, "-m", "moat.cli", *asked, "--state", str(moat.state)]
    subprocess.run(argv, check=True, capture_output=True)
    (entry,) = (moat.state / "cache" / "code").iterdir()
    written = entry.stat()
    subprocess.run(argv, check=True, capture_output=True)
    assert entry.stat().st_ino == written.st_ino, "it was compiled and written again"
    assert entry.stat().st_mtime_ns > written.st_mtime_ns, "it was not used"


def test_run_as_json(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    asked = ["run", READER, "--token", held, "--as", "planner", "--arg", "x"]
    done = moat.json(*asked, "--arg", desk / "a.txt")
    assert set(done) == {
        "status", "exit_code", "trap", "stdout", "stderr", "truncated", "fuel_used",
        "memory_peak", "seconds", "entry", "outcome_entry", "resource", "code", "limits",
        "deterministic",
    }  # fmt: skip
    assert done["status"] == "ok"
    assert done["resource"] == "code://reader"
    assert done["fuel_used"] > 0
    assert done["limits"]["fuel"] == 1_000_000_000
    last = moat.json("audit", "show", "--last", "2")["entries"]
    assert [one["kind"] for one in last] == ["decision", "outcome"]
    assert last[0]["i"] == done["entry"]
    assert last[1]["i"] == done["outcome_entry"]
    assert last[1]["body"]["decision"] == done["entry"]
    assert last[0]["body"]["code"] == done["code"]


def test_run_takes_components(moat: Cli, tmp_path: Path) -> None:
    """One that is a command runs; one that is none says what to do, and its permit is unspent."""
    held = moat.issue("--allow", "code://* run", "--standard", "--depth", "1")
    (tmp_path / "nothing.wasm").write_bytes(wat("command"))
    (tmp_path / "library.wasm").write_bytes(wat("typed"))
    done = moat.json("run", tmp_path / "nothing.wasm", "--token", held)
    assert (done["status"], done["resource"]) == ("ok", "code://nothing")
    told = moat("run", tmp_path / "library.wasm", "--token", held, code=ERROR)
    assert "call one of its functions" in told.stderr
    last = moat.json("audit", "show", "--last", "1")["entries"]
    assert last[0]["kind"] != "outcome"


def test_code_that_does_not_end_well_is_exit_code_1_with_its_own_code_told(
    moat: Cli, desk: Path
) -> None:
    held = token(moat, desk)
    asked = ["run", READER, "--token", held, "--arg", "token", "--arg", desk.parent / "secret.txt"]
    told = moat(*asked, code=ERROR)
    assert "refused: " in told.stderr
    assert "secret" not in told.stdout
    assert "exit_code" in told.stderr
    done = moat.json(*asked, code=ERROR)
    assert (done["status"], done["exit_code"]) == ("exit", 1)


def test_fuel_ends_a_loop(moat: Cli, desk: Path) -> None:
    held = token(moat, desk, "--fuel", "1M")
    done = moat.json("run", READER, "--token", held, "--arg", "--spin", code=ERROR)
    assert done["status"] == "out_of_fuel"
    assert done["fuel_used"] <= 1_000_000
    told = moat("run", READER, "--token", held, "--arg", "--spin", code=ERROR).stderr
    assert "--fuel" in told


def test_unmetered_fuel_runs_code_that_counts_none(moat: Cli, desk: Path) -> None:
    """Under a token that says so; with a number of fuel, or to be repeated, the code counts it."""
    asked = ["run", READER, "--token", token(moat, desk, "--fuel", "unmetered")]
    reads = ["--arg", "token", "--arg", desk / "a.txt"]
    done = moat.json(*asked, *reads)
    assert done["fuel_used"] == done["limits"]["fuel"] == Limits.UNMETERED
    assert "unmetered fuel" in moat("audit", "show", "--last", "1").stdout
    assert "unmetered" in moat("token", "inspect", asked[3]).stdout
    assert 0 < moat.json(*asked, *reads, "--fuel", "5M")["fuel_used"] < 5_000_000
    repeated = ["--arg", "x", "--dir", "none", "--deterministic"]
    assert 0 < moat.json(*asked, *repeated, code=ERROR)["fuel_used"] < 5_000_000
    done = moat.json(*asked, "--arg", "--spin", "--time", "50ms", code=ERROR)
    assert (done["status"], done["fuel_used"]) == ("timed_out", Limits.UNMETERED)
    number = token(moat, desk, "--fuel", "5M")
    moat("run", READER, "--token", number, "--fuel", "unmetered", code=DENIED)


def test_a_token_without_the_grant_is_denied_and_says_where(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    found = moat.error("run", READER, "--token", held, "--resource", "code://other", code=DENIED)
    assert found["code"] == "not_granted"
    assert found["link"] == 0
    assert found["resource"] == "code://other"
    entry = moat.json("audit", "show", "--denied", "--last", "1")["entries"][0]
    assert entry["i"] == found["entry"]
    told = moat("run", READER, "--token", held, "--resource", "code://other", code=DENIED).stderr
    assert "denied: " in told
    assert "next" in told


def test_a_stolen_token_is_denied(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    found = moat.error("run", READER, "--token", held, "--as", "stranger", code=DENIED)
    assert found["code"] == "wrong_holder"


def test_run_gives_input_and_variables_only_when_told(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    (desk.parent / "in").write_text("hello")
    asked = ["run", READER, "--token", held, "--stdin", desk.parent / "in", "--env", "A=b"]
    moat.json(*asked, "--arg", "x", "--arg", desk / "a.txt")
    moat.error(*asked, "--env", "broken", code=USAGE)


def test_code_is_not_run_where_its_token_reaches_the_keys(moat: Cli, tmp_path: Path) -> None:
    held = Token.issue(
        KeyStore(moat.state / "keys").load("root"), holder=AgentId(moat.did("planner")),
        allow=[Grant("code://reader", {"run"})], expires_in=timedelta(hours=1),
        limits=Limits.standard().replace(read=[tree(tmp_path)]),
    )  # fmt: skip
    pem = moat.state / "keys" / "root.pem"
    found = moat.error("run", READER, "--token", str(held), "--arg", "x", "--arg", pem, code=ERROR)
    assert found["code"] == "keys_exposed"


def test_what_is_no_module_is_an_error(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    found = moat.error("run", desk / "a.txt", "--token", held, code=ERROR)
    assert found["exit"] == ERROR


# --- options that narrow ---


def test_an_option_leaves_what_it_names_and_no_other_limit_changes(moat: Cli, desk: Path) -> None:
    (desk / "in").mkdir()
    (desk / "in" / "b.txt").write_text("a token\n")
    secret = "secret://a https://a.example authorization"
    held = token(
        moat, desk, "--write", str(desk), "--host", "https://a.example/** GET,POST",
        "--host", "https://b.example/** GET", "--secret", secret,
    )  # fmt: skip
    asked = ["run", READER, "--token", held, "--arg", "x", "--arg", desk / "in" / "b.txt"]
    whole = moat.json(*asked)["limits"]
    narrow = moat.json(*asked, "--dir", desk / "in")["limits"]
    assert narrow == whole | {"read": [tree(desk / "in")], "write": []}
    narrow = moat.json(*asked, "--dir", f"{desk / 'in'}:rw")["limits"]
    assert narrow == whole | {"read": [tree(desk / "in")], "write": [tree(desk / "in")]}
    narrow = moat.json(*asked, "--allow-host", "https://a.example/b GET")["limits"]
    assert narrow["hosts"] == ["https://a.example/b GET"]
    assert narrow | {"hosts": []} == whole | {"hosts": []}
    assert moat.json(*asked, "--secret", "secret://a")["limits"] == whole
    assert moat.json(*asked, "--secret", "none")["limits"] == whole | {"secrets": []}
    numbers = ("--fuel", "5M", "--memory", "1MiB", "--time", "2s", "--output", "9kB")
    narrow = moat.json(*asked, *numbers)["limits"]
    wanted = {"fuel": 5_000_000, "memory": 1 << 20, "time": 2000, "output": 9000}
    assert narrow == whole | wanted


def test_code_opens_only_the_directory_that_is_left_to_it(moat: Cli, desk: Path) -> None:
    (desk / "in").mkdir()
    asked = ["run", READER, "--token", token(moat, desk), "--arg", "token"]
    asked += ["--arg", desk / "a.txt"]
    assert "one token" in moat(*asked, "--dir", desk).stdout
    for narrower in (str(desk / "in"), f"{desk / 'in'}:ro", "none"):
        told = moat(*asked, "--dir", narrower, code=ERROR)
        assert "refused: " in told.stderr


def test_a_directory_that_is_not_there_is_wrong_usage(moat: Cli, desk: Path) -> None:
    asked = ["run", READER, "--token", token(moat, desk), "--dir"]
    for text in (str(desk / "no"), f"{desk / 'no'}:rw", f"{desk}:wr", "none:ro"):
        moat.error(*asked, text, code=USAGE)


# --- revoke ---


def test_a_revoked_planner_ends_everything_below_it(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    child = desk.parent / "child.token"
    moat("token", "attenuate", held, "--to", "worker", "--out", child)
    asked = ["run", READER, "--token", child, "--arg", "x", "--arg", desk / "a.txt"]
    moat(*asked)
    done = moat.json("revoke", "planner")
    assert set(done) == {"verb", "target", "by", "gates"}
    assert [(one["name"], one["via"]) for one in done["gates"]] == [("main", "gate")]
    assert done["target"] == {"kind": "agent", "id": moat.did("planner"), "name": "planner"}
    assert moat.error(*asked, code=DEAD)["code"] == "revoked"
    assert moat.json("restore", "planner")["verb"] == "restore"
    moat(*asked)
    shown = moat.json("audit", "show", "--kind", "control")["entries"]
    assert [one["body"]["verb"] for one in shown] == ["revoke", "restore"]


def test_one_link_is_revoked_by_its_token_or_its_id(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    link = Token.parse(held.read_text().strip()).links[-1].id.hex()
    for target in (str(held), link):
        done = moat.json("revoke", target)
        assert done["target"] == {"kind": "link", "id": link, "name": None}
        assert moat.error("token", "verify", held, code=DEAD)["code"] == "revoked"
        moat("restore", target)
    moat("token", "verify", held)


def test_an_agent_revokes_itself_and_no_stranger_revokes_it(moat: Cli, desk: Path) -> None:
    for nobody in ("stranger", "planner"):  # the gate has not seen a token of the planner's yet
        found = moat.error("revoke", "planner", "--by", nobody, code=DENIED)
        assert found["code"] == "no_standing"
    moat("run", READER, "--token", token(moat, desk), "--arg", "x", "--arg", desk / "a.txt")
    told = moat("revoke", "planner", "--by", "planner").stdout
    assert "revoked agent planner" in told
    found = moat.error("restore", "planner", "--by", "stranger", code=DENIED)
    assert found["code"] == "no_standing"


def test_on_a_terminal_code_cannot_steer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = b"a\x1b[2Jb\tc\n\xc2\x9bd\xc3\xa9"
    for terminal, wanted in ((True, b"a?[2Jb\tc\n?d\xc3\xa9"), (False, written)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        run._pass(written, stream)
        stream.flush()
        assert stream.buffer.getvalue() == wanted  # type: ignore[attr-defined]


def test_a_run_does_not_hold_a_stream_for_long(moat: Cli, desk: Path) -> None:
    held = token(moat, desk)
    moat("run", READER, "--token", held, "--arg", "x", "--arg", desk / "a.txt")
    last = moat.json("audit", "show", "--kind", "decision", "--last", "1")["entries"][0]
    assert last["body"]["expires"] - last["t"] <= 5


def test_a_delegator_takes_back_what_it_gave_and_no_more(moat: Cli, desk: Path) -> None:
    given, own = desk.parent / "given.token", desk.parent / "own.token"
    moat("token", "attenuate", token(moat, desk), "--to", "worker", "--out", given)
    terms = ("--allow", "code://reader run", "--standard", "--expires", "1h", "--out", own)
    moat("token", "issue", "--to", "worker", *terms)
    moat("run", READER, "--token", given, "--arg", "x", "--arg", desk.parent / "in", code=ERROR)
    moat("revoke", "worker", "--by", "planner")
    assert moat.error("token", "verify", given, code=DEAD)["code"] == "revoked"
    assert moat.json("token", "verify", own)["revocation"] == "not revoked"


with_interpreters = pytest.mark.usefixtures("interpreters")


def coder(cli: Cli, *more: str) -> Path:
    """A token that lets its holder run text in both languages."""
    return cli.issue("--allow", "code://* run", "--standard", "--depth", "1", *more)


@with_interpreters
@pytest.mark.parametrize(
    ("language", "source"),
    [("python", "print(6 * 7)"), ("javascript", "console.log(6 * 7)")],
)
def test_run_takes_text_in_a_language(
    moat: Cli, tmp_path: Path, language: str, source: str
) -> None:
    (tmp_path / "answer").write_text(source)
    done = moat.json("run", f"--{language}", tmp_path / "answer", "--token", coder(moat))
    assert (done["status"], done["exit_code"], done["stdout"]) == ("ok", 0, "42\n")
    assert done["resource"] == f"code://{language}"
    decision, outcome = moat.json("audit", "show", "--last", "2")["entries"]
    assert decision["body"]["payload"] == hashlib.sha256(source.encode()).hexdigest()
    assert outcome["i"] == done["outcome_entry"]


@with_interpreters
def test_text_that_fails_is_exit_code_1_with_its_traceback(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("1 / 0")
    asked = ["run", "--python", str(tmp_path / "fails.py"), "--token", str(coder(moat))]
    done = moat(*asked, code=ERROR)
    assert "ZeroDivisionError" in done.stderr
    assert "the code ended with `exit`" in done.stderr


@with_interpreters
def test_text_is_narrowed_by_the_same_flags(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "spins.py").write_text("while True: pass")
    asked = ["run", "--python", str(tmp_path / "spins.py"), "--token", str(coder(moat))]
    done = moat.json(*asked, "--fuel", "5M", code=ERROR)
    assert done["status"] == "out_of_fuel"
    assert done["limits"]["fuel"] == 5_000_000
    moat(*asked, "--fuel", "5000000M", code=DENIED)


def test_text_needs_a_further_link_and_takes_no_arguments(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    flat = moat.issue("--allow", "code://* run", "--standard", "--depth", "0")
    told = moat("run", "--python", tmp_path / "a.py", "--token", flat, code=DENIED)
    assert "--depth 1" in told.stderr
    asked = ["run", "--python", str(tmp_path / "a.py"), "--token", str(coder(moat))]
    assert "are for modules" in moat(*asked, "--arg", "x", code=USAGE).stderr
