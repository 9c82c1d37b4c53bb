"""What the laws are tried on: small alphabets, so that things often match, cover and collide.

Whole chains are built from one drawn seed: ten thousand of them must be cheap, and they are small
enough to read without being shrunk.
"""

from __future__ import annotations

from dataclasses import fields, replace
from random import Random
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

import forge
from reference.caveats import ANY, NONE, Caveats, Denial, Grant, Host, Requirement, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")
Asked = tuple[str, str, dict[str, int]]

ROOT, HOLDER, WORKER, GATE = map(forge.key, ("root", "holder", "worker", "gate"))

ACTIONS = ("call", "list", "read")
LITERALS = ("a", "b", "ab", "ba")
SEGMENTS = (*LITERALS, "*", "a*", "*b", "a*b", "*a*")
NAMES = ("t", "u", "t.u", "")
HOSTS = ("a.example", "b.a.example", "example")
URLS = (
    "http://a.example/**",
    "https://*/**",
    "https://*.example/**",
    "https://a.example/**",
    "https://a.example/a/*",
    "https://a.example:8443/**",
    "https://b.a.example/a",
)
METHODS = ("DELETE", "GET", "POST")
RANGES = ("10.0.0.0/8", "10.1.0.0/16", "127.0.0.1/32", "::1/128", "fd00::/8")
SECRETS = tuple(
    (f"secret://{name}", host, header)
    for name in ("a", "b")
    for host in ("https://*.example", "https://a.example")
    for header in ("authorization", "x-key")
)
PREDICATES = {
    "code": ("https://slsa.dev/provenance/v1", "urn:moat:manifest:v1", "urn:moat:manifest:v1"),
    "tool": ("urn:moat:manifest:v1",),
}
SIGNERS = (ROOT, HOLDER, WORKER)
TREES = ("file:///**", "file:///a/**", "file:///a/b/**", "file:///b/**")


def seeded(build: Callable[[Random], T]) -> st.SearchStrategy[T]:
    """What this function builds from a seed."""
    return st.integers(0, (1 << 64) - 1).map(lambda seed: build(Random(seed)))


def patterns() -> st.SearchStrategy[str]:
    """Patterns of identifiers, hosts with and without ports, and files."""
    return seeded(a_pattern)


def resources() -> st.SearchStrategy[str]:
    """Concrete resources over the same alphabet and a letter that no pattern names."""
    return seeded(a_resource)


def asked_patterns() -> st.SearchStrategy[tuple[str, str, str]]:
    """Two patterns, often alike, and a resource that the second one may well match."""

    def build(r: Random) -> tuple[str, str, str]:
        parent, child = a_pattern(r), a_pattern(r)
        if r.random() < 0.4:
            child = narrower_grant(r, (parent, ("*",), {}))[0]
        return parent, child, inside(r, child) if r.random() < 0.5 else a_resource(r)

    return seeded(build)


def terms() -> st.SearchStrategy[forge.Terms]:
    """All that a link states."""
    return seeded(some_terms)


def pairs() -> st.SearchStrategy[tuple[forge.Terms, forge.Terms]]:
    """A link's terms and those of a link after it, which are often narrower but not always."""

    def build(r: Random) -> tuple[forge.Terms, forge.Terms]:
        parent = some_terms(r)
        return parent, beside(r, parent)

    return seeded(build)


def narrowed() -> st.SearchStrategy[tuple[forge.Terms, forge.Terms]]:
    """A link's terms and narrower ones, unless the first allow no further link."""

    def build(r: Random) -> tuple[forge.Terms, forge.Terms]:
        parent = some_terms(r)
        return parent, narrower(r, parent)

    return seeded(build)


def asked_chains(length: int = 3) -> st.SearchStrategy[tuple[list[forge.Terms], Asked]]:
    """Terms of a chain, root's first, and a request that one of its links may well grant."""

    def build(r: Random) -> tuple[list[forge.Terms], Asked]:
        chain = [some_terms(r)]
        while len(chain) < length:
            chain.append(beside(r, chain[-1]))
        return chain, a_request(r, r.choice((chain[-1], chain[-1], *chain)))

    return seeded(build)


def chains(length: int = 3) -> st.SearchStrategy[list[forge.Terms]]:
    """Terms of a chain, root's first."""
    return asked_chains(length).map(lambda pair: pair[0])


def a_pattern(r: Random) -> str:
    scheme = a_scheme(r)
    path = r.choices(SEGMENTS, k=r.randrange(4))
    tail = [*path, "**"] if r.random() < 0.5 else path
    name = an_authority(r, scheme)
    if scheme != "file":
        name = r.choice((name, name, "*", f"*.{name}" if name else "*"))
    return joined(scheme, name, tail)


