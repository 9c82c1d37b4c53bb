"""Messages between agents: forged, replayed, misaddressed, in floods, and to the dead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import forge
from forge import NOW, Chain, Key
from moat import AuditLog, Denied, MoatError, Pep, Policy, Router, Undelivered
from moat.mailbox import Delivery, Mailbox
from moat.router import Bounds, Rate, Sent
from threats.test_flood import resident
from threats.test_replay import at_once
from threats.world import GATE, MALLORY, PLANNER, RESEARCHER, ROOT, WORKER, World, agent
from town import Doing, People, Waits

TALK = (("agent://*", ("reply", "send"), "any"),)
SMALL = Bounds(messages=8, total_bytes=1 << 20, message_bytes=1 << 18, waiting=4)


class Post:
    """A router over a gate under attack; planner, worker and researcher are registered."""

    def __init__(self, world: World, bounds: Bounds | None = None) -> None:
        self.world = world
        self.audit = AuditLog(world.gate, world.folder, world.clock)
        self.pep = Pep(policy=Policy.CHAIN_ONLY, roots=[agent(ROOT)], audit=self.audit)
        self.people = People()
        for key in (PLANNER, WORKER, RESEARCHER):
            self.people.keys[key.name] = agent(key)
        self.router = Router(self.pep, self.people, bounds=bounds)

    def mailbox(self, key: Key) -> Mailbox:
        return self.router.mailbox(agent(key))

    def ask(self, sender: Key | Chain, to: Key, **ask: object) -> bytes:
        """A message by this holder, right unless ``ask`` says otherwise."""
        chain = sender if isinstance(sender, Chain) else forge.first(ROOT, sender, allow=TALK)
        words = {"action": "send", "resource": f"agent://{to.name}", "recipient": to.public}
        return self.world.ask(chain, **{"now": self.world.clock.now, **words, **ask})

    def send(self, sender: Key | Chain, to: Key, **ask: object) -> Sent:
        """Deliver it, without waiting for room."""
        return self.router.send(self.ask(sender, to, **ask), timeout=0)

    def fill(self, sender: Chain, to: Key) -> None:
        """Use up all that a sender may have of a mailbox."""
        for number in range(SMALL.messages // 2):
            self.send(sender, to, stream=bytes(16), number=number, lifetime=300)

    def undelivered(self, reason: str, wire: bytes, *lines: str) -> None:
        """It does not arrive, for this reason, and leaves these lines."""
        with self.world.growing_by(*lines), pytest.raises(Undelivered) as caught:
            self.router.send(wire, timeout=0)
        assert caught.value.reason == reason

    def denied(self, reason: str, wire: bytes) -> None:
        """The gate says no."""
        with pytest.raises(Denied) as caught:
            self.router.send(wire, timeout=0)
        assert caught.value.reason == reason


@pytest.fixture
def post(world: World) -> Iterator[Post]:
    made = Post(world, SMALL)
    yield made
    made.router.close()


def talker(key: Key) -> Chain:
    """A chain that its holder keeps, for many messages."""
    return forge.first(ROOT, key, allow=TALK)


# --- strangers ---


def test_a_strangers_messages_in_a_victims_name_use_up_nothing_of_it(world: World) -> None:
    """Neither share nor rate nor a place among those who wait."""
    bounds = Bounds(messages=8, waiting=2, rate=Rate(count=4, seconds=60))
    post, victim = Post(world, bounds), talker(PLANNER)
    in_its_name = post.ask(victim, WORKER, forged={"sender": MALLORY})
    changed = post.ask(victim, WORKER)
    self_made = post.ask(forge.first(MALLORY, PLANNER, allow=TALK), WORKER)
    with world.growing_by():
        for _ in range(100):
            post.denied("wrong_holder", in_its_name)
            post.denied("bad_signature", changed[:-1] + bytes([changed[-1] ^ 1]))
            post.denied("unknown_root", self_made)
    for number in range(4):
        post.send(victim, WORKER, stream=bytes(16), number=number)
    assert len(post.mailbox(WORKER)) == 4


def test_a_strangers_message_does_not_wait_for_room(post: Post) -> None:
    """It is refused while the queue is full, and holds no place in front of it."""
    post.fill(talker(PLANNER), WORKER)
    post.fill(talker(RESEARCHER), WORKER)
    wire = post.ask(talker(PLANNER), WORKER, forged={"sender": MALLORY})
    with pytest.raises(Denied):
        post.router.send(wire)
    assert not post.mailbox(WORKER)._room._waiting


def test_an_agent_that_is_not_registered_sends_nothing(post: Post) -> None:
    wire = post.ask(MALLORY, WORKER)
    post.undelivered("not_registered", wire)
    post.people.keys["mallory"] = agent(MALLORY)
    assert post.router.send(wire).entry


def test_fresh_keys_bring_no_further_shares(post: Post) -> None:
    """Making a key is free; delegating to it does not register it."""
    chain = forge.first(ROOT, PLANNER, allow=TALK)
    post.fill(chain, WORKER)
    for number in range(8):
        child = chain.then(forge.key(f"child-{number}"))
        post.undelivered("not_registered", post.ask(child, WORKER))
    post.undelivered("full", post.ask(chain, WORKER), "decision", "outcome")


# --- addresses ---


def test_a_message_to_nobody(post: Post) -> None:
    post.undelivered("not_registered", post.ask(PLANNER, MALLORY))


@pytest.mark.parametrize(
    "change",
    [
        {"recipient": MALLORY.public},
        {"recipient": RESEARCHER.public},
        {"recipient": GATE.public},
        {"resource": "agent://worker/inbox"},
        {"resource": "tool://worker"},
        {"resource": "agent:///worker"},
        {"action": "call"},
    ],
    ids=str,
)
def test_a_look_alike_address(post: Post, change: dict[str, object]) -> None:
    """The name is one agent's and the key another's, or it is no agent's address at all."""
    allow = (
        ("agent://*/**", ("call", "reply", "send"), "any"), ("tool://worker", ("send",), "any")
    )  # fmt: skip
    chain = forge.first(ROOT, PLANNER, allow=allow)
    before = len(post.world.gate)
    with pytest.raises(Undelivered) as caught:
        post.send(chain, WORKER, **change)
    assert caught.value.reason in {"misaddressed", "not_registered"}
    assert len(post.world.gate) == before
    post.send(chain, WORKER)


