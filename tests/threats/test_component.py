"""Components do everything that code in a sandbox must not, in the richer ways they have."""

from __future__ import annotations

import hashlib
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import forge
from forge import NOW
from guests.build import assemble, wat
from moat import Denied, MalformedInput, Permit, Sandbox, SandboxError, SandboxOutcome
from threats.world import ROOT, WORKER, World

LIMITS = {"fuel": 50_000_000, "memory": 4 << 20, "time": 60_000, "output": 10_000}
SHORT = {"time": 100, "fuel": 10**15}
ACCESS, LOOP, NOT_PERMITTED, DONE = 0, 15, 31, 255
READ, WRITE, CREATE = 1, 2, 1
FOLLOW, STAY = True, False
HTTP_REQUEST_DENIED = 15


def permitted(world: World, *, read: str = "", write: str = "", **limits: Any) -> Permit:
    """A permit under these limits, for a directory or none."""
    trees = {"read": (f"file://{read}/**",) if read else (), "write": ()}
    trees |= {"write": (f"file://{write}/**",)} if write else {}
    chain = forge.first(ROOT, WORKER, hosts=(), **trees, **(LIMITS | limits))
    return world.allow(world.ask(chain))


def logged(world: World, permit: Permit, outcome: SandboxOutcome) -> None:
    """The outcome's line says how it ended, what it took and what it gave."""
    entry = world.entries(len(world.gate) - 1)[0]["body"]
    assert entry["decision"] == permit.entry
    assert (entry["status"], entry["fuel"]) == (outcome.status, outcome.fuel_used)
    given = outcome.stdout if outcome.result_json is None else outcome.result_json.encode()
    assert entry["result"] == hashlib.sha256(given).hexdigest()


def call(world: World, wasm: bytes, name: str, *args: Any, **limits: Any) -> SandboxOutcome:
    """How one call ended, which its line in the log says too."""
    sandbox, permit = Sandbox(wasm), permitted(world, **limits)
    with world.growing_by("outcome"):
        outcome = sandbox.call(permit, name, args)
    logged(world, permit, outcome)
    return outcome


def run(world: World, text: str, **limits: Any) -> SandboxOutcome:
    """How a command ended."""
    sandbox, permit = Sandbox(assemble(text)), permitted(world, **limits)
    with world.growing_by("outcome"):
        outcome = sandbox.run(permit)
    logged(world, permit, outcome)
    return outcome


def command(body: str) -> str:
    """A component that runs ``run`` of its last module."""
    return f"""(component {body}
      (core module $main (func (export "run") (result i32) (i32.const 0)))
      (core instance $main (instantiate $main))
      (func $run (result (result)) (canon lift (core func $main "run")))
      (instance $run (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $run)))"""


def test_a_component_that_ends(world: World) -> None:
    permit = permitted(world)
    outcome = Sandbox(wat("command")).run(permit)
    assert outcome.check().result is None
    logged(world, permit, outcome)
    assert run(world, command("")).status == "ok"


def test_a_component_that_imports_everything_gains_nothing_by_it(world: World) -> None:
    outcome = Sandbox(wat("world")).run(permitted(world))
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", b"", b"")


# --- what it can spend ---


@pytest.mark.parametrize("body", ["(memory 16)", "(table 131072 funcref)"])
def test_a_bomb_of_many_memories_or_tables(world: World, body: str) -> None:
    """Each is small; together they are over what the token gives."""
    for count, status in [(4, "ok"), (5, "out_of_memory"), (16, "out_of_memory")]:
        many = f"(core module $big {body})" + "(core instance (instantiate $big))" * count
        outcome = run(world, command(many))
        assert outcome.status == status, count
        assert outcome.memory_peak <= LIMITS["memory"]


