"""Every URL is refused or read as a WHATWG parser reads it; no traversal leaves its tree."""

from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
import yarl

from moat import Pattern, canonicalize
from moat._native import read_url
from moat.errors import EgressDenied, MalformedInput

if TYPE_CHECKING:
    from pathlib import Path

TREE = Pattern("file:///data/**")
WITH_HOSTS = {"http", "https", "ws", "wss", "ftp"}


def canonical(text: str) -> str | None:
    """The canonical spelling, or None where there is none."""
    try:
        return canonicalize(text)
    except MalformedInput:
        return None


def strictly_read(text: str) -> bool:
    """Whether the text is taken as it is, by the rule that a gate applies."""
    try:
        Pattern("https://*/**").matches(text)
    except MalformedInput:
        return False
    return True


def split(text: str) -> tuple[str, str, str, str]:
    """Scheme, host, port and decoded path of a canonical text."""
    scheme, _, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, ""
    return scheme, host, port, unquote(slash + path) or "/"


def parsed(case: dict[str, Any]) -> tuple[str, str, str, str]:
    """The same of what a WHATWG parser makes of a case."""
    path = unquote(case["pathname"]) or "/"
    return case["protocol"].removesuffix(":"), case["hostname"], case["port"], path


def test_urls_are_refused_or_read_as_whatwg_says(external: Path) -> None:
    text = (external / "whatwg-url" / "urltestdata.json").read_text(encoding="utf-8")
    cases = [case for case in json.loads(text) if isinstance(case, dict)]
    taken = strict = 0
    for case in cases:
        if any("\ud800" <= char <= "\udfff" for char in case["input"]):
            continue
        ours, as_it_is = canonical(case["input"]), strictly_read(case["input"])
        if as_it_is:
            strict += 1
            assert ours == case["input"]
        # Repair follows WHATWG for the schemes with hosts; a drive letter is no news to a file.
        if ours is not None and (as_it_is or ours.partition("://")[0] in WITH_HOSTS):
            taken += 1
            assert not case.get("failure"), (case["input"], ours)
            assert split(ours) == parsed(case), (case["input"], ours)
            assert not case["username"] + case["password"] + case["search"] + case["hash"]
    assert taken > 80, "many inputs have a canonical spelling"
    assert strict > 10, "some are canonical already"


def sent(url: str) -> tuple[str, str, int, str] | None:
    """What a request would be sent to; None where it is refused."""
    try:
        return read_url(url)
    except EgressDenied:
        return None


def test_what_a_request_is_sent_to_is_what_other_parsers_read(external: Path) -> None:
    text = (external / "whatwg-url" / "urltestdata.json").read_text(encoding="utf-8")
    cases = [case for case in json.loads(text) if isinstance(case, dict)]
    urls = {case[key] for case in cases for key in ("input", "href") if case.get(key)}
    taken = 0
    for url in urls:
        if any("\ud800" <= char <= "\udfff" for char in url) or not (read := sent(url)):
            continue
        taken += 1
        scheme, host, port, path = read
        name, path = host.strip("[]"), path.partition("?")[0]
        standard = {"https": 443, "http": 80}[scheme]
        split = urlsplit(url)
        assert (split.scheme, split.hostname, split.port or standard) == (scheme, name, port)
        assert (split.path or "/") == path
        other = httpx.URL(url)
        where = (other.raw_scheme.decode(), other.raw_host.decode(), other.port or standard)
        assert where == (scheme, name, port)
        assert other.raw_path.decode().partition("?")[0] == path
        third = yarl.URL(url)
        assert (third.scheme, third.raw_host, third.port) == (scheme, name, port)
        assert (third.raw_path or "/") == path
    assert taken > 80, f"{taken} URLs are read"


@pytest.mark.parametrize(
    "url",
    [
        "http://allowed.test\\@evil.test/",
        "http://evil.test\t/",
        "HTTP://evil.test/",
        "http://a@evil.test/",
        "http://evil.test./",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://evil.test:80/",
        "http://evil.test/%2e%2e/",
        "http://\u0435vil.test/",
    ],
)
def test_what_parsers_read_differently_is_sent_nowhere(url: str) -> None:
    assert sent(url) is None


def test_no_traversal_leaves_its_tree(external: Path) -> None:
    lines = {
        line
        for path in sorted((external / "path-traversal").glob("*.txt"))
        if path.name != "SOURCE.txt"
        for line in path.read_text(encoding="latin-1").splitlines()
    }
    assert len(lines) > 20_000
    for line in lines:
        asked = f"file:///data/{line}"
        if strictly_read(asked):
            assert canonical(asked) == asked
            assert confined(asked), asked
            assert TREE.matches(asked)
        repaired = canonical(asked)
        if repaired is not None:
            assert confined(repaired) == TREE.matches(repaired), (line, repaired)


def confined(resource: str) -> bool:
    """Whether a file stays below /data however often its path is decoded and normalised."""
    path = resource.removeprefix("file://")
    for _ in range(4):
        plain = posixpath.normpath(path.replace("\\", "/"))
        if plain != "/data" and not plain.startswith("/data/"):
            return False
        path = unquote(path)
    return True
