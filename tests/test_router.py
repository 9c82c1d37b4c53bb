"""Messages between agents: delivered once, with their outcome, answered and linked."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import pytest

from cast import NOW, PLANNER, WORKER
from moat import Denied, Endpoint, Grant, MalformedInput, Message, Undelivered
from moat.mailbox import UNDELIVERED, Delivery
from moat.router import Sent
from town import SMALL, Doing, refused

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
    assert (answer.action, answer.resource, answer.sender) == (
        "reply",
        "agent://planner",
        worker.id,
    )
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


def test_an_answer_that_comes_as_its_asker_is_cancelled_is_in_the_mailbox(town, waits):
    """It had woken the asker, who was cancelled before it ran."""
    planner, worker = town.join("planner"), town.join("worker")

    async def main():
        task = asyncio.create_task(planner.request_async("worker", b"abc"))
        await asyncio.to_thread(waits.next)
        echo(worker)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert planner.get(0).payload == b"cba"


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
    page = (Path(__file__).parents[1] / "spec" / "router.md").read_text()
    for reason in UNDELIVERED:
        assert f"| `{reason}` |" in page


def test_a_message_is_sealed_for_the_key_that_a_name_has_now(town):
    planner, worker = town.join("planner"), town.join("worker")
    message = Message.from_bytes(planner.seal("send", "worker"))
    assert message.recipient == worker.id
    with refused("not_registered"):
        planner.seal("send", "nobody")
