"""The everyday operations under pytest-benchmark: ``pytest benches/bench_moat.py
--benchmark-enable``. Absolute figures to watch over time; ratios come from ``table.py``.
"""

from __future__ import annotations

import os
from importlib.resources import files

import pytest

from calls import TOGETHER
from moat import Identity, Message, Policy, Sandbox, Token
from moat._bench import NOW, RESOURCE, chain, gated, grant, in_memory, issue


@pytest.fixture(params=[1, 8], ids="depth-{}".format)
def depth(request):
    return request.param


def test_token_sign(benchmark):
    root, holder = Identity.generate("root"), Identity.generate("holder")
    token = benchmark(issue, root, holder.id, [grant("tool://search/**")])
    token.verify([root.id], now=NOW)


def test_token_verify(benchmark, depth):
    root, _, token = chain(depth)
    data, roots = bytes(token), [root.id]
    benchmark(lambda: Token.from_bytes(data).verify(roots, now=NOW))


@pytest.mark.parametrize("grants", [1, 8, 256])
def test_permits(benchmark, grants):
    root = Identity.generate("root")
    token = issue(root, root.id, [grant(f"tool://s{n}/**") for n in range(grants)])
    assert benchmark(token.permits, "call", f"tool://s{grants - 1}/run")


def test_message_create_and_verify(benchmark):
    _, holder, token = chain(1)
    gate = Identity.generate("gate").id
    fixed = {"gate": gate, "token": token, "policy": Policy.CHAIN_ONLY.hash, "now": NOW}

    def round_trip():
        wire = Message.seal(holder, action="call", resource=RESOURCE, payload=bytes(256), **fixed)
        return Message.open(wire, gate=gate, sender=holder.id, now=NOW)

    assert benchmark(round_trip).payload == bytes(256)


def test_authorize_a_chain_seen_before(benchmark, depth):
    with gated(in_memory(), depth) as (gate, messages):
        permits = []

        def fresh():
            return messages(1), {}

        benchmark.pedantic(
            lambda wire: permits.append(gate.authorize(wire)), setup=fresh, rounds=200
        )
        assert [permit.entry for permit in permits] == sorted({permit.entry for permit in permits})


def test_decide_a_batch(benchmark):
    with gated(in_memory(), 1) as (gate, messages):
        answers = benchmark.pedantic(
            gate.decide_many, setup=lambda: ((messages(TOGETHER),), {}), rounds=10
        )
        assert all(answer.allowed for answer in answers)
        assert len(gate) > TOGETHER


@pytest.mark.parametrize("known", [False, True], ids=["first", "again"])
def test_a_sandbox_of_bytes(benchmark, known):
    """Compiled the first time; found by their digest from then on."""
    program = (files("moat") / "_demo" / "reader.wasm").read_bytes()

    def other():
        # A custom section of eight random bytes: the same program, other bytes.
        mark = b"" if known else bytes([0, 10, 1, 0x78]) + os.urandom(8)
        return (program + mark,), {}

    Sandbox(program)
    made = benchmark.pedantic(Sandbox, setup=other, rounds=20)
    assert (made.sha256 == Sandbox(program).sha256) == known
