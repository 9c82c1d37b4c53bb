"""A reference model of what a link allows, written from spec/token.md alone.

It is slow and plain on purpose: the oracle that the native core is compared with. Patterns come
from ``reference.patterns``, which is the same kind of model for spec/pattern.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from reference import patterns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ANY = "any"
"""The arguments of a grant that takes all of them; the other value is ``NONE``."""
NONE = "none"
"""The arguments of a grant that takes none: the empty map."""


_covers = lru_cache(maxsize=1 << 16)(patterns.covers)
"""The reference search is slow, and the laws ask it the same things again and again."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on the resources of a pattern, with any arguments or with none."""

    resource: str
    actions: frozenset[str]
    args: str = ANY


@dataclass(frozen=True, slots=True)
class Denial:
    """Actions on the resources of a pattern, whatever the arguments."""

    resource: str
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Host:
    """Methods on the URLs of a pattern, at global addresses or, where there are any, in ranges."""

    pattern: str
    methods: frozenset[str]
    cidr: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Secret:
    """A handle, the hosts that its value may go to, and the header that holds it."""

    handle: str
    host: str
    header: str


@dataclass(frozen=True, slots=True)
class Caveats:
    """Everything that a link states and a child may only narrow.

    Memory and output are bytes, time is milliseconds, expiry and not-before are Unix seconds,
    and the audience is the did:key of one gate, or None for every gate.
    """

    allow: tuple[Grant, ...] = ()
    deny: tuple[Denial, ...] = ()
    numbers: Mapping[str, int] = field(
        default_factory=lambda: {"fuel": 0, "memory": 0, "time": 0, "output": 0}
    )
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"read": (), "write": ()})
    hosts: tuple[Host, ...] = ()
    secrets: tuple[Secret, ...] = ()
    expires: int = 0
    not_before: int = 0
    depth: int = 0
    audience: str | None = None
    attestations: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """That so many of these signers have said this of what runs, at most so many seconds ago."""

    kind: str
    predicate: str
    signers: frozenset[bytes]
    threshold: int
    age: int


def covers(parent: Caveats, child: Caveats) -> tuple[bool, str | None]:
    """Whether the child asks for nothing beyond its parent, and else an axis that is too wide."""
    axes = widened(parent, child)
    return (not axes, axes[0] if axes else None)


def widened(parent: Caveats, child: Caveats) -> list[str]:
    """Every axis on which the child asks for more than its parent has."""
    axes: list[str] = []
    for grant in child.allow:
        axes += [axis for axis in _grant_axes(parent.allow, grant) if axis not in axes]
    if not all(_denial_kept(child.deny, denial) for denial in parent.deny):
        axes.append("deny")
    axes += [name for name, most in parent.numbers.items() if child.numbers[name] > most]
    axes += [
        name
        for name, wide in parent.scopes.items()
        if not all(_some_covers(wide, narrow) for narrow in child.scopes[name])
    ]
    if not all(any(_host_covers(wide, one) for wide in parent.hosts) for one in child.hosts):
        axes.append("hosts")
    if not all(any(_secret_covers(wide, one) for wide in parent.secrets) for one in child.secrets):
        axes.append("secrets")
    if child.expires > parent.expires:
        axes.append("expiry")
    if child.not_before < parent.not_before:
        axes.append("not_before")
    if child.depth >= parent.depth:
        axes.append("depth")
    if parent.audience is not None and child.audience != parent.audience:
        axes.append("audience")
    if not all(_requirement_kept(child.attestations, mine) for mine in parent.attestations):
        axes.append("attestations")
    return axes


def permits(
    link: Caveats, action: str, resource: str, args: Mapping[str, object] | None = None
) -> tuple[bool, str | None]:
    """Whether one link allows a request, and else the reason code.

    A denial is asked first and never looks at the arguments.
    """
    if any(_names(d.actions, action) and patterns.matches(d.resource, resource) for d in link.deny):
        return False, "forbidden"
    for grant in link.allow:
        fits = grant.args == ANY or not args
        if fits and _names(grant.actions, action) and patterns.matches(grant.resource, resource):
            return True, None
    return False, "not_granted"


def chain_permits(
    links: Sequence[Caveats], action: str, resource: str, args: Mapping[str, object] | None = None
) -> bool:
    """Whether every link allows the request: authority is the conjunction of the chain."""
    return bool(links) and all(permits(link, action, resource, args)[0] for link in links)


