"""`moat gate rotate`, and what other commands say of a gate that has had several keys."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cli_kit import DENIED, ERROR, INVALID, Cli, fresh
from moat import Moat
from moat._follow import Feed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    made = fresh(tmp_path, "planner")
    made("revoke", "planner")
    return made


def gate_of(moat: Cli) -> str:
    (found,) = (one for one in moat.json("identity", "show")["identities"] if one["role"] == "gate")
    return str(found["id"])


def test_rotating_says_old_and_new(moat: Cli) -> None:
    old = gate_of(moat)
    done = moat.json("gate", "rotate")
    assert done == {
        "gate": "main", "name": "main", "previous": old, "id": gate_of(moat),
        "entries": done["entries"], "former": 1,
    }  # fmt: skip
    assert done["id"] != old
    told = moat("gate", "rotate").stdout
    assert done["id"] in told
    assert gate_of(moat) in told
    assert "--gate-only" in told
    keys = moat.json("agent", "history", "main")["agents"][0]["keys"]
    assert [key["id"] for key in keys] == [old, done["id"], gate_of(moat)]


def test_a_gate_is_registered_under_another_name_where_its_own_is_taken(moat: Cli) -> None:
    moat("identity", "new", "main")
    moat("agent", "register", "main")
    refused = moat.error("gate", "rotate", code=DENIED)
    assert refused["code"] == "name_taken"
    assert moat.json("gate", "rotate", "--name", "front")["name"] == "front"
    wrong = moat.error("gate", "rotate", "--name", "back", code=ERROR)
    assert "registered as `front`" in wrong["message"]
    assert moat.json("gate", "rotate", "--name", "front")["former"] == 2


def test_a_gate_that_runs_is_not_rotated(moat: Cli) -> None:
    with Moat.open(moat.state):
        assert moat.error("gate", "rotate", code=ERROR)["code"] == "gate_busy"
    assert moat.error("gate", "rotate", "--gate", "none", code=ERROR)


def test_verify_reads_the_former_logs_as_well(moat: Cli) -> None:
    plain = moat.json("audit", "verify")
    assert (plain["inherited"], plain["former"]) == (None, [])
    moat("gate", "rotate")
    moat("gate", "rotate")
    found = moat.json("audit", "verify")
    assert [one["number"] for one in found["former"]] == [1, 2]
    first, second = found["former"]
    assert first["inherited"] is None
    for one, after in ((first, second), (second, found)):
        assert after["inherited"] == {key: one[key] for key in ("log", "entries", "root")}
        assert one["signed"] == one["anchored"] == one["entries"]
    assert not any("was not compared" in said for said in found["unchecked"])
    assert "goes on after" in moat("audit", "verify").stdout
    alone = moat.json(
        "audit", "verify", "--log", moat.state / "gates/main/log", "--key", found["log"]
    )
    assert any("was not compared" in said for said in alone["unchecked"])
    segment = moat.state / "gates/main/former/1/log/seg/000000000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"revoke"', b'"revokf"'))
    assert moat.error("audit", "verify", code=INVALID)["code"] == "chain_broken"


def test_a_revocation_stands_at_the_new_gate(moat: Cli) -> None:
    token = moat.issue("--standard", "--allow", "tool://a call")
    moat("gate", "rotate")
    assert moat.error("token", "verify", token, code=5)["code"] == "revoked"
    moat("restore", "planner")
    moat("token", "verify", token)


def test_a_token_bound_to_the_former_gate_is_refused(moat: Cli) -> None:
    bound = moat.issue("--standard", "--allow", "tool://a call", "--gate-only", gate_of(moat))
    moat("restore", "planner")
    moat("token", "verify", bound)
    moat("gate", "rotate")
    assert moat.error("token", "verify", bound, code=INVALID)["code"] == "wrong_gate"


def test_doctor_looks_at_former_logs(moat: Cli) -> None:
    moat("gate", "rotate")
    checks = {c["status"]: c for c in moat.json("doctor")["checks"] if c["check"] == "former"}
    assert list(checks) == ["ok"]
    home = moat.state / "gates/main"
    (home / "former/1/key/main.pem").write_bytes(b"")
    found = [c for c in moat.json("doctor", code=ERROR)["checks"] if c["check"] == "former"]
    assert [c["status"] for c in found] == ["fail", "ok"]


def test_watch_goes_on_in_the_new_log(moat: Cli) -> None:
    with closing(Feed(moat.state)) as feed:
        before = feed.poll()
        moat("gate", "rotate")
        after = feed.poll()
        assert feed.missed == 0
        moat("suspend", "planner")
        last = feed.poll()
    kinds = [seen.line.partition(b'"kind":"')[2].partition(b'"')[0] for seen in [*after, *last]]
    assert before
    assert kinds == [b"agent", b"agent", b"open", b"inherited", b"control"]


def test_the_other_commands_of_a_log(moat: Cli, tmp_path: Path) -> None:
    moat("gate", "rotate")
    entries = moat.json("audit", "show")["entries"]
    assert [entry["kind"] for entry in entries][:2] == ["open", "inherited"]
    assert moat.json("audit", "prune", "--before", "1", "--yes")["entries"] == 0
    assert moat.json("audit", "accept", "--yes")["accepted"] is False
    moat("audit", "prove", "1", "--out", tmp_path / "proof")
    moat("audit", "check", tmp_path / "proof")
    made = moat.json("backup", tmp_path / "backup")
    (former,) = made["gates"][0]["former"]
    assert former["name"] == "1"
    again = Cli(tmp_path / "again")
    again("restore", "--from", tmp_path / "backup")
    assert again.json("audit", "verify")["former"][0]["log"] == former["id"]
