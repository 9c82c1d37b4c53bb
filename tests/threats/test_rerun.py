"""`moat audit rerun`: what ran is what runs again, and what comes out is compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cli_kit import DEAD, DENIED, ERROR, INVALID, READER, Cli, fresh
from guests.build import assemble, wat
from guests.wheels import PYTHON, QUICKJS, SOLVER, Program, program
from moat import Moat, Sandbox, Token
from test_cli_network import CALLER

ECHO = """
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 4) (i32.load (i32.const 16)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))
"""
SMT = Path(__file__).parent.parent / "guests" / "smt"


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    made = fresh(tmp_path, "planner")
    (tmp_path / "echo.wasm").write_bytes(assemble(ECHO))
    (tmp_path / "in").write_text("hello")
    (tmp_path / "other").write_text("hellO")
    return made


def granted(moat: Cli, *more: str) -> Path:
    return moat.issue("--allow", "code://* run", "--standard", "--depth", "1", *more)


def ran(moat: Cli, wasm: Path, *given: str | Path, code: int = 0) -> dict[str, Any]:
    """A deterministic run, as JSON."""
    asked = ["run", wasm, "--token", granted(moat, "--fuel", "9G"), "--deterministic", *given]
    done: dict[str, Any] = moat.json(*asked, code=code)
    return done


def echoed(moat: Cli) -> tuple[str, list[str | Path]]:
    """The entry of a run of the echo, and what it was given."""
    given: list[str | Path] = ["--stdin", moat.state.parent / "in", "--arg", "a", "--env", "b=c"]
    done = ran(moat, moat.state.parent / "echo.wasm", *given)
    assert (done["stdout"], done["deterministic"]) == ("hello", True)
    return str(done["entry"]), ["--wasm", moat.state.parent / "echo.wasm", *given]


def test_a_run_comes_out_the_same_from_the_log_alone(moat: Cli) -> None:
    """By the decision's index, its message's id, or the outcome's index; from a copy as well."""
    entry, given = echoed(moat)
    shown = moat.json("audit", "show", "--last", "2")["entries"]
    names = [entry, shown[0]["body"]["message"], str(shown[1]["i"])]
    lines = len(moat.json("audit", "show", "--last", "999")["entries"])
    for name in names:
        told = moat.json("audit", "rerun", name, *given)
        assert (told["equal"], told["differs"]) == (True, [])
        assert told["logged"] == told["found"]
        assert (told["entry"], told["outcome_entry"]) == (shown[0]["i"], shown[1]["i"])
    assert "the same again" in moat("audit", "rerun", entry, *given).stdout
    copy = moat.state.parent / "copy"
    shutil.copytree(moat.state / "gates" / "main" / "log", copy)
    gate = moat.json("identity", "show", "main")["identities"][0]["id"]
    away = Cli(moat.state.parent / "nowhere")
    assert away.json("audit", "rerun", entry, *given, "--log", copy, "--key", gate)["equal"]
    assert len(moat.json("audit", "show", "--last", "999")["entries"]) == lines


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (SOLVER, ["--arg", "--smt2", "--stdin", SMT / "factor.smt2"]),
        (QUICKJS, ["--arg", "-e", "--arg", "print(Math.random(), Date.now())"]),
        (PYTHON, ["--arg", "-c", "--arg", "import time, os; print(time.time(), os.urandom(4))"]),
    ],
    ids=lambda value: value.member if isinstance(value, Program) else "",
)
def test_real_programs_come_out_the_same(
    moat: Cli, wanted: Program, given: list[str | Path]
) -> None:
    wasm = program(wanted)
    entry = moat.json(
        "run", wasm, "--token", granted(moat, "--fuel", "9G"), "--deterministic", *given,
        code=ERROR if wanted is SOLVER else 0,
    )["entry"]  # fmt: skip
    told = moat.json("audit", "rerun", str(entry), "--wasm", wasm, *given)
    assert told["equal"], told
    assert told["found"]["fuel"] > 1_000_000


