"""Compile the guests of this folder: `wat(name)` and `c(name)` give the bytes of a module.

A missing tool skips the test, saying why; where `MOAT_REQUIRE_TOOLS=1` is set it fails instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).resolve().parent
CLANG = ("clang", "--target=wasm32-wasi", "-Oz", "-Wall", "-Wextra", "-Werror")


@cache
def wat(name: str) -> bytes:
    """The module of `name.wat`, assembled by the test-only package `wasmtime`."""
    return assemble((HERE / f"{name}.wat").read_text())


def assemble(text: str) -> bytes:
    """The module of a WebAssembly text."""
    try:
        from wasmtime import wat2wasm
    except ImportError:
        missing("the Python package `wasmtime` is not installed")
    return bytes(wat2wasm(text))


@cache
def c(name: str, folder: Path = HERE) -> bytes:
    """The module of `name.c` in a folder, compiled by clang for WASI Preview 1."""
    if shutil.which("clang") is None or shutil.which("wasm-ld") is None:
        missing("clang or wasm-ld is not installed (Debian: clang lld)")
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "guest.wasm")
        command = [*CLANG, "-Wl,--strip-all", "-o", str(made), str(folder / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if "file not found" in done.stderr or "cannot open" in done.stderr:
                missing("no C library for WASI (Debian: wasi-libc libclang-rt-14-dev-wasm32)")
            pytest.fail(done.stderr)
        return made.read_bytes()


def missing(why: str) -> NoReturn:
    if os.environ.get("MOAT_REQUIRE_TOOLS") == "1":
        pytest.fail(why)
    pytest.skip(why)
