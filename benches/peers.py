"""What a decision costs beside others' work: ``python benches/peers.py [--json] [--rounds N]``.

Needs the extra `peers` (``pip install '.[peers]'``). Everything runs in one process: in every
round each entrant has a short batch, the order turns from round to round, and each round gives
one ratio to `tenuo`; the median over the rounds is what counts. Inputs are made between the
batches and not timed.

What each does from received bytes, on a chain of so many links, each signed by another key:

``moat``
    ``Pep.authorize``: reads the message, checks its signature (of the holder, over action,
    resource, arguments, payload, gate, policy, times and stream), the chain's signatures and that
    every link is covered by the one above, times, revocation and suspension, replay, and every
    link's grants; writes one line (MAC, hash chain, Merkle tree) to a log in memory files, whose
    sync therefore costs nothing. A chain that was *seen before* is found by the hash of its
    bytes; for one *never seen* every signature is checked, and each of its links is logged too.
``tenuo``
    ``Warrant.from_bytes`` of each link, then ``Authorizer.check_chain`` with a proof of
    possession (the holder's signature over tool, arguments and a time window of 15 s): the
    signatures, that each warrant narrows, times, and one pattern on one argument. It keeps no
    cache, no record of used proofs and no log, so a chain seen before costs as much as a new one.
``biscuit``
    ``Biscuit.from_bytes`` (every block's signature) and a Datalog authorizer with an equal
    right and a check in each block. A bearer token: no holder, no signed request, no log.
``pynacl`` and ``raw verify``
    One signature over as many bytes as the message's request, with the key read from bytes: by
    libsodium, and by ``AgentId.verify`` (strict). One message on a new chain of n links needs
    n + 1 of these, so that many are the floor.
``pyjwt``
    One JWT with EdDSA: signature, expiry, audience. No chain, no request.

Scaling is what two threads do in the time that one takes, against the same for
``AgentId.verify``, which releases the interpreter's lock as ``authorize`` does. On a machine
with one free core neither scales; the quotient of the two remains.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, Final

import jwt
from biscuit_auth import AuthorizerBuilder, Biscuit, BiscuitBuilder, BlockBuilder, KeyPair
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.signing import SigningKey as SodiumKey
from nacl.signing import VerifyKey
from tenuo_core import Authorizer, Pattern, SigningKey, Warrant

from moat import AuditLog, Identity, Message, Pep, Policy, Sender, Token
from moat._bench import DEPTHS, deeper, grant, in_memory, limits
from table import Budget, at_most, grid
from table import time as shown

LINKS: Final = (3, 8)
CALLS: Final = 4
"""Decisions in one batch."""
THREAD_CALLS: Final = 200
"""Decisions of each thread in one batch."""
HOUR: Final = timedelta(hours=1)
ARGS: Final = {"path": "web/index"}
RESOURCE: Final = "tool://search/web"
AT_MOST: Final = {"seen": {3: 0.27, 8: 0.12}, "new": {3: 0.80, 8: 0.80}}
"""Ratios to `tenuo`, by what a chain is to the gate and its links."""

Inputs = Callable[[int], list[Any]]
"""Makes so many inputs of an entrant."""


@dataclass(frozen=True)
class Entrant:
    """One way to decide; ``check`` raises where the answer is no."""

    name: str
    inputs: Inputs
    check: Callable[[Any], object]
    nanoseconds: list[float] = field(default_factory=list)

    def batch(self) -> float:
        """Nanoseconds of one call in a batch of new inputs."""
        given, check = self.inputs(CALLS), self.check
        gc.disable()
        started = time.perf_counter_ns()
        for one in given:
            check(one)
        taken = time.perf_counter_ns() - started
        gc.enable()
        return taken / len(given)


@dataclass(frozen=True)
class Row:
    """What came out for one entrant at one depth."""

    links: int
    name: str
    least_ns: float
    median_ns: float
    of_tenuo: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a decision with others' libraries.")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--rounds", type=int, default=151, help="rounds of each (default 151)")
    options = parser.parse_args()
    rows = [row for links in LINKS for row in race(links, options.rounds)]
    scales = scaling(max(options.rounds // 5, 5))
    loads = imports(max(options.rounds // 8, 5))
    budgets = verdicts(rows, scales, loads)
    if options.json:
        document = {"rows": [asdict(row) for row in rows], "scaling": scales, "imports": loads,
                    "budgets": [asdict(one) for one in budgets]}  # fmt: skip
        print(json.dumps(document, indent=2))
    else:
        print(text(rows, scales, loads, budgets))


# --- the race -------------------------------------------------------------------------------


def race(links: int, rounds: int) -> list[Row]:
    """Every entrant's times on chains of so many links, in alternating batches."""
    with gate() as (pep, root):
        entrants = [
            Entrant("moat, seen before", *moat_seen(pep, root, links)),
            Entrant("moat, never seen", *moat_new(pep, root, links)),
            Entrant("tenuo", *tenuo(links)),
            Entrant("biscuit", *biscuit(links)),
            Entrant("raw verify", *raw_verify()),
            Entrant("pynacl", *pynacl()),
            Entrant("pyjwt", *pyjwt()),
        ]
        for entrant in entrants:
            entrant.batch()
        for turn in range(rounds):
            first = turn % len(entrants)
            for place, entrant in enumerate(entrants[first:] + entrants[:first]):
                depth = (turn * 5 + place * 7) % DEPTHS
                entrant.nanoseconds.append(deeper(depth, entrant.batch))
    (base,) = [one.nanoseconds for one in entrants if one.name == "tenuo"]
    return [
        Row(
            links, one.name, min(one.nanoseconds), statistics.median(one.nanoseconds),
            statistics.median(a / b for a, b in zip(one.nanoseconds, base, strict=True)),
        )
        for one in entrants
    ]  # fmt: skip


