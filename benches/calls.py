"""What a call costs from Python: one JSON object a line, as the Rust benches print them.

Two statements are timed side by side, ours and what it is compared with: short batches
alternate, every round gives one ratio, and the median over many rounds is what counts.
`benches/harness.rs` says why. `benches/table.py` reads the lines.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import cycle
from timeit import Timer
from typing import Any, Final

from moat import Identity, Message, Policy, Token
from moat._bench import (
    EMPTY,
    FEW,
    HOUR,
    NOW,
    RESOURCE,
    SIZE,
    TURNS,
    Batch,
    alternate,
    authorizing,
    batched,
    gated,
    grant,
    in_memory,
    issue,
    limits,
    running,
    synced,
)
from moat._native import Gate, Module

ROUNDS: Final = 201
TOGETHER: Final = 64
"""Messages decided together, and threads that decide at once."""
DIFFERENCE: Final = 56
"""A ``COSE_Sign1`` has 56 bytes more than the ``Sig_structure`` that is signed."""


def main() -> None:
    keys()
    permission()
    for links in (1, 8):
        authorize(links)
    watched()
    guests()
    durable()


def show(name: str, ours: Batch, raw: Batch, rounds: int = ROUNDS) -> None:
    """Print what came out of two batches that time themselves, in nanoseconds a call."""
    pairs = alternate(ours, raw, range(rounds))
    mine, other = zip(*pairs, strict=True)
    found = {
        "name": name,
        "ours_ns": min(mine),
        "raw_ns": min(other),
        "raw_median_ns": statistics.median(other),
        "ratio": statistics.median(one / two for one, two in pairs),
        "difference_ns": statistics.median(one - two for one, two in pairs),
    }
    print(json.dumps(found), flush=True)


def compare(name: str, ours: str, raw: str, **names: Any) -> None:
    show(name, batched(ours, names), batched(raw, names))


def keys() -> None:
    """The four operations that sign or verify, beside the primitive called from Python too."""
    root, holder, gate = map(Identity.generate, ("root", "holder", "gate"))
    allow = [grant("tool://search/**")]
    tokens = [issue(root, holder.id, allow) for _ in range(TURNS)]
    names: dict[str, Any] = {
        "Token": Token, "Message": Message, "root": root, "holder": holder, "to": holder.id,
        "gate": gate.id, "roots": [root.id], "token": tokens[0],
        "tokens": cycle(map(bytes, tokens)), "allow": allow, "limits": limits(),
        "hour": HOUR, "now": NOW, "resource": RESOURCE,
        "policy": Policy.CHAIN_ONLY.hash, "payload": bytes(SIZE),
    }  # fmt: skip
    tokens_made = (
        "Token.issue(root, holder=to, allow=allow, expires_in=hour, limits=limits, now=now)"
    )
    message_made = (
        "Message.seal(holder, gate=gate, token=token, policy=policy, action='call',"
        " resource=resource, payload=payload, now=now)"
    )
    wires = [eval(message_made, names) for _ in range(TURNS)]
    names |= {"wires": cycle(wires)}
    size = len(bytes(tokens[0].links[0]))
    beside(size, "py_token", tokens_made, "sign", names)
    checked = "Token.from_bytes(next(tokens)).verify(roots, gate=gate, now=now)"
    beside(size, "py_token", checked, "verify", names)
    # A message is an array of two byte strings with three bytes of head each.
    size = len(wires[0]) - len(bytes(tokens[0])) - 7
    beside(size, "py_message", message_made, "sign", names)
    opened = "Message.open(next(wires), gate=gate, sender=to, now=now)"
    beside(size, "py_message", opened, "verify", names)


def beside(envelope: int, name: str, ours: str, kind: str, names: dict[str, Any]) -> None:
    """Compare with signing or verifying texts of the length that ours signs."""
    signer = Identity.generate("raw")
    texts = [bytes([n]) * (envelope - DIFFERENCE) for n in range(TURNS)]
    raw = {
        "sign": ("sign(next(texts))", {"sign": signer.sign, "texts": cycle(texts)}),
        "verify": (
            "verify(*next(signed))",
            {"verify": signer.id.verify, "signed": cycle([(t, signer.sign(t)) for t in texts])},
        ),
    }
    statement, more = raw[kind]
    compare(f"{name}_{kind}", ours, statement, **names, **more)


def permission() -> None:
    """``permits`` beside ``dict.get``: the plainest built-in method that takes two texts.

    There is no native method that does nothing; ``covers`` of two equal patterns comes near, and
    says what any call of native code costs.
    """
    root = Identity.generate("root")
    one = grant("tool://search/**").resource
    compare("py_call", "covers(one)", "get(1)", covers=one.covers, one=one, get={}.get)
    noop = "get('call', resource)"
    for count in (1, 8):
        allow = [grant(f"tool://service{n}/**") for n in range(count)]
        token = issue(root, root.id, allow)
        resource = f"tool://service{count - 1}/run"
        compare(
            f"py_permits_{count}", "permits('call', resource)", noop,
            permits=token.permits, resource=resource, get={}.get,
        )  # fmt: skip


def authorize(links: int) -> None:
    """Received bytes to permit for a chain seen before, beside key from bytes and verify."""
    with gated(in_memory(), links) as (gate, messages):
        signer, calls = Identity.generate("raw"), 8
        wire = messages(1)[0]
        size = len(wire) - len(bytes(Message.from_bytes(wire).token)) - 7 - DIFFERENCE
        texts = [bytes([n]) * size for n in range(TURNS)]
        signed = cycle([(text, signer.sign(text)) for text in texts])
        raw = Timer("verify(*next(signed))", globals={"verify": signer.id.verify, "signed": signed})
        ours = authorizing(gate, messages, calls)
        show(f"py_authorize_{links}", ours, lambda: raw.timeit(calls) * 1e9 / calls)


def watched() -> None:
    """``authorize`` of a chain of three holders under twenty rules, beside a gate without any."""
    for kind, rules in twenty_rules().items():
        ruled = gated(in_memory(), 3, rules=json.dumps(rules).encode())
        with ruled as (gate, messages), gated(in_memory(), 3) as (bare, others):
            ours, without = authorizing(gate, messages), authorizing(bare, others)
            show(f"py_authorize_20_{kind}", ours, without, ROUNDS * 2 - 1)


def twenty_rules() -> dict[str, list[dict[str, Any]]]:
    """Rules that are never met, as in `benches/world.rs`: all about what is asked, and a mix."""

    def rate(n: int, resource: str) -> dict[str, Any]:
        match = {"actions": ["call"], "resource": resource}
        window = {"limit": 1_000_000, "window": 60 * (n + 1)}
        return {"name": f"r{n}", "match": match, "rate": window, "then": "throttle"}

    there_and_back = [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]
    leak = [{"resource": "file:///**"}, {"resource": "https://*/**"}]
    others: list[dict[str, Any]] = [
        {"name": "spent", "cost": {"limit": 10**12}, "then": "throttle"},
        {"name": "leak", "sequence": {"steps": leak, "within": 300}, "then": "suspend"},
        {"name": "flow", "machine": {"initial": "a", "transitions": there_and_back},
         "then": "suspend"},
    ]  # fmt: skip
    elsewhere = [rate(n, f"tool://other{n}/**") for n in range(14)]
    here = [rate(n, "tool://search/**") for n in range(20)]
    return {"rates": here, "mixed": [*elsewhere, *here[14:17], *others]}


def guests() -> None:
    """An empty program with a permit, its outcome in the log, beside PyPI ``wasmtime``."""
    with gated(in_memory(), 1, read=()) as (gate, messages):
        show("py_sandbox", running(gate, messages), without_permit())
        show("py_decide_and_run", deciding_and_running(gate, messages), authorizing(gate, messages))


def without_permit() -> Batch:
    """The same program with a new store, WASI context and instance for each run, no limits."""
    import wasmtime

    engine = wasmtime.Engine()
    linker, module = wasmtime.Linker(engine), wasmtime.Module(engine, EMPTY)
    linker.define_wasi()

    def once() -> None:
        store = wasmtime.Store(engine)
        store.set_wasi(wasmtime.WasiConfig())
        linker.instantiate(store, module).exports(store)["_start"](store)

    return batched("once()", {"once": once})


def deciding_and_running(gate: Gate, messages: Callable[[int], list[bytes]]) -> Batch:
    """Received bytes to the end of the program."""
    module = Module(EMPTY)

    def batch() -> float:
        wires = messages(FEW)
        began = time.perf_counter_ns()
        for wire in wires:
            module.run(gate.authorize(wire, now=NOW))
        return (time.perf_counter_ns() - began) / FEW

    return batch


def durable() -> None:
    """A share in one sync beside a sync of one's own, where temporary files lie."""
    with tempfile.TemporaryFile() as file:
        show("py_sync", lambda: synced(file.fileno()), lambda: 1.0, 63)

    with gated(None, 1) as (gate, messages):

        def timed(work: Callable[[list[bytes]], object], count: int) -> float:
            wires = messages(count)
            started = time.perf_counter_ns()
            work(wires)
            return (time.perf_counter_ns() - started) / count

        def alone(wires: list[bytes]) -> None:
            for wire in wires:
                gate.authorize(wire)

        def threads(wires: list[bytes]) -> None:
            shares = [wires[own::TOGETHER] for own in range(TOGETHER)]
            running = [threading.Thread(target=alone, args=(share,)) for share in shares]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

        def one_by_one() -> float:
            return timed(alone, 16)

        show("py_many", lambda: timed(gate.decide_many, TOGETHER), one_by_one, 31)
        show("py_threads", lambda: timed(threads, TOGETHER * 8), one_by_one, 31)


if __name__ == "__main__":
    main()
