"""What calls cost on this machine, beside what they are made of.

Two statements are timed side by side, ours and what it is compared with: short batches
alternate, every round gives one ratio, and the median of the rounds is what counts. A machine
that slows down slows both.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from timeit import Timer
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from moat._native import Gate, Grant, Identity, Limits, Message, Module, Policy, Sender, Token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from moat._native import AgentId

Batch: TypeAlias = Callable[[], float]
"""Runs once and gives nanoseconds for one call."""

NOW: Final = 1_750_000_000
BATCH_NS: Final = 500_000
DEPTHS: Final = 16
"""Depths of the stack; prime to what the rounds are multiplied by."""
TURNS: Final = 16
"""Messages that a verification takes in turn: its time depends on the signature's bits."""
RESOURCE: Final = "tool://search/web"
TREES: Final = ("file:///data/**",)
"""What a token lets code read; nothing is run under it."""
HOUR: Final = timedelta(hours=1)
SIZE: Final = 256
"""Bytes of a payload, and of what the raw primitive verifies."""
FEW: Final = 8
"""Calls in a batch whose messages have to be made beforehand."""

EMPTY: Final = bytes.fromhex(
    "0061736d01000000"  # magic, version 1
    "01040160000003020100"  # type () -> (), one function of it
    "0503010001"  # a memory of one page
    "071302066d656d6f72790200065f73746172740000"  # exports: memory, _start
    "0a040102000b"  # a body that only ends
)
"""The smallest WASI command (WebAssembly core specification, binary format)."""


@dataclass(frozen=True)
class Figure:
    """What many rounds say; nanoseconds for one call."""

    name: str
    what: str
    place: str | None
    ns: float
    ratio: float
    """To one raw verification in the same rounds."""
    rounds: int


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    seconds: float
    """For each row, without what prepares it."""
    least: int
    """Rounds of each row, however slow they are."""
    clock: Callable[[], float] = time.perf_counter

    def turns(self) -> Iterator[int]:
        """Count rounds until the time is over."""
        end, turn = self.clock() + self.seconds, 0
        while turn < self.least or self.clock() < end:
            yield turn
            turn += 1


FULL: Final = Plan(seconds=0.8, least=5)
QUICK: Final = Plan(seconds=0.12, least=3)

ROWS: Final = {
    "token_sign": "sign a token",
    "token_verify": "verify a token",
    "message_seal": "seal a message, 256 B",
    "message_verify": "verify a message, 256 B",
    "authorize_1": "authorize, 1 link",
    "authorize_8": "authorize, 8 links",
    "sandbox": "run an empty program",
    "sync": "sync 1 KiB",
    "durable_1": "authorize, 1 link",
    "durable_8": "authorize, 8 links",
}
"""What is measured, in this order."""
MEMORY: Final = "memory"
DISK: Final = "disk"


def measure(disk: Path, plan: Plan, begin: Callable[[str], None]) -> Iterator[Figure]:
    """Measure all rows; ``begin`` is told of each. ``disk`` is where durable logs are tried.

    A row that needs files in memory is left out where the system has no place for them.
    """
    raw = verification(SIZE)

    def row(name: str, ours: Batch, place: str | None = None) -> Figure:
        begin(ROWS[name])
        pairs = alternate(ours, raw, plan.turns())
        ns = statistics.median(one for one, _ in pairs)
        ratio = statistics.median(one / two for one, two in pairs)
        return Figure(name, ROWS[name], place, ns, ratio, len(pairs))

    for name, statement, names in statements():
        yield row(name, batched(statement, names))
    if (memory := in_memory()) is not None:
        for links in (1, 8):
            with gated(memory, links) as (gate, messages):
                yield row(f"authorize_{links}", authorizing(gate, messages), MEMORY)
        with gated(memory, 1, read=()) as (gate, messages):
            yield row("sandbox", running(gate, messages), MEMORY)
    with tempfile.TemporaryFile(dir=disk) as file:
        yield row("sync", lambda: synced(file.fileno()), DISK)
    for links in (1, 8):
        with gated(disk, links) as (gate, messages):
            yield row(f"durable_{links}", authorizing(gate, messages, 2), DISK)


# --- the clockwork -------------------------------------------------------------------------------


def alternate(ours: Batch, raw: Batch, turns: Iterable[int]) -> list[tuple[float, float]]:
    """Run two batches that time themselves in turn, at changing depths of the stack."""
    pairs = []
    for turn in turns:
        one, two = turn * 5 % DEPTHS, (turn * 7 + 3) % DEPTHS
        if turn % 2:
            other = deeper(two, raw)
            pairs.append((deeper(one, ours), other))
        else:
            mine = deeper(one, ours)
            pairs.append((mine, deeper(two, raw)))
    return pairs


def deeper(levels: int, work: Batch) -> float:
    """Run a batch so many frames of C further down: `map` is not Python."""
    return next(map(deeper, (levels - 1,), (work,))) if levels else work()


def batched(statement: str, names: dict[str, Any]) -> Batch:
    """Batches of a statement, each about half a millisecond long."""
    timer, calls = Timer(statement, globals=names), 1
    while timer.timeit(calls) * 1e9 < BATCH_NS / 2:
        calls *= 2
    return lambda: timer.timeit(calls) * 1e9 / calls