@contextmanager
def gate() -> Iterator[tuple[Pep, Identity]]:
    """A gate over a new log in memory files, and the root that it trusts."""
    root, signer = Identity.generate("root"), Identity.generate("gate")
    with tempfile.TemporaryDirectory(dir=in_memory()) as place:
        log = AuditLog.open(Path(place, "log"), signer=signer, anchor=None)
        with log:
            yield Pep(policy=Policy.CHAIN_ONLY, roots=[root.id], audit=log), root


def chain(root: Identity, heirs: list[Identity]) -> Token:
    token = Token.issue(
        root, holder=heirs[0].id, allow=[grant("tool://search/**")], limits=limits(),
        expires_in=HOUR, depth=15,
    )  # fmt: skip
    for giver, heir in pairwise(heirs):
        token = token.attenuate(giver, holder=heir.id)
    return token


def heirs_of(links: int) -> list[Identity]:
    return [Identity.generate("heir") for _ in range(links)]


def sender(pep: Pep, root: Identity, links: int) -> Callable[[], bytes]:
    """Seals messages of one stream on a new chain."""
    heirs = heirs_of(links)
    stream = Sender(heirs[-1], gate=pep.id, token=chain(root, heirs), policy=pep.policy.hash)
    return lambda: stream.seal(action="call", resource=RESOURCE, args=ARGS)


def moat_seen(pep: Pep, root: Identity, links: int) -> tuple[Inputs, Callable[[bytes], object]]:
    seal = sender(pep, root, links)
    return lambda count: [seal() for _ in range(count)], pep.authorize


def moat_new(pep: Pep, root: Identity, links: int) -> tuple[Inputs, Callable[[bytes], object]]:
    """Each message is the first on its chain, whose links and holders are all new."""

    def inputs(count: int) -> list[bytes]:
        return [sender(pep, root, links)() for _ in range(count)]

    return inputs, pep.authorize