def a_resource(r: Random) -> str:
    scheme = a_scheme(r)
    path = r.choices((*LITERALS, "z", "azb"), k=r.randrange(5))
    return joined(scheme, an_authority(r, scheme), path)


def a_scheme(r: Random) -> str:
    return r.choice(("tool", "tool", "https", "file"))


def an_authority(r: Random, scheme: str) -> str:
    if scheme == "file":
        return ""
    if scheme == "https":
        return r.choice(HOSTS) + r.choice(("", "", ":8443"))
    return r.choice(NAMES)


def joined(scheme: str, authority: str, path: Iterable[str]) -> str:
    return "/".join([f"{scheme}://{authority}", *path])


def inside(r: Random, pattern: str) -> str:
    """A resource that a pattern matches."""
    scheme, _, rest = pattern.partition("://")
    authority, *path = rest.split("/")
    if authority.startswith("*"):
        authority = "t" + authority[1:] if authority != "*" else an_authority(r, scheme)
    if path and path[-1] == "**":
        path = [*path[:-1], *r.choices(LITERALS, k=r.randrange(3))]
    filled = [part.replace("*", r.choice(("a", "b", "zz"))) for part in path]
    return joined(scheme, authority, filled)


def a_request(r: Random, stated: forge.Terms) -> Asked:
    resource, action = a_resource(r), r.choice(ACTIONS)
    if stated.allow and r.random() < 0.9:
        pattern, names, _ = r.choice(stated.allow)
        resource = inside(r, pattern)
        action = r.choice(ACTIONS if names == ("*",) else names)
    return action, resource, r.choice(({}, {}, {"q": 1}))


def some_actions(r: Random) -> tuple[str, ...]:
    return r.choice((("*",), *(tuple(sorted(r.sample(ACTIONS, k=n))) for n in (1, 2, 3))))


def a_grant(r: Random) -> forge.Grant:
    return a_pattern(r), some_actions(r), r.choice(("any", "any", {}))


def a_denial(r: Random) -> forge.Denial:
    return a_pattern(r), some_actions(r)


def a_host(r: Random) -> forge.Host:
    names = r.choice((("*",), ("GET",), ("GET", "POST"), METHODS))
    return r.choice(URLS), names, r.choice(((), (), tuple(sorted(r.sample(RANGES, k=1)))))


def narrower_host(r: Random, host: forge.Host) -> forge.Host:
    """A host rule that this one covers."""
    url, names, ranges = host
    if url.endswith("/**") and "*" not in url[:-3] and r.random() < 0.4:
        url = f"{url[:-2]}{r.choice(LITERALS)}"
    if r.random() < 0.3:
        names = (r.choice(METHODS if names == ("*",) else names),)
    if "10.0.0.0/8" in ranges and r.random() < 0.5:
        ranges = ("10.1.0.0/16", "10.2.3.4/32")
    return url, names, ranges


def some_of(r: Random, values: Sequence[T]) -> tuple[T, ...]:
    return tuple(value for value in values if r.random() < 0.5)


def some_terms(r: Random) -> forge.Terms:
    """Terms small enough that two of them often compare."""
    return forge.Terms(
        allow=distinct(a_grant(r) for _ in range(r.choice((0, 1, 2, 2, 3, 3)))),
        deny=distinct(a_denial(r) for _ in range(r.choice((0, 0, 0, 1, 2)))),
        fuel=r.randrange(4),
        memory=r.randrange(4),
        time=r.randrange(4),
        output=r.randrange(4),
        hosts=distinct(a_host(r) for _ in range(r.randrange(4))),
        read=some_of(r, TREES),
        write=some_of(r, TREES),
        secrets=some_of(r, r.sample(SECRETS, k=3)),
        exp=forge.NOW + r.randrange(1, 4),
        nbf=forge.NOW - r.randrange(4),
        iat=forge.NOW - 3,
        further=r.choice((0, 1, 2, 3, 4, 5, 6, 7)),
        aud=r.choice((None, None, GATE.public)),
        attestations=distinct(a_requirement(r) for _ in range(r.choice((0, 0, 0, 0, 1, 2)))),
    )


def a_requirement(r: Random) -> forge.Required:
    keys = tuple(sorted(r.sample([key.public for key in SIGNERS], k=r.choice((1, 2, 2)))))
    kind = r.choice(("code", "tool"))
    return kind, r.choice(PREDICATES[kind]), keys, r.randint(1, len(keys)), r.randint(1, 3)


def tighter(r: Random, required: forge.Required) -> forge.Required:
    """A requirement that this one covers."""
    kind, uri, keys, threshold, age = required
    kept = tuple(sorted(r.sample(keys, k=r.randint(threshold, len(keys)))))
    return kind, uri, kept, r.randint(threshold, len(kept)), r.randint(1, age)


