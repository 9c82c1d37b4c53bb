"""An agent at work: what it calls is asked for, run with its permit open, and logged."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading

import pytest

from cast import HOUR, LIMITS, NOW, PLANNER, ROOT, WORKER, issue
from guests.build import wat
from moat import (
    ANY,
    AttenuationViolation,
    Attestation,
    Denied,
    Grant,
    MalformedInput,
    Message,
    Pep,
    Policy,
    Requirement,
    Sandbox,
    Session,
    tool,
)
from moat._native import tool_digest

ran: list[object] = []


@tool("tool://search/web")
def search(q: str, *, limit: int = 2) -> list[str]:
    """Search the web."""
    ran.append((q, limit))
    return [q] * limit


@tool("tool://mail/send")
def send(text: str) -> None:
    ran.append(text)


@tool("tool://search/slow")
async def dig(q: str) -> str:
    await asyncio.sleep(0)
    return q.upper()


@pytest.fixture(autouse=True)
def nothing_ran():
    ran.clear()


@pytest.fixture
def session(pep):
    token = issue(allow=[Grant("tool://search/**", {"call"}), Grant("file:///code/**", {"run"})])
    return Session(pep, PLANNER, token)


def last(audit, kind):
    return [entry for entry in audit.entries() if entry["kind"] == kind][-1]


def test_a_call_runs_with_the_gates_yes(session):
    assert session.call(search, "moat", limit=3) == ["moat"] * 3
    assert ran == [("moat", 3)]


def test_a_call_without_a_grant_runs_nothing(session):
    with pytest.raises(Denied) as caught:
        session.call(send, "hello")
    assert caught.value.reason == "not_granted"
    assert ran == []


def test_the_gate_sees_defaults_and_positions_by_name(pep):
    """Where a grant allows no arguments, a default is one too."""
    token = issue(allow=[Grant("tool://search/web", {"call"}, args={})])
    session = Session(pep, PLANNER, token)
    assert search.bind("moat") == {"q": "moat", "limit": 2}
    with pytest.raises(Denied):
        session.call(search, "moat")


def test_a_wrong_call_is_an_error_before_the_gate_is_asked(session, audit):
    before = len(audit)
    with pytest.raises(TypeError, match="q"):
        session.call(search)
    assert len(audit) == before


def test_the_tool_gets_what_the_gate_saw(session):
    """A tuple becomes a list on the way, and what the caller changes later is not seen."""
    seen = []

    @tool("tool://search/web")
    def note(words: list[str]) -> None:
        seen.append(words)

    words = ("a", "b")
    session.call(note, words)
    assert seen == [["a", "b"]]


def test_the_outcome_holds_the_digest_of_the_result(session, audit):
    session.call(search, "ü", limit=1)
    digest = hashlib.sha256('["ü"]'.encode()).hexdigest()
    assert digest in str(last(audit, "outcome"))


def test_bytes_are_digested_as_they_are(session, audit):
    @tool("tool://search/raw")
    def raw() -> bytes:
        return b"\0\1"

    assert session.call(raw) == b"\0\1"
    assert hashlib.sha256(b"\0\1").hexdigest() in str(last(audit, "outcome"))


@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan")])
def test_a_result_that_cannot_be_recorded_is_an_error_and_an_outcome(session, audit, result):
    @tool("tool://search/odd")
    def odd() -> object:
        return result

    with pytest.raises(MalformedInput, match=f"not `{type(result).__name__}`"):
        session.call(odd)
    assert "raised" in str(last(audit, "outcome"))


def test_what_a_tool_raises_is_recorded_and_goes_on(session, audit):
    @tool("tool://search/broken")
    def broken() -> None:
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        session.call(broken)
    assert "raised" in str(last(audit, "outcome"))


def test_a_tool_does_not_act_around_the_gate():
    with pytest.raises(TypeError, match="`search` acts only through a gate; use `session.call"):
        search("moat")
    assert ran == []
    assert search.function("moat", limit=1) == ["moat"]


def test_a_tool_says_what_it_is():
    assert (search.resource, search.action) == ("tool://search/web", "call")
    assert search.__doc__ == "Search the web."
    assert search.__name__ == "search"
    assert repr(search) == "<tool search: call tool://search/web>"


@pytest.mark.parametrize("resource", ["tool://search/../mail", "HTTP://x/", "search", ""])
def test_a_tools_resource_is_canonical(resource):
    with pytest.raises(MalformedInput):
        tool(resource)(lambda: None)


@pytest.mark.parametrize(
    "function", [lambda *words: words, lambda **words: words, eval("lambda a, /: a")]
)
def test_a_tools_arguments_have_names(function):
    with pytest.raises(TypeError, match="has no name of its own"):
        tool("tool://search/web")(function)


def test_an_asynchronous_tool_is_awaited(session, audit):
    assert asyncio.run(session.call_async(dig, q="moat")) == "MOAT"
    assert hashlib.sha256(b'"MOAT"').hexdigest() in str(last(audit, "outcome"))


def test_the_gate_is_asked_off_the_loops_thread(session, pep, monkeypatch):
    threads = []
    authorize = pep.authorize

    def spy(wire, *, now=None):
        threads.append(threading.current_thread())
        return authorize(wire, now=now)

    monkeypatch.setattr(pep, "authorize", spy)
    asyncio.run(session.call_async(dig, q="moat"))
    assert threads
    assert threading.main_thread() not in threads


def test_a_cancelled_tool_is_an_outcome(session, audit):
    async def main():
        started = asyncio.Event()

        @tool("tool://search/never")
        async def never() -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(session.call_async(never))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert "raised" in str(last(audit, "outcome"))


def test_each_kind_of_tool_has_its_call(session):
    with pytest.raises(TypeError, match="asynchronous"):
        session.call(dig, q="moat")
    with pytest.raises(TypeError, match="not asynchronous"):
        asyncio.run(session.call_async(search, "moat"))


def test_calls_are_one_stream(session):
    found = [session.seal("call", "tool://search/web") for _ in range(3)]
    messages = [Message.from_bytes(wire) for wire in found]
    assert [message.number for message in messages] == [0, 1, 2]
    assert len({message.stream for message in messages}) == 1


def test_code_is_run_with_all_that_it_is_given_in_the_request(session, audit):
    echo = Sandbox(wat("echo"))
    outcome = session.run(echo, resource="file:///code/echo", stdin=b"words", argv=["-v"])
    assert outcome.check().stdout == b"words"
    decision = last(audit, "decision")
    assert echo.sha256.hex() in str(decision)
    assert hashlib.sha256(b'{"argv":["-v"]}').hexdigest() in str(decision)
    assert hashlib.sha256(b"words").hexdigest() in str(decision)


def test_code_is_run_under_the_tokens_limits(session):
    assert session.token.limits == LIMITS
    outcome = session.run(Sandbox(wat("spin")), resource="file:///code/spin")
    assert outcome.status == "out_of_fuel"


def test_code_without_a_grant_is_not_run(session):
    with pytest.raises(Denied):
        session.run(Sandbox(wat("echo")), resource="file:///other/echo")


def test_an_agent_delegates_less(session, pep):
    narrow = session.delegate(WORKER.id, allow=[Grant("tool://search/web", {"call"})], depth=0)
    assert narrow.holder == WORKER.id
    assert narrow.limits == session.token.limits
    worker = Session(pep, WORKER, narrow)
    assert worker.call(search, "moat") == ["moat"] * 2
    with pytest.raises(AttenuationViolation):
        session.delegate(WORKER.id, allow=[Grant("tool://mail/send", {"call"})])
    with pytest.raises(AttenuationViolation):
        session.delegate(WORKER.id, limits=LIMITS.replace(fuel=LIMITS.fuel + 1))


def test_a_token_held_by_another_is_refused(pep):
    thief = Session(pep, WORKER, issue(holder=PLANNER.id))
    with pytest.raises(Denied) as caught:
        thief.request("call", "tool://search/web")
    assert caught.value.reason == "wrong_holder"


def test_every_argument_may_be_allowed(pep):
    token = issue(ROOT, allow=[Grant("tool://search/web", {"call"}, args=ANY)], expires_in=HOUR)
    assert Session(pep, PLANNER, token).call(search, "x", limit=0) == []


DESCRIPTION = {"name": "find", "description": "finds pages"}


@tool("tool://search/find", description=DESCRIPTION)
def find(q: str) -> str:
    ran.append(q)
    return q


@tool("mcp://search/find", description=DESCRIPTION | {"description": "finds pages, and keys"})
async def poisoned(q: str) -> str:
    ran.append(q)
    return q


@pytest.mark.parametrize("by", ["the token", "the policy"])
def test_a_tool_runs_as_it_was_described_where_that_is_required(audit, by):
    required = Requirement("tool", [WORKER.id], max_age=HOUR)
    allow = [Grant(f"{scheme}://search/*", {"call"}) for scheme in ("tool", "mcp")]
    policy = Policy.requiring([required] if by == "the policy" else [])
    pep = Pep(policy=policy, roots=[ROOT.id], audit=audit)
    token = issue(allow=allow, attestations=[required] if by == "the token" else [])
    session = Session(pep, PLANNER, token)
    for described in (find, search):
        with pytest.raises(Denied) as denied:
            session.call(described, "moat")
        assert denied.value.reason == "not_attested"
    made = Attestation.sign(
        [WORKER], "tool", tool_digest(json.dumps(DESCRIPTION).encode()), now=NOW
    )
    pep.attest(made)
    assert session.call(find, "moat") == "moat"
    assert last(audit, "decision")["body"]["attested"] == [made.statement.hex()]
    with pytest.raises(Denied) as denied:
        asyncio.run(session.call_async(poisoned, "moat"))
    assert denied.value.reason == "not_attested"
    with pytest.raises(Denied):
        session.call(search, "moat")
    assert ran == ["moat"]


def test_a_description_is_named_only_where_tools_are_attested(pep, audit):
    code = Requirement("code", [WORKER.id], max_age=HOUR)
    session = Session(pep, PLANNER, issue(attestations=[code]))
    session.call(find, "moat")
    assert "code" not in last(audit, "decision")["body"]
