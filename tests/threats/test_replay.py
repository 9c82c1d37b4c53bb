"""A message sent again: at once, at the same moment, later, elsewhere, after a crash."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest

import forge
from forge import NOW, Field, Tag
from moat import Message, Policy, Token
from threats.victim import Victim
from threats.world import (
    GATE,
    OPERATOR,
    PLANNER,
    RIVAL,
    ROOT,
    WORKER,
    World,
    agent,
    assert_refused,
    identity,
    open_gate,
)

THREADS = 64
STREAM = b"\x07" * 16
T = TypeVar("T")


def at_once(work: Callable[[int], T], threads: int = THREADS) -> list[T]:
    """What ``threads`` threads return that start at the same moment."""
    barrier, results = threading.Barrier(threads), [None] * threads

    def run(at: int) -> None:
        barrier.wait()
        results[at] = work(at)

    started = [threading.Thread(target=run, args=(at,)) for at in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return results


def test_the_same_message_twice(world: World) -> None:
    wire = world.ask()
    world.allow(wire)
    world.refuse(wire, "replayed")
    world.refuse(wire, "replayed")


def test_the_same_message_twice_in_one_batch(world: World) -> None:
    wire = world.ask()
    with world.growing_by("decision"):
        first, *rest = world.gate.decide_many([wire] * 100, now=NOW)
    assert first.allowed
    for decision in rest:
        assert_refused(decision, "replayed")


def test_the_same_message_from_64_threads_wins_once(world: World) -> None:
    wire = world.ask()
    with world.growing_by("decision"):
        decisions = at_once(lambda _: world.gate.decide(wire, now=NOW))
    assert Counter(d.reason for d in decisions) == {None: 1, "replayed": THREADS - 1}
    assert sum(d.permit is not None for d in decisions) == 1


def test_one_number_for_64_messages_from_64_threads_wins_once(world: World) -> None:
    """The holder signs different requests with the same stream and number."""
    chain = world.chain()
    wires = [world.ask(chain, stream=STREAM, resource=f"tool://search/{n}") for n in range(THREADS)]
    with world.growing_by("decision"):
        decisions = at_once(lambda n: world.gate.decide(wires[n], now=NOW))
    assert Counter(d.reason for d in decisions) == {None: 1, "replayed": THREADS - 1}


def test_64_numbers_of_one_stream_from_64_threads_all_win(world: World) -> None:
    """The control of the two races above: nothing is lost to the lock."""
    chain = world.chain()
    wires = [world.ask(chain, stream=STREAM, number=n) for n in range(THREADS)]
    with world.growing_by(*["decision"] * THREADS):
        decisions = at_once(lambda n: world.gate.decide(wires[n], now=NOW))
    assert all(d.allowed for d in decisions)
    assert len({d.entry for d in decisions}) == THREADS


def test_the_same_message_after_a_restart(world: World) -> None:
    wire = world.ask()
    world.allow(wire)
    world.restart()
    world.refuse(wire, "replayed")
    world.allow(world.ask())


def test_the_same_message_after_kill_9(world: World) -> None:
    """The other process is gone in the moment after it said yes."""
    world.gate.close()
    wire = world.ask()
    victim = Victim(world.folder)
    assert victim.run([wire], kill=True).acknowledged == [0]
    world.gate = open_gate(world.folder)
    world.refuse(wire, "replayed")
    world.allow(world.ask())


def test_the_same_message_at_another_gate(world: World) -> None:
    """Each gate keeps its own memory, so each message names its gate."""
    world.allow(world.ask())
    world.refuse(forge.message(world.chain(), RIVAL.public), "wrong_gate")


# --- a denied message, re-sent after things loosen ---


def test_a_message_denied_by_a_revocation_and_sent_again_after_it_is_lifted(world: World) -> None:
    world.gate.control(world.control(ROOT, "revoke", WORKER), now=NOW)
    wire = world.ask()
    world.refuse(wire, "revoked")
    world.gate.control(world.control(ROOT, "restore", WORKER), now=NOW)
    world.refuse(wire, "replayed")
    world.allow(world.ask())


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        ({"resource": "tool://shell"}, "not_granted"),
        ({"resource": "tool://search/private"}, "forbidden"),
        ({"policy": bytes(32)}, "policy_mismatch"),
    ],
)
def test_a_denied_message_is_used_up(world: World, ask: dict[str, object], reason: str) -> None:
    wire = world.ask(**ask)
    world.refuse(wire, reason)
    world.refuse(wire, "replayed")
    world.restart()
    world.refuse(wire, "replayed")


def test_a_widened_message_is_used_up(world: World) -> None:
    wire = world.ask(forge.first(ROOT, PLANNER).then(WORKER, fuel=2_000_000))
    world.refuse(wire, "widened")
    world.refuse(wire, "replayed")


def test_a_number_used_by_a_denied_message_is_gone(world: World) -> None:
    chain = world.chain()
    world.refuse(world.ask(chain, stream=STREAM, resource="tool://shell"), "not_granted")
    world.refuse(world.ask(chain, stream=STREAM), "replayed")
    world.allow(world.ask(chain, stream=STREAM, number=1))


# --- numbers ---


def test_the_largest_number(world: World) -> None:
    """2^64 - 1 ends its own stream and nothing else."""
    chain, last = world.chain(), 2**64 - 1
    world.allow(world.ask(chain, stream=STREAM, number=last))
    world.refuse(world.ask(chain, stream=STREAM, number=last), "replayed")
    world.refuse(world.ask(chain, stream=STREAM, number=0), "replayed")
    world.refuse(world.ask(chain, stream=STREAM, number=last - 1024), "replayed")
    world.allow(world.ask(chain, stream=STREAM, number=last - 1023))
    beyond = {"fields": {Field.NUMBER: Tag(2, (2**64).to_bytes(9, "big"))}}
    world.refuse(world.ask(chain, stream=STREAM, forged=beyond), "malformed")
    world.restart()
    world.refuse(world.ask(chain, stream=STREAM, number=last), "replayed")
    world.allow(world.ask(chain))


def test_a_number_that_is_too_old_to_tell(world: World) -> None:
    chain = world.chain()
    world.allow(world.ask(chain, stream=STREAM, number=2_000))
    world.allow(world.ask(chain, stream=STREAM, number=977))
    world.refuse(world.ask(chain, stream=STREAM, number=976), "replayed")


def test_numbers_out_of_order_each_win_once(world: World) -> None:
    chain = world.chain()
    order = [5, 3, 900, 4, 1_100, 0, 200, 1_023]
    wires = [world.ask(chain, stream=STREAM, number=n) for n in order]
    for wire in wires:
        decision = world.gate.decide(wire, now=NOW)
        assert decision.allowed == (wire is not wires[5]), decision.explain()
    for decision in world.gate.decide_many(wires, now=NOW):
        assert_refused(decision, "replayed")


# --- streams ---


def test_a_thousand_streams_of_one_holder(world: World) -> None:
    """Eight live ones are the most; the rest are refused without a line, and those go on."""
    chain = world.chain()
    streams = [n.to_bytes(16, "big") for n in range(1_000)]
    wires = [world.ask(chain, stream=stream) for stream in streams]
    with world.growing_by(*["decision"] * 8):
        decisions = world.gate.decide_many(wires, now=NOW)
    assert [d.reason for d in decisions] == [None] * 8 + ["streams_full"] * 992
    world.allow(world.ask(chain, stream=streams[7], number=1))
    world.allow(world.ask(forge.first(ROOT, PLANNER)))
    world.restart()
    world.refuse(world.ask(chain), "streams_full")
    world.allow(world.ask(chain, stream=streams[0], number=1))
    world.allow(world.ask(chain, now=NOW + 60), now=NOW + 60)


def test_a_stream_is_kept_as_long_as_its_longest_message(world: World) -> None:
    """A short message after a long one does not make the gate forget the long one."""
    chain = world.chain()
    long = world.ask(chain, stream=STREAM, number=0, lifetime=300)
    world.allow(long)
    world.allow(world.ask(chain, stream=STREAM, number=1, lifetime=1))
    for later in (NOW + 1, NOW + 61, NOW + 299):
        world.refuse(long, "replayed", now=later)
    world.refuse(long, "stale", now=NOW + 300)


def _filled(world: World, branch: forge.Key, holders: int) -> Counter[str | None]:
    """One message on each of eight streams of every helper below one first link.

    There are many of them, so they are sealed by the native code, which is quicker.
    """
    given, wires = forge.first(ROOT, branch), []
    for n in range(holders):
        helper = forge.Key(f"{branch.name}-{n}")
        token = Token.from_bytes(given.then(helper).token)
        signer, gate, policy = identity(helper), agent(GATE), Policy.CHAIN_ONLY.hash
        wires += [
            Message.seal(
                signer, gate=gate, token=token, policy=policy, action="call",
                resource="tool://search/web", expires_in=timedelta(seconds=300), now=NOW,
            )
            for _ in range(8)
        ]  # fmt: skip
    return Counter(decision.reason for decision in world.gate.decide_many(wires, now=NOW))


def test_a_full_stream_table_of_100_000(world: World) -> None:
    """One root's child fills its eighth with 1,600 helpers; only all eight together fill the
    table; and then streams that are open go on, and nothing that was used comes back."""
    mine = forge.first(ROOT, WORKER)
    world.allow(world.ask(mine, stream=STREAM, lifetime=300))
    used = world.ask(mine, stream=STREAM, lifetime=300)
    branches = [forge.Key(f"branch-{n}") for n in range(8)]
    assert _filled(world, branches[0], 1_600) == {None: 12_500, "streams_full": 300}
    world.refuse(world.ask(forge.first(ROOT, branches[0])), "streams_full")
    world.allow(world.ask(forge.first(ROOT, OPERATOR), lifetime=300))
    for branch in branches[1:-1]:
        assert _filled(world, branch, 1_563)[None] == 12_500
    assert _filled(world, branches[-1], 1_563)[None] == 12_498
    world.refuse(world.ask(forge.first(ROOT, PLANNER)), "streams_full")
    world.refuse(world.ask(mine), "streams_full")
    world.refuse(used, "replayed")
    world.allow(world.ask(mine, stream=STREAM, number=1))
    later = NOW + 300
    world.allow(world.ask(forge.first(ROOT, PLANNER), now=later), now=later)
