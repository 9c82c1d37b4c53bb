"""Code calls tools through the gate; an agent's own text runs in an interpreter of its language."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import threading
from datetime import timedelta

import pytest

from cast import PLANNER, issue
from code_kit import ALLOW, LIMITS, add, ask, coder, send
from guests.build import wat
from moat import Limits, MalformedInput, Sandbox, SandboxError, Session, code, tool

pytestmark = pytest.mark.usefixtures("interpreters")

SCRIPT = {
    "python": """
words = {"one": 1, "two": 2}
total = 0
for word, number in words.items():
    total += number
print("total", total)
print("sum", call_tool("add", a=total, b=4))
print(sorted(words))
squares = [n * n for n in range(4)]
print(squares)
""",
    "javascript": """
const words = {one: 1, two: 2};
let total = 0;
for (const number of Object.values(words)) {
  total += number;
}
console.log("total", total);
console.log("sum", call_tool("add", {a: total, b: 4}));
console.log(Object.keys(words).sort().join(" "));
console.log([0, 1, 2, 3].map(n => n * n).join(" "));
""",
}
PRINTED = {
    "python": "total 3\nsum 7\n['one', 'two']\n[0, 1, 4, 9]\n",
    "javascript": "total 3\nsum 7\none two\n0 1 4 9\n",
}
FAILS = {"python": "1 / 0", "javascript": "throw new Error('oh no')"}
SPINS = {"python": "while True: pass", "javascript": "for (;;) {}"}


def entries(audit, kind):
    return [entry["body"] for entry in audit.entries() if entry["kind"] == kind]


def test_code_calls_a_tool_with_arguments_by_name_and_defaults_filled_in(pep):
    session = coder(pep)
    assert ask(session, [add], "add", '{"a": 1}').result == {"ok": "3"}
    assert ask(session, [add], "add", '{"b": 5, "a": 1}').result == {"ok": "6"}


def test_a_call_is_a_decision_caused_by_the_run_with_an_outcome(pep, audit):
    ask(coder(pep), [add], "add", '{"a": 1}')
    run, call = entries(audit, "decision")
    assert (call["action"], call["resource"]) == ("call", "tool://search/add")
    assert call["holder"] == run["holder"] == str(PLANNER.id)
    assert call["causes"] == [run["message"]]
    assert call["args"] == hashlib.sha256(b'{"a":1,"b":2}').hexdigest()
    of_call, of_run = entries(audit, "outcome")
    assert (of_call["status"], of_run["status"]) == ("ok", "ok")
    assert of_call["result"] == hashlib.sha256(b"3").hexdigest()


def test_code_that_was_given_no_tools_is_told_so(pep):
    sandbox, session = Sandbox(wat("tools")), coder(pep)
    permit = session.request("run", "code://ask", code=sandbox.sha256)
    assert sandbox.call(permit, "ask", ["add", "{}"]).result == {
        "err": "this run was given no tools"
    }


def test_a_command_calls_tools_too(pep):
    """``Session.run`` offers them as ``Sandbox.call`` does; a core module cannot ask."""
    session = coder(pep)
    assert session.run(Sandbox(wat("empty")), resource="code://x", tools=[add]).status == "ok"


def test_a_tool_runs_with_the_callers_context(pep):
    seen = contextvars.ContextVar("seen", default="nothing")

    @tool("tool://search/context")
    def look() -> str:
        return seen.get()

    seen.set("mine")
    assert ask(coder(pep), [look], "look").result == {"ok": '"mine"'}


def test_tools_of_one_name_cannot_be_told_apart(pep):
    with pytest.raises(MalformedInput, match="the same name"):
        coder(pep).toolbox([add, add])


def test_an_asynchronous_tool_needs_a_loop(pep):
    @tool("tool://search/slow")
    async def slow() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    session = coder(pep)
    with pytest.raises(TypeError, match="run_async"):
        session.toolbox([slow])

    async def main() -> str:
        box = session.toolbox([slow], loop=asyncio.get_running_loop())
        sandbox = Sandbox(wat("tools"))
        permit = session.request("run", "code://ask", code=sandbox.sha256)
        outcome = await asyncio.to_thread(sandbox.call, permit, "ask", ["slow", "{}"], tools=box)
        return outcome.result["ok"]

    assert asyncio.run(main()) == json.dumps(threading.main_thread().name)


def test_a_child_session_has_a_key_of_its_own(pep):
    session = coder(pep)
    child = session.child("errand", depth=0)
    assert child.identity.id == child.token.holder != session.identity.id
    assert child.token.links[0] == session.token.links[0]


def test_a_missing_extra_says_what_to_install(pep, monkeypatch):
    monkeypatch.setitem(code.LANGUAGES, "python", ("no-such-distribution", "x.wasm"))
    monkeypatch.setattr(code, "_READY", {})
    with pytest.raises(SandboxError, match=r"install `moat\[python\]`"):
        code.run(coder(pep), "1")


def test_an_unknown_language_is_refused(pep):
    with pytest.raises(MalformedInput, match="python, javascript"):
        code.run(coder(pep), "1", language="cobol")


@pytest.mark.parametrize("language", code.LANGUAGES)
class TestInterpreter:
    """The real interpreters."""

    def test_a_script_runs_and_calls_a_tool(self, pep, audit, language):
        outcome = code.run(coder(pep), SCRIPT[language], language=language, tools=[add])
        assert (outcome.stdout, outcome.stderr, outcome.exit_code) == (PRINTED[language], "", 0)
        assert outcome.check() is outcome
        run, call = entries(audit, "decision")
        assert run["resource"] == f"code://{language}"
        assert run["payload"] == hashlib.sha256(SCRIPT[language].encode()).hexdigest()
        assert run["code"] == code.interpreter(language).sha256.hex()
        assert call["holder"] == run["holder"] != str(PLANNER.id)

    def test_what_goes_wrong_is_an_exception_inside(self, pep, language):
        source = {
            "python": "try: call_tool('send')\nexcept Exception as error: print(error)",
            "javascript": "try { call_tool('send', {}) } catch (error) { console.log(`${error}`) }",
        }[language]
        outcome = code.run(coder(pep), source, language=language, tools=[send])
        assert "no grant reaches `tool://mail/send`" in outcome.stdout

    def test_uncaught_it_is_the_end(self, pep, language):
        outcome = code.run(coder(pep), FAILS[language], language=language)
        assert (outcome.sandbox.status, outcome.exit_code) == ("ok", 1)
        with pytest.raises(SandboxError, match="the code failed"):
            outcome.check()

    def test_it_ends_at_the_limits_of_the_token(self, pep, language):
        session = coder(pep, limits=LIMITS.replace(fuel=20_000_000))
        outcome = code.run(session, SPINS[language], language=language)
        assert (outcome.sandbox.status, outcome.exit_code) == ("out_of_fuel", None)

    def test_limits_narrow_one_run(self, pep, language):
        limits = LIMITS.replace(fuel=10_000_000)
        outcome = code.run(coder(pep), SPINS[language], language=language, limits=limits)
        assert outcome.sandbox.fuel_used <= limits.fuel

    def test_nothing_passes_from_one_run_to_the_next(self, pep, language):
        session = coder(pep)
        keeps = {"python": "import sys; sys.kept = 1", "javascript": "globalThis.kept = 1"}
        looks = {
            "python": "import sys; print(hasattr(sys, 'kept'))",
            "javascript": "console.log('kept' in globalThis)",
        }
        assert code.run(session, keeps[language], language=language).exit_code == 0
        shown = code.run(session, looks[language], language=language).stdout
        assert shown.strip().lower() == "false"


def test_beside_the_loop_asynchronous_tools_run_on_it(pep):
    @tool("tool://search/slow")
    async def slow(q: str) -> str:
        await asyncio.sleep(0)
        return q.upper()

    session = coder(pep)
    source = "print(call_tool('slow', q='moat'))"
    outcome = asyncio.run(code.run_async(session, source, tools=[slow]))
    assert outcome.stdout == "MOAT\n"


def test_python_reads_the_files_of_the_token_and_no_others(pep, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("a note")
    (tmp_path / "other.txt").write_text("not this")
    session = coder(pep, limits=LIMITS.replace(read=[f"file://{tmp_path}/in/**"]))
    source = f"""
