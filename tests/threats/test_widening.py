"""A child wider than its parent, one axis at a time, hand-made and correctly signed.

The request is always one that every link grants, so that only the comparison of links can refuse
it; and where the axis is one that a request uses, a second test asks for what was gained.
"""

from __future__ import annotations

from typing import Any

import pytest

import forge
from forge import ABSENT, NOW, Claim
from threats.vouching import MANIFEST
from threats.world import GATE, PLANNER, RESEARCHER, RIVAL, ROOT, WORKER, World

SEARCH = ("tool://search/**", ("call", "list"), "any")
DATA = ("file:///data/**", ("read",), "any")
DENIED = ("tool://search/private/**", ("*",))


def refuse_child(world: World, caveat: str, **wider: Any) -> None:
    """Refuse it as the last link and in the middle, whatever the link below it says."""
    parent = forge.first(ROOT, PLANNER)
    world.allow(world.ask(parent.then(WORKER)))
    world.refuse(world.ask(parent.then(WORKER, **wider)), "widened", link=1, caveat=caveat)
    defaults = forge.Terms()
    again = {name: getattr(defaults, name) for name in wider if name != "further"}
    world.allow(world.ask(parent.then(RESEARCHER).then(WORKER)))
    below = parent.then(RESEARCHER, **wider).then(WORKER, **again)
    decision = world.refuse(world.ask(below), "widened", link=1, caveat=caveat)
    assert decision.witness


# --- one test per axis ---


def test_a_wider_resource(world: World) -> None:
    refuse_child(world, "resource", allow=(DATA, ("tool://*/**", ("call",), "any"), SEARCH))


def test_another_resource(world: World) -> None:
    refuse_child(world, "resource", allow=(SEARCH, ("tool://shell", ("call",), "any")))


def test_a_resource_that_only_two_grants_together_cover(world: World) -> None:
    """Sound is enough: a grant must lie within one of the parent's (spec/token.md)."""
    halves = (("tool://a/*", ("call",), "any"), ("tool://a", ("call",), "any"), SEARCH)
    parent = forge.first(ROOT, PLANNER, allow=halves)
    world.allow(world.ask(parent.then(WORKER)))
    union = parent.then(WORKER, allow=(SEARCH, ("tool://a/**", ("call",), "any")))
    world.refuse(world.ask(union), "widened", link=1, caveat="resource")


def test_a_wider_action(world: World) -> None:
    refuse_child(world, "action", allow=((*SEARCH[:1], ("call", "delete"), "any"),))


def test_any_action(world: World) -> None:
    refuse_child(world, "action", allow=((*SEARCH[:1], ("*",), "any"),))


def test_wider_args(world: World) -> None:
    """The parent grants the call without arguments alone."""
    parent = forge.first(ROOT, PLANNER, allow=((*SEARCH[:2], {}),))
    world.allow(world.ask(parent.then(WORKER)))
    wider = parent.then(WORKER, allow=(SEARCH,))
    world.refuse(world.ask(wider), "widened", link=1, caveat="args")


def test_a_denial_dropped(world: World) -> None:
    refuse_child(world, "deny", deny=())


def test_a_denial_narrowed(world: World) -> None:
    refuse_child(world, "deny", deny=(("tool://search/private/*", ("*",)),))


def test_a_denial_of_fewer_actions(world: World) -> None:
    refuse_child(world, "deny", deny=((DENIED[0], ("call",)),))


def test_more_fuel(world: World) -> None:
    refuse_child(world, "fuel", fuel=1_000_001)


def test_more_memory(world: World) -> None:
    refuse_child(world, "memory", memory=(64 << 20) + 1)


def test_more_time(world: World) -> None:
    refuse_child(world, "time", time=2_001)


def test_more_output(world: World) -> None:
    refuse_child(world, "output", output=(1 << 20) + 1)


URLS, GIT = forge.Terms().hosts
KEY = forge.Terms().secrets[0]


