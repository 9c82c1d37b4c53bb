"""Words of strangers, in bulk: they cost the gate time, and nothing that it keeps."""

from __future__ import annotations

import gc
import os
from collections import Counter
from functools import reduce
from pathlib import Path

import pytest

import forge
from forge import NOW
from moat import Denied
from threats.world import PLANNER, ROOT, WORKER, World, assert_refused

RESENT = 1_000_000 if os.environ.get("CI") == "true" else 100_000
"""Each costs a signature check, so a million is for CI."""
PAGE = 4096


def resident() -> int:
    """Bytes of this process in memory (proc(5), statm)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def log_bytes(world: World) -> int:
    """Bytes of everything in the log's folder."""
    return sum(path.stat().st_size for path in world.folder.rglob("*") if path.is_file())


def stranger(n: int) -> bytes:
    """A message on a token that somebody made for themselves."""
    me = forge.Key(f"stranger {n}")
    return forge.message(forge.first(me, me), world_gate())


def world_gate() -> bytes:
    """The gate's key."""
    return forge.key("gate").public


def test_ten_thousand_self_made_keys(world: World) -> None:
    """Each a whole, well-signed chain from a root of its own."""
    honest = forge.first(ROOT, WORKER)
    world.allow(world.ask(honest))
    wires = [stranger(n) for n in range(10_000)]
    world.gate.decide_many(wires[:1_000], now=NOW)
    size, memory, reasons = log_bytes(world), resident(), Counter()
    with world.growing_by():
        for start in range(0, len(wires), 1_000):
            batch = wires[start : start + 1_000]
            reasons.update(d.reason for d in world.gate.decide_many(batch, now=NOW))
    assert reasons == {"unknown_root": 10_000}
    assert log_bytes(world) == size
    assert resident() - memory < 4 << 20
    for _ in range(7):
        world.allow(world.ask(honest))


def test_two_thousand_self_made_keys_below_a_real_token_they_do_not_hold(world: World) -> None:
    """A captured chain with a link of their own behind it, signed by themselves."""
    captured = forge.first(ROOT, WORKER)
    wires = []
    for n in range(2_000):
        thief = forge.Key(f"stranger {n}")
        forged = captured.then(thief, forged={"signer": thief})
        wires.append(forge.message(forged, world_gate()))
    size = log_bytes(world)
    with world.growing_by():
        reasons = Counter(d.reason for d in world.gate.decide_many(wires, now=NOW))
    assert reasons == {"bad_signature": 2_000}
    assert log_bytes(world) == size
    world.allow(world.ask(captured))