def test_a_name_in_other_letters(post: Post) -> None:
    for name in ("Worker", "worker-", "w0rker"):
        wire = post.ask(PLANNER, WORKER, resource=f"agent://{name}")
        post.undelivered("not_registered", wire)


def test_the_former_key_of_a_name(post: Post) -> None:
    """After a rotation neither writes to it nor by it are delivered."""
    to_old, by_old = post.ask(PLANNER, WORKER), post.ask(WORKER, PLANNER)
    post.people.keys["worker"] = agent(forge.key("worker 2"))
    post.undelivered("misaddressed", to_old)
    post.undelivered("not_registered", by_old)


def test_a_recipient_that_leaves_while_a_message_waits(post: Post, waits: Waits) -> None:
    """It is asked once more with the permit open, and the outcome says that it failed."""
    planner, mailbox = talker(PLANNER), post.mailbox(WORKER)
    post.fill(planner, WORKER)
    wire = post.ask(planner, WORKER)
    waiting = Doing(post.router.send, wire)
    waits.next()
    del post.people.keys["worker"]
    mailbox.get(0)
    with pytest.raises(Undelivered) as caught:
        waiting.answer()
    assert caught.value.reason == "not_registered"
    assert post.world.entries()[-1]["body"]["status"] == "raised"
    assert len(mailbox) == 3


# --- replay ---


def test_the_same_message_is_delivered_once(post: Post) -> None:
    """From 64 threads at once, by every way of sending."""
    wire = post.ask(PLANNER, WORKER)

    def send(number: int) -> str:
        try:
            if number % 3 == 0:
                post.router.send(wire)
            elif number % 3 == 1:
                post.router.request(wire, timeout=0)
            else:
                (answer,) = post.router.send_many([wire])
                if isinstance(answer, MoatError):
                    raise answer
        except Denied as denied:
            return str(denied.reason)
        except TimeoutError:
            return "sent"
        return "sent"

    answers = at_once(send)
    assert sorted(set(answers)) == ["replayed", "sent"]
    assert answers.count("sent") == 1
    assert len(post.mailbox(WORKER)) == 1


