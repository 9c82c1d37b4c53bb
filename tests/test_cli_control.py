"""`moat revoke|restore|suspend|resume` and `moat agent`, beside gates that are running."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from cli_kit import Cli
from moat import Moat
from moat.cli import speak
from moat.cli.failure import DENIED, ERROR

VERBS = ("suspend", "resume", "revoke", "restore")


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path / "state")
    cli("init")
    for name in ("planner", "worker"):
        cli("identity", "new", name)
    return cli


def taken_up(moat: Cli) -> None:
    """Wait until the gate has removed what it has read, which it does after its entry."""
    deadline = time.monotonic() + 30
    while list((moat.state / "control").iterdir()):
        assert time.monotonic() < deadline


def opened(moat: Cli, gate: str = "main") -> Moat:
    return Moat.open(moat.state, gate=gate)


def test_a_running_gate_hears_every_verb_and_the_command_waits_for_its_entry(moat: Cli) -> None:
    with opened(moat) as running:
        worker = running.identity("worker")
        for verb in VERBS:
            done = moat.json(verb, "worker")
            (answer,) = done["gates"]
            assert answer["via"] == "control"
            line = json.loads(running.audit.read(answer["entry"]))
            assert (line["kind"], line["body"]["verb"]) == ("control", verb)
            assert running.is_suspended(worker) == (verb == "suspend")
            assert running.is_revoked(worker) == (verb == "revoke")
        taken_up(moat)


def test_a_running_gates_refusal_is_the_commands(moat: Cli) -> None:
    with opened(moat) as running:
        found = moat.error("revoke", "worker", "--by", "planner", code=DENIED)
        assert found["code"] == "no_standing"
        assert not running.is_revoked(running.identity("worker"))
        taken_up(moat)


def test_every_gate_is_told_and_one_that_refuses_keeps_it_from_none(moat: Cli) -> None:
    opened(moat, "second").close()
    with opened(moat, "third") as running:
        done = moat.json("suspend", "worker")
        assert [(one["name"], one["via"]) for one in done["gates"]] == [
            ("main", "gate"), ("second", "gate"), ("third", "control"),
        ]  # fmt: skip
        moat.json("resume", "worker", "--gate", "second")
        found = moat.json("resume", "worker", code=DENIED)["error"]
        assert [one.get("error", {}).get("code") for one in found["gates"]] == [
            None, "no_standing", None,
        ]  # fmt: skip
        assert not running.is_suspended(running.identity("worker"))
    assert moat.error("suspend", "worker", "--gate", "fourth", code=ERROR)["code"] == "no_gate"


def test_a_folder_without_gates_tells_nobody_and_says_so(moat: Cli) -> None:
    shutil.rmtree(moat.state / "gates")
    for verb in VERBS:
        assert moat.error(verb, "worker", code=ERROR)["code"] == "no_gate"


@pytest.mark.parametrize("harm", ["gone", "broken", "open to others"])
def test_a_gates_bad_key_keeps_the_word_from_no_other_gate(moat: Cli, harm: str) -> None:
    """It comes first by name; the one behind it runs, and hears of it."""
    opened(moat, "broken").close()
    key = moat.state / "gates" / "broken" / "key"
    match harm:
        case "gone":
            shutil.rmtree(key)
        case "broken":
            (key / "broken.pub").write_text("not a key\n")
        case "open to others":
            (key / "broken.pub").chmod(0o666)
    with opened(moat) as running:
        found = moat.json("revoke", "worker", code=ERROR)["error"]
        told = {one["name"]: one for one in found["gates"]}
        assert set(told) == {"broken", "main"}
        assert found["message"].startswith("gate `broken`: ")
        assert told["broken"]["entry"] is None
        assert told["main"]["via"] == "control"
        assert running.is_revoked(running.identity("worker"))
        taken_up(moat)


def test_a_gate_that_does_not_answer_is_said_so(moat: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speak, "WAIT", 0.1)
    with opened(moat) as running:
        running._watcher.stop()
        found = moat.json("suspend", "worker", code=ERROR)["error"]
        assert found["code"] == "no_answer"
        assert len(list((moat.state / "control").iterdir())) == 1
        assert not running.is_suspended(running.identity("worker"))
    with opened(moat) as later:
        taken_up(moat)
        assert later.is_suspended(later.identity("worker"))


def test_a_suspended_agent_is_told_so(moat: Cli) -> None:
    moat("suspend", "worker")
    told = moat("resume", "worker").stdout
    assert "resumed agent worker" in told
    assert moat.error("suspend", "worker", "--by", "worker", code=DENIED)["code"] == "no_standing"


def test_agents_register_and_rotate_and_are_listed(moat: Cli) -> None:
    moat("identity", "new", "worker2")
    with opened(moat):
        assert moat.json("agent", "register", "worker")["gates"][0]["via"] == "control"
    done = moat.json("agent", "rotate", "worker", "--from", "worker", "--to", "worker2")
    assert done["previous"] == moat.did("worker")
    (found,) = moat.json("agent", "list")["agents"]
    assert found["id"] == moat.did("worker2")
    assert [key["id"] for key in found["keys"]] == [moat.did("worker"), moat.did("worker2")]
    assert moat.json("agent", "history", "worker")["agents"] == [found]
    assert "worker (agent)" in moat("agent", "list").stdout


def test_a_taken_name_and_one_nobody_has(moat: Cli) -> None:
    moat("agent", "register", "worker")
    found = moat.error("agent", "register", "vvorker", "--identity", "planner", code=DENIED)
    assert found["code"] == "name_taken"
    assert moat.error("agent", "history", "nobody", code=ERROR)["code"] == "not_registered"