def tenuo(links: int) -> tuple[Inputs, Callable[[Any], object]]:
    root, keys = SigningKey.generate(), [SigningKey.generate() for _ in range(links)]
    scope = {"search": {"path": Pattern("web/*")}}
    leaf = Warrant.issue(root, capabilities=scope, ttl_seconds=3600, holder=keys[0].public_key)
    warrants = [leaf]
    for giver, heir in pairwise(keys):
        leaf = leaf.attenuate(scope, giver, ttl_seconds=3600, holder=heir.public_key)
        warrants.append(leaf)
    received = [bytes(one.to_bytes()) for one in warrants]
    authorizer = Authorizer(trusted_roots=[root.public_key])

    def inputs(count: int) -> list[bytes]:
        return [bytes(leaf.sign(keys[-1], "search", ARGS, int(time.time())))] * count

    def check(proof: bytes) -> object:
        stack = [Warrant.from_bytes(one) for one in received]
        return authorizer.check_chain(stack, "search", ARGS, signature=proof)

    return inputs, check


def biscuit(links: int) -> tuple[Inputs, Callable[[Any], object]]:
    pair = KeyPair()
    token = BiscuitBuilder(f'right("{RESOURCE}", "call")').build(pair.private_key)
    for _ in range(1, links):
        token = token.append(
            BlockBuilder(
                'check if resource($r), $r.starts_with("tool://search/"), operation("call");'
                "check if time($t), $t < 2100-01-01T00:00:00Z"
            )
        )
    received = bytes(token.to_bytes())
    asked = (
        f'resource("{RESOURCE}"); operation("call");'
        "allow if resource($r), operation($o), right($r, $o)"
    )
    # It gives up after 1 ms of wall clock unless told otherwise, and a machine may be busy.
    patient = AuthorizerBuilder("").limits()
    patient.max_time = timedelta(seconds=1)

    def check(data: bytes) -> object:
        read = Biscuit.from_bytes(data, pair.public_key)
        builder = AuthorizerBuilder(asked)
        builder.set_time()
        builder.set_limits(patient)
        return builder.build(read).authorize()

    return lambda count: [received] * count, check


def pynacl() -> tuple[Inputs, Callable[[Any], object]]:
    key = SodiumKey.generate()
    signed = [key.sign(bytes([n]) * request_bytes()) for n in range(16)]
    public, turns = bytes(key.verify_key), cycle(signed)

    def check(one: Any) -> object:
        return VerifyKey(public).verify(one.message, one.signature)

    return lambda count: [next(turns) for _ in range(count)], check


def raw_verify() -> tuple[Inputs, Callable[[Any], object]]:
    signer, size = Identity.generate("raw"), request_bytes()
    texts = [bytes([n]) * size for n in range(16)]
    turns, verify = cycle([(text, signer.sign(text)) for text in texts]), signer.id.verify
    return lambda count: [next(turns) for _ in range(count)], lambda one: verify(*one)


def request_bytes() -> int:
    """Bytes that the signature of a message is over, about."""
    one = Identity.generate("one")
    token = chain(one, [one])
    sealed = Message.seal(
        one, gate=one.id, token=token, policy=Policy.CHAIN_ONLY.hash, action="call",
        resource=RESOURCE, args=ARGS,
    )  # fmt: skip
    return len(sealed) - len(bytes(token)) - 64


def pyjwt() -> tuple[Inputs, Callable[[Any], object]]:
    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    claims = {"sub": "agent", "aud": "gate", "scope": f"call {RESOURCE}", "jti": "0" * 32}
    token = jwt.encode(claims | {"exp": int(time.time()) + 3600}, key, algorithm="EdDSA")

    def check(one: str) -> object:
        return jwt.decode(one, public, algorithms=["EdDSA"], audience="gate")

    return lambda count: [token] * count, check


# --- threads and imports --------------------------------------------------------------------


