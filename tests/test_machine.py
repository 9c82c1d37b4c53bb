"""What `moat doctor` finds out about a machine, with a machine made up for each fault."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moat import _clash, _machine

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
NOW = 1_800_000_000


def told(findings: Iterator[_machine.Finding]) -> list[tuple[str, str]]:
    return [(one.status, one.message) for one in findings]


def statuses(findings: Iterator[_machine.Finding]) -> list[str]:
    return [one.status for one in findings]


def test_a_sandbox_that_does_not_stop_a_guest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert statuses(_machine._engine()) == ["ok"]
    monkeypatch.setattr(_machine, "_try", lambda *_: "ok")
    findings = told(_machine._engine())
    assert [status for status, _ in findings] == ["fail"] * 3
    assert "by its fuel: ended as `ok`" in findings[0][1]
    monkeypatch.setattr(_machine, "_try", lambda *_: 1 // 0)
    assert statuses(_machine._engine()) == ["fail"]


FEW = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (64 << 30,) * 2)
from moat import _machine
print(*[one.status for one in _machine._engine()])
"""


@LINUX
def test_the_sandbox_runs_where_there_are_few_addresses() -> None:
    """Too few for slots: each guest has memory of its own, and all limits."""
    done = subprocess.run([sys.executable, "-c", FEW], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["ok"]


def proc(monkeypatch: pytest.MonkeyPatch, folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(_machine, "_PROC", folder)


@LINUX
@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [(-1, 18, "ok"), (-1, 38, "warn"), (-1, 1, "warn"), (0, 0, "fail")],
)
def test_openat2_is_tried(
    monkeypatch: pytest.MonkeyPatch, answer: int, code: int, status: str
) -> None:
    answer = answer if answer < 0 else os.dup(0)
    monkeypatch.setattr(_machine, "_libc", lambda: SimpleNamespace(syscall=lambda *_: answer))
    monkeypatch.setattr(_machine.ctypes, "get_errno", lambda: code)
    assert statuses(_machine._beneath()) == [status]


@LINUX
@pytest.mark.parametrize(
    ("kernel", "status"),
    [((1, "core", 0), "ok"), ((1, "core", 100), "warn"), ((1, "|/bin/dump %p", 0), "warn"),
     ((0, "|/bin/dump %p", 100), "ok")],
)  # fmt: skip
def test_core_dumps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: tuple[int, str, int], status: str
) -> None:
    import resource

    dumpable, pattern, limit = kernel
    proc(monkeypatch, tmp_path, sys__kernel__core_pattern=pattern)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, -1))
    monkeypatch.setattr(_machine, "_libc", lambda: SimpleNamespace(prctl=lambda _: dumpable))
    assert statuses(_machine._cores()) == [status]


SWAPS = "Filename Type Size Used Priority\n"


@pytest.mark.parametrize(
    ("check", "files", "status"),
    [
        ("_ptrace", {"sys__kernel__yama__ptrace_scope": "1\n"}, "ok"),
        ("_ptrace", {"sys__kernel__yama__ptrace_scope": "0\n"}, "warn"),
        ("_ptrace", {}, "warn"),
        ("_swap", {}, "skip"),
        ("_swap", {"swaps": SWAPS}, "ok"),
        ("_swap", {"swaps": f"{SWAPS}/dev/zram0 partition 1 0 1\n"}, "ok"),
        ("_swap", {"swaps": f"{SWAPS}/dev/sda2 partition 1 0 1\n"}, "warn"),
    ],
)
def test_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: str, files: dict[str, str], status: str
) -> None:
    proc(monkeypatch, tmp_path, **files)
    assert statuses(getattr(_machine, check)()) == [status]


@pytest.mark.parametrize(("state", "status"), [(0, "ok"), (0x40, "warn"), (None, "skip")])
def test_a_clock_that_nobody_disciplines(
    monkeypatch: pytest.MonkeyPatch, state: int | None, status: str
) -> None:
    def adjtimex(buffer: Any) -> int:
        buffer._obj[5] = state or 0
        return -1 if state is None else 0

    monkeypatch.setattr(_machine, "_libc", lambda: SimpleNamespace(adjtimex=adjtimex))
    assert statuses(_machine._ntp()) == [status]


@pytest.mark.parametrize(
    ("wall", "moved", "status"), [(NOW, 0, "ok"), (NOW, 30, "warn"), (10, 0, "fail")]
)
def test_a_clock_that_was_set(
    monkeypatch: pytest.MonkeyPatch, wall: int, moved: int, status: str
) -> None:
    now = SimpleNamespace(time=lambda: wall, monotonic=lambda: 5)
    monkeypatch.setattr(_machine, "time", now)
    assert statuses(_machine._clock(wall - 5 - moved)) == [status]


def test_another_package_of_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = str(Path(_machine._native.__file__).parent.parent)
    monkeypatch.setattr(_clash, "foreign", list)
    monkeypatch.setattr(sys, "path", [home])
    assert statuses(_machine._package()) == ["ok"]
    (tmp_path / "moat").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), home])
    assert statuses(_machine._package()) == ["ok"]
    (tmp_path / "moat" / "__init__.py").touch()
    ((status, message),) = told(_machine._package())
    assert (status, str(tmp_path) in message) == ("warn", True)
    monkeypatch.setattr(_clash, "foreign", lambda: ["moat-util 1.0"])
    assert statuses(_machine._package()) == ["fail"]


@pytest.mark.parametrize(
    ("recorded", "status"), [("right", "ok"), ("changed", "fail"), ("elsewhere", "warn")]
)
def test_a_native_module_that_is_not_the_installed_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorded: str, status: str
) -> None:
    import importlib.metadata

    file = tmp_path / "_native.so"
    file.write_bytes(b"code" if recorded == "right" else b"other")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"code").digest()).rstrip(b"=").decode()
    entry = type("Entry", (str,), {"hash": SimpleNamespace(value=digest)})("_native.so")
    folder = tmp_path / "x" if recorded == "elsewhere" else tmp_path
    dist = SimpleNamespace(version="1", files=[entry], locate_file=lambda name: folder / name)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: dist)
    monkeypatch.setattr(_machine, "_native", SimpleNamespace(__file__=str(file)))
    assert statuses(_machine._native_module()) == [status]


def test_a_python_without_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    for on, status in ((True, "ok"), (False, "warn")):
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda on=on: on, raising=False)
        assert statuses(_machine._python()) == [status]


def test_what_is_linuxs_is_not_checked_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(_machine, "_CHECKS", {})
    statuses = {one.check: one.status for one in _machine.examine()}
    assert {name for name, status in statuses.items() if status == "skip"} == {*_machine._ON_LINUX}
