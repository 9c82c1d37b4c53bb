"""Deterministic runs: the same module, input and limits give the same output and fuel."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cast import LIMITS, PLANNER, issue
from guests.build import assemble, wat
from guests.wheels import PYTHON, QUICKJS, Program, program
from moat import Grant, MalformedInput, Permit, Sandbox, SandboxOutcome, Session

if TYPE_CHECKING:
    from pathlib import Path

    from moat import AuditLog, Limits, Pep

CANONICAL = (0x7FF8 << 48).to_bytes(8, "little")
HOUR = 3_600_000_000_000

POLLS = """
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $sub (param $at i32) (param $tag i32) (param $id i32) (param $long i64) (param $flags i32)
    (i64.store (local.get $at) (i64.extend_i32_u (local.get $at)))
    (i32.store8 offset=8 (local.get $at) (local.get $tag))
    (i32.store offset=16 (local.get $at) (local.get $id))
    (i64.store offset=24 (local.get $at) (local.get $long))
    (i32.store16 offset=40 (local.get $at) (local.get $flags)))
  (func (export "_start")
    {subscriptions}
    (i32.store (i32.const 1024) (call $poll (i32.const 0) (i32.const 512) (i32.const {count})
      (i32.const 1028)))
    (drop (call $now (i32.const 1) (i64.const 0) (i32.const 1032)))
    (i64.store (i32.const 1040) (i64.load (i32.const 512)))   ;; the first event's userdata
    (i64.store (i32.const 1048) (i64.load (i32.const 24)))    ;; the first wait, as it was asked
    (i32.store (i32.const 2048) (i32.const 1024))
    (i32.store (i32.const 2052) (i32.const 32))
    (drop (call $write (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 2056)))))
"""
COMPONENT = """
(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "now" (func (result u64))) (export "resolution" (func (result u64)))))
  (import "wasi:random/random@0.2.0"
    (instance $random (export "get-random-u64" (func (result u64)))))
  (import "wasi:random/insecure@0.2.0"
    (instance $insecure (export "get-insecure-random-u64" (func (result u64)))))
  (core func $now (canon lower (func $clock "now")))
  (core func $tick (canon lower (func $clock "resolution")))
  (core func $random (canon lower (func $random "get-random-u64")))
  (core func $insecure (canon lower (func $insecure "get-insecure-random-u64")))
  (func (export "now") (result u64) (canon lift (core func $now)))
  (func (export "tick") (result u64) (canon lift (core func $tick)))
  (func (export "random") (result u64) (canon lift (core func $random)))
  (func (export "insecure") (result u64) (canon lift (core func $insecure))))