def beside(r: Random, parent: forge.Terms) -> forge.Terms:
    """Terms below a parent's: narrower, or with an axis or two that may be anything."""
    wild = some_terms(r)
    names = r.sample([field.name for field in fields(wild)], k=r.choice((0, 0, 0, 1, 1, 2)))
    below = narrower(r, parent)
    if below.allow and r.random() < 0.25:
        at = r.randrange(len(below.allow))
        looser = looser_grant(r, below.allow[at])
        below = replace(below, allow=distinct([*below.allow[:at], looser, *below.allow[at + 1 :]]))
    return replace(below, **{name: getattr(wild, name) for name in names})


def looser_grant(r: Random, grant: forge.Grant) -> forge.Grant:
    """A grant with more resources, more actions or any arguments."""
    resource, names, _ = grant
    head, _, last = resource.rpartition("/")
    wider = f"{head}/**" if last and not head.endswith("/") else resource
    looser = ((wider, *grant[1:]), (resource, ("*",), grant[2]), (resource, names, "any"))
    return r.choice([other for other in looser if other != grant] or [grant])


def narrower(r: Random, parent: forge.Terms) -> forge.Terms:
    """Terms that a parent covers, unless it allows no further link."""
    kept = [grant for grant in parent.allow if r.random() < 0.8]
    return replace(
        parent,
        allow=distinct(narrower_grant(r, grant) for grant in kept),
        deny=distinct([*parent.deny, *(a_denial(r) for _ in range(r.choice((0, 0, 0, 1))))]),
        fuel=r.randint(0, parent.fuel),
        memory=r.randint(0, parent.memory),
        time=r.randint(0, parent.time),
        output=r.randint(0, parent.output),
        hosts=distinct(narrower_host(r, host) for host in some_of(r, parent.hosts)),
        read=some_of(r, parent.read),
        write=some_of(r, parent.write),
        secrets=some_of(r, parent.secrets),
        exp=r.randint(forge.NOW + 1, parent.exp),
        nbf=r.randint(parent.nbf, forge.NOW),
        further=r.randint(0, max(0, parent.further - 1)),
        aud=parent.aud or r.choice((None, GATE.public)),
        attestations=distinct(tighter(r, required) for required in parent.attestations),
    )


def narrower_grant(r: Random, grant: forge.Grant) -> forge.Grant:
    """A grant that this one covers."""
    resource, names, args = grant
    head, _, last = resource.rpartition("/")
    if last in {"*", "**"} and not head.endswith("/") and r.random() < 0.4:
        resource = f"{head}/{r.choice(SEGMENTS)}"
    if r.random() < 0.3:
        names = (r.choice(ACTIONS if names == ("*",) else names),)
    return resource, names, args if r.random() < 0.7 else {}


def distinct(entries: Iterable[T]) -> tuple[T, ...]:
    """The same entries without duplicates, as a link must list them."""
    return tuple({repr(entry): entry for entry in entries}.values())


def chain_of(stated: Sequence[forge.Terms]) -> forge.Chain:
    """A correctly signed chain that states these terms, narrowing or not."""
    holders = [HOLDER, WORKER, HOLDER, WORKER]
    first = forge.link(ROOT, holders[0], stated[0])
    chain = forge.Chain((first,), holders[0], stated[0])
    for index, now in enumerate(stated[1:], 1):
        parent = forge.object_id(chain.links[-1])
        link = forge.link(chain.holder, holders[index], now, index=index, parent=parent)
        chain = forge.Chain((*chain.links, link), holders[index], now)
    return chain


def model(stated: forge.Terms) -> Caveats:
    """The reference's view of the same terms."""
    return Caveats(
        allow=tuple(
            Grant(resource, frozenset(names), ANY if args == "any" else NONE)
            for resource, names, args in stated.allow
        ),
        deny=tuple(Denial(resource, frozenset(names)) for resource, names in stated.deny),
        numbers={name: getattr(stated, name) for name in ("fuel", "memory", "time", "output")},
        scopes={name: getattr(stated, name) for name in ("read", "write")},
        hosts=tuple(
            Host(url, frozenset(names), frozenset(ranges)) for url, names, ranges in stated.hosts
        ),
        secrets=tuple(Secret(*secret) for secret in stated.secrets),
        expires=stated.exp,
        not_before=stated.nbf,
        depth=stated.further,
        audience=None if stated.aud is None else forge.did(stated.aud),
        attestations=tuple(
            Requirement(kind, uri, frozenset(keys), threshold, age)
            for kind, uri, keys, threshold, age in stated.attestations
        ),
    )