def test_a_bomb_that_unfolds_while_it_is_compiled() -> None:
    levels = "(component $c0 (core module $m) (core instance (instantiate $m)))"
    for level in range(1, 40):
        levels += f"(component $c{level} {f'(instance (instantiate $c{level - 1}))' * 2})"
    with pytest.raises(MalformedInput, match="instances"):
        Sandbox(assemble(f"(component {levels} (instance (instantiate $c39)))"))
    with pytest.raises(MalformedInput, match="levels"):
        Sandbox(assemble("(component " * 30 + ")" * 30))


@pytest.mark.parametrize(
    ("name", "args"),
    [("sleep", [10**15]), ("sleep", [2**64 - 1]), ("naps", []), ("poll", [1000, 10**15])],
)
def test_a_component_that_waits_in_the_host_runs_out_of_time(
    world: World, name: str, args: list[int]
) -> None:
    outcome = call(world, wat("waits"), name, *args, **SHORT)
    assert outcome.status == "timed_out"
    assert outcome.elapsed < timedelta(seconds=5)
    assert outcome.result_json is None


def test_a_component_that_loops(world: World) -> None:
    assert call(world, wat("typed"), "spin").status == "out_of_fuel"
    assert call(world, wat("typed"), "spin", **SHORT).status == "timed_out"


@pytest.mark.parametrize("axis", ["fuel", "time", "memory"])
def test_an_axis_of_zero_is_nothing_to_a_component(world: World, axis: str) -> None:
    expected = {"fuel": "out_of_fuel", "time": "timed_out", "memory": "out_of_memory"}
    assert call(world, wat("typed"), "add", 1, 2, **{axis: 0}).status == expected[axis]


def test_a_component_that_floods_with_its_result(world: World) -> None:
    outcome = call(world, wat("typed"), "many", 100_000)
    assert (outcome.status, outcome.result) == ("output_full", None)
    outcome = call(world, wat("typed"), "many-bools", 3 << 20, output=1 << 40)
    assert outcome.status == "trap"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("random", [1 << 30]),
        ("random", [2**64 - 1]),
        ("handles", [1_000_000]),
        ("pollables", [1_000_000]),
        ("poll", [60_000, 0]),
    ],
)
def test_a_component_that_fills_the_host(world: World, name: str, args: list[int]) -> None:
    outcome = call(world, wat("waits"), name, *args)
    assert outcome.status == "trap", outcome.trap


