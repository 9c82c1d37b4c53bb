"""Queues of agents: in order, within bounds, for threads and loops alike."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cast import NOW
from moat import MalformedInput
from moat.router import PATIENCE, Bounds, Rate, Sent
from town import SMALL, Doing, refused

# --- getting ---


def test_nothing_there_is_a_timeout(town):
    worker = town.join("worker")
    with pytest.raises(TimeoutError, match="nothing came for"):
        worker.get(0)
    with pytest.raises(TimeoutError):
        asyncio.run(worker.get_async(0))


def test_a_thread_that_waits_is_woken(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    waiting = Doing(worker.get)
    assert waits.next() is None
    planner.send("worker", b"task")
    assert waiting.answer().payload == b"task"


def test_a_loop_that_waits_is_woken_from_a_thread(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    waiting = Doing(asyncio.run, worker.get_async())
    waits.next()
    planner.send("worker", b"task")
    assert waiting.answer().payload == b"task"


def test_one_queue_serves_threads_and_loops_at_once(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    getters = [Doing(worker.get) for _ in range(4)]
    getters += [Doing(asyncio.run, worker.get_async()) for _ in range(4)]
    for _ in getters:
        waits.next()
    for number in range(8):
        planner.send("worker", bytes([number]))
    assert sorted(getter.answer().payload[0] for getter in getters) == list(range(8))


def test_a_getter_that_is_cancelled_takes_nothing(town, waits):
    """Cancelled in the very moment in which a message woke it."""
    planner, worker = town.join("planner"), town.join("worker")
    faults = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        tasks = [asyncio.create_task(worker.get_async()) for _ in range(2)]
        await asyncio.sleep(0)
        wire = planner.seal("send", "worker", b"task")
        town.router.send(wire)
        tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        return done[1].payload

    assert asyncio.run(main()) == b"task"
    assert not worker.mailbox._getters
    assert faults == []


def test_a_getter_whose_loop_is_gone_keeps_no_other_asleep(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    loop = asyncio.new_event_loop()
    abandoned = [loop.create_task(worker.get_async()) for _ in range(15)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    waiting = Doing(worker.get)
    for _ in range(16):
        waits.next()
    planner.send("worker", b"task")
    assert waiting.answer().payload == b"task"
    for task in abandoned:
        task._log_destroy_pending = False


def test_iterating_ends_when_the_mailbox_is_closed(town):
    planner, worker = town.join("planner"), town.join("worker")
    planner.send("worker", b"0")
    planner.send("worker", b"1")
    seen = []
    for delivery in worker:
        seen.append(delivery.payload)
        if len(seen) == 2:
            worker.close()
    assert seen == [b"0", b"1"]


def test_iterating_asynchronously_ends_when_the_mailbox_is_closed(town):
    planner, worker = town.join("planner"), town.join("worker")

    async def main():
        await planner.send_async("worker", b"0")
        seen = []
        async for delivery in worker:
            seen.append(delivery.payload)
            worker.close()
        return seen

    assert asyncio.run(main()) == [b"0"]


# --- order ---


@pytest.mark.parametrize("style", ["threads", "loops", "both"])
def test_eight_senders_each_keep_their_order(open_town, style):
    """Into a queue with far less room than they need."""
    town = open_town(Bounds(messages=6, waiting=64))
    worker = town.join("worker")
    senders = [town.join(f"sender-{n}") for n in range(8)]

    def thread(sender):
        for number in range(12):
            sender.send("worker", bytes([number]))

    async def task(sender):
        for number in range(12):
            await sender.send_async("worker", bytes([number]))

    def start(at, sender):
        asynchronous = style == "loops" or (style == "both" and at % 2)
        return Doing(asyncio.run, task(sender)) if asynchronous else Doing(thread, sender)

    doing = [start(*both) for both in enumerate(senders)]
    seen = {sender.id: [] for sender in senders}
    for _ in range(8 * 12):
        delivery = worker.get(30)
        seen[delivery.sender].append(delivery.payload[0])
    for sending in doing:
        sending.answer()
    assert list(seen.values()) == [list(range(12))] * 8
    assert town.outcomes() == [("ok", None)] * 96


# --- back-pressure ---


def test_a_sender_waits_until_there_is_room(open_town, waits):
    town = open_town(SMALL)
    planner, worker = town.join("planner"), town.join("worker")
    for number in range(2):
        planner.send("worker", bytes([number]))
    waiting = Doing(planner.send, "worker", b"\2", timeout=20)
    assert waits.next() == 20
    assert len(worker.mailbox) == 2
    assert worker.get(0).payload == b"\0"
    assert isinstance(waiting.answer(), Sent)
    assert [worker.get(0).payload for _ in range(2)] == [b"\1", b"\2"]


def test_a_task_waits_until_there_is_room(open_town, waits):
    town = open_town(SMALL)
    planner, worker = town.join("planner"), town.join("worker")
    for number in range(2):
        planner.send("worker", bytes([number]))
    waiting = Doing(asyncio.run, planner.send_async("worker", b"\2"))
    assert waits.next() == PATIENCE
    worker.get(0)
    assert isinstance(waiting.answer(), Sent)


def test_a_sender_that_finds_no_room_in_time_is_told_and_so_is_the_log(open_town):
    town = open_town(SMALL)
    planner, worker = town.join("planner"), town.join("worker")
    for _ in range(2):
        planner.send("worker")
    with refused("full"):
        planner.send("worker", timeout=0)
    with refused("full"):
        asyncio.run(planner.send_async("worker", timeout=0))
    assert town.outcomes() == [("ok", None)] * 2 + [("raised", "Undelivered")] * 2
    worker.get(0)
    planner.send("worker", timeout=0)


def test_nobody_waits_longer_than_their_message_lives(open_town, waits):
    town = open_town(SMALL)
    planner, _ = town.join("planner"), town.join("worker")
    planner.send("worker")
    wires = [planner.seal("send", "worker") for _ in range(2)]
    town.router.send(wires[0])
    town.now += 57
    waiting = Doing(town.router.send, wires[1])
    assert waits.next() == 3
    town.now += 3
    town.router.close()
    with refused("expired"):
        waiting.answer()
    assert len(town.outcomes()) == 2


def test_room_is_given_in_the_order_it_was_asked_for(open_town, waits):
    town = open_town(SMALL)
    worker = town.join("worker")
    first, second, third, fourth = (town.join(name) for name in ("a", "b", "c", "d"))
    for sender in (first, first, second, second):
        sender.send("worker", b"before")
    late = []
    for sender in (third, fourth):
        late.append(Doing(sender.send, "worker", b"late"))
        waits.next()
    for _ in range(4):
        worker.get(0)
        if len(late) == 2:
            late.pop(0).answer()
    late.pop().answer()
    assert [worker.get(0).sender for _ in range(2)] == [third.id, fourth.id]


def test_a_large_message_is_not_overtaken_for_ever_by_small_ones(open_town, waits):
    town = open_town(Bounds(messages=100, total_bytes=40_000, message_bytes=20_000, waiting=8))
    worker, large = town.join("worker"), town.join("large")
    small = [town.join(f"small-{n}") for n in range(3)]
    for sender in small:
        sender.send("worker", bytes(10_000))
    waiting = Doing(large.send, "worker", bytes(15_000))
    waits.next()
    with refused("full"):
        small[0].send("worker", b"fits", timeout=0)
    worker.get(0)
    assert isinstance(waiting.answer(), Sent)


def test_a_large_message_that_gives_up_lets_small_ones_in(open_town, waits):
    town = open_town(Bounds(messages=100, total_bytes=40_000, message_bytes=20_000, waiting=8))
    worker, large = town.join("worker"), town.join("large")
    small = [town.join(f"small-{n}") for n in range(3)]
    for sender in small:
        sender.send("worker", bytes(10_000))
    slot = worker.mailbox.claim(large.id, 15_000)
    waiting = Doing(small[0].send, "worker", b"fits")
    waits.next()
    worker.mailbox.release(slot)
    assert isinstance(waiting.answer(), Sent)


def test_a_waiting_task_that_is_cancelled_gives_its_place_up(open_town, waits):
    town = open_town(SMALL)
    planner, worker = town.join("planner"), town.join("worker")
    other = town.join("other")
    for sender in (planner, planner, other, other):
        sender.send("worker", b"before")

    async def main():
        task = asyncio.create_task(planner.send_async("worker", b"gone"))
        await asyncio.to_thread(waits.next)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not worker.mailbox._room._waiting
    for _ in range(4):
        assert worker.get(0).payload == b"before"
    for _ in range(2):
        planner.send("worker", b"after", timeout=0)
    assert [worker.get(0).payload for _ in range(2)] == [b"after"] * 2


def test_a_task_cancelled_while_it_is_delivered_leaves_no_slot_behind(town, monkeypatch):
    """The delivery is held up in its thread until its sender has gone."""
    planner, worker = town.join("planner"), town.join("worker")
    begun, go = threading.Event(), threading.Event()
    hand_over = town.router._hand_over

    def slow(transit):
        begun.set()
        assert go.wait(30)
        hand_over(transit)

    monkeypatch.setattr(town.router, "_hand_over", slow)

    async def main():
        task = asyncio.create_task(planner.request_async("worker", b"gone"))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    asyncio.run(main())
    assert town.outcomes() == [("raised", "Undelivered")]
    assert len(worker.mailbox) == 0
    assert worker.mailbox._room._total == (0, 0)
    assert len(town.router._requests) == 0


# --- age and rate ---


def test_what_expired_in_the_queue_is_dropped_and_counted(town):
    planner, worker = town.join("planner"), town.join("worker")
    planner.send("worker", b"old")
    town.now += 60
    planner.send("worker", b"new")
    assert worker.get(0).payload == b"new"
    assert worker.mailbox.lost == {"expired": 1}


def test_what_expired_in_the_queue_holds_no_room(open_town, waits):
    town = open_town(SMALL)
    planner, worker = town.join("planner"), town.join("worker")
    for _ in range(2):
        planner.send("worker", b"old")
    town.now += 60
    planner.send("worker", b"new", timeout=0)
    assert worker.mailbox.lost == {"expired": 2}
    assert len(worker.mailbox) == 1


def test_a_sender_over_its_rate_is_throttled_until_it_has_worked_off(open_town):
    town = open_town(Bounds(rate=Rate(count=3, seconds=6)))
    planner, other = town.join("planner"), town.join("other")
    town.join("worker")
    for _ in range(3):
        planner.send("worker")
    with refused("throttled"):
        planner.send("worker")
    other.send("worker")
    planner.send("other")
    town.now += 2
    planner.send("worker")
    with refused("throttled"):
        planner.send("worker")
    town.now += 6
    for _ in range(3):
        planner.send("worker")
    assert town.outcomes().count(("raised", "Undelivered")) == 2


def test_rates_of_senders_long_silent_are_forgotten(open_town):
    town = open_town(Bounds(rate=Rate(count=1, seconds=1)))
    pace = town.join("worker").mailbox._pace
    for number in range(1_000):
        assert pace.allows(number, NOW + number)
    assert len(pace._due) <= 65


@pytest.mark.parametrize(
    "bounds",
    [{"messages": 1}, {"waiting": 1}, {"message_bytes": 0}, {"total_bytes": (2 << 20) - 2}],
)
def test_bounds_in_which_nothing_fits_are_refused(bounds):
    with pytest.raises(MalformedInput):
        Bounds(**bounds)


def test_a_rate_of_nothing_is_refused():
    for words in ((0, 1), (1, 0)):
        with pytest.raises(MalformedInput):
            Rate(*words)
