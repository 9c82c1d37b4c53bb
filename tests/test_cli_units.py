"""What a person types for sizes, counts, times, grants and directories."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click
import pytest

from moat import ANY, Grant, Host, Limits, MalformedInput, Pattern, Secret, _show
from moat._tree import folder, tree
from moat.cli.units import (
    NONE,
    Count,
    DenialText,
    Duration,
    Folder,
    Fuel,
    GrantText,
    HostText,
    KeyValue,
    SecretText,
    Size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800), ("500ms", 0.5), ("0s", 0)],
)
def test_a_length_of_time_has_a_unit(text: str, seconds: float) -> None:
    assert Duration().parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "1.5h", "-1h", "h", "1h 30m", "1w", "9" * 40 + "d"])
def test_other_lengths_of_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        Duration().parse(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("300", 300), ("64MiB", 64 << 20), ("1MB", 1_000_000), ("2kib", 2048), ("1_024B", 1024)],
)
def test_a_size_takes_decimal_and_binary_units(text: str, count: int) -> None:
    assert Size().parse(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "1TB", "0x10"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        Size().parse(text)


@pytest.mark.parametrize("text", ["9223372036854775808", "9" * 40, "9999999999G"])
@pytest.mark.parametrize("kind", [Count, Size])
def test_what_no_limit_can_be_is_refused(kind: type[Count | Size], text: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        kind().parse(text.replace("G", "GiB") if kind is Size else text)


@pytest.mark.parametrize(("text", "count"), [("5M", 5_000_000), ("1_000", 1000), ("2g", 2 * 10**9)])
def test_a_count_takes_thousands(text: str, count: int) -> None:
    assert Count().parse(text) == count
    assert Fuel().parse(text) == count


def test_fuel_may_be_unmetered_in_that_word_alone() -> None:
    assert Fuel().parse("unmetered") == Limits.UNMETERED
    assert _show.amount("fuel", Limits.UNMETERED) == "unmetered"
    assert _show.amount("fuel", Limits.UNMETERED - 1) == "9,223,372,036,854,775,806"
    for text in ("", "none", "Unmetered", "unlimited", "-1", "9223372036854775808"):
        with pytest.raises(ValueError, match="`"):
            Fuel().parse(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://a.example", Host("https://a.example/**", {"*"})),
        ("https://a.example/v1/*", Host("https://a.example/v1/*", {"*"})),
        ("https://a.example/** GET,POST", Host("https://a.example/**", {"POST", "GET"})),
        ("http://a/** * 10.0.0.0/8,::1/128", Host("http://a/**", {"*"}, ["::1/128", "10.0.0.0/8"])),
    ],
)
def test_a_host_is_a_url_then_methods_then_ranges(text: str, host: Host) -> None:
    assert HostText().parse(text) == host
    assert HostText().parse(str(host)) == host


@pytest.mark.parametrize(
    "text",
    ["", "a.example", "https://a.example GET", "https://a/** get", "https://a/** GET 10.0.0.1/8",
     "https://a/** GET 10.0.0.0/8 x", "https://a/** GET,", "none GET"],
)  # fmt: skip
def test_other_hosts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="[`a-z]"):
        HostText().parse(text)


def test_a_secret_is_a_handle_a_host_and_a_header() -> None:
    secret = Secret("secret://key", host="https://*.example.com", header="x-key")
    assert SecretText().parse("secret://key https://*.example.com x-key") == secret
    assert SecretText().parse(str(secret)) == secret
    assert SecretText().parse("none") == HostText().parse("none") == NONE


@pytest.mark.parametrize(
    "text",
    ["", "secret://key", "secret://key https://a", "secret://key https://* x-key",
     "key https://a x", "secret://key https://a X-Key", "secret://key https://a x y"],
)  # fmt: skip
def test_other_secrets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        SecretText().parse(text)


def test_a_grant_is_a_pattern_and_actions() -> None:
    wanted = Grant("tool://search/**", {"call", "read"}, ANY)
    assert GrantText().parse("tool://search/** call,read") == wanted
    assert GrantText().parse("tool://search/** call,read any") == wanted
    assert GrantText().parse("tool://now call {}") == Grant("tool://now", {"call"}, {})


@pytest.mark.parametrize(
    "text", ["tool://x", "tool://x call read", "", "tool://x/../y call", "tool://x call,"]
)
def test_other_grants_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        GrantText().parse(text)


def test_a_denial_has_no_arguments() -> None:
    assert DenialText().parse("tool://x/** *").actions == {"*"}
    with pytest.raises(ValueError, match="too many words"):
        DenialText().parse("tool://x call {}")


def test_a_directory_becomes_the_pattern_of_its_tree(tmp_path: Path) -> None:
    folder = tmp_path / "a b #1"
    folder.mkdir()
    made = Folder().parse(str(folder))
    assert made.endswith("/a%20b%20%231/**")
    assert Pattern(made).matches(made.removesuffix("**") + "x.txt")
    assert Folder().parse(made) == made
    assert Folder().parse("none") == "none"


def test_a_link_to_a_directory_becomes_the_directory_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Folder().parse(str(tmp_path / "link")) == tree(tmp_path / "real")


@pytest.mark.parametrize("name", ["100%", "a%20b", "st*r"])
def test_a_directory_that_no_pattern_can_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(MalformedInput, match="no pattern can name"):
        Folder().parse(str(tmp_path / name))


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a directory"):
        Folder().parse(str(tmp_path / "nowhere"))


def test_a_refusal_is_a_usage_error() -> None:
    with pytest.raises(click.BadParameter, match="`soon`"):
        Duration().convert("soon", None, None)


def test_a_variable_is_split_at_its_first_sign() -> None:
    assert KeyValue().parse("A=b=c") == ("A", "b=c")
    with pytest.raises(ValueError, match="NAME=VALUE"):
        KeyValue().parse("=x")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (1, "1 s"), (59.6, "1 min"), (5400, "1 h 30 min"), (86_400, "1 d"),
     (90_061, "1 d 1 h"), (86_460, "1 d")],
)  # fmt: skip
def test_a_length_of_time_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert _show.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB")]
)
def test_a_size_is_told_in_binary_units(count: int, text: str) -> None:
    assert _show.size(count) == text


@pytest.mark.parametrize("name", ["/", "/a", "/a b/c#d", "/ä/é"])
def test_the_pattern_of_a_tree_leads_back_to_its_directory(name: str) -> None:
    assert folder(tree(Path(name))) == Path(name)
