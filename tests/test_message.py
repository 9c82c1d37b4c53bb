"""Messages as values: sealed, read, opened; streams; control statements."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cast import GATE, MALLORY, NOW, PLANNER, ROOT, WORKER, issue, rng, seal
from moat import (
    Control,
    InvalidSignature,
    MalformedInput,
    Message,
    MessageRefused,
    MoatError,
    Policy,
    Sender,
)


def sender(**how):
    return Sender(PLANNER, gate=GATE.id, token=issue(), policy=Policy.CHAIN_ONLY.hash, **how)


def opened(wire, **where):
    return Message.open(wire, **({"gate": GATE.id, "sender": PLANNER.id, "now": NOW} | where))


def test_a_message_says_what_was_sealed():
    code, cause = hashlib.sha256(b"code").digest(), hashlib.sha256(b"cause").digest()
    message = Message.from_bytes(
        seal(
            args={"q": "moat", "n": [1, None, True]},
            payload=b"data",
            recipient=WORKER.id,
            code=code,
            causes=[cause],
            labels=["pii", "eu"],
        )
    )
    assert message.token == issue()
    assert (message.gate, message.recipient) == (GATE.id, WORKER.id)
    assert (message.action, message.resource) == ("call", "tool://search/web")
    assert message.args == {"q": "moat", "n": [1, None, True]}
    assert message.args_json == b'{"n":[1,null,true],"q":"moat"}'
    assert (message.payload, message.code) == (b"data", code)
    assert (message.causes, message.labels) == ((cause,), ("eu", "pii"))
    assert message.policy == Policy.CHAIN_ONLY.hash
    assert (message.issued, message.expires, message.number) == (NOW, NOW + 60, 0)
    assert len(message.stream) == 16
    assert len(message.id) == 32


def test_what_is_left_out_is_empty_and_for_the_gate_itself():
    message = Message.from_bytes(seal())
    assert message.recipient == message.gate == GATE.id
    assert (message.args_json, message.args, message.payload) == (b"{}", {}, b"")
    assert (message.code, message.causes, message.labels) == (None, (), ())


def test_a_recipient_opens_what_was_sealed():
    wire = seal()
    assert opened(wire) == Message.from_bytes(wire)


def test_a_message_by_somebody_else_is_refused():
    with pytest.raises((MessageRefused, InvalidSignature)):
        opened(seal(), sender=MALLORY.id)
    with pytest.raises((MessageRefused, InvalidSignature)):
        opened(seal(sender=MALLORY))


def test_a_message_for_another_gate_is_refused():
    with pytest.raises(MessageRefused) as caught:
        opened(seal(), gate=MALLORY.id)
    assert caught.value.reason == "wrong_gate"


@pytest.mark.parametrize("now", [NOW + 60, NOW - 61, NOW + 10**9])
def test_a_stale_message_is_refused(now):
    with pytest.raises(MessageRefused) as caught:
        opened(seal(), now=now)
    assert caught.value.reason == "stale"


def test_a_changed_byte_is_refused():
    wire = seal(payload=b"data")
    assert opened(wire).payload == b"data"
    for at in (len(wire) - 1, wire.index(b"data")):
        changed = bytearray(wire)
        changed[at] ^= 1
        with pytest.raises(MoatError):
            opened(bytes(changed))


@pytest.mark.parametrize("wire", [b"", b"\x80", b"\x82\x40\x40", b"junk", seal() + b"\0"])
def test_other_bytes_are_no_message(wire):
    with pytest.raises(MalformedInput):
        Message.from_bytes(wire)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"args": {"n": 2**53 + 1}}, id="integer too large"),
        pytest.param({"args": {"n": float("nan")}}, id="not a number"),
        pytest.param({"args": {"b": b"bytes"}}, id="bytes in json"),
        pytest.param({"args": {1: "one"}}, id="key that is no text"),
        pytest.param({"args": {"a": "x" * 33_000}}, id="arguments too long"),
        pytest.param({"args": [1]}, id="no object"),
        pytest.param({"action": "*"}, id="any action"),
        pytest.param({"action": "Call it"}, id="no action"),
        pytest.param({"resource": "tool://search/*"}, id="pattern"),
        pytest.param({"resource": "file:///data/../etc/passwd"}, id="dots"),
        pytest.param({"code": b"short"}, id="short digest"),
        pytest.param({"causes": [b"short"]}, id="short cause"),
        pytest.param({"labels": ["Not A Label"]}, id="no label"),
        pytest.param({"expires_in": timedelta(seconds=301)}, id="too long a life"),
        pytest.param({"expires_in": timedelta(0)}, id="no life"),
        pytest.param({"payload": bytes(1 << 20)}, id="payload too large"),
    ],
)
def test_what_no_gate_would_read_is_not_sealed(asked):
    with pytest.raises((MalformedInput, MoatError, TypeError)):
        seal(**asked)


def test_one_is_not_true():
    assert Message.from_bytes(seal(args={"n": 1})).args_json == b'{"n":1}'
    assert Message.from_bytes(seal(args={"n": True})).args_json == b'{"n":true}'


def test_a_fresh_stream_for_each_message_unless_a_sender_keeps_one():
    assert Message.from_bytes(seal()).stream != Message.from_bytes(seal()).stream
    stream = sender()
    made = [
        Message.from_bytes(stream.seal(action="call", resource="tool://search/web", now=NOW))
        for _ in range(3)
    ]
    assert [message.number for message in made] == [0, 1, 2]
    assert {message.stream for message in made} == {stream.stream}


def test_a_sender_numbers_without_gaps_or_repeats_across_threads():
    stream = sender()

    def number(_n):
        wire = stream.seal(action="call", resource="tool://search/web", now=NOW)
        return Message.from_bytes(wire).number

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(number, range(256))) == list(range(256))


def test_the_same_randomness_makes_the_same_stream():
    assert sender(rng=rng("a")).stream == sender(rng=rng("a")).stream
    assert seal(rng=rng("a")) == seal(rng=rng("a"))


def test_a_policy_that_nothing_enforces_is_refused():
    assert Policy("chain-only") == Policy.CHAIN_ONLY
    text = b"moat-policy-v1\nchain-only"
    assert Policy.CHAIN_ONLY.hash == hashlib.sha256(text).digest()
    with pytest.raises(MalformedInput):
        Policy("permit(principal, action, resource);")


@pytest.mark.parametrize("target", [PLANNER.id, bytes(32)])
def test_a_control_statement_is_small_and_its_own(target):
    made = {Control.sign(ROOT, "revoke", target, gate=GATE.id, now=NOW) for _ in range(2)}
    assert len(made) == 2
    assert all(len(statement) < 1024 for statement in made)
    with pytest.raises((MalformedInput, ValueError)):
        Control.sign(ROOT, "forgive", target, gate=GATE.id, now=NOW)
