"""An option of `moat run` narrows: what asks for more than the token has does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cli_kit import DEAD, DENIED, ERROR, READER, Cli, fresh
from guests.build import wat
from moat import Moat, Token

if TYPE_CHECKING:
    from pathlib import Path

HOST = "https://api.example/v1/** GET"


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A planner whose token may read one desk, write one tray and ask one host."""
    made = fresh(tmp_path, "planner", "stranger")
    for name in ("desk/in", "tray", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "desk" / "in" / "a.txt").write_text("a token\n")
    (tmp_path / "private" / "b.txt").write_text("a token that is private\n")
    return made


def granted(moat: Cli, *more: str, depth: str = "1") -> Path:
    desk, tray = moat.state.parent / "desk", moat.state.parent / "tray"
    secret = "secret://key https://api.example authorization"
    return moat.issue(
        "--allow", "code://reader run", "--standard", "--depth", depth, "--read", str(desk),
        "--read", str(tray), "--write", str(tray), "--host", HOST, "--secret", secret, *more,
    )  # fmt: skip


def lines(moat: Cli) -> int:
    return len(moat.json("audit", "show", "--last", "1000")["entries"])


@pytest.mark.parametrize(
    ("flags", "caveat"),
    [
        (["--allow-host", "https://api.example/v2/** GET"], "hosts"),
        (["--allow-host", "https://api.example/v1/** GET,POST"], "hosts"),
        (["--allow-host", "https://api.example/v1/**"], "hosts"),
        (["--allow-host", "https://api.example/v1/** GET 127.0.0.0/8"], "hosts"),
        (["--allow-host", "https://*.example/v1/** GET"], "hosts"),
        (["--dir", "private"], "read"),
        (["--dir", "desk:rw"], "write"),
        (["--dir", "desk/in:ro", "--dir", "private:ro"], "read"),
        (["--secret", "secret://other"], "secrets"),
        (["--secret", "secret://key", "--secret", "secret://other"], "secrets"),
        (["--fuel", "2G"], "fuel"),
        (["--memory", "257MiB"], "memory"),
        (["--time", "11s"], "time"),
        (["--output", "2MiB"], "output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_an_option_that_widens_runs_nothing_and_says_what_is_too_wide(
    moat: Cli, monkeypatch: pytest.MonkeyPatch, flags: list[str], caveat: str
) -> None:
    monkeypatch.chdir(moat.state.parent)
    held = granted(moat)
    before = lines(moat)
    found = moat.error("run", READER, "--token", held, *flags, code=DENIED)
    assert (found["code"], found["caveat"]) == ("widened", caveat)
    assert found["witness"]
    assert lines(moat) == before


def test_a_folder_that_a_link_leads_to_is_not_below_the_token(
    moat: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named as a path, it is where it leads; as a pattern, the sandbox does not go there."""
    place = moat.state.parent
    monkeypatch.chdir(place)
    (place / "desk" / "way").symlink_to(place / "private")
    asked = ["run", READER, "--token", granted(moat), "--arg", "token"]
    asked += ["--arg", place / "desk" / "way" / "b.txt"]
    found = moat.error(*asked, "--dir", "desk/way", code=DENIED)
    assert (found["code"], found["caveat"]) == ("widened", "read")
    assert str(place / "private") in found["witness"]
    found = moat.error(*asked, "--dir", f"file://{place}/desk/way/**", code=ERROR)
    assert found["code"] == "sandbox_error"
    assert "private" not in moat(*asked, code=ERROR).stdout


@pytest.mark.parametrize("depth", ["0", "1", "2"])
def test_a_token_that_allows_no_further_link_is_not_narrowed(moat: Cli, depth: str) -> None:
    held = granted(moat, depth=depth)
    asked = [
        "run",
        READER,
        "--token",
        held,
        "--arg",
        "a",
        "--arg",
        moat.state.parent / "desk/in/a.txt",
    ]
    if depth == "0":
        found = moat.error(*asked, "--fuel", "5M", code=DENIED)
        assert (found["code"], found["caveat"]) == ("depth_spent", "depth")
        assert "--depth 1" in found["next"]
        assert moat.json(*asked)["status"] == "ok"
    else:
        assert moat.json(*asked, "--fuel", "5M")["limits"]["fuel"] == 5_000_000


def test_a_thief_narrows_nothing(moat: Cli) -> None:
    held = granted(moat)
    found = moat.error(
        "run", READER, "--token", held, "--as", "stranger", "--fuel", "1k", code=DENIED
    )
    assert found["code"] == "wrong_holder"


@pytest.mark.parametrize("verb", ["revoke", "suspend"])
def test_what_is_withdrawn_from_the_holder_reaches_the_key_of_the_run(moat: Cli, verb: str) -> None:
    asked = ["run", READER, "--token", granted(moat), "--fuel", "5M", "--arg", "a"]
    asked += ["--arg", moat.state.parent / "desk" / "in" / "a.txt"]
    moat(*asked)
    moat(verb, "planner")
    code = DEAD if verb == "revoke" else DENIED
    assert moat.error(*asked, code=code)["code"] == {"revoke": "revoked"}.get(verb, "suspended")


def test_the_key_of_a_run_is_its_own_and_is_kept_nowhere(moat: Cli) -> None:
    asked = ["run", READER, "--token", granted(moat), "--fuel", "5M", "--arg", "a"]
    asked += ["--arg", moat.state.parent / "desk" / "in" / "a.txt"]
    entries = [moat.json(*asked)["entry"] for _ in range(2)]
    shown = moat.json("audit", "show", "--kind", "decision", "--last", "9")["entries"]
    holders = {one["body"]["holder"] for one in shown if one["i"] in entries}
    assert len(holders) == 2
    assert moat.did("planner") not in holders
    kept = {one["id"] for one in moat.json("identity", "show")["identities"]}
    assert not holders & kept


def test_a_secret_is_for_the_agent_who_let_the_key_in_and_for_no_other(moat: Cli) -> None:
    """Who says that it acts for an agent shows a link from that very agent."""
    pytest.importorskip("pyrage")
    bound = ("--agent", "planner", "--host", "https://api.example")
    moat("secret", "set", "secret://key", *bound, input="a-value-of-the-planners")
    held = Token.parse(granted(moat, depth="2").read_text().strip())
    with Moat.open(moat.state, create=False) as town:
        planner, stranger = town.identity("planner"), town.identity("stranger")
        key = town.identity("of-a-run", create=True)
        other = held.attenuate(planner, holder=stranger.id)
        chains: list[tuple[Any, Any, Any, int]] = [
            (key, held.attenuate(planner, holder=key.id), planner, 1),
            (key, held.attenuate(planner, holder=key.id), stranger, 0),
            (key, held.attenuate(planner, holder=key.id), key, 0),
            (key, other.attenuate(stranger, holder=key.id), planner, 0),
            (key, other.attenuate(stranger, holder=key.id), stranger, 0),
            (planner, held, planner, 1),
        ]
        for holder, token, agent, count in chains:
            permit = town.session(holder, token).request("run", "code://reader")
            with permit:
                values = town.secrets.acting_for(agent.id).reveal(permit)
            assert len(values) == count, (holder.name, agent.name)


def test_a_component_is_narrowed_like_a_module(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "reader.wasm").write_bytes(wat("command"))
    held = granted(moat)
    done = moat.json("run", tmp_path / "reader.wasm", "--token", held, "--allow-host", "none")
    assert (done["status"], done["limits"]["hosts"]) == ("ok", [])