def test_how_a_run_failed_comes_out_the_same(moat: Cli) -> None:
    for name, status in (("divide", "trap"), ("exit", "exit"), ("spin", "out_of_fuel")):
        wasm = moat.state.parent / f"{name}.wasm"
        wasm.write_bytes(wat(name))
        done = ran(moat, wasm, "--fuel", "100k", code=ERROR)
        told = moat.json("audit", "rerun", str(done["entry"]), "--wasm", wasm)
        assert (told["equal"], told["found"]["status"]) == (True, status)


def test_other_code_other_arguments_and_other_input_are_told_apart(moat: Cli) -> None:
    entry, given = echoed(moat)
    other = moat.state.parent / "other.wasm"
    other.write_bytes(assemble(ECHO + ";; ") + b"\x00\x03\x01\x78\x00")
    asked = ["audit", "rerun", entry]
    for axis, changed in {
        "code": ["--wasm", other, *given[2:]],
        "payload": [*given[:3], moat.state.parent / "other", *given[4:]],
        "args": [*given[:5], "A", *given[6:]],
    }.items():
        found = moat.error(*asked, *changed, code=INVALID)
        assert (found["code"], found["axis"]) == ("other_input", axis)
    for missing in (
        given[:2] + given[4:],
        given[:4] + given[6:],
        given[:6],
        [*given, "--arg", "x"],
    ):
        assert moat.error(*asked, *missing, code=INVALID)["code"] == "other_input"


def test_a_run_that_was_not_deterministic_is_not_run_again(moat: Cli) -> None:
    wasm = moat.state.parent / "echo.wasm"
    done = moat.json("run", wasm, "--token", granted(moat))
    assert done["deterministic"] is False
    found = moat.error("audit", "rerun", str(done["entry"]), "--wasm", wasm, code=ERROR)
    assert found["code"] == "not_deterministic"


def test_an_end_by_the_clock_is_not_compared(moat: Cli) -> None:
    wasm = moat.state.parent / "spin.wasm"
    wasm.write_bytes(wat("spin"))
    asked = ["run", wasm, "--token", granted(moat, "--fuel", "900G"), "--time", "20ms"]
    done = moat.json(*asked, "--deterministic", code=ERROR)
    assert done["status"] == "timed_out"
    found = moat.error("audit", "rerun", str(done["entry"]), "--wasm", wasm, code=ERROR)
    assert found["code"] == "not_comparable"


def test_what_is_no_run_is_not_run(moat: Cli) -> None:
    entry, given = echoed(moat)
    denied = moat.error(
        "run", given[1], "--token", granted(moat), "--resource", "tool://a", code=DENIED
    )
    wanted = {"9999": "no_entry", "0": "no_entry", "x" * 64: "no_entry"}
    for name, code in (wanted | {str(denied["entry"]): "no_outcome"}).items():
        assert moat.error("audit", "rerun", name, *given, code=ERROR)["code"] == code
    assert moat.json("audit", "rerun", entry, *given)["equal"]


def _edited(moat: Cli, old: str, new: str) -> None:
    (file,) = (moat.state / "gates" / "main" / "log" / "seg").glob("*.jsonl")
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_an_edited_entry_is_found_before_anything_runs(moat: Cli) -> None:
    """Whoever makes a run deterministic afterwards, or changes what it gave or used, is found."""
    entry, given = echoed(moat)
    wasm = moat.state.parent / "echo.wasm"
    plain = moat.json("run", wasm, "--token", granted(moat))["outcome_entry"]
    line = moat.json("audit", "show", "--last", "1")["entries"][0]
    assert line["i"] == plain
    fuel = moat.json("audit", "rerun", entry, *given)["logged"]["fuel"]
    file = moat.state / "gates" / "main" / "log" / "seg" / "000000000000.jsonl"
    whole = file.read_bytes()
    for old, new in [
        (f'"fuel":{fuel},"deterministic"', f'"fuel":{fuel + 1},"deterministic"'),
        (f'"decision":{line["body"]["decision"]},', f'"decision":{entry},'),
        (
            f'"fuel":{line["body"]["fuel"]}}}',
            f'"fuel":{line["body"]["fuel"]},"deterministic":true}}',
        ),
    ]:
        file.write_bytes(whole)
        _edited(moat, old, new)
        found = moat.error("audit", "rerun", entry, *given, code=INVALID)
        assert found["code"] in {"chain_broken", "rolled_back"}
    file.write_bytes(whole)
    assert moat.json("audit", "rerun", entry, *given)["equal"]