def test_a_message_is_delivered_to_whom_it_was_permitted_for(post: Post) -> None:
    """What the gate decided without the router is used up, and has no second effect."""
    wire = post.ask(PLANNER, WORKER)
    with post.pep.authorize(wire):
        pass
    post.denied("replayed", wire)
    assert len(post.mailbox(WORKER)) == 0


# --- one sender, one recipient, and everybody else ---


def test_a_sender_that_wants_a_whole_queue_gets_half(post: Post) -> None:
    loud = talker(PLANNER)
    post.fill(loud, WORKER)
    post.undelivered("full", post.ask(loud, WORKER), "decision", "outcome")
    post.fill(talker(RESEARCHER), WORKER)
    assert len(post.mailbox(WORKER)) == SMALL.messages


def test_a_sender_of_large_messages_gets_half_of_the_bytes(post: Post) -> None:
    loud, large = talker(PLANNER), bytes((1 << 18) - 2_000)
    for _ in range(2):
        post.send(loud, WORKER, payload=large)
    post.undelivered("full", post.ask(loud, WORKER, payload=large), "decision", "outcome")
    post.undelivered("too_large", post.ask(loud, WORKER, payload=bytes(1 << 18)))
    post.send(RESEARCHER, WORKER, payload=large)


def test_a_sender_that_wants_every_place_to_wait_gets_half(post: Post, waits: Waits) -> None:
    loud, quiet = talker(PLANNER), talker(RESEARCHER)
    post.fill(loud, WORKER)
    post.fill(quiet, WORKER)
    wires = [post.ask(loud, WORKER, stream=b"w" * 16, number=n) for n in range(4)]
    waiting = [Doing(post.router.send, wire) for wire in wires[:2]]
    waits.next(), waits.next()
    for wire in wires[2:]:
        with pytest.raises(Undelivered, match="has no room for this sender"):
            Doing(post.router.send, wire).answer()
    waiting.append(Doing(post.router.send, post.ask(quiet, WORKER)))
    waits.next()
    for _ in range(2 * SMALL.messages):
        if len(post.mailbox(WORKER)):
            post.mailbox(WORKER).get(0)
    assert all(isinstance(one.answer(), Sent) for one in waiting)


def test_a_slow_recipient_holds_up_no_other(post: Post, waits: Waits) -> None:
    loud = talker(PLANNER)
    post.fill(loud, WORKER)
    stuck = Doing(post.router.send, post.ask(loud, WORKER))
    waits.next()
    for number in range(20):
        post.send(loud, RESEARCHER, stream=b"r" * 16, number=number)
        assert post.mailbox(RESEARCHER).get(0).sender == agent(PLANNER)
    post.mailbox(WORKER).get(0)
    assert isinstance(stuck.answer(), Sent)


def test_a_dead_recipient_costs_its_queue_and_nothing_more(post: Post) -> None:
    """Nobody ever takes anything, and a sender never stops."""
    loud, payload = talker(PLANNER), bytes(1 << 17)
    refused = []

    def flood(start: int, messages: int) -> None:
        for number in range(start, start + messages):
            wire = post.ask(loud, WORKER, stream=bytes(16), number=number, payload=payload)
            with pytest.raises(Undelivered) as caught:
                post.router.send(wire, timeout=0)
            refused.append(caught.value.reason)

    for number in range(3):
        post.send(loud, WORKER, stream=bytes(16), number=number, payload=payload)
    flood(3, 100)
    memory = resident()
    flood(103, 500)
    assert resident() - memory < 500 * len(payload) // 3
    assert set(refused) == {"full"}
    assert len(post.mailbox(WORKER)) == 3
    post.world.clock.now = NOW + 60
    post.send(loud, WORKER, stream=bytes(16), number=700)
    assert len(post.mailbox(WORKER)) == 1


# --- age and revocation ---


