"""CPython and QuickJS, as they come from others, set on everything a guest must not do."""

from __future__ import annotations

import hashlib
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import forge
from guests.wheels import PYTHON, QUICKJS, Program, program
from moat import SandboxOutcome
from moat._native import Module
from threats.world import ROOT, WORKER, World

SCRIPTS = Path(forge.__file__).resolve().parent / "guests" / "scripts"
PLENTY = 10**13
Tree = dict[str, tuple[object, ...]]


def run(
    world: World, wanted: Program, *argv: object, read: Any = (), write: Any = (), **limits: Any
) -> SandboxOutcome:
    """Run a program under a forged token with these trees, its limits or others."""
    ours = wanted.limits
    time = round(ours.time / timedelta(milliseconds=1))
    axes = {"fuel": ours.fuel, "memory": ours.memory, "time": time, "output": ours.output} | limits
    trees = {
        axis: tuple(f"file://{place}/**" for place in places)
        for axis, places in (("read", read), ("write", write))
    }
    permit = world.allow(world.ask(forge.first(ROOT, WORKER, hosts=(), **trees, **axes)))
    module = Module(program(wanted).read_bytes())
    with world.growing_by("outcome"):
        return module.run(permit, args=["main", *map(str, argv)])


def python(world: World, text: str, *argv: object, **more: Any) -> str:
    """What a script of CPython prints; it ends well."""
    return run(world, PYTHON, "-c", text, *argv, **more).check().stdout.decode()