"""


def leave(pep: Pep, limits: Limits = LIMITS, payload: bytes = b"") -> Permit:
    token = issue(limits=limits, allow=[Grant("code://any", {"run"})])
    return Session(pep, PLANNER, token).request("run", "code://any", payload=payload)


def again(pep: Pep, wanted: Program, *args: str) -> SandboxOutcome:
    """Run a program twice and require the same of both."""
    sandbox = Sandbox(program(wanted))
    first, second = (
        sandbox.run(leave(pep, wanted.limits), args=args, deterministic=True) for _ in range(2)
    )
    for name in ("status", "stdout", "stderr", "fuel_used", "memory_peak"):
        assert getattr(first, name) == getattr(second, name), name
    return first


def poll(pep: Pep, *subscriptions: str) -> tuple[int, int, int, int, int]:
    """Poll once: errno, events, the clock, the first event and the first wait afterwards."""
    text = POLLS.format(count=len(subscriptions), subscriptions=" ".join(subscriptions))
    outcome = Sandbox(assemble(text)).run(leave(pep), deterministic=True)
    assert outcome.status == "ok", outcome.trap
    words = (0, 4), (4, 8), (8, 16), (16, 24), (24, 32)
    errno, events, *rest = (int.from_bytes(outcome.stdout[a:b], "little") for a, b in words)
    return (errno, events, *rest)  # type: ignore[return-value]


def wait(place: int, clock: int, long: int, flags: int = 0) -> str:
    asked = f"(i32.const {clock}) (i64.const {long}) (i32.const {flags})"
    return f"(call $sub (i32.const {48 * place}) (i32.const 0) {asked})"


def writable(place: int, fd: int) -> str:
    asked = f"(i32.const {fd}) (i64.const 0) (i32.const 0)"
    return f"(call $sub (i32.const {48 * place}) (i32.const 2) {asked})"


def test_quickjs_sees_the_same_clock_and_the_same_random_numbers(pep: Pep) -> None:
    asked = "print(Math.random(), Date.now()); os.sleep(60000); print(Date.now())"
    outcome = again(pep, QUICKJS, "--std", "-e", asked)
    begun, ended = outcome.stdout.decode().splitlines()
    assert begun.endswith(" 946684800000")
    assert ended == "946684860000"
    assert outcome.elapsed < timedelta(seconds=10)


def test_python_does_the_same_each_time_whatever_it_asks(pep: Pep) -> None:
    asked = (
        "import os, random, time, uuid; t = time.time(); time.sleep(3600); print(time.time() - t);"
        "print(random.random(), uuid.uuid4(), os.urandom(9), hash('a'), set('abcdef'), time.time())"
    )
    slept, _ = again(pep, PYTHON, "-c", asked).stdout.decode().splitlines()
    assert float(slept) == pytest.approx(3600, abs=0.01)


def test_another_process_gets_the_same(pep: Pep) -> None:
    asked = ["--std", "-e", "print(Math.random(), Date.now(), Math.random())"]
    here = again(pep, QUICKJS, *asked)
    limits = "fuel=10**9, memory=1 << 26, time=timedelta(seconds=9), output=9999"
    code = (
        "import json, sys; from datetime import timedelta; from moat import Limits, Sandbox;"
        f"o = Sandbox(sys.argv[1]).replay(Limits({limits}), args=sys.argv[2:]);"
        "print(json.dumps([o.status, o.fuel_used, o.stdout.decode()]))"
    )
    command = [sys.executable, "-c", code, str(program(QUICKJS)), *asked]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [here.status, here.fuel_used, here.stdout.decode()]


def test_random_bytes_are_of_the_module_and_do_not_repeat(pep: Pep) -> None:
    asked = "let a = new Set(); for (let i = 0; i < 2000; i++) a.add(Math.random()); print(a.size)"
    assert again(pep, QUICKJS, "-e", asked).stdout == b"2000\n"
    one, other = (Sandbox(assemble(COMPONENT + more)) for more in ("", ";; another\n(; ;)"))
    assert one.sha256 == other.sha256
    another = Sandbox(assemble(COMPONENT.replace('"tick"', '"tack"')))
    drawn = [
        sandbox.call(leave(pep), name, deterministic=True).check().result
        for sandbox in (one, one, another) for name in ("random", "insecure")
    ]  # fmt: skip
    assert drawn[:2] == drawn[2:4]
    assert len(set(drawn)) == 4


def test_a_component_has_the_same_clocks(pep: Pep) -> None:
    sandbox = Sandbox(assemble(COMPONENT))
    told = [
        sandbox.call(leave(pep), name, deterministic=True).check().result
        for name in ("now", "now", "tick")
    ]
    assert told == [0, 0, 1000]
    slept = Sandbox(wat("waits")).call(leave(pep), "sleep", [HOUR], deterministic=True)
    assert (slept.status, slept.elapsed < timedelta(seconds=1)) == ("ok", True)
    polled = Sandbox(wat("waits")).call(leave(pep), "poll", [3, HOUR], deterministic=True)
    assert polled.status == "ok"


def test_a_wait_is_over_at_once_and_moves_the_clock_to_its_end(pep: Pep) -> None:
    begin = 946_684_800 * 10**9
    for wanted, subscription in [
        (HOUR, wait(0, 1, HOUR)),
        (HOUR, wait(0, 0, HOUR)),
        (HOUR, wait(0, 1, HOUR, 1)),
        (HOUR, wait(0, 0, begin + HOUR, 1)),
        (0, wait(0, 0, begin - 5, 1)),
        (2**62, wait(0, 1, -1)),
    ]:
        errno, events, now, *_ = poll(pep, subscription)
        assert (errno, events, now) == (0, 1, wanted)


def test_the_clocks_stop_before_any_sum_overflows(pep: Pep) -> None:
    """After 146 years, whatever is waited for, on both clocks."""
    for clock, begin in ((0, 946_684_800 * 10**9), (1, 0)):
        text = POLLS.format(count=1, subscriptions=wait(0, 0, -1, 1))
        text = text.replace("(call $now (i32.const 1)", f"(call $now (i32.const {clock})")
        outcome = Sandbox(assemble(text)).run(leave(pep), deterministic=True)
        assert outcome.status == "ok", outcome.trap
        assert int.from_bytes(outcome.stdout[8:16], "little") == begin + 2**62
    slept = Sandbox(wat("waits")).call(leave(pep), "sleep", [2**64 - 1], deterministic=True)
    assert slept.status == "ok"
    ended = Sandbox(wat("sleep_until")).run(leave(pep), deterministic=True)
    assert (ended.status, ended.elapsed < timedelta(seconds=1)) == ("ok", True)


def test_the_first_of_several_waits_ends_and_the_others_are_as_they_were(pep: Pep) -> None:
    errno, events, now, first, asked = poll(pep, wait(0, 1, 2 * HOUR), wait(1, 1, HOUR))
    assert (errno, events, now, first, asked) == (0, 1, HOUR, 48, 2 * HOUR)
    errno, events, *_ = poll(pep, wait(0, 1, HOUR), wait(1, 0, HOUR))
    assert (errno, events) == (0, 2)


def test_a_stream_that_is_ready_comes_before_a_wait(pep: Pep) -> None:
    errno, events, now, first, asked = poll(pep, wait(0, 1, HOUR), writable(1, 1))
    assert (errno, events, now, first, asked) == (0, 1, 0, 48, HOUR)


def test_what_cannot_be_waited_for_is_refused_as_ever(pep: Pep) -> None:
    inval, badf = 28, 8
    assert poll(pep, wait(0, 2, HOUR))[0] == inval
    assert poll(pep, wait(0, 1, HOUR), writable(1, 77))[0] == badf
    assert poll(pep)[0] == inval


def test_a_list_of_waits_beyond_memory_or_room_is_no_way_to_wait(pep: Pep) -> None:
    for at, count in [(65_500, 2), (0, 129), (0, -1), (-48, 3)]:
        text = POLLS.format(count=count, subscriptions="").replace(
            "(call $poll (i32.const 0)", f"(call $poll (i32.const {at})"
        )
        outcome = Sandbox(assemble(text)).run(leave(pep), deterministic=True)
        assert outcome.status in {"ok", "trap"}
        assert outcome.elapsed < timedelta(seconds=1)


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_nan_has_one_form(pep: Pep, *, deterministic: bool) -> None:
    text = (
        '(module (import "wasi_snapshot_preview1" "fd_write"'
        ' (func $w (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1)'
        '(func (export "_start")'
        " (f64.store (i32.const 64)"
        "  (f64.add (f64.const 1) (f64.reinterpret_i64 (i64.const 0xfff8dead0000beef))))"
        " (f64.store (i32.const 72) (f64.sqrt (f64.const -1)))"
        " (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 16))"
        " (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"
    )
    outcome = Sandbox(assemble(text)).run(leave(pep), deterministic=deterministic)
    assert outcome.stdout == CANONICAL * 2


def test_a_token_with_directories_is_refused_before_its_permit_is_opened(
    pep: Pep, tmp_path: Path
) -> None:
    (tmp_path / "desk").mkdir()
    permit = leave(pep, LIMITS.replace(read=[f"file://{tmp_path}/desk/**"]))
    sandbox = Sandbox(wat("empty"))
    with pytest.raises(MalformedInput, match="reaches no files"):
        sandbox.run(permit, deterministic=True)
    with pytest.raises(MalformedInput, match="reaches no files"):
        sandbox.replay(permit.limits)
    assert permit.outcome is None
    assert sandbox.run(permit).status == "ok"


def test_only_a_deterministic_run_says_so_in_the_log(pep: Pep, audit: AuditLog) -> None:
    sandbox = Sandbox(wat("empty"))
    said = []
    for deterministic in (True, False):
        permit = leave(pep)
        sandbox.run(permit, deterministic=deterministic)
        assert permit.outcome is not None
        line = audit.read(permit.outcome)
        said.append(json.loads(line)["body"].get("deterministic"))
    assert said == [True, None]