@pytest.mark.parametrize(
    "host",
    [
        "https://*",
        "https://example.org",
        "http://a.example.org",
        "https://a.example.org:8443",
        "https://example.org.evil.net",
        "https://evilexample.org",
        "https://10.0.0.1",
    ],
)
def test_wider_hosts(world: World, host: str) -> None:
    """Any host, the bare domain, another scheme, another port, a look-alike on either side."""
    refuse_child(world, "hosts", hosts=(URLS, (f"{host}/v1/**", ("GET",), ())))


@pytest.mark.parametrize("path", ["**", "*", "v1*", "v2/**", "v1x/**", "v10", "*/**"])
def test_a_wider_path(world: World, path: str) -> None:
    refuse_child(world, "hosts", hosts=((f"https://a.example.org/{path}", ("GET",), ()),))


@pytest.mark.parametrize("methods", [("*",), ("DELETE",), ("DELETE", "GET"), ("GETS",)], ids=str)
def test_wider_methods(world: World, methods: tuple[str, ...]) -> None:
    refuse_child(world, "hosts", hosts=((URLS[0], methods, ()),))


@pytest.mark.parametrize(
    "ranges",
    [
        ("10.0.0.0/7",),
        ("11.0.0.0/8",),
        ("0.0.0.0/0",),
        ("::/0",),
        ("::a00:0/104",),
        ("10.0.0.0/8", "127.0.0.0/8"),
        ("10.0.0.0/8", "169.254.169.254/32"),
    ],
    ids=str,
)
def test_wider_address_ranges(world: World, ranges: tuple[str, ...]) -> None:
    """A shorter prefix, another range, everything, the other protocol, one more."""
    refuse_child(world, "hosts", hosts=((GIT[0], ("GET",), ranges),))


@pytest.mark.parametrize("cidr", ["127.0.0.0/8", "10.0.0.0/8", "8.8.8.8/32", "169.254.169.254/32"])
def test_a_range_added_where_the_parent_has_none(world: World, cidr: str) -> None:
    """It opens addresses that are not global, whichever range it is."""
    refuse_child(world, "hosts", hosts=((*URLS[:2], (cidr,)),))


def test_a_range_dropped(world: World) -> None:
    """Without one every global address may be connected to."""
    refuse_child(world, "hosts", hosts=((*GIT[:2], ()),))


def test_a_rule_put_together_from_two(world: World) -> None:
    """The URLs of one with the methods or the addresses of the other."""
    refuse_child(world, "hosts", hosts=((URLS[0], ("GET",), GIT[2]),))
    refuse_child(world, "hosts", hosts=((URLS[0], GIT[1], ()),))


@pytest.mark.parametrize(
    "secret",
    [
        ("secret://other", *KEY[1:]),
        ("secret://key/x", *KEY[1:]),
        ("secret://Key", *KEY[1:]),
        (KEY[0], "https://example.org", KEY[2]),
        (KEY[0], "https://a.example.com", KEY[2]),
        (KEY[0], "http://a.example.org", KEY[2]),
        (KEY[0], "https://a.example.org:8443", KEY[2]),
        (KEY[0], "https://*.org", KEY[2]),
        (*KEY[:2], "x-api-key"),
        (*KEY[:2], "cookie"),
    ],
    ids=str,
)
def test_another_secret(world: World, secret: forge.Secret) -> None:
    """Another handle, another host, another header; instead of the parent's and beside it."""
    refuse_child(world, "secrets", secrets=(secret,))
    refuse_child(world, "secrets", secrets=(KEY, secret))


@pytest.mark.parametrize("tree", ["file:///**", "file:///etc/**", "file:///data2/**"])
def test_wider_read_paths(world: World, tree: str) -> None:
    refuse_child(world, "read", read=("file:///data/**", tree))