def test_a_message_that_expired_in_the_queue_is_not_handed_out(post: Post) -> None:
    post.send(PLANNER, WORKER, lifetime=5)
    post.send(PLANNER, WORKER, lifetime=6, payload=b"alive")
    post.world.clock.now = NOW + 5
    assert post.mailbox(WORKER).get(0).payload == b"alive"
    assert post.mailbox(WORKER).lost == {"expired": 1}


def test_a_sender_that_is_suspended_stops_no_recipient(post: Post) -> None:
    """What it sent before is dropped; those who take messages go on with the next one."""
    post.send(RESEARCHER, WORKER)
    sent = post.send(PLANNER, WORKER)
    post.world.gate.control(post.world.control(ROOT, "suspend", RESEARCHER))
    assert post.mailbox(WORKER).get(timeout=0).entry == sent.entry
    assert post.mailbox(WORKER).lost == {"revoked": 1}


def test_a_message_whose_chain_was_revoked_in_the_queue_is_not_handed_out(post: Post) -> None:
    child = forge.first(ROOT, RESEARCHER, allow=TALK).then(PLANNER)
    post.send(child, WORKER)
    post.send(PLANNER, WORKER, payload=b"alive")
    post.world.gate.control(post.world.control(ROOT, "revoke", RESEARCHER))
    assert post.mailbox(WORKER).get(0).payload == b"alive"
    assert post.mailbox(WORKER).lost == {"revoked": 1}


def test_a_message_whose_chain_is_revoked_while_it_waits_is_not_delivered(
    post: Post, waits: Waits
) -> None:
    loud, mailbox = talker(PLANNER), post.mailbox(WORKER)
    post.fill(loud, WORKER)
    waiting = Doing(post.router.send, post.ask(loud, WORKER))
    waits.next()
    post.world.gate.control(post.world.control(ROOT, "revoke", PLANNER))
    with post.world.growing_by(), pytest.raises(TimeoutError):
        mailbox.get(0)
    with pytest.raises(Denied) as caught:
        waiting.answer()
    assert caught.value.reason == "revoked"
    assert mailbox.lost == {"revoked": 4}


def test_a_delegator_cannot_cut_an_agent_off_from_its_mail(post: Post) -> None:
    """It takes back what it gave; that says nothing about what others write to the agent."""
    post.world.allow(post.world.ask(forge.first(ROOT, RESEARCHER).then(WORKER)))
    post.world.gate.control(post.world.control(RESEARCHER, "revoke", WORKER))
    post.send(PLANNER, WORKER)
    assert post.mailbox(WORKER).get(0).sender == agent(PLANNER)


# --- answers ---


def asked(post: Post, waits: Waits) -> tuple[Doing, Delivery]:
    """Planner has asked worker, and waits."""
    asking = Doing(post.router.request, post.ask(PLANNER, WORKER))
    waits.next()
    return asking, post.mailbox(WORKER).get(0)


def reply(post: Post, sender: Key, cause: bytes, **ask: object) -> bytes:
    """An answer to planner that names this cause."""
    fields = {forge.Field.CAUSES: [cause]}
    words = {"action": "reply", "forged": {"fields": fields}}
    return post.ask(sender, PLANNER, **{**words, **ask})


@pytest.mark.parametrize("spoofed", ["by a third agent", "as a send", "to another request"])
def test_a_spoofed_answer_is_not_the_answer(post: Post, waits: Waits, spoofed: str) -> None:
    """It comes to the mailbox, with the name of who sent it; and the real one is waited for."""
    asking, task = asked(post, waits)
    wires = {
        "by a third agent": reply(post, RESEARCHER, task.message_id),
        "as a send": reply(post, WORKER, task.message_id, action="send"),
        "to another request": reply(post, WORKER, bytes(32)),
    }
    post.router.send(wires[spoofed])
    sender = RESEARCHER if spoofed == "by a third agent" else WORKER
    assert post.mailbox(PLANNER).get(0).sender == agent(sender)
    post.router.send(reply(post, WORKER, task.message_id, payload=b"real"))
    assert asking.answer().payload == b"real"


