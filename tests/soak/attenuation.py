"""Random parents, children and requests: the native core beside the reference model.

    cd tests && python -m soak.attenuation --triples 1000000

A triple is a parent's terms, a child's, which are often narrower and often almost, and a request.
Four answers are compared: what ``attenuate`` makes or refuses and on which axis, whether the
parent's limits cover the child's, and whether the parent's token and the longer one permit the
request. Nothing here knows why the core answers as it does; ``reference/`` is written from the
specification alone.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

import forge
from laws.strategies import GATE, HOLDER, ROOT, WORKER, a_request, beside, model, some_terms
from moat import ANY, AgentId, Denial, Grant, Host, Identity, Limits, Requirement, Secret, Token
from moat.errors import AttenuationViolation
from reference import caveats as reference

if TYPE_CHECKING:
    from laws.strategies import Asked

T = TypeVar("T")
BATCH: Final = 5_000
"""Triples in one piece of work."""
CHILDREN: Final = 10
"""Children that are tried below one parent, each with a request of its own."""
ROOT_ID, HOLDER_ID, WORKER_ID, GATE_ID = (
    AgentId.from_bytes(key.public) for key in (ROOT, HOLDER, WORKER, GATE)
)
ROOT_KEY, HOLDER_KEY = (Identity.from_pem(key.name, key.pem()) for key in (ROOT, HOLDER))
LIMITED: Final = {"fuel", "memory", "time", "output", "hosts", "read", "write", "secrets"}


class DisagreementError(AssertionError):
    """The core and the model answer differently; the text is enough to ask both again."""


def compare(seed: int, triples: int = BATCH) -> Counter[str]:
    """Try so many triples; what they turned out to be, or ``DisagreementError``."""
    r, seen = Random(seed), Counter[str]()
    for _ in range(triples // CHILDREN):
        parent = some_terms(r)
        token = issued(parent)
        for _ in range(CHILDREN):
            child = beside(r, parent)
            asked = a_request(r, r.choice((child, child, parent)))
            try:
                seen.update(agree(token, parent, child, asked))
            except AssertionError as error:
                case = f"seed {seed}\nparent {parent}\nchild {child}\nasked {asked}\n{error}"
                raise DisagreementError(case) from error
            seen["triples"] += 1
    return seen


def agree(token: Token, parent: forge.Terms, child: forge.Terms, asked: Asked) -> list[str]:
    """Compare the core with the model; which sorts of triple this was."""
    # What `attenuate` is not told, it keeps: a parent's denials, requirements and audience.
    child = replace(
        child,
        deny=kept(parent.deny, child.deny),
        aud=child.aud or parent.aud,
        attestations=kept(parent.attestations, child.attestations),
    )
    models = model(parent), model(child)
    axes = reference.widened(*models)
    limits = native_limits(child)
    assert native_limits(parent).covers(limits) == (not LIMITED & set(axes)), "limits"
    permitted = reference.permits(models[0], *asked)[0]
    assert token.permits(*asked) == permitted, "what the parent permits"
    longer, refused = attenuated(token, child, limits)
    if longer is None:
        assert refused in axes, f"refused for {refused}, and the model says {axes}"
        return ["refused", f"only {axes[0]} too wide"] if len(axes) == 1 else ["refused"]
    assert not axes, f"made, although wider on {axes}"
    both = reference.chain_permits(models, *asked)
    assert longer.permits(*asked) == both, "what the chain permits"
    assert not both or permitted, "a child permits what its parent does not"
    return ["made", "permitted" if both else "lost on the way" if permitted else "never permitted"]


def issued(terms: forge.Terms) -> Token:
    """A token of one link, signed by the forge and not by the core."""
    return Token.from_bytes(forge.cbor([forge.link(ROOT, HOLDER, terms)]))


def attenuated(token: Token, child: forge.Terms, limits: Limits) -> tuple[Token | None, str | None]:
    """The longer token, or the axis on which it was refused."""
    try:
        longer = token.attenuate(
            HOLDER_KEY,
            holder=WORKER_ID,
            allow=[Grant(r, names, ANY if args == "any" else {}) for r, names, args in child.allow],
            deny=[Denial(resource, names) for resource, names in child.deny],
            limits=limits,
            expires_in=timedelta(seconds=child.exp - forge.NOW),
            not_before=child.nbf,
            depth=child.further,
            audience=None if child.aud is None else GATE_ID,
            attestations=map(native_requirement, child.attestations),
            now=forge.NOW,
        )
    except AttenuationViolation as error:
        return None, error.caveat
    return longer, None


def kept(parent: tuple[T, ...], child: tuple[T, ...]) -> tuple[T, ...]:
    """What the child states beside what it cannot drop, each once."""
    return tuple(dict.fromkeys((*parent, *child)))


def native_requirement(required: forge.Required) -> Requirement:
    """The same requirement for the core."""
    kind, uri, keys, threshold, age = required
    return Requirement(
        kind,
        map(AgentId.from_bytes, keys),
        predicate=uri,
        threshold=threshold,
        max_age=timedelta(seconds=age),
    )


def native_limits(terms: forge.Terms) -> Limits:
    """The same limits for the core."""
    return Limits(
        fuel=terms.fuel,
        memory=terms.memory,
        time=timedelta(milliseconds=terms.time),
        output=terms.output,
        hosts=[Host(*host) for host in terms.hosts],
        read=terms.read,
        write=terms.write,
        secrets=[Secret(handle, host=host, header=name) for handle, host, name in terms.secrets],
    )


def main() -> None:
    """Try so many triples in two processes, and print what they were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--triples", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    begun, seen = time.monotonic(), Counter[str]()
    seeds = range(asked.seed * 1_000_000, asked.seed * 1_000_000 + -(-asked.triples // BATCH))
    with ProcessPoolExecutor(asked.processes) as pool:
        for done in pool.map(compare, seeds):
            seen += done
            if seen["triples"] % (20 * BATCH) == 0:
                rate = seen["triples"] / (time.monotonic() - begun)
                print(f"{seen['triples']:>9,} triples, {rate:,.0f}/s", flush=True)
    print("no disagreement:")
    for name, count in sorted(seen.items(), key=lambda row: -row[1]):
        print(f"{count:>9,} {name}")


if __name__ == "__main__":
    main()