@pytest.mark.parametrize("tree", ["file:///data/**", "file:///**", "file:///data/out2/**"])
def test_wider_write_paths(world: World, tree: str) -> None:
    refuse_child(world, "write", write=("file:///data/out/**", tree))


def test_a_later_expiry(world: World) -> None:
    refuse_child(world, "expiry", exp=NOW + 3_601)


def test_an_earlier_start(world: World) -> None:
    refuse_child(world, "not_before", nbf=NOW - 11)


def test_as_many_further_delegations_as_the_parent(world: World) -> None:
    refuse_child(world, "depth", further=4)


def test_more_further_delegations(world: World) -> None:
    refuse_child(world, "depth", further=15)


def test_a_child_of_a_link_that_allows_none(world: World) -> None:
    last = forge.first(ROOT, PLANNER, further=0)
    world.allow(world.ask(last))
    world.refuse(world.ask(last.then(WORKER, further=0)), "widened", link=1, caveat="depth")


def test_a_gate_bound_parent_with_a_free_child(world: World) -> None:
    bound = forge.first(ROOT, PLANNER, aud=GATE.public)
    world.allow(world.ask(bound.then(WORKER)))
    world.refuse(world.ask(bound.then(WORKER, aud=None)), "widened", link=1, caveat="audience")


def test_a_gate_bound_parent_with_a_child_for_another(world: World) -> None:
    bound = forge.first(ROOT, PLANNER, aud=GATE.public)
    world.refuse(world.ask(bound.then(WORKER, aud=RIVAL.public)), "wrong_gate", link=1)


# --- what was gained is not allowed either ---


def test_asking_for_the_resource_that_was_gained(world: World) -> None:
    gained = (("tool://shell", ("call",), "any"), SEARCH)
    wider = forge.first(ROOT, PLANNER).then(WORKER, allow=gained)
    world.refuse(world.ask(wider, resource="tool://shell"), "widened", link=1, caveat="resource")


def test_asking_for_what_an_ancestor_denies(world: World) -> None:
    wider = forge.first(ROOT, PLANNER).then(WORKER, deny=())
    private = world.ask(wider, resource="tool://search/private/x")
    world.refuse(private, "widened", link=1, caveat="deny")
    honest = forge.first(ROOT, PLANNER).then(WORKER)
    private = world.ask(honest, resource="tool://search/private/x")
    world.refuse(private, "forbidden", link=0, caveat="deny")


# --- empty, missing and unknown are never everything ---