def test_an_answer_to_somebody_else_is_not_the_answer(post: Post, waits: Waits) -> None:
    """The asked agent answers a third one, and names the request."""
    asking, task = asked(post, waits)
    words = {"resource": "agent://researcher", "recipient": RESEARCHER.public}
    post.router.send(reply(post, WORKER, task.message_id, **words))
    assert len(post.mailbox(RESEARCHER)) == 1
    post.router.send(reply(post, WORKER, task.message_id, payload=b"real"))
    assert asking.answer().payload == b"real"


def test_who_overheard_a_request_does_not_get_its_answer(post: Post, waits: Waits) -> None:
    wire = post.ask(PLANNER, WORKER)
    asking = Doing(post.router.request, wire)
    waits.next()
    with pytest.raises(Denied) as caught:
        post.router.request(wire)
    assert caught.value.reason == "replayed"
    task = post.mailbox(WORKER).get(0)
    post.router.send(reply(post, WORKER, task.message_id, payload=b"real"))
    assert asking.answer().payload == b"real"


def test_an_answer_without_a_grant_is_none(post: Post, waits: Waits) -> None:
    asking, task = asked(post, waits)
    mute = forge.first(ROOT, WORKER, allow=(("agent://planner", ("send",), "any"),))
    fields = {forge.Field.CAUSES: [task.message_id]}
    post.denied("not_granted", post.ask(mute, PLANNER, action="reply", forged={"fields": fields}))
    post.router.close()
    with pytest.raises(Undelivered):
        asking.answer()


# --- payloads ---

PAYLOADS = {
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x80",
    "deep": b"[" * 200_000,
    "NUL": bytes(200_000),
    "a message": forge.message(forge.first(ROOT, PLANNER), GATE.public),
    "terminal": b"\x1b]0;owned\x07\r\n",
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_payload_is_not_looked_into(post: Post, payload: bytes) -> None:
    post.send(PLANNER, WORKER, payload=payload)
    delivery = post.mailbox(WORKER).get(0)
    assert delivery.payload == payload
    assert len(repr(delivery)) < 1_000


def test_a_payload_of_nearly_a_mebibyte(world: World) -> None:
    post, payload = Post(world), bytes((1 << 20) - 2_000)
    post.send(PLANNER, WORKER, payload=payload)
    assert post.mailbox(WORKER).get(0).payload == payload


@pytest.mark.parametrize("noise", [b"", b"\x80", b"{}", bytes(1 << 21), b"\x82\x40\x40"])
def test_noise_is_no_message(post: Post, noise: bytes) -> None:
    with post.world.growing_by(), pytest.raises(MoatError):
        post.router.send(noise)
    assert post.router.send_many([noise, post.ask(PLANNER, WORKER)])[1]
    assert len(post.mailbox(WORKER)) == 1


# --- races ---


def test_messages_are_neither_lost_nor_doubled_while_mailboxes_close(post: Post) -> None:
    """A recipient that closes and comes back, under eight senders: every ok was taken or lost."""
    senders = [forge.key(f"sender-{n}") for n in range(8)]
    for key in senders:
        post.people.keys[key.name] = agent(key)
    boxes, taken, failed = [post.mailbox(WORKER)], [], set()
    done = threading.Event()

    def send(key: Key) -> int:
        chain, delivered = talker(key), 0
        for number in range(20):
            try:
                post.send(chain, WORKER, stream=bytes(16), number=number)
                delivered += 1
            except Undelivered as error:
                failed.add(error.reason)
        return delivered

    def take() -> None:
        while not done.is_set():
            try:
                taken.append(boxes[-1].get(0).message_id)
            except TimeoutError:
                continue
            if len(taken) % 10 == 9:
                boxes[-1].close()
                boxes.append(post.mailbox(WORKER))

    taking = Doing(take)
    sending = [Doing(send, key) for key in senders]
    delivered = sum(one.answer() for one in sending)
    done.set()
    taking.answer()
    assert failed <= {"full", "closed"}
    lost = sum(box.lost.get("closed", 0) for box in boxes)
    assert len(set(taken)) == len(taken)
    assert delivered == len(taken) + lost + sum(len(box) for box in boxes)
    outcomes = [line["body"] for line in post.world.entries() if line["kind"] == "outcome"]
    assert sum(body["status"] == "ok" for body in outcomes) == delivered
