"""Clocks that go back, clocks that run ahead, and times that nobody lives to see."""

from __future__ import annotations

import pytest

import forge
from forge import NOW, Claim, Field
from moat.errors import Denied
from threats.world import MALLORY, ROOT, WORKER, World

DAY = 86_400


def test_a_clock_within_the_skew_of_the_log(world: World) -> None:
    world.allow(world.ask())
    world.allow(world.ask(now=NOW - 60, lifetime=120), now=NOW - 59)
    assert [entry["t"] for entry in world.entries()] == sorted(e["t"] for e in world.entries())


@pytest.mark.parametrize("back", [61, DAY, NOW])
def test_a_clock_that_goes_back_behind_the_log(world: World, back: int) -> None:
    """Nothing is allowed and nothing is written until the clock is right again."""
    chain = world.chain(nbf=0, iat=0)
    world.allow(world.ask(chain))
    world.refuse(world.ask(chain, now=NOW - back), "clock_behind", now=NOW - back)
    world.allow(world.ask(chain))


def test_a_control_statement_by_a_clock_that_went_back(world: World) -> None:
    world.allow(world.ask())
    statement = world.control(ROOT, "revoke", MALLORY, now=NOW - 61)
    with world.growing_by(), pytest.raises(Denied) as denied:
        world.gate.control(statement, now=NOW - 61)
    assert denied.value.reason == "clock_behind"


def test_a_clock_that_goes_back_over_a_restart(world: World) -> None:
    wire = world.ask()
    world.allow(wire)
    world.restart(now=NOW - DAY)
    early = world.ask(world.chain(nbf=0, iat=0), now=NOW - DAY)
    world.refuse(early, "clock_behind", now=NOW - DAY)
    world.refuse(wire, "replayed")
    world.allow(world.ask())


def test_a_used_message_after_its_stream_was_forgotten_and_the_clock_set_back(
    world: World,
) -> None:
    """Within the skew, where the clock alone would call it fresh again."""
    wire = world.ask()
    world.allow(wire)
    world.allow(world.ask(now=NOW + 60), now=NOW + 60)
    for now in (NOW + 59, NOW + 30, NOW):
        world.refuse(wire, "stale", now=now)


def test_an_unused_message_that_was_stale_when_the_clock_was_ahead(world: World) -> None:
    held = world.ask()
    world.allow(world.ask(now=NOW + 60), now=NOW + 60)
    world.refuse(held, "stale", now=NOW + 1)


def test_a_link_that_had_expired_when_the_clock_was_ahead(world: World) -> None:
    short = world.chain(exp=NOW + 30)
    world.allow(world.ask(short))
    world.allow(world.ask(now=NOW + 31), now=NOW + 31)
    world.refuse(world.ask(short), "expired", link=0, now=NOW + 29)


def test_a_clock_that_jumps_ahead_and_comes_back(world: World) -> None:
    """A year ahead for one message: afterwards the gate denies rather than lives twice."""
    wire = world.ask()
    world.allow(wire)
    far = NOW + 365 * DAY
    world.allow(world.ask(world.chain(exp=far + DAY), now=far), now=far)
    world.refuse(wire, "clock_behind")
    world.refuse(world.ask(), "clock_behind")


@pytest.mark.parametrize("far", [NOW + 61, NOW + DAY, 253_402_300_000])
def test_a_message_from_the_future_moves_no_clock(world: World, far: int) -> None:
    world.refuse(world.ask(now=far), "stale")
    world.refuse(world.ask(world.chain(iat=far, exp=far + 100)), "not_yet_valid")
    world.refuse(world.ask(world.chain(nbf=far, exp=far + 100)), "not_yet_valid")
    world.allow(world.ask())
    assert max(entry["t"] for entry in world.entries()) == NOW


@pytest.mark.parametrize("far", [253_402_300_800, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_times_that_overflow(world: World, far: int) -> None:
    """The year 10000, 2038, 2106, and both ends of 64 bits: refused, never wrapped around."""
    fields = {Field.IAT: far, Field.EXP: min(far + 60, 2**64 - 1)}
    decision = world.gate.decide(world.ask(forged={"fields": fields}), now=NOW)
    assert decision.reason in {"stale", "malformed"}
    for claim in (Claim.IAT, Claim.NBF):
        forged = {"claims": {claim: far, Claim.EXP: min(far + 60, 2**64 - 1)}}
        chain = forge.first(ROOT, WORKER, forged=forged)
        decision = world.gate.decide(world.ask(chain), now=NOW)
        assert decision.reason in {"not_yet_valid", "malformed"}
    fields = {Field.IAT: 0, Field.EXP: far}
    world_decision = world.gate.decide(world.ask(forged={"fields": fields}), now=NOW)
    assert world_decision.reason in {"stale", "malformed"}


@pytest.mark.parametrize("now", [-1, 253_402_300_800, 2**63, 2**64, 2**70])
def test_a_clock_that_shows_no_time(world: World, now: int) -> None:
    """A broken clock raises or denies; it never allows, and the gate goes on when it is right."""
    with world.growing_by():
        try:
            decision = world.gate.decide(world.ask(), now=now)
        except (ValueError, OverflowError):
            pass
        else:
            assert not decision.allowed
    world.allow(world.ask())


def test_a_refusal_that_was_only_counted_while_the_clock_was_ahead(world: World) -> None:
    """It leaves no line, but what it made the gate forget stays forgotten when the log is read
    again: the lines after it are dated no earlier."""
    stream = bytes(16)
    other = world.ask()
    world.allow(world.ask(stream=stream, lifetime=10))
    world.allow(other)
    again = world.ask(stream=stream, lifetime=60)
    world.refuse(other, "replayed", now=NOW + 10)
    world.allow(again, now=NOW + 9)
    world.restart(now=NOW + 10)
    world.refuse(again, "replayed", now=NOW + 10)


def test_one_absurd_reading_of_the_clock(world: World) -> None:
    world.allow(world.ask())
    world.gate.decide(b"noise", now=NOW)
    for absurd in (2**64 - 1, 253_402_300_800):
        with world.growing_by():
            world.gate.decide(b"noise", now=absurd)
    world.allow(world.ask())


def test_a_permit_by_a_clock_behind_the_log(world: World) -> None:
    """Within the skew the log's time counts, for the permit as for the decision."""
    world.allow(world.ask())
    with world.allow(world.ask(now=NOW - 20, lifetime=120), now=NOW - 40):
        pass