ATTEMPT = """
import os, sys
def attempt(body):
    try:
        found = body()
    except BaseException as error:
        return f"refused {type(error).__name__}"
    return f"DONE {found!r}"
"""
"""A script that goes on with ``print(attempt(lambda: …))``."""


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A tree that may be read, with links of every kind, beside one that may not."""
    home = tmp_path.resolve() / "yard"
    (home / "in" / "sub").mkdir(parents=True)
    (home / "private").mkdir()
    for n in range(6):
        (home / "in" / f"{n}.txt").write_text(f"text {n}\n" * n)
        (home / "in" / "sub" / f"{n}.bin").write_bytes(bytes(range(n * 40)))
    (home / "in" / "script.sh").write_text("#!/bin/sh\n")
    (home / "in" / "script.sh").chmod(0o755)
    (home / "in" / "0.txt").chmod(0o666)
    (home / "private" / "secret.txt").write_text("secret\n")
    (home / "in" / "file-link").symlink_to(home / "private" / "secret.txt")
    (home / "in" / "dir-link").symlink_to("../private")
    (home / "in" / "root-link").symlink_to("/")
    (home / "in" / "inner-link").symlink_to("1.txt")
    os.utime(home / "in" / "1.txt", ns=(10**18, 10**18 + 1))
    return home


def everything(place: Path) -> Tree:
    """A tree to the byte: kind, mode, owner, links, size, times of change, number, content."""
    found: Tree = {}
    for path in [place, *place.rglob("*")]:
        stat = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path)] = (
            stat.st_mode, stat.st_uid, stat.st_gid, stat.st_nlink, stat.st_size,
            stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, content,
        )  # fmt: skip
    return found


# --- files ---


@pytest.mark.parametrize("seed", range(3))
def test_what_may_only_be_read_is_the_same_afterwards(world: World, yard: Path, seed: int) -> None:
    """A thousand tries to change it: every byte, mode, time and number stays what it was."""
    before = everything(yard)
    trees = {"read": [yard / "in", SCRIPTS]}
    told = run(world, PYTHON, SCRIPTS / "vandal.py", yard / "in", seed, 1_000, **trees).check()
    assert told.stdout == b"1000 tries\n"
    assert everything(yard) == before


@pytest.mark.parametrize("seed", range(3))
def test_the_same_tries_change_what_may_be_written_and_only_that(
    world: World, yard: Path, seed: int
) -> None:
    """Which shows that the tries are real ones: links lead out of the tree, and nothing goes."""
    (out := yard / "out").mkdir()
    outside = everything(yard / "private")
    reading = everything(yard / "in" / "sub")
    (out / "sub").mkdir()
    for n in range(6):
        (out / "sub" / f"{n}.txt").write_text("text\n")
    (out / "way-out").symlink_to(yard / "private")
    (out / "file-out").symlink_to(yard / "private" / "secret.txt")
    first = everything(out)
    trees = {"read": [yard / "in", out, SCRIPTS], "write": [out]}
    run(world, PYTHON, SCRIPTS / "vandal.py", out, seed, 300, **trees).check()
    assert everything(out) != first
    assert everything(yard / "private") == outside
    assert everything(yard / "in" / "sub") == reading
    led = {path.readlink() for path in out.rglob("*") if path.is_symlink()}
    assert led <= {yard / "private", yard / "private" / "secret.txt"}, "it made a link"


OUTSIDE = [
    "/etc/passwd", "/proc/self/environ", "/proc/self/fd", "/dev/null", "/dev/zero", "/sys", "/",
    "{yard}", "{yard}/private", "{yard}/private/secret.txt", "{yard}/in/../private/secret.txt",
    "{yard}/in/file-link", "{yard}/in/dir-link", "{yard}/in/dir-link/secret.txt",
    "{yard}/in/root-link/etc/passwd", "{yard}/in/sub/../../private/secret.txt", "..", "../..",
    "{yard}/in/root-link{yard}/private/secret.txt", "//etc/passwd", "{yard}/in/..",
]  # fmt: skip


def test_python_opens_nothing_outside_its_folder(world: World, yard: Path) -> None:
    text = ATTEMPT + (
        "for path in sys.argv[1:]:\n"
        "    print(attempt(lambda: open(path).read()))\n"
        "    print(attempt(lambda: os.listdir(path)))\n"
        "    print(attempt(lambda: open(path, 'w').close()))\n"
        "    print(attempt(lambda: os.open(path, os.O_RDONLY)))\n"
    )
    names = [path.format(yard=yard) for path in OUTSIDE]
    before = everything(yard)
    said = python(world, text, *names, read=[yard / "in"]).splitlines()
    assert len(said) == 4 * len(OUTSIDE)
    assert {line.split()[0] for line in said} == {"refused"}, said
    assert everything(yard) == before
    inside = python(world, text, yard / "in" / "inner-link", read=[yard / "in"]).splitlines()
    assert inside[0] == "DONE 'text 1\\n'"


def test_quickjs_opens_nothing_outside_its_folder(world: World, yard: Path) -> None:
    text = (
        "for (const path of scriptArgs) print(JSON.stringify("
        "[std.loadFile(path), os.readdir(path)[0], os.open(path, os.O_RDONLY) >= 0]))"
    )
    names = [path.format(yard=yard) for path in OUTSIDE]
    asked = ("--std", "-e", text, "--")
    outcome = run(world, QUICKJS, *asked, *names, read=[yard / "in"]).check()
    said = outcome.stdout.decode().splitlines()
    assert len(said) >= len(OUTSIDE)
    assert set(said) == {"[null,[],false]"}, said
    inside = run(world, QUICKJS, *asked, yard / "in" / "1.txt", read=[yard / "in"]).check()
    assert b'"text 1\\n"' in inside.stdout


def test_python_finds_no_descriptor_but_its_own(world: World, yard: Path, tmp_path: Path) -> None:
    """Files that the host has open are not there under any number. The fourth is its library."""
    (tmp_path / "host.txt").write_text("of the host")
    with (tmp_path / "host.txt").open("rb"):
        text = ATTEMPT + (
            "found = [fd for fd in range(1024) if attempt(lambda: os.fstat(fd))[0] == 'D']\n"
            "print(found, [attempt(lambda: os.read(fd, 99)).split()[0] for fd in found])"
        )
        without = python(world, text)
        one = python(world, text, read=[yard / "in"])
    assert without == f"[0, 1, 2, 3] {['DONE', *['refused'] * 3]}\n"
    assert one == f"[0, 1, 2, 3, 4] {['DONE', *['refused'] * 4]}\n"


def test_a_tree_that_may_only_be_written_is_never_read(world: World, yard: Path) -> None:
    text = ATTEMPT + (
        "place = sys.argv[1]\n"
        "print(attempt(lambda: open(place + '/1.txt').read()))\n"
        "print(attempt(lambda: open(place + '/1.txt', 'r+').read()))\n"
        "print(attempt(lambda: os.listdir(place)))\n"
        "print(attempt(lambda: os.rename(place + '/1.txt', place + '/moved')))\n"
        "print(attempt(lambda: os.readlink(place + '/inner-link')))\n"
        "with open(place + '/made', 'w') as made: print(made.write('made'))\n"
    )
    said = python(world, text, yard / "in", write=[yard / "in"]).splitlines()
    assert {line.split()[0] for line in said[:-1]} == {"refused"}, said
    assert (yard / "in" / "made").read_text() == "made"
    assert (yard / "in" / "1.txt").read_text() == "text 1\n"


# --- other ways out ---


def test_python_reaches_no_network(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        text = ATTEMPT + (
            "import socket\n"
            "port = int(sys.argv[1])\n"
            "print(attempt(lambda: socket.create_connection(('127.0.0.1', port), 1)))\n"
            "print(attempt(lambda: socket.socket().connect(('127.0.0.1', port))))\n"
            "print(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))\n"
            "print(attempt(lambda: socket.socket(fileno=0).accept()))\n"
            "print(attempt(lambda: socket.socket(fileno=3).recv(1)))\n"
            "print(attempt(lambda: socket.getaddrinfo('localhost', 80)))\n"
        )
        said = python(world, text, server.getsockname()[1]).splitlines()
        assert len(said) == 6
        assert {line.split()[0] for line in said} == {"refused"}, said
        with pytest.raises(BlockingIOError):
            server.accept()


def test_python_starts_no_process_and_no_thread(world: World) -> None:
    text = ATTEMPT + (
        "import subprocess, threading\n"
        "print(attempt(lambda: subprocess.run(['/bin/sh', '-c', 'id'])))\n"
        "print(attempt(lambda: os.system('id')))\n"
        "print(attempt(lambda: os.fork()))\n"
        "print(attempt(lambda: os.execv('/bin/sh', ['sh'])))\n"
        "print(attempt(lambda: os.kill(1, 9)))\n"
        "print(attempt(lambda: threading.Thread(target=print).start()))\n"
        "print(attempt(lambda: __import__('ctypes')))\n"
        "print(attempt(lambda: os.mkfifo('/pipe')))\n"
    )
    said = python(world, text).splitlines()
    assert len(said) == 8
    assert {line.split()[0] for line in said} == {"refused"}, said


def test_python_learns_nothing_of_the_host(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_SECRET", "hunter2")
    text = ATTEMPT + (
        "import platform\n"
        "print(dict(os.environ), sys.argv)\n"
        "for name in ('getlogin', 'getpid', 'getuid', 'uname', 'cpu_count', 'getloadavg'):\n"
        "    print(attempt(lambda: getattr(os, name)()))\n"
        "print(platform.node(), platform.uname())\n"
    )
    said = python(world, text)
    assert said.startswith("{} ['-c']\n")
    for known in ("hunter2", socket.gethostname(), str(os.getpid()), os.uname().release):
        assert known not in said


def test_what_python_leaves_in_its_own_library_is_gone_in_the_next_run(world: World) -> None:
    """Its standard library is a file system in its memory; that is new each time."""
    text = ATTEMPT + (
        "import json\n"
        "print(hasattr(json, 'poisoned'))\n"
        "for name in ('json/__init__.py', 'x'):\n"
        "    place = '/usr/local/lib/python3.12/' + name\n"
        "    attempt(lambda: open(place, 'a').write('poisoned = True'))\n"
        "json.poisoned = sys.poisoned = True\n"
    )
    assert [python(world, text) for _ in range(3)] == ["False\n"] * 3


# --- more than its share ---


def test_python_that_loops_runs_out_of_fuel(world: World) -> None:
    outcome = run(world, PYTHON, "-c", "while True: pass", fuel=10**9)
    assert (outcome.status, outcome.fuel_used) == ("out_of_fuel", 10**9)


def test_python_that_catches_everything_is_stopped_all_the_same(world: World) -> None:
    text = "\nwhile True:\n  try:\n    while True: pass\n  except BaseException: pass"
    assert run(world, PYTHON, "-c", text, fuel=10**9).status == "out_of_fuel"
    assert run(world, PYTHON, "-c", text, fuel=PLENTY, time=1_000).status == "timed_out"


def test_python_that_sleeps_runs_out_of_time(world: World) -> None:
    outcome = run(world, PYTHON, "-c", "import time; time.sleep(3600)", time=1_500)
    assert outcome.status == "timed_out"
    assert outcome.elapsed < timedelta(seconds=20)


@pytest.mark.parametrize(
    "text",
    ["x = bytearray(10**9)", "x = [0]\nwhile True: x.append(bytes(10**6))", "x = 'a' * 10**9",
     "x = []\nx.append(x)\nwhile True: x = [x, x]", "x = 1 << 10**9"],
)  # fmt: skip
def test_python_that_takes_memory_runs_out_of_it(world: World, text: str) -> None:
    """It hears `MemoryError` and may go on; what it holds is never over its limit."""
    outcome = run(world, PYTHON, "-c", text, memory=32 << 20, fuel=PLENTY)
    assert outcome.status in {"exit", "out_of_memory", "trap"}, outcome
    assert outcome.memory_peak <= 32 << 20
    assert b"MemoryError" in outcome.stderr or outcome.status == "out_of_memory"


def test_python_that_may_have_too_little_memory_does_not_start(world: World) -> None:
    assert run(world, PYTHON, "-c", "print(1)", memory=4 << 20).status == "out_of_memory"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_python_that_floods_its_output(world: World, stream: str) -> None:
    text = f"import sys\nwhile True: sys.{stream}.write('x' * 100_000)"
    outcome = run(world, PYTHON, "-c", text, output=50_000, fuel=PLENTY)
    assert (outcome.status, outcome.truncated) == ("output_full", True)
    assert len(outcome.stdout) + len(outcome.stderr) == 50_000


def test_python_that_recurses_without_end_is_a_grade_and_no_crash(world: World) -> None:
    text = "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()"
    outcome = run(world, PYTHON, "-c", text, fuel=PLENTY, memory=32 << 20)
    assert outcome.status in {"exit", "trap", "out_of_memory"}, outcome
    assert python(world, "print('next')") == "next\n"


def test_quickjs_is_held_to_its_share(world: World) -> None:
    js = ("-e", "for (;;);")
    assert run(world, QUICKJS, *js, fuel=10**8).status == "out_of_fuel"
    assert run(world, QUICKJS, *js, fuel=PLENTY, time=500).status == "timed_out"
    text = "const all = []; for (;;) all.push(new ArrayBuffer(1e6))"
    outcome = run(world, QUICKJS, "-e", text, fuel=PLENTY)
    assert outcome.memory_peak <= QUICKJS.limits.memory
    assert outcome.status in {"exit", "out_of_memory"}
    outcome = run(world, QUICKJS, "-e", "for (;;) print('x'.repeat(1000))", output=10_000)
    assert (outcome.status, len(outcome.stdout)) == ("output_full", 10_000)


# --- which bytes ---


def test_what_runs_is_what_was_hashed_whatever_becomes_of_the_file(
    world: World, tmp_path: Path
) -> None:
    """Compiled modules are found by their bytes; the name of a file means nothing."""
    from guests.build import wat
    from moat import Denied, Sandbox

    file, good, other = tmp_path / "tool.wasm", wat("empty"), wat("exit")
    limits = {"fuel": 10**6, "memory": 1 << 20, "time": 10_000, "output": 100}
    chain = forge.first(ROOT, WORKER, hosts=(), read=(), write=(), **limits)
    code = hashlib.sha256(good).digest()
    file.write_bytes(good)
    before = Sandbox(file)
    file.write_bytes(other)
    after = Sandbox(file)
    assert before.sha256 == code
    assert after.sha256 == hashlib.sha256(other).digest()
    with pytest.raises(Denied) as denied:
        after.run(world.allow(world.ask(chain, code=code)))
    assert denied.value.reason == "permit_mismatch"
    assert before.run(world.allow(world.ask(chain, code=code))).status == "ok"
    assert after.run(world.allow(world.ask(chain))).exit_code == 300
