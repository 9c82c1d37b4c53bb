"""What a call costs from Python: one JSON object a line, as the Rust benches print them.

Two statements are timed side by side, ours and what it is compared with: short batches
alternate, every round gives one ratio, and the median over many rounds is what counts.
`benches/harness.rs` says why. `benches/table.py` reads the lines.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from timeit import Timer
from typing import Any, Final

from moat import AgentId, Grant, Identity, Limits, Message, Policy, Sender, Token
from moat._native import Gate

NOW: Final = 1_750_000_000
ROUNDS: Final = 201
BATCH_NS: Final = 500_000
DEPTHS: Final = 16
"""Depths of the stack; prime to what the rounds are multiplied by."""
TURNS: Final = 16
"""Messages that a verification takes in turn: its time depends on the signature's bits."""
TOGETHER: Final = 64
"""Messages decided together, and threads that decide at once."""
RESOURCE: Final = "tool://search/web"
HOUR: Final = timedelta(hours=1)
DIFFERENCE: Final = 56
"""A ``COSE_Sign1`` has 56 bytes more than the ``Sig_structure`` that is signed."""


def main() -> None:
    keys()
    permission()
    for links in (1, 8):
        authorize(links)
    durable()


def alternate(
    name: str, ours: Callable[[], float], raw: Callable[[], float], rounds: int = ROUNDS
) -> None:
    """Print what came out of two batches that time themselves, in nanoseconds a call."""
    mine, other = [], []
    for turn in range(rounds):
        one, two = turn * 5 % DEPTHS, (turn * 7 + 3) % DEPTHS
        if turn % 2:
            other.append(deeper(two, raw))
            mine.append(deeper(one, ours))
        else:
            mine.append(deeper(one, ours))
            other.append(deeper(two, raw))
    pairs = list(zip(mine, other, strict=True))
    found = {
        "name": name,
        "ours_ns": min(mine),
        "raw_ns": min(other),
        "raw_median_ns": statistics.median(other),
        "ratio": statistics.median(one / two for one, two in pairs),
        "difference_ns": statistics.median(one - two for one, two in pairs),
    }
    print(json.dumps(found), flush=True)


def deeper(levels: int, work: Callable[[], float]) -> float:
    """Run a batch so many frames of C further down: `map` is not Python."""
    return next(map(deeper, (levels - 1,), (work,))) if levels else work()


def batched(statement: str, names: dict[str, Any]) -> Callable[[], float]:
    """Batches of a statement, each about half a millisecond long."""
    timer, calls = Timer(statement, globals=names), 1
    while timer.timeit(calls) * 1e9 < BATCH_NS / 2:
        calls *= 2
    return lambda: timer.timeit(calls) * 1e9 / calls


def compare(name: str, ours: str, raw: str, **names: Any) -> None:
    alternate(name, batched(ours, names), batched(raw, names))


def grant(pattern: str) -> Grant:
    return Grant(pattern, {"call"})


def limits() -> Limits:
    return Limits(
        fuel=10**9, memory=64 << 20, time=timedelta(seconds=2), output=1 << 20,
        read=["file:///data/**"],
    )  # fmt: skip


def issue(root: Identity, holder: AgentId, allow: list[Grant], depth: int = 0) -> Token:
    return Token.issue(
        root, holder=holder, allow=allow, expires_in=HOUR, limits=limits(), depth=depth, now=NOW
    )


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
        "policy": Policy.CHAIN_ONLY.hash, "payload": bytes(256),
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


def chain(links: int) -> tuple[Identity, Identity, Token]:
    """Root, last holder and a token of so many links."""
    root, holder = Identity.generate("root"), Identity.generate("holder")
    token = issue(root, holder.id, [grant("tool://search/**")], depth=15)
    for _ in range(1, links):
        heir = Identity.generate("heir")
        token = token.attenuate(holder, holder=heir.id, now=NOW)
        holder = heir
    return root, holder, token


@contextmanager
def gated(folder: Path | None, links: int) -> Iterator[tuple[Gate, Callable[[int], list[bytes]]]]:
    """A gate over a new log, and a source of messages that it has never seen."""
    root, holder, token = chain(links)
    signer = Identity.generate("gate")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        gate = Gate.open(Path(place, "log"), signer, anchor=None, clock=lambda: NOW)
        gate.arm(policy=Policy.CHAIN_ONLY, roots=[root.id], operators=[])
        sender = Sender(holder, gate=gate.id, token=token, policy=Policy.CHAIN_ONLY.hash)

        def messages(count: int) -> list[bytes]:
            one = {"action": "call", "resource": RESOURCE, "payload": bytes(256), "now": NOW}
            return [sender.seal(**one) for _ in range(count)]

        gate.authorize(messages(1)[0])
        yield gate, messages
        gate.close()


def in_memory() -> Path | None:
    """Where files lie in memory, if the system has such a place."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


def authorize(links: int) -> None:
    """Received bytes to permit for a chain seen before, beside key from bytes and verify."""
    with gated(in_memory(), links) as (gate, messages):
        signer, calls = Identity.generate("raw"), 8
        wire = messages(1)[0]
        size = len(wire) - len(bytes(Message.from_bytes(wire).token)) - 7 - DIFFERENCE
        texts = [bytes([n]) * size for n in range(TURNS)]
        signed = cycle([(text, signer.sign(text)) for text in texts])
        names = {"verify": signer.id.verify, "signed": signed}
        raw = Timer("verify(*next(signed))", globals=names)
        fresh = {"authorize": gate.authorize, "now": NOW}
        ours = Timer("authorize(next(wires), now=now)", globals=fresh)

        def mine() -> float:
            fresh["wires"] = iter(messages(calls))
            return ours.timeit(calls) * 1e9 / calls

        alternate(f"py_authorize_{links}", mine, lambda: raw.timeit(calls) * 1e9 / calls)


def durable() -> None:
    """A share in one sync beside a sync of one's own, where temporary files lie."""
    with tempfile.TemporaryFile() as file:

        def sync() -> float:
            os.write(file.fileno(), bytes(1024))
            started = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            return time.perf_counter_ns() - started

        alternate("py_sync", sync, lambda: 1.0, 63)

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

        alternate("py_many", lambda: timed(gate.decide_many, TOGETHER), one_by_one, 31)
        alternate("py_threads", lambda: timed(threads, TOGETHER * 8), one_by_one, 31)


if __name__ == "__main__":
    main()
