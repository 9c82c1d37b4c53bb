"""`moat attest sign|verify|add`, and a token that requires it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from cli_kit import DENIED, ERROR, INVALID, READER, USAGE, Cli, fresh
from moat import Moat


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with an agent and two reviewers."""
    return fresh(tmp_path, "planner", "alice", "bob")


def sign(moat: Cli, path: Path, *by: str, out: str = "x.att") -> Path:
    signers = [word for name in by for word in ("--by", name)]
    written = moat.state.parent / out
    moat("attest", "sign", path, *signers, "--out", written)
    return written


def test_code_that_is_attested_runs(moat: Cli) -> None:
    token = moat.issue(
        "--allow", "code://reader run", "--standard", "--require", "code alice,bob 30d 2"
    )  # fmt: skip
    run = ("run", READER, "--token", token, "--arg", "x", "--arg", "y")
    refused = moat.error(*run, code=DENIED)
    assert refused["code"] == "not_attested"
    assert "attest" in refused["next"]
    told = moat.json("attest", "sign", READER, "--by", "alice", "--by", "bob")
    assert told["digest"] == sha256(READER.read_bytes()).hexdigest()
    assert {one["name"] for one in told["signers"]} == {"alice", "bob"}
    file = moat.state.parent / "reader.att"
    file.write_text(told["envelope"])
    added = moat.json("attest", "add", file, "--signer", "alice", "--signer", "bob")
    assert added["statement"] == told["statement"]
    assert [gate["via"] for gate in added["gates"]] == ["gate"]
    moat(*run, code=1)  # it starts now, and finds no file
    shown = moat("audit", "show", "--kind", "attested").stdout
    assert "code by" in shown
    assert "alice" in shown
    entries = moat.json("audit", "show", "--kind", "decision")["entries"]
    assert entries[-1]["body"]["attested"] == [told["statement"]]


def test_a_running_gate_is_told_through_the_folder(moat: Cli) -> None:
    file = sign(moat, READER, "alice")
    with Moat.open(moat.state, create=False):
        added = moat.json("attest", "add", file, "--signer", "alice")
        assert [gate["via"] for gate in added["gates"]] == ["control"]
        again = moat.error("attest", "add", file, "--signer", "bob", code=INVALID)
        assert again["code"] == "bad_signature"


def test_verify_measures_anew(moat: Cli, tmp_path: Path) -> None:
    skill = tmp_path / "skill"
    skill.mkdir()
    (skill / "SKILL.md").write_text("use it")
    one, two = sign(moat, skill, "alice"), sign(moat, skill, "bob", out="y.att")
    asked = ("--signer", "alice", "--signer", "bob", "--threshold", "2")
    found = moat.json("attest", "verify", skill, one, two, *asked)
    assert found["valid"] is True
    assert found["kind"] == "skill"
    assert len(found["statements"]) == len(found["attestations"]) == 2
    assert "✓ skill" in moat("attest", "verify", skill, one, two, *asked).stdout
    lacking = moat.error("attest", "verify", skill, one, *asked, code=INVALID)
    assert lacking["code"] == "not_attested"
    foreign = moat.error("attest", "verify", skill, one, "--signer", "planner", code=INVALID)
    assert foreign["code"] == "bad_signature"
    (skill / "extra.py").write_text("")
    moat.error("attest", "verify", skill, one, two, *asked, code=INVALID)
    (skill / "link").symlink_to("SKILL.md")
    moat.error("attest", "verify", skill, one, two, *asked, code=1)


def test_a_tool_is_its_description(moat: Cli, tmp_path: Path) -> None:
    tool = tmp_path / "tool.json"
    tool.write_text(json.dumps({"name": "search", "description": "finds"}))
    file = sign(moat, tool, "alice")
    tool.write_text(json.dumps({"description": "finds", "name": "search"}, indent=3))
    assert moat.json("attest", "verify", tool, file, "--signer", "alice")["kind"] == "tool"
    as_code = ("attest", "verify", tool, file, "--signer", "alice", "--kind", "code")
    moat.error(*as_code, code=INVALID)