def reaches(link: Caveats, method: str, url: str, address: str, *, public: bool) -> bool:
    """Whether one link allows this method of this URL over a connection to this address.

    ``public`` says that the address is global unicast, which only a rule without ranges asks.
    """
    return any(
        _names(rule.methods, method)
        and method not in {"CONNECT", "TRACE"}
        and patterns.matches(rule.pattern, url)
        and (_in_some(rule.cidr, address) if rule.cidr else public)
        for rule in link.hosts
    )


def fills(link: Caveats, handle: str, host: str, header: str) -> bool:
    """Whether one link has this secret filled into this header of requests to this host."""
    return any(
        (rule.handle, rule.header) == (handle, header) and patterns.matches(rule.host, host)
        for rule in link.secrets
    )


def must_be_attested(links: Sequence[Caveats], resource: str) -> bool:
    """Whether a request that names no digest is refused for what a link requires."""
    scheme = resource.partition("://")[0]
    kind = {"code": "code", "mcp": "tool", "skill": "skill", "tool": "tool"}.get(scheme)
    return any(one.kind == kind for link in links for one in link.attestations)


def meet(links: Sequence[Caveats], number: str) -> int:
    """The smallest value of one numeric limit in the chain."""
    return min(link.numbers[number] for link in links)


def _grant_axes(allow: Iterable[Grant], child: Grant) -> list[str]:
    """Axes on which a grant exceeds every single one of the parent's, action by action."""
    axes: set[str] = set()
    for action in child.actions:
        failures = [_misfit(parent, child, action) for parent in allow]
        if all(failures):
            axes |= set().union(*failures) if failures else {"resource", "action", "args"}
    return sorted(axes)


def _misfit(parent: Grant, child: Grant, action: str) -> set[str]:
    """Why one grant of the parent does not cover one action of a child's grant."""
    wrong: set[str] = set()
    if not _covers(parent.resource, child.resource):
        wrong.add("resource")
    if not _names(parent.actions, action):
        wrong.add("action")
    if parent.args == NONE and child.args == ANY:
        wrong.add("args")
    return wrong


def _denial_kept(deny: Iterable[Denial], parent: Denial) -> bool:
    """Whether a parent's denial is still denied, all of it, by one denial of the child."""
    return any(
        _covers(denial.resource, parent.resource)
        and all(_names(denial.actions, action) for action in parent.actions)
        for denial in deny
    )


def _host_covers(parent: Host, child: Host) -> bool:
    """Whether one rule of the parent allows all of one of the child's."""
    return (
        _covers(parent.pattern, child.pattern)
        and all(_names(parent.methods, method) for method in child.methods)
        and bool(parent.cidr) == bool(child.cidr)
        and all(_in_some(parent.cidr, one) for one in child.cidr)
    )


def _secret_covers(parent: Secret, child: Secret) -> bool:
    same = (parent.handle, parent.header) == (child.handle, child.header)
    return same and _covers(parent.host, child.host)


def _in_some(ranges: Iterable[str], inner: str) -> bool:
    """Whether an address or a range lies in one of these; an IPv4-mapped address does not."""
    mapped = "/" not in inner and getattr(ip_address(inner), "ipv4_mapped", None)
    return not mapped and any(_bits(inner).startswith(_bits(outer)) for outer in ranges)


def _bits(cidr: str) -> str:
    """The bits that the addresses of a range share, after the version of their protocol."""
    network = ip_network(cidr)
    whole = f"{int(network.network_address):0{network.max_prefixlen}b}"
    return f"{network.version}:{whole[: network.prefixlen]}"


def _requirement_kept(child: Iterable[Requirement], parent: Requirement) -> bool:
    """Whether one requirement of the child is at least as strict on every count."""
    return any(
        (one.kind, one.predicate) == (parent.kind, parent.predicate)
        and one.signers <= parent.signers
        and one.threshold >= parent.threshold
        and one.age <= parent.age
        for one in child
    )


def _some_covers(parents: Iterable[str], child: str) -> bool:
    return any(_covers(parent, child) for parent in parents)


def _names(actions: frozenset[str], action: str) -> bool:
    """Whether a set of actions names this one; ``*`` names all, and only ``*`` names ``*``."""
    return action in actions or "*" in actions