def scaling(rounds: int) -> dict[str, float]:
    """How many times the work of one thread two do: medians, and ours by the raw one's."""
    signer = Identity.generate("raw")
    signed = [(bytes([n]) * 400, signer.sign(bytes([n]) * 400)) for n in range(16)]
    verify = signer.id.verify
    proofs, check_tenuo = tenuo(LINKS[0])
    factors: dict[str, list[float]] = {"authorize": [], "verify": [], "tenuo": []}
    with gate() as (pep, root):
        seals = [sender(pep, root, LINKS[0]) for _ in range(2)]

        def shares(name: str) -> list[Callable[[], None]]:
            """The same work twice, for two threads."""
            if name == "authorize":
                given = [[seal() for _ in range(THREAD_CALLS)] for seal in seals]
                return [lambda own=own: [*map(pep.authorize, own)] for own in given]
            if name == "verify":
                turn = [*zip(*(signed * (THREAD_CALLS // 16)), strict=True)]
                return [lambda: [*map(verify, *turn)]] * 2
            own = proofs(THREAD_CALLS // 4)
            return [lambda: [*map(check_tenuo, own)]] * 2

        for turn in range(rounds):
            names = [*factors]
            for name in names[turn % 3 :] + names[: turn % 3]:
                one = sum(together([share]) for share in shares(name))
                two = together(shares(name))
                factors[name].append(one / two)
    pairs = zip(factors["authorize"], factors["verify"], strict=True)
    medians = {name: statistics.median(found) for name, found in factors.items()}
    return medians | {"authorize by verify": statistics.median(a / b for a, b in pairs)}


def together(works: list[Callable[[], None]]) -> float:
    """Nanoseconds until all are done that start at once, each in a thread of its own."""
    ready = threading.Barrier(len(works) + 1)

    def run(work: Callable[[], None]) -> None:
        ready.wait()
        work()

    running = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in running:
        thread.start()
    ready.wait()
    started = time.perf_counter_ns()
    for thread in running:
        thread.join()
    return time.perf_counter_ns() - started


def imports(rounds: int) -> dict[str, float]:
    """Milliseconds that an import takes over starting Python alone, in new processes by turns."""
    programs = {name: f"import {name}" for name in ("moat", "tenuo", "biscuit_auth")}
    over: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        bare = started("pass")
        for name, program in programs.items():
            over[name].append((started(program) - bare) / 1e6)
        if turn == 0:  # The first may compile and reads the disk.
            for found in over.values():
                found.clear()
    return {name: statistics.median(found) for name, found in over.items()}


def started(program: str) -> float:
    before = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter_ns() - before


# --- what is printed ------------------------------------------------------------------------


def verdicts(rows: list[Row], scales: dict[str, float], loads: dict[str, float]) -> list[Budget]:
    found = []
    for row in rows:
        for what, most in (("seen", "seen before"), ("new", "never seen")):
            if row.name == f"moat, {most}":
                title = f"authorize, {row.links} links, {most}"
                found.append(at_most(title, row.of_tenuo, AT_MOST[what][row.links], "of tenuo"))
    found.append(at_most("import moat", loads["moat"], 25, "ms over bare Python"))
    factor = scales["authorize by verify"]
    unit = "of the scaling of raw verify"
    found.append(
        Budget("two threads on authorize", f"{factor:.2f} {unit}", f"at least 0.85 {unit}",
               factor >= 0.85)
    )  # fmt: skip
    return found


def text(
    rows: list[Row], scales: dict[str, float], loads: dict[str, float], budgets: list[Budget]
) -> str:
    """Three Markdown tables."""
    races = [
        (str(row.links), row.name, shown(row.least_ns), shown(row.median_ns),
         f"{row.of_tenuo:.2f}")
        for row in rows
    ]  # fmt: skip
    others = [
        *((f"two threads, {name}", f"{factor:.2f}") for name, factor in scales.items()),
        *((f"import {name}", f"{over:.1f} ms") for name, over in loads.items()),
    ]
    judged = [(one.what, one.found, one.budget, "met" if one.met else "NOT MET") for one in budgets]
    return "\n".join(
        (
            *grid(("links", "from received bytes", "least", "median", "of tenuo"), races),
            "",
            *grid(("beside it", "found"), others),
            "",
            *grid(("what", "found", "at most", ""), judged),
        )
    )


if __name__ == "__main__":
    main()
