"""`moat token`: issue, attenuate, inspect, verify."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cli_kit import DEAD, DENIED, ERROR, INVALID, USAGE, Cli, fresh
from moat import AgentId, Grant, Host, Limits, Moat, Secret, Token, _forge
from moat._tree import tree
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner, a worker and a stranger."""
    return fresh(tmp_path, "planner", "worker", "stranger")


SEARCH = ("--allow", "tool://search/** call,read")
EVERYTHING = (
    *SEARCH, "--allow", "tool://mail/* send", "--deny", "tool://search/private/** *",
    "--fuel", "5M", "--memory", "64MiB", "--time", "2s", "--output", "1MiB",
    "--host", "https://example.org", "--host", "https://api.example.org/v1/** GET,POST 10.0.0.0/8",
    "--secret", "secret://key https://example.org authorization", "--depth", "2",
)  # fmt: skip


GATED = Host("https://api.example.org/v1/**", {"GET", "POST"}, ["10.0.0.0/8"])
KEY = Secret("secret://key", host="https://example.org", header="authorization")


def keys(cli: Cli) -> KeyStore:
    return KeyStore(cli.state / "keys")


# --- issue ---


def test_issue_writes_out_what_was_asked(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = moat.issue(*EVERYTHING, "--read", str(tmp_path / "in"), "--write", str(tmp_path / "out"))
    token = Token.parse(path.read_text().strip())
    token.verify([AgentId(moat.did("root"))])
    assert token.allow == (
        Grant("tool://mail/*", {"send"}), Grant("tool://search/**", {"call", "read"}),
    )  # fmt: skip
    assert [str(one.resource) for one in token.deny] == ["tool://search/private/**"]
    assert token.limits == Limits(
        fuel=5_000_000, memory=64 << 20, time=timedelta(seconds=2), output=1 << 20,
        hosts=["https://example.org", GATED], read=[tree(tmp_path / "in")],
        write=[tree(tmp_path / "out")], secrets=[KEY],
    )  # fmt: skip
    assert token.depth == 2
    assert token.expires - token.links[0].issued == 3600
    assert str(token.holder) == moat.did("planner")
    assert path.stat().st_mode & 0o777 == 0o600


def test_issue_grants_no_limits_that_were_not_asked_for(moat: Cli) -> None:
    token = Token.parse(moat.issue(*SEARCH).read_text().strip())
    assert token.limits == Limits()
    assert token.depth == 0
    everyday = Token.parse(moat.issue(*SEARCH, "--standard", "--fuel", "7").read_text().strip())
    assert everyday.limits == Limits.standard().replace(fuel=7)


def test_issue_prints_the_token_alone_so_that_it_can_be_piped(moat: Cli) -> None:
    issued = moat("token", "issue", "--to", "planner", "--expires", "1h", "--depth", "1", *SEARCH)
    assert issued.stdout.startswith("moat1.")
    assert len(issued.stdout.split()) == 1
    narrowed = moat("token", "attenuate", "-", "--to", "worker", input=issued.stdout).stdout
    assert len(Token.parse(narrowed.strip()).links) == 2


def test_issue_as_json(moat: Cli) -> None:
    made = moat.json("token", "issue", "--to", moat.did("worker"), "--expires", "1h", *SEARCH)
    assert set(made) == {"token", "id", "holder", "links", "expires", "depth", "out"}
    token = Token.parse(made["token"])
    assert made["id"] == token.id.hex()
    assert made["holder"] == moat.did("worker")
    assert (made["links"], made["depth"], made["out"]) == (1, 0, None)


def test_issue_needs_something_to_allow_a_holder_and_a_lifetime(moat: Cli) -> None:
    whole = ["--to", "planner", "--expires", "1h", *SEARCH]
    moat.error("token", "issue", *whole[:4], code=USAGE)
    moat.error("token", "issue", *whole[2:], code=USAGE)
    moat.error("token", "issue", *whole[:2], *SEARCH, code=USAGE)
    found = moat.error("token", "issue", *whole, "--allow", "tool://x", code=USAGE)
    assert "needs a pattern and actions" in found["message"]
    moat.error("token", "issue", *whole[2:], "--to", "nobody", code=ERROR)


def test_issue_by_someone_who_is_no_root_makes_a_token_nobody_trusts(moat: Cli) -> None:
    path = moat.issue(*SEARCH, "--by", "stranger")
    assert moat.error("token", "verify", path, code=INVALID)["code"] == "unknown_root"


# --- attenuate ---


def test_attenuate_keeps_what_it_is_not_told_to_narrow(moat: Cli) -> None:
    parent = moat.issue(*EVERYTHING)
    made = moat.json("token", "attenuate", parent, "--to", "worker", "--fuel", "1k")
    before, after = Token.parse(parent.read_text().strip()), Token.parse(made["token"])
    assert after.limits == before.limits.replace(fuel=1000)
    assert after.links[1].allow == before.allow
    assert after.links[1].expires == before.expires
    assert after.depth == 1
    assert str(after.holder) == moat.did("worker")


def test_attenuate_empties_a_set_when_told_none(moat: Cli) -> None:
    parent = moat.issue(*EVERYTHING)
    for option, axis in (("--host", "hosts"), ("--secret", "secrets")):
        made = moat.json("token", "attenuate", parent, "--to", "worker", option, "none")
        after = Token.parse(made["token"]).limits
        assert getattr(after, axis) == ()
        assert after.hosts or after.secrets


def test_asking_for_more_is_denied_and_says_which_axis_and_a_witness(moat: Cli) -> None:
    parent = moat.issue(*EVERYTHING)
    asked = ["token", "attenuate", str(parent), "--to", "worker"]
    found = moat.error(*asked, "--allow", "tool://*/** call", code=DENIED)
    assert found["code"] == "widened"
    assert found["caveat"] == "resource"
    assert "tool://" in found["witness"]
    found = moat.error(*asked, "--fuel", "6M", code=DENIED)
    assert found["caveat"] == "fuel"
    told = moat(*asked, "--fuel", "6M", code=DENIED).stderr
    assert "caveat" in told
    assert "fuel" in told


def test_only_the_holder_can_attenuate(moat: Cli, tmp_path: Path) -> None:
    parent = moat.issue(*EVERYTHING)
    moat.error("token", "attenuate", parent, "--to", "worker", "--by", "stranger", code=DENIED)
    (tmp_path / "other").mkdir()
    other = fresh(tmp_path / "other", "worker")
    found = other.error("token", "attenuate", parent, "--to", "worker", code=DENIED)
    assert found["code"] == "wrong_holder"


# --- inspect ---


def chain(cli: Cli) -> Path:
    parent = cli.issue(*EVERYTHING)
    child = cli.state.parent / "child.token"
    cli(
        "token", "attenuate", parent, "--to", "worker", "--allow", "tool://search/web call",
        "--deny", "tool://search/web/beta call", "--fuel", "1M", "--expires", "10m",
        "--host", "https://example.org/a GET", "--out", child,
    )  # fmt: skip
    return child


def test_inspect_says_what_each_link_dropped(moat: Cli) -> None:
    shown = moat.json("token", "inspect", chain(moat))
    assert set(shown) == {"id", "root", "holder", "expires", "limits", "links", "problem"}
    assert shown["problem"] is None
    assert shown["root"] == {"id": moat.did("root"), "name": "root"}
    first, second = shown["links"]
    assert first["dropped"] is None
    lost = second["dropped"]
    assert lost["grants"] == ["tool://mail/* send"]
    assert lost["narrowed"] == {"tool://search/** call,read": ["tool://search/web call"]}
    assert lost["denials"] == ["tool://search/web/beta call"]
    assert lost["fuel"] == [5_000_000, 1_000_000]
    before = ["https://api.example.org/v1/** GET,POST 10.0.0.0/8", "https://example.org/** *"]
    assert lost["hosts"] == {"before": before, "after": ["https://example.org/a GET"]}
    assert "secrets" not in lost
    assert second["limits"]["secrets"] == ["secret://key https://example.org authorization"]
    assert lost["depth"] == [2, 1]
    assert lost["expires"][0] > lost["expires"][1]
    assert "memory" not in lost
    assert second["limits"]["time"] == 2000


def test_inspect_draws_the_tree(moat: Cli) -> None:
    told = moat("token", "inspect", chain(moat)).stdout
    for part in (
        "root → planner", "planner → worker", "- tool://mail/* send",
        "~ tool://search/** call,read  →  tool://search/web call",
        "+ deny tool://search/web/beta call", "- fuel 5,000,000  →  1,000,000",
        "- hosts https://api.example.org/v1/** GET,POST 10.0.0.0/8, https://example.org/** *  →  ",
        "https://example.org/a GET", "secrets secret://key https://example.org authorization",
        "delegates 1 more", "✓ signatures hold",
    ):  # fmt: skip
        assert part in told


def test_inspect_needs_no_state_folder(moat: Cli, tmp_path: Path) -> None:
    text = chain(moat).read_text().strip()
    shown = Cli(tmp_path / "nowhere").json("token", "inspect", text)
    assert shown["root"] == {"id": moat.did("root"), "name": None}


def test_inspect_shows_a_token_that_was_widened_by_hand(moat: Cli, tmp_path: Path) -> None:
    parent = Token.parse(moat.issue(*EVERYTHING).read_text().strip())
    worker = AgentId(moat.did("worker"))
    planner = keys(moat).load("planner")
    wide = [Grant("tool://search/**", {"call"}), Grant("tool://shell", {"call"})]
    path = tmp_path / "wide.token"
    path.write_bytes(bytes(_forge.widened(parent, planner, worker, wide)))
    shown = moat.json("token", "inspect", path)
    assert shown["problem"]["code"] == "widened"
    assert shown["problem"]["witness"] == "call tool://shell"
    assert "✗" in moat("token", "inspect", path).stdout
    found = moat.error("token", "verify", path, code=INVALID)
    assert (found["code"], found["caveat"]) == ("widened", "resource")


def test_a_token_is_a_file_a_text_or_standard_input(moat: Cli, tmp_path: Path) -> None:
    path = moat.issue(*SEARCH)
    text = path.read_text()
    (tmp_path / "raw").write_bytes(bytes(Token.parse(text.strip())))
    wanted = moat.json("token", "inspect", path)["id"]
    assert moat.json("token", "inspect", text.strip())["id"] == wanted
    assert moat.json("token", "inspect", "-", input=text)["id"] == wanted
    assert moat.json("token", "inspect", tmp_path / "raw")["id"] == wanted


def test_what_is_no_token_is_told_so(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\xff\xfe junk")
    moat.error("token", "inspect", tmp_path / "junk", code=ERROR)
    moat.error("token", "inspect", "moat1.AAAA", code=ERROR)
    assert moat.error("token", "inspect", "no-such-file", code=ERROR)["code"] == "no_token"


# --- verify ---


def test_verify_says_that_a_token_holds(moat: Cli) -> None:
    found = moat.json("token", "verify", chain(moat))
    assert set(found) == {
        "valid", "id", "root", "holder", "links", "expires", "revocation", "can",
    }  # fmt: skip
    assert found["valid"] is True
    assert found["links"] == 2
    assert found["holder"]["name"] == "worker"
    assert found["revocation"] == "not revoked"
    assert "✓ valid" in moat("token", "verify", chain(moat)).stdout


def test_verify_against_a_named_root_needs_no_state_folder(moat: Cli, tmp_path: Path) -> None:
    text, root = chain(moat).read_text().strip(), moat.did("root")
    other = Cli(tmp_path / "nowhere")
    found = other.json("token", "verify", text, "--root", root)
    assert found["revocation"].startswith("not checked")
    wrong = other.error("token", "verify", text, "--root", moat.did("stranger"), code=INVALID)
    assert wrong["code"] == "unknown_root"


def test_verify_answers_whether_a_request_is_permitted(moat: Cli) -> None:
    token = str(chain(moat))
    asked = ["token", "verify", token, "--can"]
    assert moat.json(*asked, "call", "tool://search/web")["can"]["action"] == "call"
    found = moat.error(*asked, "call", "tool://search/other", code=DENIED)
    assert found["code"] == "not_granted"
    assert "link 1" in found["message"]


def test_verify_finds_a_changed_byte(moat: Cli, tmp_path: Path) -> None:
    data = bytearray(bytes(Token.parse(chain(moat).read_text().strip())))
    data[-1] ^= 1
    (tmp_path / "bad").write_bytes(data)
    assert moat.error("token", "verify", tmp_path / "bad", code=INVALID)["code"] == "bad_signature"


def test_verify_says_that_a_token_has_expired(moat: Cli, tmp_path: Path) -> None:
    old = Token.issue(
        keys(moat).load("root"), holder=AgentId(moat.did("worker")), now=1_000_000_000,
        allow=[Grant("tool://x", {"call"})], expires_in=timedelta(hours=1),
    )  # fmt: skip
    (tmp_path / "old").write_text(str(old))
    assert moat.error("token", "verify", tmp_path / "old", code=DEAD)["code"] == "expired"
    assert "expired" in moat("token", "inspect", tmp_path / "old").stdout


def test_verify_says_that_an_ancestor_is_revoked(moat: Cli) -> None:
    token = chain(moat)
    moat("revoke", "planner")
    found = moat.error("token", "verify", token, code=DEAD)
    assert found["code"] == "revoked"
    assert found["link"] == 0
    moat("restore", "planner")
    assert moat.json("token", "verify", token)["revocation"] == "not revoked"


def test_verify_that_could_not_ask_is_no_verdict_on_the_token(moat: Cli) -> None:
    token = chain(moat)
    assert (
        "nobody" in moat.error("token", "verify", token, "--root", "nobody", code=ERROR)["message"]
    )
    moat.error("token", "verify", token, "--gate", "other", code=ERROR)
    with Moat.open(moat.state, create=False):
        found = moat.json("token", "verify", token)
    assert "another process" in found["revocation"]


def test_verify_takes_no_revocations_from_an_edited_log(moat: Cli) -> None:
    token = chain(moat)
    moat("revoke", "planner")
    part = next((moat.state / "gates" / "main" / "log").rglob("*.jsonl"))
    part.write_bytes(part.read_bytes().replace(b'"revoke"', b'"revoKe"'))
    found = moat.error("token", "verify", token, code=INVALID)
    assert found["code"] in {"chain_broken", "bad_mac"}


@pytest.mark.parametrize("place", ["", "keys", "gates/main", "gates/main/key", "control", ".."])
@pytest.mark.parametrize("axis", ["--read", "--write"])
def test_no_token_is_issued_that_gives_code_the_keys(moat: Cli, place: str, axis: str) -> None:
    asked = ("token", "issue", "--to", "worker", "--expires", "1h", *SEARCH, axis)
    (moat.state / place).mkdir(exist_ok=True)
    found = moat.error(*asked, moat.state / place, code=ERROR)
    assert found["code"] == "keys_exposed"
    (moat.state / "desk").mkdir()
    moat(*asked, moat.state / "desk")
