"""`moat secret`: handles, values and what a running gate makes of them."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import vault_kit
from cli_kit import ERROR, USAGE, Cli, fresh
from moat import Grant, Limits, Moat, Secret
from moat.errors import UnknownHandle
from secret_kit import canary

if TYPE_CHECKING:
    from pathlib import Path

HANDLE = "secret://github"
HOST = "https://api.github.com"
BOUND = ("secret", "set", HANDLE, "--agent", "worker", "--host", HOST)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    pytest.importorskip("pyrage")
    return fresh(tmp_path, "worker", "other")


def filled(moat: Moat, who: str = "worker", host: str = HOST) -> list[str]:
    """What an injector gets for an agent whose token names the host."""
    key = moat.identity(who)
    named = Secret(HANDLE, host=HOST, header="authorization")
    token = moat.issue(
        holder=key.id,
        allow=[Grant("tool://ask", {"call"})],
        limits=Limits(hosts=[HOST], secrets=[named]),
        expires_in=timedelta(minutes=1),
    )
    got: list[str] = []
    with moat.session(key, token).request("call", "tool://ask") as permit:
        moat.secrets.fill(permit, HANDLE, host=host, into=got.append)
    return got


def test_a_value_that_was_set_is_filled_in(cli: Cli) -> None:
    value = canary()
    told = cli.json(*BOUND, input=value + "\n")
    assert (told["handle"], told["done"], told["backend"]) == (HANDLE, "set", "age")
    with Moat.open(cli.state, create=False) as moat:
        assert filled(moat) == [value]
        with pytest.raises(UnknownHandle):
            filled(moat, "other")


def test_a_running_gate_goes_by_what_changes(cli: Cli) -> None:
    with Moat.open(cli.state, create=False) as moat:
        with pytest.raises(UnknownHandle):
            filled(moat)
        cli(*BOUND, input="first")
        assert filled(moat) == ["first"]
        cli("secret", "rotate", HANDLE, input="second")
        assert filled(moat) == ["second"]
        cli("secret", "rm", HANDLE)
        with pytest.raises(UnknownHandle):
            filled(moat)
        cli(*BOUND, input="third")
        assert filled(moat) == ["third"]


def test_no_value_is_printed_or_lies_in_the_folder(cli: Cli, tmp_path: Path) -> None:
    values = [canary(), canary()]
    outputs = [
        cli(*BOUND, input=values[0]),
        cli("secret", "list", "--check"),
        cli("secret", "rotate", HANDLE, input=values[1]),
        cli("secret", "rotate", "secret://none", input=values[1], code=ERROR),
        cli(*BOUND, input=values[1], code=ERROR),
        cli("secret", "rm", HANDLE),
    ]
    said = "".join(one.output + one.stderr for one in outputs)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for value in values:
        assert value not in said
        assert not [path for path in files if value.encode() in path.read_bytes()]


def test_the_folder_is_closed_to_others(cli: Cli) -> None:
    cli(*BOUND, input="value")
    for path in (cli.state / "secrets", *(cli.state / "secrets").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_the_list_says_for_whom_and_where_and_what_is_missing(cli: Cli) -> None:
    assert cli.json("secret", "list") == {"secrets": []}
    cli(*BOUND, "--agent", "other", input="value")
    (row,) = cli.json("secret", "list", "--check")["secrets"]
    assert row["handle"] == HANDLE
    assert row["agents"] == sorted([cli.did("worker"), cli.did("other")])
    assert (row["hosts"], row["there"]) == ([HOST], True)
    (cli.state / "secrets" / "values.age").unlink()
    (row,) = cli.json("secret", "list", "--check", code=ERROR)["secrets"]
    assert row["there"] is False


def test_a_key_that_is_away_is_not_made_anew(cli: Cli) -> None:
    cli(*BOUND, input="value")
    key = cli.state / "secrets" / "age.key"
    key.rename(key.with_name("away"))
    with Moat.open(cli.state, create=False) as moat:
        with pytest.raises(UnknownHandle):
            filled(moat)
        cli("secret", "rotate", HANDLE, input="other", code=ERROR)
        assert not key.exists()
        key.with_name("away").rename(key)
        assert filled(moat) == ["value"]


def test_a_handle_is_bound_once(cli: Cli) -> None:
    cli(*BOUND, input="value")
    assert "bound already" in cli.error(*BOUND, input="other", code=ERROR)["message"]
    with Moat.open(cli.state, create=False) as moat:
        assert filled(moat) == ["value"]


def test_a_value_that_two_handles_share_goes_with_the_last(cli: Cli) -> None:
    cli(*BOUND, "--name", "shared", input="value")
    again = ("secret", "set", "secret://again", "--agent", "worker", "--host", HOST)
    cli(*again, "--name", "shared", input="value")
    cli("secret", "rm", "secret://again")
    with Moat.open(cli.state, create=False) as moat:
        assert filled(moat) == ["value"]


@pytest.mark.parametrize(
    "given",
    [("secret", "set", "https://x", "--agent", "worker", "--host", HOST),
     ("secret", "set", HANDLE, "--agent", "worker", "--host", "tool://x"),
     ("secret", "set", HANDLE, "--agent", "nobody", "--host", HOST)],
)  # fmt: skip
def test_what_makes_no_sense_changes_nothing(given: tuple[str, ...], cli: Cli) -> None:
    cli.error(*given, input="value", code=ERROR)
    assert cli.json("secret", "list") == {"secrets": []}


def test_an_empty_value_is_refused(cli: Cli) -> None:
    assert "empty" in cli.error(*BOUND, input="\n", code=ERROR)["message"]


def test_what_is_not_there_is_said(cli: Cli) -> None:
    for verb in ("rotate", "rm"):
        cli.error("secret", verb, HANDLE, input="value", code=ERROR)


def test_a_vault_is_set_up_and_used(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("hvac")
    value = canary()
    with vault_kit.server(tmp_path) as url:
        cli(*BOUND, "--backend", "vault", code=USAGE, input=value)
        token = tmp_path / "token"
        cli(*BOUND, "--backend", "vault", "--vault", url, "--token-file", token, "--value", "-",
            input=value)  # fmt: skip
        with Moat.open(cli.state, create=False) as moat:
            assert filled(moat) == [value]
            cli("secret", "rotate", HANDLE, input="new")
            assert filled(moat) == ["new"]
            cli("secret", "rm", HANDLE)
            with pytest.raises(UnknownHandle):
                filled(moat)


def test_a_variable_is_taken_by_the_gate(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    value = canary()
    cli(*BOUND, "--backend", "env", "--name", "GITHUB")
    monkeypatch.setenv("MOAT_SECRET_GITHUB", value)
    with Moat.open(cli.state, create=False) as moat:
        assert filled(moat) == [value]
        cli("secret", "set", "secret://more", "--agent", "worker", "--host", HOST, input="x")
        assert filled(moat) == [value]
    assert "only reads" in cli.error("secret", "rotate", HANDLE, input="x", code=ERROR)["message"]


def spoilt(text: str) -> dict[str, Any]:
    """The same file with one thing in it that nobody here writes."""
    read = json.loads(text)
    bound = read["handles"][HANDLE]
    entries: dict[str, Any] = {
        "unknown key": read | {"more": 1},
        "unknown version": read | {"version": 2},
        "unknown field": read | {"handles": {HANDLE: bound | {"unless": "x"}}},
        "no hosts as text": read | {"handles": {HANDLE: bound | {"hosts": HOST}}},
        "a backend that is not there": read | {"handles": {HANDLE: bound | {"backend": "x"}}},
        "a kind that is not known": read | {"backends": {"age": {"kind": "plain"}}},
    }
    return entries


@pytest.mark.parametrize(
    "how",
    ["unknown key", "unknown version", "unknown field", "no hosts as text",
     "a backend that is not there", "a kind that is not known", "spelling", "open", "link"],
)  # fmt: skip
def test_a_file_of_handles_that_is_not_ours_binds_nothing(how: str, cli: Cli) -> None:
    cli(*BOUND, input="value")
    file = cli.state / "secrets" / "handles.json"
    text = file.read_text()
    with Moat.open(cli.state, create=False) as moat:
        assert filled(moat) == ["value"]
        if how == "open":
            file.chmod(0o644)
        elif how == "link":
            file.rename(file.with_name("elsewhere.json"))
            file.symlink_to("elsewhere.json")
        elif how == "spelling":
            file.write_text(text.replace(":", ": ", 1))
        else:
            file.write_text(json.dumps(spoilt(text)[how], separators=(",", ":"), sort_keys=True))
        for _ in range(2):
            with pytest.raises(UnknownHandle):
                filled(moat)
    cli.error("secret", "list", code=ERROR)


def test_code_does_not_reach_the_folder(cli: Cli) -> None:
    cli(*BOUND, input="value")
    reach = ("token", "issue", "--to", "worker", "--expires", "1h", "--allow", "code://x run")
    told = cli.error(*reach, "--read", str(cli.state / "secrets"), code=ERROR)
    assert told["code"] == "keys_exposed"
