"""``Host`` and ``Secret``: values that say which requests may be sent, and what is filled in."""

from __future__ import annotations

import pytest

from moat import Host, Limits, MalformedInput, Pattern, Secret

API = "https://api.example.org/v1/**"


def test_a_host_says_what_it_was_made_of():
    host = Host(API, {"POST", "GET"}, cidr=["::1/128", "10.0.0.0/8", "10.1.0.0/16"])
    assert host.pattern == Pattern(API)
    assert host.methods == {"GET", "POST"}
    assert host.cidr == ("10.0.0.0/8", "::1/128"), "sorted, and none within another"
    assert str(host) == f"{API} GET,POST 10.0.0.0/8,::1/128"
    assert eval(repr(host)) == host
    assert host == Host(Pattern(API), ["GET", "POST"], ("10.0.0.0/8", "::1/128"))
    assert len({host, Host(API, {"GET"}), Host(API, ["GET"])}) == 2
    assert Host(API, {"GET"}).cidr == ()


def test_a_secret_says_what_it_was_made_of():
    secret = Secret("secret://key", host="https://*.example.org", header="x-key")
    assert (secret.handle, secret.header) == ("secret://key", "x-key")
    assert secret.host == Pattern("https://*.example.org")
    assert str(secret) == "secret://key https://*.example.org x-key"
    assert eval(repr(secret)) == secret
    assert len({secret, Secret("secret://key", host=secret.host, header="x-key")}) == 1


@pytest.mark.parametrize("value", [
    Host(API, {"GET"}), Secret("secret://key", host="https://a", header="x"),
])  # fmt: skip
def test_the_values_are_frozen(value):
    for name in ("pattern", "host", "cidr", "other"):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_a_text_stands_for_any_method_of_its_urls_or_of_the_whole_host():
    limits = Limits(
        hosts=["https://b.example", API, Pattern("http://*.a"), Host("https://c/x", {"A"})]
    )
    assert limits.hosts == (
        Host("http://*.a/**", {"*"}), Host(API, {"*"}), Host("https://b.example/**", {"*"}),
        Host("https://c/x", {"A"}),
    )  # fmt: skip
    assert eval(repr(limits), {**globals(), "timedelta": lambda milliseconds: None}) == limits


def test_a_rule_covers_what_is_narrower_in_every_part():
    wide = Host("https://*.example.org/v1/**", {"GET", "POST"}, ["10.0.0.0/8"])
    assert wide.covers(wide)
    assert wide.covers(Host(API, {"GET"}, ["10.1.0.0/16"]))
    assert not wide.covers(Host(API, {"GET"}))
    assert not Host(API, {"*"}).covers(Host(API, {"*"}, ["10.0.0.0/8"]))
    key = Secret("secret://key", host="https://*.example.org", header="x-key")
    assert key.covers(Secret("secret://key", host="https://a.example.org", header="x-key"))
    assert not key.covers(Secret("secret://key", host="https://a.example.org", header="cookie"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Host("https://api.example.org", {"GET"}),
        lambda: Host("tool://a/**", {"GET"}),
        lambda: Host(API, set()),
        lambda: Host(API, {"get"}),
        lambda: Host(API, {"CONNECT"}),
        lambda: Host(API, {"GET"}, ["10.0.0.1/8"]),
        lambda: Limits(hosts=["wss://a.example"]),
        lambda: Limits(hosts=[f"https://h{n}" for n in range(65)]),
        lambda: Secret("key", host="https://a", header="x"),
        lambda: Secret("secret://key", host="https://*", header="x"),
        lambda: Secret("secret://key", host="https://a/**", header="x"),
        lambda: Secret("secret://key", host="https://a", header="host"),
    ],
)
def test_what_the_format_does_not_hold_is_refused_when_it_is_written(make):
    with pytest.raises(MalformedInput):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Host(API, "GET"),
        lambda: Host(API, {"GET"}, "10.0.0.0/8"),
        lambda: Host(API, {1}),
        lambda: Host(API),
        lambda: Limits(hosts="https://a"),
        lambda: Limits(hosts=[1]),
        lambda: Limits(secrets=["secret://key"]),
        lambda: Limits(secrets=Secret("secret://key", host="https://a", header="x")),
    ],
)
def test_one_text_is_no_list_of_them(make):
    with pytest.raises(TypeError):
        make()
