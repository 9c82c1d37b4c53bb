"""Messages between agents: delivered once, in order, within bounds, to threads and loops alike."""

from __future__ import annotations

import asyncio
import threading
from itertools import count

import pytest

from cast import NOW, PLANNER, WORKER
from moat import Denied, Endpoint, Grant, MalformedInput, Message, Undelivered
from moat.mailbox import UNDELIVERED, Delivery
from moat.router import PATIENCE, Bounds, Rate, Sent
from town import Doing, Town, Waits

SMALL = Bounds(messages=4, total_bytes=1 << 20, message_bytes=1 << 16, waiting=4)


@pytest.fixture
def open_town(tmp_path):
    towns = []

    def build(bounds=None):
        towns.append(Town(tmp_path / f"log{len(towns)}", bounds))
        return towns[-1]

    yield build
    for town in towns:
        town.close()


@pytest.fixture
def town(open_town):
    return open_town()


@pytest.fixture
def waits(monkeypatch):
    return Waits(monkeypatch)


def refused(reason):
    """The block ends with ``Undelivered`` for this reason."""
    assert reason in UNDELIVERED
    return pytest.raises(Undelivered, check=lambda error: error.reason == reason)


# --- one message ---


def test_a_message_arrives_with_all_that_was_signed(town):
    planner, worker = town.join("planner"), town.join("worker")
    cause = bytes(range(32))
    sent = planner.send("worker", b"\0\xff", args={"q": 1}, causes=[cause], labels=["task"])
    got = worker.get(0)
    assert isinstance(got, Delivery)
    assert (got.sender, got.recipient) == (PLANNER.id, WORKER.id)
    assert (got.action, got.resource) == ("send", "agent://worker")
    assert (got.payload, got.args, got.causes, got.labels) == (
        b"\0\xff", {"q": 1}, (cause,), ("task",),
    )  # fmt: skip
    assert (got.message_id, got.entry, got.expires) == (sent.message_id, sent.entry, NOW + 60)


def test_delivery_is_the_effect_of_a_decision_and_has_its_outcome(town):
    planner, _ = town.join("planner"), town.join("worker")
    sent = planner.send("worker", b"task")
    lines = list(town.audit.entries())
    assert isinstance(sent, Sent)
    assert lines[sent.entry]["kind"] == "decision"
    assert lines[sent.entry]["body"]["resource"] == "agent://worker"
    assert lines[sent.outcome]["kind"] == "outcome"
    assert lines[sent.outcome]["body"]["decision"] == sent.entry
    assert lines[sent.outcome]["body"]["status"] == "ok"


def test_without_a_grant_nothing_is_delivered(town):
    worker = town.join("worker")
    town.join("planner")
    mute = Endpoint(town.router, town.session("planner", [Grant("agent://worker", {"reply"})]))
    with pytest.raises(Denied) as caught:
        mute.send("worker", b"task")
    assert caught.value.reason == "not_granted"
    assert len(worker.mailbox) == 0


def test_a_mailbox_fills_before_its_agent_is_there(town):
    planner = town.join("planner")
    town.people.keys["worker"] = WORKER.id
    planner.send("worker", b"early")
    assert town.join("worker").get(0).payload == b"early"


def test_what_is_shown_of_a_delivery_has_no_payload(town):
    planner, worker = town.join("planner"), town.join("worker")
    planner.send("worker", b"canary", args={"secret": "canary"})
    assert "canary" not in repr(worker.get(0))


def test_a_batch_is_decided_with_one_sync_and_each_has_its_answer(town):
    planner, worker = town.join("planner"), town.join("worker")
    wires = [
        planner.seal("send", "worker", b"0"),
        b"noise",
        planner.seal("call", "worker", b"not a message"),
        planner.seal("send", "worker", b"3"),
    ]
    wires.append(wires[0])
    answers = town.router.send_many(wires)
    assert [type(answer) for answer in answers] == [
        Sent, MalformedInput, Undelivered, Sent, Denied,
    ]  # fmt: skip
    assert answers[4].reason == answers[4].decision.reason == "replayed"
    assert [worker.get(0).payload for _ in range(2)] == [b"0", b"3"]
    assert town.router.refused == {"misaddressed": 1}


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

    async def main():
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


