"""Cases of spec/token.md in which a child asks for more than its parent has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cases import GATE, PLANNER, STRANGER, WORKER, Case, token
from token_cases import MANIFEST, PAIR, PLAIN, SLSA, first

if TYPE_CHECKING:
    from collections.abc import Iterator

    import forge

WIDER_HOSTS: tuple[forge.Host, ...] = (
    ("https://*.example.com/v1/**", ("GET",), ()),
    ("http://a.example.org/v1/**", ("GET",), ()),
    ("https://a.example.org:8443/v1/**", ("GET",), ()),
    ("https://a.example.org/**", ("GET",), ()),
    ("https://a.example.org/v1/**", ("GET", "PUT"), ()),
    ("https://a.example.org/v1/**", ("*",), ()),
    ("https://a.example.org/v1/**", ("GET",), ("10.0.0.0/8",)),
    ("https://git.example.net/**", ("GET",), ()),
    ("https://git.example.net/**", ("GET",), ("10.0.0.0/7",)),
    ("https://git.example.net/**", ("GET",), ("10.0.0.0/8", "::1/128")),
)
WIDER_SECRETS: tuple[forge.Secret, ...] = (
    ("secret://other", "https://a.example.org", "authorization"),
    ("secret://key/more", "https://a.example.org", "authorization"),
    ("secret://key", "https://example.org", "authorization"),
    ("secret://key", "http://a.example.org", "authorization"),
    ("secret://key", "https://a.example.org:8443", "authorization"),
    ("secret://key", "https://a.example.org", "cookie"),
)


def cases() -> Iterator[Case]:
    """One for each axis, and what only looks covered."""
    base = PLAIN.terms
    own = (("tool://search/**", ("call", "list"), {}),)
    bound = first(aud=GATE.public)
    two = (PLANNER.public, WORKER.public)
    vouched = first(attestations=(("code", MANIFEST, two, 2, 60),))
    shut = first(allow=(("tool://search/**", ("call", "list"), {}),))
    wide: tuple[tuple[str, forge.Chain, dict[str, Any]], ...] = (
        ("resource", PLAIN, {"allow": (("tool://*/**", ("call",), "any"),)}),
        ("resource", PLAIN, {"allow": (("tool://other", ("call",), "any"),)}),
        ("resource", PLAIN, {"allow": (("https://search/web", ("call",), "any"),)}),
        ("action", PLAIN, {"allow": (("tool://search/web", ("call", "delete"), "any"),)}),
        ("action", PLAIN, {"allow": (("tool://search/web", ("*",), "any"),)}),
        ("args", shut, {"allow": (("tool://search/web", ("call",), "any"),)}),
        ("deny", PLAIN, {"deny": ()}),
        ("deny", PLAIN, {"deny": (("tool://search/private/**", ("call",)),)}),
        ("deny", PLAIN, {"deny": (("tool://search/private", ("*",)),)}),
        ("fuel", PLAIN, {"fuel": base.fuel + 1}),
        ("fuel", first(fuel=0), {"fuel": 1}),
        ("memory", PLAIN, {"memory": base.memory + 1}),
        ("time", PLAIN, {"time": base.time + 1}),
        ("output", PLAIN, {"output": base.output + 1}),
        *(("hosts", PLAIN, {"hosts": (host,)}) for host in WIDER_HOSTS),
        ("hosts", first(hosts=()), {"hosts": base.hosts[:1]}),
        ("read", PLAIN, {"read": ("file:///**",)}),
        ("read", first(read=()), {"read": ("file:///data/**",)}),
        ("write", PLAIN, {"write": ("file:///data/**",)}),
        ("write", first(write=()), {"write": ("file:///data/out/**",)}),
        *(("secrets", PLAIN, {"secrets": (secret,)}) for secret in WIDER_SECRETS),
        ("secrets", first(secrets=()), {"secrets": base.secrets}),
        ("expiry", PLAIN, {"exp": base.exp + 1}),
        ("not_before", PLAIN, {"nbf": base.nbf - 1}),
        ("depth", PLAIN, {"further": base.further}),
        ("depth", first(further=0), {"further": 0}),
        ("audience", bound, {"aud": None}),
        ("attestations", vouched, {"attestations": ()}),
        ("attestations", vouched, {"attestations": (("code", MANIFEST, two, 1, 60),)}),
        ("attestations", vouched, {"attestations": (("code", MANIFEST, two, 2, 61),)}),
        ("attestations", vouched, {"attestations": (("code", SLSA, two, 2, 60),)}),
        ("attestations", vouched, {"attestations": (("tool", MANIFEST, two, 2, 60),)}),
        (
            "attestations",
            vouched,
            {"attestations": (("code", MANIFEST, (*two, STRANGER.public), 2, 60),)},
        ),
    )
    for number, (axis, parent, terms) in enumerate(wide, 1):
        made = parent.then(WORKER, **terms)
        rule = "a child is covered by its parent"
        yield token(f"wider {axis} ({number})", rule, made, "widened", link=1, axis=axis)
    union = first(allow=(("tool://t/a*", ("call",), "any"), ("tool://t/b*", ("call",), "any")))
    split = union.then(WORKER, allow=(("tool://t/*", ("call",), "any"),))
    rule = "single grants cover"
    yield token("covered by none alone", rule, split, "widened", link=1, axis="resource")
    grand = PAIR.then(STRANGER, fuel=base.fuel + 1)
    yield token("wider grandchild", "every link is covered", grand, "widened", link=2, axis="fuel")
    emptied = first(allow=()).then(WORKER, allow=own)
    rule = "an empty set is nothing"
    yield token("from nothing", rule, emptied, "widened", link=1, axis="resource")
