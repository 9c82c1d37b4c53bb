"""Compiled code that somebody else put where it is kept, and bytes made to be slow to compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

import forge
from guests.bombs import bomb
from guests.build import c, wat
from moat import CodeCache, KeysExposed, MoatError, Sandbox, SandboxError, sandbox
from moat._native import Module
from moat.sandbox import Compiling
from threats.world import ROOT, WORKER, World

SHORT = Compiling(time=timedelta(seconds=1))
LATE = 10
"""Seconds after which a refusal would be no refusal, on a machine with much else to do."""

LOAD = """
import json, sys
from moat import CodeCache, Sandbox
module, folder, key = sys.argv[1:]
cache = CodeCache.open(folder, key=key)
sandbox = Sandbox(module, cache=cache)
print(json.dumps({"sha256": sandbox.sha256.hex(), **cache.counts()}))
"""


class Place:
    """A cache, its secret, and modules that processes load one after the other."""

    def __init__(self, home: Path) -> None:
        self.home, self.cache, self.key = home, home / "code", home / "keys" / "code.key"

    def load(self, name: str) -> dict[str, int]:
        """Load a guest in a new process; what its cache counted."""
        module = self.home / f"{name}.wasm"
        module.write_bytes(wat(name))
        argv = [sys.executable, "-c", LOAD, *map(str, (module, self.cache, self.key))]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        counts: dict[str, int | str] = json.loads(done.stdout)
        assert counts.pop("sha256") == sha256(wat(name)).hexdigest()
        return {name: int(count) for name, count in counts.items() if count}

    def entry(self, name: str) -> Path:
        return self.cache / sha256(wat(name)).hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path.resolve())


def swapped(place: Place) -> None:
    place.entry("exit").write_bytes(place.entry("echo").read_bytes())


def flipped(place: Place) -> None:
    data = bytearray(place.entry("exit").read_bytes())
    data[-1] ^= 1
    place.entry("exit").write_bytes(data)


def cut(place: Place) -> None:
    os.truncate(place.entry("exit"), place.entry("exit").stat().st_size - 1)


def linked(place: Place) -> None:
    place.entry("exit").rename(place.home / "aside")
    place.entry("exit").symlink_to(place.home / "aside")


def piped(place: Place) -> None:
    place.entry("exit").unlink()
    os.mkfifo(place.entry("exit"), 0o600)


def another_key(place: Place) -> None:
    place.key.write_bytes(bytes(32))


# --- what is kept on the disk --------------------------------------------------------------------


@pytest.mark.parametrize("tamper", [swapped, flipped, cut, linked, piped, another_key])
def test_a_cached_compilation_that_is_not_what_was_written(
    place: Place, tamper: Callable[[Place], None]
) -> None:
    """It is compiled again and takes the place; the process after that finds it."""
    place.load("echo")
    assert place.load("exit") == {"missed": 1}
    assert place.load("exit") == {"found": 1}
    tamper(place)
    assert place.load("exit") == {"refused": 1}
    assert place.load("exit") == {"found": 1}


def test_a_cache_that_others_could_write(place: Place) -> None:
    place.load("exit")
    place.cache.chmod(0o720)
    with pytest.raises(SandboxError, match="open to other users"):
        CodeCache.open(place.cache, key=place.key)
    place.cache.chmod(0o700)
    (place.home / "alias").symlink_to(place.cache)
    with pytest.raises(SandboxError, match="refused"):
        CodeCache.open(place.home / "alias", key=place.key)


def test_a_secret_that_others_could_read(place: Place) -> None:
    place.load("exit")
    assert place.key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(MoatError, match="must not lie in it"):
        CodeCache.open(place.cache, key=place.cache / "code.key")
    place.key.chmod(0o640)
    with pytest.raises(MoatError, match="open to other users"):
        CodeCache.open(place.cache, key=place.key)
    place.key.rename(place.home / "aside")
    place.key.symlink_to(place.home / "aside")
    with pytest.raises(MoatError, match="symbolic link"):
        CodeCache.open(place.cache, key=place.key)
    place.key.unlink()
    (place.home / "aside").rename(place.key)
    place.key.chmod(0o600)
    place.key.parent.chmod(0o770)
    with pytest.raises(MoatError, match="open to other users"):
        CodeCache.open(place.cache, key=place.key)


def test_a_secret_that_was_cut(place: Place) -> None:
    """A short one would be easy to guess."""
    place.load("exit")
    os.truncate(place.key, 31)
    with pytest.raises(MoatError, match="32 bytes"):
        CodeCache.open(place.cache, key=place.key)


def test_a_guest_with_a_directory_of_compiled_code(world: World, place: Place) -> None:
    """Wherever the cache lies: no guest of a sandbox that uses it reads or writes there."""
    sandbox = Sandbox(c("files"), cache=CodeCache.open(place.cache, key=place.key))
    axes = {"fuel": 10**6, "memory": 1 << 20, "time": 10_000, "output": 100}
    for reached in (place.cache, place.home, place.key.parent):
        for axis in ("read", "write"):
            trees = {"read": (), "write": ()} | {axis: (f"file://{reached}/**",)}
            permit = world.allow(world.ask(forge.first(ROOT, WORKER, **trees, **axes)))
            with world.growing_by(), pytest.raises(KeysExposed):
                sandbox.run(permit)


# --- what is slow to compile ---------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "size"), [("locals", 5000), ("values", 1000), ("branches", 2500)])
def test_a_bomb_of_time(kind: str, size: int) -> None:
    """A quick machine gets to the bound on memory within the second."""
    began = time.monotonic()
    with pytest.raises(SandboxError, match="longer than 1|more than 4096 MiB"):
        Sandbox(bomb(kind, size), compiling=SHORT)
    assert time.monotonic() - began < LATE
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_bomb_of_memory() -> None:
    began = time.monotonic()
    with pytest.raises(SandboxError, match="more than 256 MiB of memory"):
        Sandbox(bomb("values", 20_000), compiling=Compiling(memory=256 << 20))
    assert time.monotonic() - began < 60


def compiled_by(script: str, wasm: bytes = b"", time: timedelta = SHORT.time) -> None:
    """Load a module with another program in the place of the one that compiles."""
    wasm = wasm or wat("marks")
    Module(wasm, compiler=([sys.executable, "-I", "-S", "-c", script], time, 1 << 30))


def test_the_process_that_compiles_is_given_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variables, no descriptors, no folder of ours."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the host")
    seen = tmp_path / "seen"
    script = f"""
