"""Code asks for what it was not granted, or as somebody else, or after its time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from cast import NOW, PLANNER, ROOT, WORKER, issue
from code_kit import ALLOW, LIMITS, RUN, add, ask, coder, send
from guests.build import wat
from moat import (
    AttenuationViolation,
    Denied,
    Grant,
    MalformedInput,
    Message,
    Policy,
    Requirement,
    Sandbox,
    Session,
    code,
    tool,
)

pytestmark = pytest.mark.usefixtures("interpreters")

HERE = Path(__file__).resolve().parents[1]


def bodies(audit, kind):
    return [entry["body"] for entry in audit.entries() if entry["kind"] == kind]


def refused(pep, tools, name, args="{}"):
    """What code is told that asks for this."""
    ((kind, told),) = ask(coder(pep), tools, name, args).result.items()
    assert kind == "err"
    return told


def test_a_tool_that_was_not_granted_does_not_run(pep, audit):
    """Being offered is not being granted: the token says who may."""
    told = refused(pep, [add, send], "send", '{"text": "hello"}')
    assert told.startswith("denied: no grant reaches `tool://mail/send`")
    assert [one["allow"] for one in bodies(audit, "decision")] == [True, False]


def test_arguments_that_were_not_granted_do_not_reach_the_tool(pep):
    session = coder(pep, allow=[RUN, Grant("tool://search/add", {"call"}, args={})])
    told = ask(session, [add], "add", '{"a": 1}').result["err"]
    assert told.startswith("denied: ")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ("", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"a": 1', "not a JSON object"),
        ('{"a": 1} {"a": 2}', "not a JSON object"),
        ('{"a": NaN}', "not a JSON object"),
        ('{"a": 1, "c": 2}', "there is no argument `c`; there are: a, b"),
        ('{"b": 2}', "the argument `a` is missing"),
        ('{"a": 9007199254740993}', "outside ±2^53"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "32"),
        ('{"a": "' + "x" * 40_000 + '"}', "32 KiB"),
        ('{"a": "\\ud800"}', "not a JSON object"),
    ],
)
def test_arguments_of_no_or_two_meanings_are_refused_before_the_gate(pep, audit, args, why):
    assert why in refused(pep, [add], "add", args)
    assert len(bodies(audit, "decision")) == 1


def test_of_an_argument_given_twice_the_tool_gets_the_one_that_was_decided_about(pep, audit):
    """JSON leaves open which one counts; here one reading is signed, logged and handed on."""
    seen = []

    @tool("tool://search/note")
    def note(a: int) -> None:
        seen.append(a)

    ask(coder(pep), [note], "note", '{"a": 1, "a": 2}')
    (value,) = seen
    digest = hashlib.sha256(json.dumps({"a": value}, separators=(",", ":")).encode()).hexdigest()
    assert bodies(audit, "decision")[-1]["args"] == digest


@pytest.mark.parametrize("name", ["", "add ", "ADD", "__class__", "a" * 200, "add\0"])
def test_only_the_names_that_were_offered_are_tools(pep, audit, name):
    told = refused(pep, [add], name)
    assert told.startswith("there is no tool `")
    assert len(told) < 600
    assert len(bodies(audit, "decision")) == 1


def test_a_toolbox_serves_one_run(pep):
    """A second run would act with the first one's key."""
    session, sandbox = coder(pep), Sandbox(wat("tools"))
    box = session.toolbox([add])
    first, second = (session.request("run", "code://ask", code=sandbox.sha256) for _ in range(2))
    assert sandbox.call(first, "ask", ["add", '{"a": 1}'], tools=box).result == {"ok": "3"}
    with pytest.raises(MalformedInput, match="serves one run"):
        sandbox.call(second, "ask", ["add", '{"a": 1}'], tools=box)
    assert sandbox.call(second, "ask", ["add", "{}"]).result["err"].endswith("no tools")


def test_a_second_run_cannot_act_with_the_first_runs_key(pep):
    """Neither with the first run's token nor with its own: each names one key."""
    session = coder(pep)
    first, second = (session.child("run", depth=0) for _ in range(2))
    assert first.identity.id != second.identity.id
    for key, token in ((first.identity, second.token), (second.identity, first.token)):
        wire = Message.seal(
            key, gate=pep.id, token=token, policy=Policy.CHAIN_ONLY.hash,
            action="call", resource="tool://search/add", args={"a": 1}, now=NOW,
        )  # fmt: skip
        with pytest.raises(Denied) as caught:
            pep.authorize(wire)
        assert caught.value.reason == "wrong_holder"


def test_a_run_hands_nothing_on(pep):
    child = coder(pep).child("run", depth=0)
    with pytest.raises(AttenuationViolation, match="depth"):
        child.delegate(PLANNER.id)


