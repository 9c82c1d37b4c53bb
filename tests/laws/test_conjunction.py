"""Authority is the conjunction of every link, for chains that nobody honest would make.

Every link is drawn on its own, wider or narrower than its parent on every axis, and the request
is one that some link of the chain grants. Whatever the comparison of links says, a request that
one link does not permit is never allowed. The heart runs the same law with the comparison broken
on purpose (``rust/core``); here ``Token.permits``, which does not look at it, stands for that.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from strategies import GATE, ROOT, Asked, a_request, beside, model, seeded, some_terms

import forge
from moat import AgentId, Identity, Permit, Policy, Token
from moat._native import Gate
from reference import caveats as reference
from reference import patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

Links = list[forge.Terms]
HOLDERS = [forge.key(f"holder {n}") for n in range(6)]
NUMBERS = count()


def unrelated(r: Random) -> tuple[Links, Asked]:
    """One to five links, each beside its parent or unrelated to it, and a request for one."""
    links, length = [some_terms(r)], r.choice((1, 2, 3, 4, 5))
    while len(links) < length:
        links.append(beside(r, links[-1]) if r.random() < 0.7 else some_terms(r))
    return links, a_request(r, r.choice(links))


def signed(links: Links) -> forge.Chain:
    """The chain that says so, each link signed by the holder of the one before."""
    chain: forge.Chain | None = None
    for holder, terms in zip(HOLDERS, links, strict=False):
        stated = {name: getattr(terms, name) for name in forge.Terms.__dataclass_fields__}
        chain = chain.then(holder, **stated) if chain else forge.first(ROOT, holder, **stated)
    assert chain is not None
    return chain


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate that trusts one root."""
    folder = tmp_path_factory.mktemp("conjunction") / "log"
    signer = Identity.from_pem("gate", GATE.pem())
    gate = Gate.open(folder, signer, anchor=None, clock=lambda: forge.NOW)
    root = AgentId.from_bytes(ROOT.public)
    gate.arm(policy=Policy.CHAIN_ONLY, roots=[root], operators=[])
    yield gate
    gate.close()


@given(seeded(unrelated))
def test_no_request_outside_an_ancestors_grants_is_ever_allowed(
    gate: Gate, case: tuple[Links, Asked]
) -> None:
    links, (action, resource, args) = case
    wire = forge.message(
        signed(links),
        GATE.public,
        action=action,
        resource=resource,
        args=b'{"q":1}' if args else b"{}",
        stream=bytes(16),
        number=next(NUMBERS),
    )
    decision = gate.decide(wire)
    permitted = [reference.permits(model(terms), action, resource, args)[0] for terms in links]
    if decision.allowed:
        assert all(permitted)
        assert decision.permit is not None
        within(decision.permit, links)
    else:
        assert decision.permit is None
    if not all(permitted):
        assert decision.reason in {"widened", "not_granted", "forbidden"}


def within(permit: Permit, links: Links) -> None:
    """No limit of a permit is beyond any link's, and it dies with the first of them."""
    models = [model(terms) for terms in links]
    limits = permit.limits
    for name, value in [
        ("fuel", limits.fuel),
        ("memory", limits.memory),
        ("output", limits.output),
        ("time", limits.time.total_seconds() * 1000),
    ]:
        assert value == reference.meet(models, name)
    for name in ("read", "write"):
        for entry in getattr(limits, name):
            for link in models:
                assert any(patterns.covers(wide, entry) for wide in link.scopes[name])
    # No wider than any link: as a child of each it is covered.
    hosts = [(str(rule.pattern), rule.methods, frozenset(rule.cidr)) for rule in limits.hosts]
    secrets = [(one.handle, str(one.host), one.header) for one in limits.secrets]
    met = reference.Caveats(
        hosts=tuple(reference.Host(*host) for host in hosts),
        secrets=tuple(reference.Secret(*secret) for secret in secrets),
    )
    for link in models:
        assert not {"hosts", "secrets"} & set(reference.widened(link, met))
    assert permit.expires <= min(terms.exp for terms in links)


@given(seeded(unrelated))
def test_a_token_permits_what_every_link_permits_whether_or_not_it_narrows(
    case: tuple[Links, Asked],
) -> None:
    links, asked = case
    token = Token.from_bytes(signed(links).token)
    assert token.permits(*asked) == reference.chain_permits([model(t) for t in links], *asked)


def test_the_chains_tried_here_are_of_every_sort() -> None:
    """Enough of them are allowed, and enough are refused although their last link grants."""
    sorts: Counter[str] = Counter()
    for seed in range(400):
        links, asked = unrelated(Random(seed))
        models = [model(terms) for terms in links]
        whole = reference.chain_permits(models, *asked)
        last = reference.permits(models[-1], *asked)[0]
        sorts["allowed" if whole else "gained" if last else "refused"] += 1
    assert min(sorts["allowed"], sorts["gained"], sorts["refused"]) > 20, sorts