def test_a_claim_that_did_not_come_true_is_shown(
    moat: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that logs an end which this code with this input does not have."""
    honest = Sandbox.run

    def lying(self: Sandbox, permit: Any, **given: Any) -> Any:
        return honest(self, permit, **(given | {"stdin": b"something else"}))

    monkeypatch.setattr(Sandbox, "run", lying)
    given: list[str | Path] = ["--stdin", moat.state.parent / "in"]
    done = ran(moat, moat.state.parent / "echo.wasm", *given)
    monkeypatch.undo()
    asked = [
        "audit",
        "rerun",
        str(done["entry"]),
        "--wasm",
        moat.state.parent / "echo.wasm",
        *given,
    ]
    told = moat.json(*asked, code=INVALID)
    assert (told["equal"], told["differs"]) == (False, ["result"])
    assert "came out otherwise" in moat(*asked, code=INVALID).stdout


def test_it_needs_no_authority_and_runs_under_the_limits_of_the_tokens_links(moat: Cli) -> None:
    """Also once the agent is revoked; and under what a run's own link left, not the token's."""
    wasm = moat.state.parent / "spin.wasm"
    wasm.write_bytes(wat("spin"))
    done = ran(moat, wasm, "--fuel", "10k", code=ERROR)
    moat("revoke", "planner")
    told = moat.json("audit", "rerun", str(done["entry"]), "--wasm", wasm)
    assert told["equal"]
    assert told["found"]["fuel"] <= 10_000
    asked = ["run", wasm, "--token", granted(moat), "--deterministic"]
    assert moat.error(*asked, code=DEAD)["code"] == "revoked"


def test_a_deterministic_run_sends_nothing_and_reads_no_files(moat: Cli) -> None:
    held = granted(moat, "--host", "https://api.example/** GET")
    asked = ["run", CALLER, "--token", held, "--deterministic"]
    done = moat.json(*asked, "--arg", "api.example", "--arg", "/", code=ERROR)
    assert done["stderr"] == "refused: HTTP-request-denied\n"
    held = granted(moat, "--read", str(READER.parent))
    wasm = moat.state.parent / "echo.wasm"
    found = moat.error("run", wasm, "--token", held, "--deterministic", code=ERROR)
    assert "reaches no files" in found["message"]
    assert (
        moat.json("run", wasm, "--token", held, "--deterministic", "--dir", "none")["status"]
        == "ok"
    )


def test_a_session_makes_runs_that_can_be_repeated(moat: Cli) -> None:
    wasm = moat.state.parent / "echo.wasm"
    held = Token.parse(granted(moat).read_text().strip())
    with Moat.open(moat.state, create=False) as town:
        session = town.session("planner", held)
        outcome = session.run(
            Sandbox(wasm), resource="code://any", stdin=b"hello", argv=["ä", "\x7f"],
            env={"\U0001f600": "1", "\uffff": "2"}, deterministic=True,
        )  # fmt: skip
    assert outcome.stdout == b"hello"
    entry = moat.json("audit", "show", "--kind", "decision", "--last", "1")["entries"][0]["i"]
    given = ["--stdin", moat.state.parent / "in", "--arg", "ä", "--arg", "\x7f"]
    given += ["--env", "\U0001f600=1", "--env", "\uffff=2"]
    assert moat.json("audit", "rerun", str(entry), "--wasm", wasm, *given)["equal"]