def test_a_run_gets_no_more_than_its_session_has(pep):
    with pytest.raises(AttenuationViolation):
        coder(pep).child("run", depth=0, limits=LIMITS.replace(memory=LIMITS.memory + 1))
    with pytest.raises(AttenuationViolation):
        coder(pep).child("run", depth=0, allow=[*ALLOW, Grant("tool://mail/**", {"call"})])


def test_code_whose_agent_is_revoked_between_two_calls_makes_no_second(pep, audit):
    """The run is interrupted too; what is asked here is that nothing more is done."""
    calls = []

    @tool("tool://search/once")
    def once() -> None:
        calls.append(1)
        pep.revoke(PLANNER.id, by=ROOT)

    outcome = ask(coder(pep), [once], "once", function="twice")
    assert outcome.status == "interrupted"
    assert calls == [1]
    assert [one["allow"] for one in bodies(audit, "decision")][1:] in ([True], [True, False])


def test_code_that_waits_for_a_tool_ends_in_its_time(pep, audit):
    """The tool is not ours to kill; its outcome is written when it has ended, after the run's."""
    begun, go = threading.Event(), threading.Event()
    ended = threading.Event()

    @tool("tool://search/slow")
    def slow() -> str:
        begun.set()
        go.wait(30)
        ended.set()
        return "done"

    session = coder(pep, limits=LIMITS.replace(time=timedelta(milliseconds=300)))
    outcome = ask(session, [slow], "slow")
    assert outcome.status == "timed_out"
    assert begun.is_set()
    assert not ended.is_set()
    assert [one["status"] for one in bodies(audit, "outcome")] == ["timed_out"]
    go.set()
    while len(bodies(audit, "outcome")) < 2:
        assert ended.wait(30)
    assert bodies(audit, "outcome")[-1]["status"] == "ok"


def test_what_a_tool_raises_is_told_to_the_code_and_its_class_alone_is_logged(pep, audit):
    @tool("tool://search/broken")
    def broken() -> None:
        raise OSError("no network at 10.0.0.1")

    told = refused(pep, [broken], "broken")
    assert told == "OSError: no network at 10.0.0.1"
    (outcome, _) = bodies(audit, "outcome")
    assert (outcome["status"], outcome["detail"]) == ("raised", "OSError")
    assert "10.0.0.1" not in str(list(audit.entries()))


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_ends_a_program_ends_one_call(pep, raised):
    @tool("tool://search/exit")
    def leave() -> None:
        raise raised

    assert refused(pep, [leave], "leave").startswith(type(raised).__name__)


def test_an_exception_that_cannot_be_shown_is_one_all_the_same(pep, audit):
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("never")

    @tool("tool://search/odd")
    def odd() -> None:
        raise OddError

    assert refused(pep, [odd], "odd") == "OddError"
    assert bodies(audit, "outcome")[0]["detail"] == "OddError"


@pytest.mark.parametrize("result", [b"bytes", object(), float("nan"), {1: {2}}])
def test_a_result_that_code_could_not_read_is_no_result(pep, audit, result):
    @tool("tool://search/odd")
    def odd() -> object:
        return result

    assert refused(pep, [odd], "odd").startswith("MalformedInput")
    assert bodies(audit, "outcome")[0]["status"] == "raised"


def test_an_answer_over_its_bound_is_not_passed_on(pep):
    @tool("tool://search/much")
    def much() -> str:
        return "x" * (2 << 20)

    assert "at most 1048576" in refused(pep, [much], "much")


def test_a_log_that_cannot_be_written_lets_no_call_through(pep, audit):
    calls = []

    @tool("tool://search/last")
    def last() -> None:
        calls.append(1)

    sandbox, session = Sandbox(wat("tools")), coder(pep)
    permit = session.request("run", "code://ask", code=sandbox.sha256)

    @tool("tool://search/shut")
    def shut() -> None:
        calls.append(0)
        audit.close()

    box = session.toolbox([last, shut])
    with pytest.raises(Exception, match="log"):
        sandbox.call(permit, "twice", ["shut", "{}"], tools=box)
    assert calls == [0]


def test_a_token_that_asks_for_attested_tools_is_not_served_by_others(pep):
    require = Requirement("tool", [ROOT.id], max_age=timedelta(hours=1))
    session = coder(pep, attestations=[require])
    assert ask(session, [add], "add", '{"a": 1}').result["err"].startswith("denied: ")


def test_the_source_that_runs_is_the_one_that_was_decided_about(pep, audit):
    outcome = code.run(coder(pep), "print(1)")
    decision = bodies(audit, "decision")[-1]
    assert decision["payload"] == hashlib.sha256(b"print(1)").hexdigest()
    assert outcome.stdout == "1\n"


