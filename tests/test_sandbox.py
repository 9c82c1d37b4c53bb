"""Code runs with a Permit, under its limits, and ends in an outcome."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cast import LIMITS, issue, seal
from guests.build import c, wat
from moat import (
    CodeCache,
    Denied,
    GuestTrap,
    LimitExceeded,
    Limits,
    MalformedInput,
    Moat,
    Sandbox,
    SandboxError,
)


@pytest.fixture
def permit(pep):
    """Permits for code, under some limits."""

    def make(limits: Limits = LIMITS, **asked):
        return pep.authorize(seal(issue(limits=limits), **asked))

    return make


def test_code_is_named_by_the_digest_of_its_bytes(tmp_path):
    module = wat("echo")
    (tmp_path / "echo.wasm").write_bytes(module)
    digest = hashlib.sha256(module).digest()
    for way in (module, tmp_path / "echo.wasm", str(tmp_path / "echo.wasm")):
        assert Sandbox(way).sha256 == digest


def test_what_goes_in_comes_out(permit):
    outcome = Sandbox(wat("echo")).run(permit(), stdin=b"some words")
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", b"some words", b"")
    assert outcome.check() is outcome
    assert 0 < outcome.fuel_used <= LIMITS.fuel
    assert outcome.to_dict()["status"] == "ok"


def test_a_guest_sees_what_it_is_given_and_nothing_else(permit, monkeypatch):
    monkeypatch.setenv("SECRET", "of the host")
    sandbox = Sandbox(c("inspect"))
    seen = sandbox.run(permit(), args=["one", "two"], env={"LANG": "C"}).check().stdout.decode()
    lines = seen.splitlines()
    assert [line for line in lines if line.startswith("arg ")] == ["arg main", "arg one", "arg two"]
    assert [line for line in lines if line.startswith("env ")] == ["env LANG=C"]
    assert [line for line in lines if line.startswith("dir ")] == []


def test_a_guest_that_never_ends_runs_out_of_fuel(permit):
    outcome = Sandbox(wat("spin")).run(permit())
    assert outcome.status == "out_of_fuel"
    with pytest.raises(LimitExceeded) as caught:
        outcome.check()
    assert caught.value.limit == "fuel"


def test_code_need_not_count_fuel_where_the_token_says_so(permit, audit):
    unmetered, metered = Sandbox(wat("echo"), metered=False), Sandbox(wat("echo"))
    assert (unmetered.metered, metered.metered) == (False, True)
    assert unmetered.sha256 == metered.sha256
    free = LIMITS.replace(fuel=Limits.UNMETERED)
    assert eval(repr(free)) == free
    spent = permit(free)
    assert unmetered.run(spent, stdin=b"x").check().fuel_used == Limits.UNMETERED
    assert next(audit.entries(spent.outcome))["body"]["fuel"] == Limits.UNMETERED
    assert metered.run(permit(free), stdin=b"x").check().fuel_used < LIMITS.fuel
    unspent = permit()
    with pytest.raises(MalformedInput, match="without a meter"):
        unmetered.run(unspent, stdin=b"x")
    assert metered.run(unspent, stdin=b"x").check().stdout == b"x"


def test_a_call_need_not_count_fuel_either(permit):
    unmetered = Sandbox(wat("typed"), metered=False)
    called = unmetered.call(permit(LIMITS.replace(fuel=Limits.UNMETERED)), "add", [1, 2]).check()
    assert (called.result, called.fuel_used) == (3, Limits.UNMETERED)
    with pytest.raises(MalformedInput, match="without a meter"):
        unmetered.call(permit(), "add", [1, 2])


def test_a_guest_is_stopped_by_the_clock(permit):
    slow = LIMITS.replace(fuel=1 << 62, time=timedelta(milliseconds=50))
    outcome = Sandbox(wat("spin")).run(permit(slow))
    assert outcome.status == "timed_out"
    with pytest.raises(LimitExceeded) as caught:
        outcome.check()
    assert caught.value.limit == "time"


def test_a_token_without_limits_runs_nothing(permit):
    outcome = Sandbox(wat("echo")).run(permit(Limits()), stdin=b"x")
    assert outcome.status != "ok"
    assert outcome.stdout == b""
    with pytest.raises(LimitExceeded):
        outcome.check()


def test_a_trap_is_an_outcome_and_raises_when_checked(permit):
    outcome = Sandbox(wat("divide")).run(permit())
    assert outcome.status == "trap"
    with pytest.raises(GuestTrap):
        outcome.check()


def test_an_exit_code_is_an_outcome_and_raises_when_checked(permit):
    outcome = Sandbox(wat("exit")).run(permit())
    assert (outcome.status, outcome.exit_code) == ("exit", 300)
    with pytest.raises(SandboxError, match="300"):
        outcome.check()


def test_the_outcome_is_in_the_log(permit, audit):
    spent = permit()
    Sandbox(wat("echo")).run(spent)
    line = next(audit.entries(spent.outcome))
    assert line["kind"] == "outcome"


def test_a_permit_that_names_code_runs_that_code_alone(permit):
    echo, spin = Sandbox(wat("echo")), Sandbox(wat("spin"))
    with pytest.raises(Denied) as caught:
        spin.run(permit(code=echo.sha256))
    assert caught.value.reason == "permit_mismatch"
    assert echo.run(permit(code=echo.sha256)).status == "ok"


def test_a_permit_runs_once(permit):
    spent, sandbox = permit(), Sandbox(wat("echo"))
    sandbox.run(spent)
    with pytest.raises(Denied) as caught:
        sandbox.run(spent)
    assert caught.value.reason == "permit_spent"


@pytest.mark.parametrize("module", [b"", b"\0asm", b"not wasm at all"])
def test_bytes_that_are_no_module_are_refused(module):
    with pytest.raises((SandboxError, MalformedInput)):
        Sandbox(module)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SandboxError, match="cannot read `.*lost.wasm`"):
        Sandbox(tmp_path / "lost.wasm")


def test_nothing_runs_without_a_permit():
    with pytest.raises(TypeError):
        Sandbox(wat("echo")).run(None)


# --- compiled code that is kept ---


def test_a_state_folder_keeps_compiled_code(tmp_path):
    with Moat.open(tmp_path / "state", anchor=None) as moat:
        assert moat.cache is moat.cache
        assert moat.cache.path == tmp_path / "state" / "cache" / "code"
        assert str(moat.cache.path) in repr(moat.cache)
        padded = wat("empty") + b"\0\x02\x01x"
        for _ in range(2):  # the second time it is in memory, and the disk is not asked
            assert Sandbox(padded, cache=moat.cache).sha256 == hashlib.sha256(padded).digest()
        assert moat.cache.counts() == {"found": 0, "missed": 1, "refused": 0, "unwritten": 0}
        (entry,) = moat.cache.path.iterdir()
        assert entry.name == hashlib.sha256(padded).hexdigest()


def test_what_cannot_be_kept_is_compiled(tmp_path):
    cache = CodeCache.open(tmp_path / "code", key=tmp_path / "keys" / "key")
    cache.path.rmdir()
    Sandbox(wat("empty") + b"\0\x02\x01y", cache=cache)
    assert cache.counts()["unwritten"] == 1


def test_a_secret_is_made_once_by_whoever_comes_first(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        key = tmp_path / "keys" / "key"
        opened = [pool.submit(CodeCache.open, tmp_path / "code", key=key) for _ in range(8)]
        assert len({repr(one.result()) for one in opened}) == 1
    assert len(key.read_bytes()) == 32
    assert [path.name for path in key.parent.iterdir()] == ["key"]


# --- components ---

SAME = [
    ("bool", [True, False]),
    ("u8", b"\x00\xff"),
    ("s8", [-128, 127]),
    ("u32", [0, 2**32 - 1]),
    ("s64", [-(2**63), 2**63 - 1]),
    ("u64", [2**64 - 1]),
    ("f32", [0.5, float("inf")]),
    ("f64", [0.1, -0.0]),
    ("char", ["a", "\U0001f980"]),
    ("string", ["", "naïve\0text"]),
    ("list", [b"", b"ab"]),
    ("tuple", [(1, "one")]),
    ("option", [None, 3]),
    ("option2", [None, {"some": None}, {"some": 4}]),
    ("result", [{"ok": 1}, {"err": "no"}]),
    ("record", [{"x": 1, "y": -2}]),
    ("variant", ["empty", {"dot": {"x": 3, "y": 4}}, {"round": 2.5}]),
    ("enum", ["red", "blue"]),
    ("flags", [[], ["read", "run"]]),
]


@pytest.mark.parametrize(("kind", "value"), SAME)
def test_values_of_every_type_pass_through_a_call(permit, kind, value):
    outcome = Sandbox(wat("typed")).call(permit(), f"same-{kind}", [value]).check()
    assert outcome.result == value
    assert type(outcome.result) is type(value)


def test_a_call_gives_a_value_and_its_digest_is_in_the_log(permit, audit):
    sandbox, spent = Sandbox(wat("typed")), permit()
    outcome = sandbox.call(spent, "add", {"a": 40, "b": 2})
    assert (outcome.check().result, outcome.result_json, outcome.exit_code) == (42, "42", 0)
    assert outcome.to_dict()["result_json"] == "42"
    line = next(audit.entries(spent.outcome))
    assert line["body"]["result"] == hashlib.sha256(b"42").hexdigest()


def test_the_arguments_of_a_message_are_those_of_a_call(permit):
    asked = permit(args={"a": 1, "b": 2})
    assert Sandbox(wat("typed")).call(asked, "moat:test/sums@1.2.0#add", asked.args).result == 3


def test_flags_may_be_a_set_and_floats_whole_numbers(permit):
    sandbox = Sandbox(wat("typed"))
    assert sandbox.call(permit(), "same-flags", [[{"run", "read"}]]).result == [["read", "run"]]
    assert sandbox.call(permit(), "same-f64", [[1]]).result == [1.0]


def test_the_bytes_say_what_runs(permit):
    for name, component in [("empty", False), ("command", True)]:
        sandbox = Sandbox(wat(name))
        assert sandbox.run(permit()).check().result is None
        assert sandbox.is_component is component