def verification(size: int) -> Batch:
    """Give raw Ed25519 verification of texts of this many bytes, the key being ready."""
    signer = Identity.generate("raw")
    texts = [bytes([n]) * size for n in range(TURNS)]
    signed = cycle([(text, signer.sign(text)) for text in texts])
    return batched("verify(*next(signed))", {"verify": signer.id.verify, "signed": signed})


# --- what is measured ----------------------------------------------------------------------------


def statements() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, statement and names of the four operations that sign or verify."""
    root, holder, gate = map(Identity.generate, ("root", "holder", "gate"))
    allow = [grant("tool://search/**")]
    tokens = [issue(root, holder.id, allow) for _ in range(TURNS)]
    sealed: dict[str, Any] = {
        "gate": gate.id, "token": tokens[0], "policy": Policy.CHAIN_ONLY.hash, "action": "call",
        "resource": RESOURCE, "payload": bytes(SIZE), "now": NOW,
    }  # fmt: skip
    wires = [Message.seal(holder, **sealed) for _ in range(TURNS)]
    names = {
        "Token": Token, "Message": Message, "issue": issue, "root": root, "holder": holder,
        "to": holder.id, "allow": allow, "tokens": cycle(map(bytes, tokens)), "sealed": sealed,
        "roots": [root.id], "gate": gate.id, "wires": cycle(wires), "now": NOW,
    }  # fmt: skip
    yield "token_sign", "issue(root, to, allow)", names
    yield "token_verify", "Token.from_bytes(next(tokens)).verify(roots, now=now)", names
    yield "message_seal", "Message.seal(holder, **sealed)", names
    opened = "Message.open(next(wires), gate=gate, sender=to, now=now)"
    yield "message_verify", opened, names


def grant(pattern: str) -> Grant:
    """Allow calls on a pattern."""
    return Grant(pattern, {"call"})


def limits(read: Iterable[str] = TREES) -> Limits:
    """Give everyday limits with one tree to read."""
    return Limits(
        fuel=10**9, memory=64 << 20, time=timedelta(seconds=2), output=1 << 20, read=read
    )  # fmt: skip


def issue(
    root: Identity, holder: AgentId, allow: list[Grant], depth: int = 0, read: Iterable[str] = TREES
) -> Token:
    """Sign a first link."""
    return Token.issue(
        root, holder=holder, allow=allow, expires_in=HOUR, limits=limits(read), depth=depth,
        now=NOW,
    )  # fmt: skip


def chain(links: int, read: Iterable[str] = TREES) -> tuple[Identity, Identity, Token]:
    """Root, last holder and a token of so many links."""
    root, holder = Identity.generate("root"), Identity.generate("holder")
    token = issue(root, holder.id, [grant("tool://search/**")], depth=15, read=read)
    for _ in range(1, links):
        heir = Identity.generate("heir")
        token = token.attenuate(holder, holder=heir.id, now=NOW)
        holder = heir
    return root, holder, token


@contextmanager
def gated(
    folder: Path | None, links: int, read: Iterable[str] = TREES, rules: bytes | None = None
) -> Iterator[tuple[Gate, Callable[[int], list[bytes]]]]:
    """A gate over a new log, and a source of messages that it has never seen.

    ``rules`` of its monitor are a JSON array.
    """
    root, holder, token = chain(links, read)
    signer = Identity.generate("gate")
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=folder) as place:
        gate = Gate.open(Path(place, "log"), signer, anchor=None, clock=lambda: NOW)
        gate.arm(policy=Policy.CHAIN_ONLY, roots=[root.id], operators=[], rules=rules)
        sender = Sender(holder, gate=gate.id, token=token, policy=Policy.CHAIN_ONLY.hash)

        def messages(count: int) -> list[bytes]:
            one: dict[str, Any] = {
                "action": "call",
                "resource": RESOURCE,
                "payload": bytes(SIZE),
                "now": NOW,
            }
            return [sender.seal(**one) for _ in range(count)]

        try:
            gate.authorize(messages(1)[0])
            yield gate, messages
        finally:
            gate.close()


def in_memory() -> Path | None:
    """Where files lie in memory, if the system has such a place."""
    memory = Path("/dev/shm")  # noqa: S108 (a measurement, in a new folder of its own)
    return memory if os.access(memory, os.W_OK) else None


def authorizing(gate: Gate, messages: Callable[[int], list[bytes]], calls: int = FEW) -> Batch:
    """Received bytes to permit, each for a message that is new."""
    names: dict[str, Any] = {"authorize": gate.authorize, "now": NOW}
    timer = Timer("authorize(next(wires), now=now)", globals=names)

    def batch() -> float:
        names["wires"] = iter(messages(calls))
        return timer.timeit(calls) * 1e9 / calls

    return batch


def running(gate: Gate, messages: Callable[[int], list[bytes]]) -> Batch:
    """A permit to the end of a program that does nothing, with its outcome in the log."""
    module = Module(EMPTY)

    def batch() -> float:
        permits = [gate.authorize(wire, now=NOW) for wire in messages(FEW)]
        began = time.perf_counter_ns()
        for permit in permits:
            module.run(permit).check()
        return (time.perf_counter_ns() - began) / FEW

    return batch


def synced(fd: int) -> float:
    """Time one sync of a KiB of its own, as a log that nobody shares pays it."""
    os.write(fd, bytes(1024))
    began = time.perf_counter_ns()
    os.fdatasync(fd)
    return time.perf_counter_ns() - began