def test_kinds_and_files_that_do_not_fit(moat: Cli, tmp_path: Path) -> None:
    moat.error("attest", "sign", tmp_path, "--kind", "code", "--by", "alice", code=USAGE)
    moat.error("attest", "sign", READER, "--kind", "skill", "--by", "alice", code=USAGE)
    moat.error("attest", "sign", READER, code=USAGE)
    long = tmp_path / "long"
    long.write_bytes(b" " * (33 * 1024))
    moat.error("attest", "add", long, "--signer", "alice", code=1)
    assert "signed for code" in moat(
        "attest", "sign", READER, "--by", "alice", "--out", tmp_path / "o"
    ).stdout.replace("\n", " ")
    printed = moat("attest", "sign", READER, "--by", "alice").stdout
    assert json.loads(printed)["payloadType"] == "application/vnd.in-toto+json"


@pytest.mark.parametrize(
    "wrong",
    ["code alice", "code alice 30d two", "code alice 30d 1 uri more", "code alice soon"],
)
def test_a_requirement_that_is_none(moat: Cli, wrong: str) -> None:
    moat.error(
        "token", "issue", "--to", "planner", "--allow", "code://x run", "--expires", "1h",
        "--require", wrong, code=USAGE,
    )  # fmt: skip


def test_inspect_shows_what_is_required(moat: Cli) -> None:
    first = moat.issue("--allow", "code://x run", "--depth", "1", "--require", "code alice 30d")
    last = moat.state.parent / "bob.token"
    moat(
        "token", "attenuate", first, "--to", "bob", "--out", last,
        "--require", "skill bob 1h 1 urn:moat:manifest:v1",
    )  # fmt: skip
    shown = moat("token", "inspect", last).stdout
    assert "attest  code by 1 of" in shown
    assert "+ attested skill by 1 of" in shown
    one, two = moat.json("token", "inspect", last)["links"]
    assert one["attestations"] == [f"code urn:moat:manifest:v1 1 {moat.did('alice')} 2592000s"]
    added = f"skill urn:moat:manifest:v1 1 {moat.did('bob')} 3600s"
    assert two["dropped"]["attestations"] == [added]
    assert two["attestations"] == [*one["attestations"], added]


def test_a_gate_requires_what_no_token_asks_for(moat: Cli) -> None:
    token = moat.issue("--allow", "code://reader run", "--standard")
    run = ("run", READER, "--token", token, "--arg", "x", "--arg", "y")
    done = moat.json("gate", "require", "code alice,bob 30d 2", "tool alice 1h")
    assert done["gates"] == ["main"]
    assert [text.split()[0] for text in done["required"]] == ["code", "tool"]
    assert moat.did("alice") in done["required"][0]
    assert done["policy"][:16] in policy_told(moat)
    assert "2 attestations" in policy_told(moat)
    refused = moat.error(*run, code=DENIED)
    assert (refused["code"], refused.get("link")) == ("not_attested", None)
    signers = ("--signer", "alice", "--signer", "bob")
    both = sign(moat, READER, "alice", "bob")
    moat("attest", "add", both, *signers)
    moat(*run, code=1)  # it starts now, and finds no file
    told = moat("gate", "require", "none").stdout
    assert "nothing is required" in told
    assert "nothing" in policy_told(moat)
    assert "policy" not in json.loads((moat.state / "config.json").read_bytes())
    changes = moat.json("audit", "show", "--kind", "rules")["entries"]
    texts = [entry["body"]["policy"].count("\nrequire ") for entry in changes]
    assert texts == [0, 2, 0]


def policy_told(moat: Cli) -> str:
    """What `moat doctor` says that gates require."""
    (one,) = (c for c in moat.json("doctor")["checks"] if c["check"] == "policy")
    assert one["status"] == "ok"
    return str(one["message"])


def test_a_gate_that_runs_is_told_of_no_other_requirement(moat: Cli) -> None:
    with Moat.open(moat.state, create=False):
        busy = moat.error("gate", "require", "code alice 30d", code=ERROR)
    assert busy["code"] == "gate_busy"
    for wrong in (["none", "code alice 30d"], ["code alice"], []):
        moat("gate", "require", *wrong, code=USAGE)
    assert moat.error("gate", "require", "code nobody 30d", code=ERROR)
    assert "policy" not in json.loads((moat.state / "config.json").read_bytes())


def test_a_restore_tells_what_is_required_no_more(moat: Cli, tmp_path: Path) -> None:
    moat("backup", tmp_path / "backup")
    required = moat.json("gate", "require", "code alice 30d")["required"]
    told = moat.json("restore", "--from", tmp_path / "backup", "--replace")
    assert told["required_no_more"] == required
    moat("gate", "require", "code alice 30d")
    assert "required no more" in moat("restore", "--from", tmp_path / "backup", "--replace").stdout