def test_python_that_looks_for_more_finds_a_sandbox(pep):
    """No processes, sockets, native code or environment; the host's modules are not its own."""
    outcome = code.run(coder(pep), """
import os
tries = {
    "process": lambda: os.system("true"),
    "spawn": lambda: __import__("subprocess").run(["true"]),
    "socket": lambda: __import__("socket").create_connection(("127.0.0.1", 80)),
    "native": lambda: __import__("ctypes").CDLL(None),
    "root": lambda: os.listdir("/"),
    "write": lambda: open("/tmp/x", "w"),
    "moat": lambda: __import__("moat"),
}
for name, attempt in tries.items():
    try:
        print(name, "DONE", attempt())
    except Exception as error:
        print(name, "refused")
print(dict(os.environ))
""")  # fmt: skip
    *lines, env = outcome.check().stdout.splitlines()
    assert lines
    assert all(line.endswith("refused") for line in lines), lines
    assert env == "{}"


def test_a_toolbox_is_of_no_use_to_another_sessions_run(pep, audit):
    """Its calls would be another agent's, and would go on when this one is revoked."""
    sandbox, lender = Sandbox(wat("tools")), coder(pep)
    token = issue(holder=WORKER.id, allow=[RUN], limits=LIMITS)
    permit = Session(pep, WORKER, token).request("run", "code://ask", code=sandbox.sha256)
    with pytest.raises(MalformedInput, match="another session"):
        sandbox.call(permit, "ask", ["add", '{"a": 1}'], tools=lender.toolbox([add]))
    assert len(bodies(audit, "decision")) == 1


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [("add", 300 << 10, "at most 262144"), ("n" * 300, 2, "at most 256 bytes")],
)
def test_what_code_says_is_bounded_before_it_is_read(pep, name, size, why):
    """A tree of JSON takes a hundred times the bytes of its text."""
    text = "{" + " " * (size - 2) + "}"
    assert why in refused(pep, [add], name, text)


def test_calls_that_never_return_take_nothing_from_other_guests(pep, tmp_path):
    """More of them than any pool of threads has; then others still run, and read their files."""
    go = threading.Event()

    @tool("tool://search/hang")
    def hang() -> None:
        go.wait(120)

    session = coder(pep, limits=LIMITS.replace(time=timedelta(milliseconds=2)))
    try:
        told = []
        for _ in range(300):
            session_of_one = session.child("run", depth=0)
            told.append(ask(session_of_one, [hang], "hang"))
        full = [one for one in told if one.result and "too many calls" in one.result["err"]]
        assert 1 <= len(full) < 300
        free = coder(pep, limits=LIMITS.replace(read=[f"file://{tmp_path}/desk/**"]))
        (tmp_path / "desk").mkdir()
        (tmp_path / "desk" / "a").write_text("there")
        source = f"print(open({str(tmp_path / 'desk' / 'a')!r}).read())"
        assert code.run(free, source).check().stdout == "there\n"
    finally:
        go.set()


def test_a_tool_does_not_begin_once_its_run_is_over(pep, audit):
    """A decision that was under way then is a permit that nobody opened."""
    calls = []

    @tool("tool://search/late")
    def late() -> None:
        calls.append(1)

    session, sandbox = coder(pep), Sandbox(wat("tools"))
    box = session.toolbox([late])
    permit = session.request("run", "code://ask", code=sandbox.sha256)
    pep.revoke(PLANNER.id, by=ROOT)
    with pytest.raises(Denied):
        sandbox.call(permit, "ask", ["late", "{}"], tools=box)
    box.stop()
    assert calls == []
    assert len(bodies(audit, "decision")) == 1


def test_code_that_nobody_waits_for_any_more_is_stopped(pep):
    """Its thread would go on, and its calls would."""
    begun, calls = asyncio.Event(), []

    @tool("tool://search/slow")
    async def slow() -> None:
        calls.append(1)
        begun.set()
        await asyncio.sleep(60)

    source = "while True:\n    try: call_tool('slow')\n    except Exception: pass"

    async def main() -> None:
        task = asyncio.create_task(code.run_async(coder(pep), source, tools=[slow]))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert calls == [1]


def test_a_process_that_ends_while_a_tool_runs_ends_as_it_wanted(tmp_path):
    """The interpreter ends its own threads; one of ours would take the process with it."""
    script = f"""
import sys, threading
sys.path.insert(0, {str(HERE)!r})
from datetime import timedelta
from cast import GATE, ROOT, clock
from code_kit import LIMITS, ask, coder
from moat import AuditLog, Pep, Policy, tool
audit = AuditLog.open({str(tmp_path / "log")!r}, signer=GATE, anchor=None, clock=clock)
pep = Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=audit)

@tool("tool://search/busy")
def busy() -> None:
    while True:
        pass

limits = LIMITS.replace(time=timedelta(milliseconds=200))
print(ask(coder(pep, limits=limits), [busy], "busy").status)
sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.returncode) == ("timed_out\n", 7), done.stderr