@pytest.mark.parametrize(
    ("caveat", "axis"),
    [
        ("resource", {"allow": ()}),
        ("fuel", {"fuel": 0}),
        ("memory", {"memory": 0}),
        ("time", {"time": 0}),
        ("output", {"output": 0}),
        ("hosts", {"hosts": ()}),
        ("read", {"read": ()}),
        ("write", {"write": ()}),
        ("secrets", {"secrets": ()}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_parents_empty_set_is_not_everything(
    world: World, caveat: str, axis: dict[str, Any]
) -> None:
    """A child that states something where its parent states nothing is wider."""
    name = next(iter(axis))
    parent = forge.first(ROOT, PLANNER, **axis)
    wider = parent.then(WORKER, **{name: getattr(forge.Terms(), name)})
    world.refuse(world.ask(wider), "widened", link=1, caveat=caveat)


def test_a_link_that_allows_nothing_permits_nothing(world: World) -> None:
    nothing = forge.first(ROOT, PLANNER).then(WORKER, allow=())
    world.refuse(world.ask(nothing), "not_granted", link=1, caveat="resource")
    nothing = forge.first(ROOT, WORKER, allow=())
    world.refuse(world.ask(nothing), "not_granted", link=0, caveat="resource")


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "claim",
    [c for c in Claim if c not in {Claim.AUD, Claim.PARENT, Claim.ATTESTATIONS}],
    ids=lambda claim: claim.name,
)
def test_a_missing_claim_is_not_everything(world: World, claim: Claim, at: int) -> None:
    """Left out of the parent or the child, nothing is taken for granted."""
    gone = {"claims": {claim: ABSENT}}
    first = forge.first(ROOT, PLANNER, forged=gone if at == 0 else {})
    chain = first.then(WORKER, forged=gone if at == 1 else {})
    world.refuse(world.ask(chain), "malformed", link=at)


@pytest.mark.parametrize("axis", range(1, 9))
def test_a_missing_limit_is_not_everything(world: World, axis: int) -> None:
    limits = {n: value for n, value in forge.Terms().limits().items() if n != axis}
    chain = forge.first(ROOT, WORKER, forged={"claims": {Claim.LIMITS: limits}})
    world.refuse(world.ask(chain), "malformed", link=0)


@pytest.mark.parametrize("nothing", [None, False, "", {}, 0], ids=repr)
@pytest.mark.parametrize("claim", [Claim.ALLOW, Claim.DENY, Claim.LIMITS], ids=lambda c: c.name)
def test_a_null_or_a_stand_in_is_not_everything(
    world: World, claim: Claim, nothing: object
) -> None:
    chain = forge.first(ROOT, WORKER, forged={"claims": {claim: nothing}})
    world.refuse(world.ask(chain), "malformed", link=0)


@pytest.mark.parametrize("args", [None, True, "", "*", "ANY", [], b""], ids=repr)
def test_args_of_another_form_are_not_any(world: World, args: object) -> None:
    chain = forge.first(ROOT, WORKER, allow=(DATA,))
    grant = [SEARCH[0], ["call"], args]
    chain = forge.first(ROOT, WORKER, forged={"claims": {Claim.ALLOW: [grant]}})
    world.refuse(world.ask(chain), "malformed", link=0)


def test_constraints_of_a_later_version_are_not_ignored(world: World) -> None:
    grant = [SEARCH[0], ["call"], {"q": ["exact", "moat"]}]
    chain = forge.first(ROOT, WORKER, forged={"claims": {Claim.ALLOW: [grant]}})
    world.refuse(world.ask(chain), "unknown_claim", link=0)


@pytest.mark.parametrize(
    ("kind", "uri"), [("code", "https://slsa.dev/provenance/v2"), ("model", MANIFEST)]
)
def test_attestations_of_a_later_version_are_not_ignored(world: World, kind: str, uri: str) -> None:
    required = [kind, uri, [ROOT.public], 1, 60]
    chain = forge.first(ROOT, WORKER, forged={"claims": {Claim.ATTESTATIONS: [required]}})
    world.refuse(world.ask(chain), "unknown_claim", link=0)


# --- the request itself, asked for more than any link gives ---


@pytest.mark.parametrize(
    ("ask", "caveat"),
    [
        ({"resource": "tool://shell"}, "resource"),
        ({"resource": "tool://searching"}, "resource"),
        ({"action": "delete"}, "action"),
        ({"action": "call", "resource": "file:///data/a"}, "action"),
    ],
    ids=["resource", "prefix", "action", "action of another grant"],
)
def test_a_request_beyond_the_grants(world: World, ask: dict[str, Any], caveat: str) -> None:
    world.refuse(world.ask(**ask), "not_granted", link=0, caveat=caveat)


def test_arguments_where_none_are_granted(world: World) -> None:
    chain = forge.first(ROOT, WORKER, allow=((*SEARCH[:2], {}),))
    world.allow(world.ask(chain))
    world.refuse(world.ask(chain, args=b'{"q":1}'), "not_granted", link=0, caveat="args")


def test_a_request_that_only_the_last_link_refuses(world: World) -> None:
    chain = forge.first(ROOT, PLANNER).then(
        WORKER, allow=(("tool://search/web", ("call",), "any"),)
    )
    world.allow(world.ask(chain))
    world.refuse(world.ask(chain, resource="tool://search/x"), "not_granted", link=1)