print(open({str(tmp_path / "in" / "notes.txt")!r}).read())
for path in {[str(tmp_path / "other.txt"), "/etc/hostname"]!r}:
    try: print(open(path).read())
    except OSError as error: print(type(error).__name__)
"""
    outcome = code.run(session, source).check()
    printed = outcome.stdout.splitlines()
    assert printed[0] == "a note"
    assert all(line.endswith("Error") for line in printed[1:]), printed


def test_a_session_without_depth_cannot_make_the_key_of_a_run(pep):
    from moat import AttenuationViolation

    session = Session(pep, PLANNER, issue(allow=ALLOW, limits=LIMITS, depth=0))
    with pytest.raises(AttenuationViolation, match="depth"):
        code.run(session, "1")


def test_the_interpreter_counts_fuel_unless_the_limits_say_unmetered(pep, monkeypatch):
    """Compiling one without a meter takes half a minute; one that exports nothing will do."""
    made = []

    def compiled(language, cache, *, metered):
        made.append((language, metered))
        return Sandbox(wat("command"), metered=metered)

    monkeypatch.setattr(code, "_READY", {})
    monkeypatch.setattr(code, "_compiled", compiled)
    free = LIMITS.replace(fuel=Limits.UNMETERED)
    for limits, narrowed in ((LIMITS, None), (free, None), (free, LIMITS), (free, free)):
        with pytest.raises(MalformedInput, match="no function"):
            code.run(coder(pep, limits=limits), "1", limits=narrowed)
        metered = (narrowed or limits).fuel != Limits.UNMETERED
        assert code.interpreter("python", metered=metered).metered is metered
    assert made == [("python", True), ("python", False)]


def test_the_token_of_a_run_ends_soon_after_it_could(pep, monkeypatch):
    seen = []
    whole = Session.child

    def child(self, name, **narrowing):
        seen.append(narrowing["expires_in"])
        return whole(self, name, **narrowing)

    monkeypatch.setattr(Session, "child", child)
    session = coder(pep, limits=LIMITS.replace(time=timedelta(seconds=5)))
    code.run(session, "1")
    assert seen == [timedelta(seconds=36)]
