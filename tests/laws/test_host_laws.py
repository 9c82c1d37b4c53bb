"""Laws of host rules and secrets: what covers allows no more, and what does not says what more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from random import Random

from hypothesis import given
from strategies import METHODS, SECRETS, beside, model, pairs, some_terms
from test_caveat_laws import native_limits, refusal

import forge
from reference import caveats as reference
from reference.caveats import Caveats

Reach = tuple[str, str, str, bool]
URLS = (
    "http://a.example", "https://a.example", "https://a.example/a", "https://a.example/a/b",
    "https://a.example:8443/z", "https://b.a.example/a", "https://z.example/z",
)  # fmt: skip
PLACES = (
    ("8.8.8.8", True), ("10.1.0.1", False), ("10.2.3.4", False), ("10.9.9.9", False),
    ("127.0.0.1", False), ("::1", False), ("fd00::1", False), ("::ffff:10.1.0.1", False),
)  # fmt: skip
REQUESTS: list[Reach] = [
    (method, url, *place) for method, url, place in product((*METHODS, "BREW"), URLS, PLACES)
]
FILLS = [(handle, host.replace("*", "z"), header) for handle, host, header in SECRETS]


def reached(link: Caveats) -> set[Reach]:
    """The requests that a link allows."""
    return {
        (method, url, place, public)
        for method, url, place, public in REQUESTS
        if reference.reaches(link, method, url, place, public=public)
    }


def filled(link: Caveats) -> set[tuple[str, str, str]]:
    return {asked for asked in FILLS if reference.fills(link, *asked)}


def only_network(pair: tuple[forge.Terms, forge.Terms]) -> list[forge.Terms]:
    """The same pair where nothing else can be what is refused."""
    parent, child = pair
    return [
        replace(parent, further=2), replace(parent, further=1, hosts=child.hosts,
        secrets=child.secrets),
    ]  # fmt: skip


@given(pairs())
def test_what_a_covered_child_sends_and_fills_in_its_parent_does(
    pair: tuple[forge.Terms, forge.Terms],
) -> None:
    parent, child = pair
    wide, narrow = model(parent), model(child)
    if native_limits(parent).covers(native_limits(child)):
        assert reached(narrow) <= reached(wide)
        assert filled(narrow) <= filled(wide)


@given(pairs())
def test_a_refused_rule_comes_with_a_request_that_proves_it(
    pair: tuple[forge.Terms, forge.Terms],
) -> None:
    stated = only_network(pair)
    refused = refusal(stated)
    if refused is None:
        return
    parent, child = map(model, stated)
    witness = str(refused.witness)
    if refused.caveat == "secrets":
        asked = witness.split(" ")
        assert reference.fills(child, *asked)
        assert not reference.fills(parent, *asked)
        return
    assert refused.caveat == "hosts"
    if witness in map(str, native_limits(stated[1]).hosts):
        return  # none was found: several rules may allow it piece by piece
    method, url, *rest = witness.split(" ")
    # Without an address none matters: the parent does not name the request at all.
    places = [(rest[1], rest[1].startswith(("8.8.", "2600:")))] if rest else PLACES
    assert any(reference.reaches(child, method, url, at, public=sort) for at, sort in places)
    assert not any(reference.reaches(parent, method, url, at, public=sort) for at, sort in places)


@given(pairs())
def test_single_rules_cover_as_the_reference_says(pair: tuple[forge.Terms, forge.Terms]) -> None:
    parent, child = map(native_limits, pair)
    wide, narrow = map(model, pair)
    for (mine, its), (a, b) in zip(
        product(parent.hosts, child.hosts), product(ordered(wide), ordered(narrow)), strict=True
    ):
        covered = not reference.widened(Caveats(hosts=(a,)), Caveats(hosts=(b,), depth=-1))
        assert mine.covers(its) == covered


def ordered(link: Caveats) -> list[reference.Host]:
    """The rules as a link lists them."""
    return sorted(link.hosts, key=lambda one: (one.pattern, sorted(one.methods), sorted(one.cidr)))


def test_the_pairs_tried_here_are_of_every_sort() -> None:
    """Enough children are covered and say something, and enough are refused on each axis."""
    sorts: Counter[str] = Counter()
    for seed in range(600):
        r = Random(seed)
        parent = some_terms(r)
        parent, child = only_network((parent, beside(r, parent)))
        refused = refusal([parent, child])
        said = reached(model(child)) and filled(model(child))
        sorts[str(refused.caveat) if refused else "covered" if said else "nothing"] += 1
    assert min(sorts["hosts"], sorts["secrets"], sorts["covered"]) >= 10, sorts