def test_a_getter_whose_loop_is_gone_keeps_no_other_asleep(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(worker.get_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    waiting = Doing(worker.get)
    waits.next(), waits.next()
    planner.send("worker", b"task")
    assert waiting.answer().payload == b"task"
    abandoned._log_destroy_pending = False


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


# --- request and reply ---


def echo(endpoint, times=1):
    """Answer with the payload turned round."""
    for _ in range(times):
        task = endpoint.get(30)
        endpoint.reply(task, task.payload[::-1])


def test_a_request_gets_its_answer(town):
    planner, worker = town.join("planner"), town.join("worker")
    working = Doing(echo, worker)
    answer = planner.request("worker", b"abc", timeout=30)
    working.answer()
    assert answer.payload == b"cba"
    assert (answer.action, answer.resource, answer.sender) == ("reply", "agent://planner", worker.id)
    assert len(planner.mailbox) == 0


def test_a_request_gets_its_answer_asynchronously(town):
    planner, worker = town.join("planner"), town.join("worker")

    async def work():
        async for task in worker:
            await worker.reply_async(task, task.payload[::-1])

    async def main():
        working = asyncio.create_task(work())
        answers = await asyncio.gather(
            *(planner.request_async("worker", bytes([n, 0]), timeout=30) for n in range(5))
        )
        worker.close()
        await working
        return [answer.payload for answer in answers]

    assert asyncio.run(main()) == [bytes([0, n]) for n in range(5)]


def test_an_answer_is_linked_to_its_request_in_the_log(town):
    planner, worker = town.join("planner"), town.join("worker")
    working = Doing(echo, worker)
    answer = planner.request("worker", b"abc", timeout=30)
    working.answer()
    lines = list(town.audit.entries())
    decisions = [line["body"] for line in lines if line["kind"] == "decision"]
    assert decisions[1]["causes"] == [decisions[0]["message"]] == [answer.causes[0].hex()]


def test_a_request_without_an_answer_is_a_timeout_and_a_late_one_comes_to_the_mailbox(town):
    planner, worker = town.join("planner"), town.join("worker")
    with pytest.raises(TimeoutError):
        planner.request("worker", b"abc", timeout=0)
    echo(worker)
    assert planner.get(0).payload == b"cba"
    assert len(town.router._requests) == 0


def test_an_answer_needs_no_room_in_the_askers_queue(open_town):
    """Or two agents who ask each other could wait for each other's queues."""
    town = open_town(SMALL)
    planner, worker = town.join("planner"), town.join("worker")
    for _ in range(2):
        worker.send("planner", b"other")
    working = Doing(echo, worker)
    assert planner.request("worker", b"abc", timeout=30).payload == b"cba"
    working.answer()
    assert len(planner.mailbox) == 2


def test_a_request_is_answered_once_and_the_rest_comes_to_the_mailbox(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    asking = Doing(planner.request, "worker", b"abc")
    waits.next()
    task = worker.get(0)
    worker.reply(task, b"first")
    worker.reply(task, b"second")
    assert asking.answer().payload == b"first"
    assert planner.get(0).payload == b"second"


def test_a_request_that_expires_untaken_fails(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    asking = Doing(planner.request, "worker", b"abc")
    waits.next()
    town.now += 60
    with pytest.raises(TimeoutError):
        worker.get(0)
    with refused("expired"):
        asking.answer()


def test_a_request_whose_recipient_closes_fails(town, waits):
    planner, worker = town.join("planner"), town.join("worker")
    asking = Doing(asyncio.run, planner.request_async("worker", b"abc"))
    waits.next()
    worker.close()
    with refused("closed"):
        asking.answer()
    assert worker.mailbox.lost == {"closed": 1}


def test_an_answer_that_comes_as_its_asker_is_cancelled_is_in_the_mailbox(town):
    planner, worker = town.join("planner"), town.join("worker")

    async def main():
        task = asyncio.create_task(planner.request_async("worker", b"abc"))
        await asyncio.to_thread(echo, worker)
        task.cancel()
        (done,) = await asyncio.gather(task, return_exceptions=True)
        return done

    done = asyncio.run(main())
    if isinstance(done, asyncio.CancelledError):
        done = planner.get(0)
    assert done.payload == b"cba"


def test_a_conversation_goes_on_with_causes(town):
    planner, worker = town.join("planner"), town.join("worker")
    first = planner.send("worker", b"1")
    task = worker.get(0)
    worker.reply(task, b"2", causes=[bytes(32)])
    assert set(planner.get(0).causes) == {bytes(32), first.message_id}


# --- closing ---


def test_a_closed_mailbox_takes_nothing_and_a_new_one_does(town):
    planner, worker = town.join("planner"), town.join("worker")
    planner.send("worker", b"dropped")
    worker.close()
    with refused("closed"):
        planner.send("worker")
    with refused("closed"):
        worker.get(0)
    assert worker.mailbox.lost == {"closed": 1}
    again = town.join("worker")
    planner.send("worker", b"new")
    assert again.get(0).payload == b"new"


def test_closing_the_router_releases_everybody(open_town, waits):
    town = open_town(SMALL)
    planner, worker, idle = (town.join(name) for name in ("planner", "worker", "idle"))
    planner.send("worker")
    asking = Doing(planner.request, "worker", timeout=None)
    assert waits.next() is None
    waiting = [
        Doing(planner.send, "worker"),
        Doing(asyncio.run, planner.send_async("worker")),
        Doing(idle.get),
        Doing(asyncio.run, idle.get_async()),
    ]
    for _ in waiting:
        waits.next()
    with town.router:
        pass
    for one in (asking, *waiting):
        with refused("closed"):
            one.answer()
    with refused("closed"):
        planner.send("worker")
    with refused("closed"):
        town.join("late")
    assert worker.mailbox.closed


def test_an_endpoint_is_closed_at_the_end_of_its_block(town):
    with town.join("worker") as worker:
        assert worker.id == WORKER.id
    assert worker.mailbox.closed


def test_mailboxes_of_those_who_left_are_forgotten(town):
    names = (f"guest-{n}" for n in count())
    for _ in range(300):
        name = next(names)
        left = town.join(name)
        del town.people.keys[name]
    assert len(town.router._mailboxes) < 130
    assert not left.mailbox.closed
    town.join("worker")


def test_a_closed_log_delivers_nothing_and_hands_nothing_out(town):
    planner, worker = town.join("planner"), town.join("worker")
    planner.send("worker", b"before")
    wire = planner.seal("send", "worker", b"after")
    town.audit.close()
    with pytest.raises(Denied) as caught:
        town.router.send(wire)
    assert caught.value.reason == "log_unavailable"
    assert len(worker.mailbox) == 1


def test_the_page_names_every_reason():
    from pathlib import Path

    page = (Path(__file__).parents[1] / "spec" / "router.md").read_text()
    for reason in UNDELIVERED:
        assert f"| `{reason}` |" in page


def test_a_message_is_sealed_for_the_key_that_a_name_has_now(town):
    planner, worker = town.join("planner"), town.join("worker")
    message = Message.from_bytes(planner.seal("send", "worker"))
    assert message.recipient == worker.id
    with refused("not_registered"):
        planner.seal("send", "nobody")