import json, os
files = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
json.dump([dict(os.environ), files, os.getcwd()], open({str(seen)!r}, "w"))
"""
    with (tmp_path / "open").open("w"), pytest.raises(SandboxError, match="gave no answer"):
        compiled_by(script, time=timedelta(seconds=60))
    variables, files, folder = json.loads(seen.read_text())
    known = {"MOAT_COMPILES", "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX"}
    known |= {"LC_CTYPE", "LD_LIBRARY_PATH"}  # Python sets the first, and may need the other
    assert set(variables) <= known
    assert (files[:3], folder) == ([0, 1, 2], "/")
    assert len(files) <= 4  # the list itself


@pytest.mark.parametrize(
    "script",
    [
        "import time; time.sleep(600)",
        "import sys; sys.stdin.buffer.read(); import time; time.sleep(600)",
        "import sys\nwhile True: sys.stdin.buffer.read(1); sys.stdout.buffer.flush()",
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    ],
)
def test_a_compiler_that_never_answers(script: str) -> None:
    """It may not even read: what it is given is more than a pipe holds."""
    began = time.monotonic()
    padded = wat("marks") + b"\0\x80\x80\x80\x01\x01x" + bytes((2 << 20) - 2)
    with pytest.raises(SandboxError, match="compiling took longer than 1"):
        compiled_by(script, padded)
    assert time.monotonic() - began < LATE


@pytest.mark.parametrize("script", ["", "print('no')", "import os; os.abort()", "1 / 0"])
def test_a_compiler_that_answers_nothing_of_use(script: str) -> None:
    with pytest.raises(SandboxError):
        compiled_by(script, time=timedelta(seconds=60))


def test_a_process_that_compiles_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that is its own interpreter would start itself again and again."""
    monkeypatch.setenv("MOAT_COMPILES", "1")
    with pytest.raises(SandboxError, match="this is one already"):
        Sandbox(bomb("locals", 1))


@pytest.mark.parametrize("where", ["", None, "/nowhere/python"])
def test_without_an_interpreter_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, where: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", where)
    with pytest.raises(SandboxError, match=r"set `sys\.executable`"):
        Sandbox(bomb("locals", 2))


def test_a_frozen_application_does_not_start_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert sandbox._compiler() == []
    with pytest.raises(SandboxError, match="no program is named"):
        Sandbox(bomb("locals", 3))
