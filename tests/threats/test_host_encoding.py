"""Host rules and secrets in forms that nobody honest writes, correctly signed.

A range with host bits, a method in small letters, a header of two lines: each is a rule that one
reader would take for another than the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import forge
from forge import Claim, Endless
from threats.world import ROOT, WORKER, World

Map = dict[int, Any]


def stating(limits: Map) -> forge.Chain:
    """A link with these limits."""
    return forge.first(ROOT, WORKER, forged={"claims": {Claim.LIMITS: limits}})


def hosts(*rules: Any) -> Map:
    """Limits with these host rules."""
    return forge.Terms().limits() | {5: list(rules)}


def secrets(*rules: Any) -> Map:
    """Limits with these secrets."""
    return forge.Terms().limits() | {8: list(rules)}


HOST = ["https://a.example/**", ["GET"], ["10.0.0.0/8"]]
KEY = ["secret://a", "https://a.example", "x-key"]


def host(at: int, value: Any) -> Map:
    """One host rule with another value in one of its fields."""
    return hosts([*HOST[:at], value, *HOST[at + 1 :]])


def secret(at: int, value: Any) -> Map:
    """One secret with another value in one of its fields."""
    return secrets([*KEY[:at], value, *KEY[at + 1 :]])


PATTERNS = [
    "https://a.example", "https://a.example/", "https://A.example/**", "HTTPS://a.example/**",
    "https://a.example:443/**", "https://a.example./**", "https://u@a.example/**", "https:///**",
    "https://a.example/**/x", "https://a.example/%61", "https://a.example/../x", "//a.example/**",
    "https://a.example/x?y", "https://a.example\\/**", "https://0x7f.1/**", "https://127.1/**",
    "https://[::ffff:127.0.0.1]/**", "https://\u0430.example/**", "wss://a.example/**",
    "ftp://a.example/**", "file:///**", "tool://a/**", "*", "**", "*://a/**", "", b"https://a/", 1,
]  # fmt: skip
METHODS = [
    [], ["get"], ["Get"], ["GET "], [" GET"], ["GET\n"], ["G\u0395T"], [""], ["M-SEARCH"], ["GET*"],
    ["A" * 17], ["CONNECT"], ["TRACE"], ["GET", "TRACE"], ["POST", "GET"], ["GET", "GET"],
    ["*", "GET"], ["*", "*"], ["**"], [b"GET"], [["GET"]], "GET", "*", None, {}, {"GET": 1},
]  # fmt: skip
RANGES = [
    ["10.0.0.1/8"], ["10.0.0.0"], ["10.0.0.0/"], ["10.0.0.0/08"], ["10.0.0.0/+8"], ["10.0.0.0/33"],
    ["10.0.0.0/255.0.0.0"], ["10/8"], ["10.0.0/8"], ["010.0.0.0/8"], ["0xa.0.0.0/8"],
    ["167772160/8"], ["10.0.0.0/8 "], ["10.0.0.0\\8"], ["10.0.0.0%2F8"], ["10.*"], ["*"], [""],
    ["::ffff:10.0.0.0/104"], ["::ffff:a00:0/104"], ["::ffff:0:0/96"], ["::ffff:7f00:1/128"],
    ["FD00::/8"], ["fd00:0::/8"], ["fd00:0:0:0:0:0:0:0/8"], ["[fd00::]/8"], ["fe80::%1/64"],
    ["::1/127"], ["::/129"], ["localhost/8"], ["127.0.0.0/8", "10.0.0.0/8"], ["10.0.0.0/8"] * 2,
    ["10.0.0.0/8", "10.1.0.0/16"], "10.0.0.0/8", [b"10.0.0.0/8"], [[10, 8]], None, {},
]  # fmt: skip


@pytest.mark.parametrize(
    ("at", "value"),
    [(at, value) for at, odd in enumerate((PATTERNS, METHODS, RANGES)) for value in odd],
    ids=repr,
)
def test_an_odd_host_rule(world: World, at: int, value: Any) -> None:
    world.allow(world.ask(stating(host(at, HOST[at]))))
    world.refuse(world.ask(stating(host(at, value))), "malformed", link=0)


HANDLES = [
    "secret://", "secret:///a", "secret://*", "secret://a/**", "secret://a/", "secret://a b", "a",
    "secret://a/\u00e9", "SECRET://a", "tool://a", "", b"secret://a", ["secret://a"], None,
]  # fmt: skip
PLACES = [
    "https://*", "http://*", "https://a.example/**", "https://a.example/", "https://A.example", "",
    "https://a.example:443", "https://u@a.example", "wss://a.example", "tool://a", "a.example",
]  # fmt: skip
HEADERS = [
    "", "X-Key", "x key", "x:", ":path", "x\r\nhost", "x\u00e9", "x" * 65, "*", b"x", ["x"], None,
    "host", "connection", "content-length", "expect", "keep-alive", "te", "trailer", "upgrade",
    "transfer-encoding", "proxy-authorization", "proxy-connection", "proxy-",
]  # fmt: skip


@pytest.mark.parametrize(
    ("at", "value"),
    [(at, value) for at, odd in enumerate((HANDLES, PLACES, HEADERS)) for value in odd],
    ids=repr,
)
def test_an_odd_secret(world: World, at: int, value: Any) -> None:
    world.allow(world.ask(stating(secrets(KEY))))
    world.refuse(world.ask(stating(secret(at, value))), "malformed", link=0)


OTHER = ["https://b.example/**", ["GET"], []]
FORMS = [
    hosts(OTHER, HOST), hosts(HOST, HOST), hosts(HOST[:2]), hosts([*HOST, []]), hosts(HOST[0]),
    hosts({0: HOST[0], 1: HOST[1], 2: HOST[2]}), hosts(None), hosts([HOST]),
    # By text: `POST` is after `*`, and a rule without ranges before one with them.
    hosts([HOST[0], ["POST"], []], [HOST[0], ["*"], []]), hosts(HOST, [*HOST[:2], []]),
    secrets(["secret://b", *KEY[1:]], KEY), secrets(KEY, KEY), secrets(KEY[:2]),
    secrets([*KEY, ""]), secrets(dict(enumerate(KEY))), secrets(None),
    *({**hosts(HOST), axis: odd} for axis in (5, 8) for odd in ({}, None, "", 0, Endless([]))),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_odd_lists_of_hosts_and_secrets(world: World, form: Map) -> None:
    fine = hosts(HOST, OTHER) | {8: [KEY, ["secret://b", *KEY[1:]]]}
    world.allow(world.ask(stating(fine)))
    world.refuse(world.ask(stating(form)), "malformed", link=0)


MANY: dict[str, tuple[int, Callable[[int], Map]]] = {
    "hosts": (
        64,
        lambda m: hosts(*([f"https://{n:02}.a/*", ["A"], []] for n in range(m))),
    ),
    "methods": (
        16,
        lambda m: hosts(["https://a/*", [chr(65 + n) for n in range(m)], []]),
    ),
    "ranges": (
        8,
        lambda m: hosts(["https://a/*", ["A"], [f"{n}.0.0.0/8" for n in range(m)]]),
    ),
    "secrets": (
        16,
        lambda m: secrets(*([f"secret://{n:02}", "https://a", "x"] for n in range(m))),
    ),
}


@pytest.mark.parametrize(("most", "made"), MANY.values(), ids=MANY.keys())
def test_too_many_entries(world: World, most: int, made: Callable[[int], Map]) -> None:
    world.allow(world.ask(stating(made(most))))
    world.refuse(world.ask(stating(made(most + 1))), "too_large", link=0)