def test_a_captured_message_sent_again_a_million_times(world: World) -> None:
    """No line, no byte of memory that stays, and the sender's stream goes on."""
    chain = forge.first(ROOT, WORKER)
    wire = world.ask(chain, stream=bytes(16))
    world.allow(wire)
    batch = [wire] * 2_000
    world.gate.decide_many(batch, now=NOW)
    size, memory = log_bytes(world), resident()
    reasons: Counter[str | None] = Counter()
    with world.growing_by():
        for _ in range(RESENT // len(batch)):
            reasons.update(d.reason for d in world.gate.decide_many(batch, now=NOW))
    assert reasons == {"replayed": RESENT}
    assert log_bytes(world) == size
    assert resident() - memory < 4 << 20
    world.allow(world.ask(chain, stream=bytes(16), number=1))
    world.allow(world.ask(chain))


def test_refusals_without_a_line_are_one_line_a_minute(world: World) -> None:
    """Strangers, stale messages and replays are counted by reason."""
    wire = world.ask(lifetime=300)
    world.allow(wire)
    old = world.ask(now=NOW - 300)
    crowd = [wire] * 500 + [old] * 300 + [stranger(0)] * 200
    with world.growing_by():
        world.gate.decide_many(crowd, now=NOW)
        world.gate.decide_many(crowd, now=NOW + 59)
    before = len(world.gate)
    world.gate.decide_many(crowd, now=NOW + 60)
    summary, *rest = world.entries(before)
    assert not rest
    assert summary["kind"] == "summary"
    assert summary["body"]["since"] == NOW
    counts = {"replayed": 1_001, "stale": 600, "unknown_root": 400}
    assert summary["body"]["counts"] == counts
    world.clock.now = NOW + 61
    world.restart(now=NOW + 61)
    after = [entry for entry in world.entries(before + 1) if entry["kind"] == "summary"]
    assert [entry["body"]["counts"] for entry in after] == [{"replayed": 499, "stale": 500}]


@pytest.mark.parametrize("size", [0, 1, 1_000, 1 << 20, (1 << 20) + 1, 16 << 20])
def test_noise_of_any_size(world: World, size: int) -> None:
    noise = bytes(n * 167 + 13 & 255 for n in range(251)) * (size // 251 + 1)
    with world.growing_by():
        for decision in world.gate.decide_many([noise[:size]] * 20, now=NOW):
            assert decision.reason in {"malformed", "too_large"}
            assert_refused(decision, str(decision.reason))
    world.allow(world.ask())


def test_another_agents_standing_is_not_touched(world: World) -> None:
    """Someone who uses up all their own streams, numbers and refusals leaves others theirs."""
    loud, quiet = forge.first(ROOT, forge.key("loud")), forge.first(ROOT, WORKER)
    first = world.ask(quiet, stream=bytes(16))
    world.allow(first)
    for n in range(100):
        world.gate.decide(world.ask(loud, number=2**64 - 1 - n), now=NOW)
        world.gate.decide(world.ask(loud, resource="tool://shell"), now=NOW)
    for number in range(1, 5):
        world.allow(world.ask(quiet, stream=bytes(16), number=number))
    for _ in range(7):
        world.allow(world.ask(quiet))


def test_strangers_who_revoke_themselves(world: World) -> None:
    """Fresh keys are free, so a key that the gate has never seen spends no line on itself."""
    with world.growing_by():
        for n in range(1_000):
            stranger = forge.Key(f"stranger{n}")
            with pytest.raises(Denied) as denied:
                world.gate.control(world.control(stranger, "revoke", stranger), now=NOW)
            assert denied.value.reason == "no_standing"
    world.allow(world.ask())
    with world.growing_by("control"):
        world.gate.control(world.control(WORKER, "revoke", WORKER), now=NOW)


def test_links_of_a_dead_chain_are_forgotten(world: World) -> None:
    """Whatever a child says of its own expiry: with its parent it is dead."""
    chain = forge.first(ROOT, PLANNER, exp=NOW + 100, further=0).then(WORKER, exp=253402300799)
    world.refuse(world.ask(chain), "widened", caveat="expiry")
    later = NOW + 200
    statement = world.control(WORKER, "revoke", chain.ids[1], now=later)
    world.restart(now=later)
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.control(statement, now=later)
    assert denied.value.reason == "no_standing"


def test_links_without_end_below_one_holder(world: World) -> None:
    """Keys are free, and links are remembered while they live: by chains of sixteen a holder
    fills its eighth of 65,536. What was seen goes on, others are not touched, time makes room."""
    mine = forge.first(ROOT, PLANNER, further=15, exp=NOW + 1_000)
    full = Counter[str | None]()
    for start in range(0, 4_371, 100):
        chains = [_fifteen_more(mine, number) for number in range(start, min(start + 100, 4_371))]
        decisions = world.gate.decide_many([world.ask(chain) for chain in chains], now=NOW)
        full += Counter(decision.reason for decision in decisions)
    assert full == {None: 65_535 // 15, "streams_full": 2}
    world.allow(world.ask(_fifteen_more(mine, 0)))
    world.allow(world.ask(mine))
    world.refuse(world.ask(mine.then(forge.key("fresh"))), "streams_full")
    world.allow(world.ask(forge.first(ROOT, WORKER)))
    later = NOW + 1_000
    world.allow(world.ask(forge.first(ROOT, PLANNER, exp=later + 60), now=later), now=later)


def _fifteen_more(chain: forge.Chain, number: int) -> forge.Chain:
    """The same chain and fifteen links to keys of this number, the same each time."""
    holders = (forge.key(f"{number}.{level}") for level in range(15))
    return reduce(lambda made, holder: made.then(holder), holders, chain)
