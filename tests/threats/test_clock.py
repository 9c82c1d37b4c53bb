"""Clocks that go back, clocks that run ahead, and times that nobody lives to see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forge
from forge import NOW, Claim, Field
from moat import Policy
from moat._native import Gate, verify_log
from moat.errors import Denied
from threats.world import GATE, MALLORY, ROOT, WORKER, Clock, World, agent, identity

DAY = 86_400
YEAR = 365 * DAY
SLOW = b'[{"name":"slow","rate":{"limit":3,"window":60},"then":"throttle"}]'


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


# --- jumps while segments begin and rates are counted ---


class Jumpy:
    """A gate with tiny segments and one rule: three messages in a minute by anybody."""

    def __init__(self, folder: Path, *, rules: bytes = b"[]") -> None:
        self.folder, self.rules, self.clock = folder, rules, Clock()
        self.chain = forge.first(ROOT, WORKER, nbf=0, iat=0, exp=NOW + 30 * YEAR)
        self.open()

    def open(self) -> None:
        """Open and arm once: rules that are not named for a moment start anew."""
        self.gate = Gate.open(
            self.folder, identity(GATE), anchor=None, clock=self.clock, segment_bytes=2048
        )
        self.gate.arm(policy=Policy.CHAIN_ONLY, roots=[agent(ROOT)], operators=[], rules=self.rules)

    def ask(self, chain: forge.Chain | None = None, **more: object) -> bytes:
        stream = forge.key("stream").public[:16]
        return forge.message(
            chain or self.chain,
            GATE.public,
            **({"stream": stream, "number": len(self.gate)} | more),
        )

    def decide(self, wire: bytes, now: int) -> str | None:
        self.clock.now = now
        return self.gate.decide(wire).reason

    def fresh(self, now: int) -> str | None:
        """The answer to a new message of this moment."""
        return self.decide(self.ask(now=now, lifetime=180), now)

    def fill(self, now: int) -> None:
        """Go on until a new segment has begun."""
        before = self.segments()
        while self.segments() == before:
            assert self.fresh(now) is None
            assert len(self.gate) < 5000

    def segments(self) -> int:
        return len(list(self.folder.glob("seg/*.jsonl")))

    def end(self) -> None:
        """No line is older than the one before it, and every snapshot is right."""
        times = [json.loads(self.gate.read(at))["t"] for at in range(len(self.gate))]
        assert times == sorted(times)
        self.gate.close()
        verify_log(self.folder, agent(GATE))


@pytest.mark.parametrize("back", [1, 30, 60])
def test_a_clock_that_goes_back_within_the_skew_while_segments_begin(
    tmp_path: Path, back: int
) -> None:
    """What was used, stale or withdrawn as a segment began is so behind it, too."""
    jumpy = Jumpy(tmp_path / "log")
    used = jumpy.ask(stream=bytes(16), lifetime=120)
    held = jumpy.ask(stream=b"h" * 16, lifetime=40)
    assert jumpy.decide(used, NOW) is None
    jumpy.gate.control(forge.control(ROOT, "suspend", MALLORY, GATE.public))
    for turn in range(4):
        jumpy.fill(NOW + 60)
        jumpy.fill(NOW + 60 - back)
        if turn % 2:
            jumpy.gate.close()
            jumpy.open()
        assert jumpy.decide(used, NOW + 60 - back) == "replayed"
        assert jumpy.decide(held, NOW + 60 - back) == "stale"
        assert jumpy.gate.is_suspended(agent(MALLORY))
    assert jumpy.segments() > 8
    jumpy.end()


@pytest.mark.parametrize("far", [2 * DAY, YEAR, 20 * YEAR])
def test_a_clock_that_jumps_far_ahead_as_a_segment_begins_and_back(
    tmp_path: Path, far: int
) -> None:
    """The snapshot is of the far day, and the day before it does not come alive again."""
    jumpy = Jumpy(tmp_path / "log")
    used, held = jumpy.ask(stream=bytes(16)), jumpy.ask(stream=b"h" * 16)
    short = forge.first(ROOT, WORKER, nbf=0, iat=0, exp=NOW + DAY)
    assert jumpy.decide(used, NOW) is None
    assert jumpy.decide(jumpy.ask(short), NOW) is None
    jumpy.gate.control(forge.control(ROOT, "revoke", MALLORY, GATE.public))
    jumpy.fill(NOW + far)
    for again in (False, True):
        if again:
            jumpy.gate.close()
            jumpy.clock.now = NOW
            jumpy.open()
        for now in (NOW, NOW + 59, NOW + far - 61):
            assert jumpy.fresh(now) == "clock_behind"
            assert {jumpy.decide(wire, now) for wire in (used, held)} <= {"clock_behind", "stale"}
        assert jumpy.decide(jumpy.ask(short, now=NOW + far), NOW + far) == "expired"
        assert jumpy.gate.is_revoked(agent(MALLORY))
        jumpy.fill(NOW + far)
    jumpy.end()


def test_a_rate_does_not_start_anew_by_a_clock_that_goes_back(tmp_path: Path) -> None:
    """Seconds, minutes or hours, once or again and again, over a restart or not."""
    jumpy = Jumpy(tmp_path / "log", rules=SLOW)
    assert [jumpy.fresh(NOW) for _ in range(4)] == [None, None, None, "throttled"]
    for back in (1, 30, 60):
        assert jumpy.fresh(NOW - back) == "throttled"
    for back in (61, 3600, DAY):
        assert jumpy.fresh(NOW - back) == "clock_behind"
    assert jumpy.fresh(NOW) == "throttled"
    jumpy.gate.close()
    jumpy.clock.now = NOW - 50
    jumpy.open()
    assert jumpy.fresh(NOW - 50) == "throttled"
    assert jumpy.fresh(NOW) == "throttled"
    # The minute passes by the log's time, and no sooner.
    assert jumpy.fresh(NOW + 30) == "throttled"
    assert jumpy.fresh(NOW + 180) is None
    jumpy.end()


def test_a_rate_under_a_clock_that_swings_within_the_skew(tmp_path: Path) -> None:
    """Half an hour of swings: never more than the limit in any minute of the log's time."""
    jumpy = Jumpy(tmp_path / "log", rules=SLOW)
    for step in range(300):
        jumpy.fresh(NOW + 6 * step - (step * 37 % 61))
    entries = [json.loads(jumpy.gate.read(at)) for at in range(len(jumpy.gate))]
    allowed = [e["t"] for e in entries if e["kind"] == "decision" and e["body"]["allow"]]
    assert len(allowed) > 30
    assert all(later - first >= 60 for first, later in zip(allowed, allowed[3:], strict=False))
    jumpy.end()


def test_a_rate_over_a_clock_that_jumped_a_year_and_came_back(tmp_path: Path) -> None:
    """The year has passed, for the rate as for all else; it does not pass twice."""
    jumpy = Jumpy(tmp_path / "log", rules=SLOW)
    assert [jumpy.fresh(NOW) for _ in range(4)][-1] == "throttled"
    assert [jumpy.fresh(NOW + YEAR) for _ in range(4)] == [None, None, None, "throttled"]
    assert [jumpy.fresh(NOW) for _ in range(4)] == ["clock_behind"] * 4
    assert jumpy.fresh(NOW + YEAR) == "throttled"
    jumpy.end()