# --- what it can reach ---


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A tree to grant, with links that lead out of it to the secret beside it."""
    (tmp_path / "yard" / "in" / "sub").mkdir(parents=True)
    yard = (tmp_path / "yard" / "in").resolve()
    (yard.parent / "secret").write_text("secret")
    (yard / "note").write_text("note")
    (yard / "relative").symlink_to("../secret")
    (yard / "absolute").symlink_to(yard.parent / "secret")
    (yard / "up").symlink_to("..")
    (yard / "magic").symlink_to("/proc/self/root")
    return yard


ESCAPES = [
    "../secret", "sub/../../secret", "./../secret", "relative", "absolute", "up/secret", "/",
    "/etc/passwd", "magic/etc/passwd", "..", "up", "magic",
]  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES)
def test_a_component_stays_in_its_directory(world: World, yard: Path, path: str) -> None:
    for how, flags in [(0, READ), (0, WRITE), (CREATE, WRITE)]:
        outcome = call(
            world, wat("paths"), "open", path, FOLLOW, how, flags, read=str(yard), write=str(yard)
        )
        assert outcome.check().result != DONE, (how, flags)
    got = call(world, wat("paths"), "read", path, FOLLOW, READ, read=str(yard)).check()
    assert "err" in got.result
    assert (yard.parent / "secret").read_text() == "secret"


def test_a_component_plants_no_link(world: World, yard: Path) -> None:
    for target in ["../secret", "/etc/passwd", "note"]:
        outcome = call(
            world, wat("paths"), "symlink", target, "sl", read=str(yard), write=str(yard)
        )
        assert outcome.check().result == NOT_PERMITTED
    assert not (yard / "sl").is_symlink()


def test_a_component_that_may_only_read_changes_nothing(world: World, yard: Path) -> None:
    def tree() -> list[tuple[str, int, int, bytes]]:
        found = sorted(path for path in yard.rglob("*") if not path.is_symlink())
        stats = [(path, path.stat()) for path in found]
        return [
            (str(path), at.st_mode, at.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path, at in stats
        ]

    before = tree()
    for args in [
        ("note", False, 8, WRITE),
        ("new", False, CREATE, WRITE),
        ("note", True, 0, WRITE),
    ]:
        assert call(world, wat("paths"), "open", *args, read=str(yard)).result == NOT_PERMITTED
    assert call(world, wat("paths"), "rename", "note", "other", read=str(yard)).result != DONE
    assert tree() == before


def test_a_component_that_may_only_write_reads_nothing(world: World, yard: Path) -> None:
    for flags in [READ, READ | WRITE, 0]:
        got = call(world, wat("paths"), "read", "note", STAY, flags, write=str(yard)).check()
        assert got.result == {"err": ACCESS}
    assert call(world, wat("paths"), "list", 1, write=str(yard)).result == ACCESS


def test_a_component_opens_no_pipe_and_no_socket(world: World, yard: Path) -> None:
    os.mkfifo(yard / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(yard / "sock"))
        for path in ["pipe", "sock"]:
            for flags in [READ, WRITE]:
                outcome = call(
                    world, wat("paths"), "open", path, FOLLOW, 0, flags,
                    read=str(yard), write=str(yard), **SHORT | {"time": 10_000},
                )  # fmt: skip
                assert (outcome.status, outcome.result) == ("ok", ACCESS)


@pytest.mark.parametrize(
    ("name", "arg"),
    [("tcp", False), ("tcp", True), ("udp", False), ("udp", True), ("look-up", "localhost")],
)
def test_a_component_has_no_sockets_and_no_names(world: World, name: str, arg: Any) -> None:
    access_denied = 1
    assert call(world, wat("net"), name, arg).check().result == access_denied


@pytest.mark.parametrize("authority", ["example.com", "127.0.0.1", "[::1]:8080", "localhost"])
def test_a_component_reaches_no_host(world: World, authority: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        for host in [authority, f"127.0.0.1:{port}"]:
            outcome = call(world, wat("http"), "fetch", 0, host, "/")
            assert outcome.check().result == {"err": HTTP_REQUEST_DENIED}
        with pytest.raises(BlockingIOError):
            server.accept()


def test_headers_without_end(world: World) -> None:
    for size, count in [(100_000, 1), (0, 1_000_000), (1_000, 1_000)]:
        outcome = call(world, wat("http"), "header", "x-a", bytes(b"a" * size), count)
        assert outcome.status == "trap", (size, count)


@pytest.mark.parametrize("name", ["Host", "proxy-authorization", "transfer-encoding", "Upgrade"])
def test_headers_that_are_not_its_own(world: World, name: str) -> None:
    forbidden = 1
    assert call(world, wat("http"), "header", name, b"x", 1).check().result == forbidden


# --- what it is made of ---

NESTED = {
    "threads": "(memory 1 1 shared)",
    "tail calls": "(func $f (return_call $f))",
    "exceptions": "(tag $e) (func (throw $e))",
    "two memories": "(memory 1) (memory 1)",
    "garbage": "(type (struct (field i32)))",
    "wide memory": "(memory i64 1)",
}


@pytest.mark.parametrize("body", NESTED.values(), ids=NESTED.keys())
def test_a_module_inside_uses_what_is_off(body: str) -> None:
    for text in [
        f"(component (core module {body}))",
        f"(component (component (core module {body})))",
    ]:
        with pytest.raises(MalformedInput):
            Sandbox(assemble(text))


@pytest.mark.parametrize(
    "body",
    [
        "(type (future u8))", "(type (stream u8))", "(core func (canon thread.index))",
        "(core func (canon error-context.drop))", "(core func (canon waitable-set.new))",
    ],
)  # fmt: skip
def test_a_component_uses_what_is_off(body: str) -> None:
    with pytest.raises(MalformedInput):
        Sandbox(assemble(f"(component {body})"))


@pytest.mark.parametrize(
    "imported",
    [
        '(import "system" (func))',
        '(import "wasi:cli/environment@0.2.0" (instance (export "shell" (func))))',
        '(import "hyperlight:sandbox/tools" (instance (export "dispatch" (func))))',
    ],
)
def test_a_component_imports_anything_else(imported: str) -> None:
    with pytest.raises(SandboxError, match="import refused"):
        Sandbox(assemble(f"(component {imported})"))


# --- what it is asked ---

CONFUSED: list[tuple[str, Any]] = [
    ("add", [True, 1]),
    ("add", ["1", 1]),
    ("add", [1.0, 1]),
    ("add", [-1, 1]),
    ("add", [2**32, 1]),
    ("add", [2**200, 1]),
    ("add", [1]),
    ("add", [1, 2, 3]),
    ("add", {"a": 1, "c": 2}),
    ("add", {"a": 1}),
    ("add", {1: 1, 2: 2}),
    ("add", "12"),
    ("add", b"12"),
    ("same-u8", ["abc"]),
    ("same-string", [[b"abc"]]),
    ("same-string", [["\ud800"]]),
    ("same-record", [[{"x": 1}]]),
    ("same-record", [[{"x": 1, "y": 2, "__class__": 3}]]),
    ("same-variant", [["dot"]]),
    ("same-enum", [[0]]),
    ("same-flags", [[["read", "read"]]]),
    ("same-f32", [[1e300]]),
    ("same-tuple", [[1j]]),
    ("take", [0]),
    ("take-inside", [[None, 0]]),
    ("missing", []),
    ("", []),
    ("moat:test/sums@1.2.0", []),
    ("moat:test/sums@1.2.0#missing", []),
]


@pytest.mark.parametrize(("name", "args"), CONFUSED, ids=ascii)
def test_a_call_that_does_not_fit_does_not_spend_the_permit(
    world: World, name: str, args: Any
) -> None:
    permit, sandbox = permitted(world), Sandbox(wat("typed"))
    with world.growing_by(), pytest.raises(MalformedInput):
        sandbox.call(permit, name, args)
    assert sandbox.call(permit, "add", [1, 2]).check().result == 3


def test_a_value_that_contains_itself(world: World) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(MalformedInput, match="too deep"):
        Sandbox(wat("typed")).call(permitted(world), "same-list", ring)


def test_a_permit_for_other_code_calls_nothing(world: World) -> None:
    good, other = Sandbox(wat("typed")), Sandbox(wat("waits"))
    chain = forge.first(ROOT, WORKER, hosts=(), read=(), write=(), **LIMITS)
    permit = world.allow(world.ask(chain, code=good.sha256))
    with pytest.raises(Denied) as denied:
        other.call(permit, "naps")
    assert denied.value.reason == "permit_mismatch"
    assert good.call(permit, "add", {"b": 2, "a": 1}).check().result == 3
    with pytest.raises(Denied) as denied:
        good.call(permit, "add", [1, 2])
    assert denied.value.reason == "permit_spent"


def test_a_library_is_not_run_and_a_module_not_called(world: World) -> None:
    permit = permitted(world)
    with world.growing_by(), pytest.raises(MalformedInput, match="call one of its functions"):
        Sandbox(wat("typed")).run(permit)
    with world.growing_by(), pytest.raises(MalformedInput, match="no typed functions"):
        Sandbox(wat("empty")).call(permit, "_start")
    refused = world.gate.decide(
        world.ask(forge.first(ROOT, WORKER), resource="tool://shell"), now=NOW
    )
    with pytest.raises(TypeError):
        Sandbox(wat("typed")).call(refused.permit, "add", [1, 2])  # type: ignore[arg-type]
