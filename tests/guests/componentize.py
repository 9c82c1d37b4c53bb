"""Make a component of the Python in the folder `scripts/component`, as somebody elsewhere would.

The tool is the one of PyPI `componentize-py`, and the WIT files of WASI 0.2 are those of npm
`@bytecodealliance/jco`: both are downloaded once into the cache directory, and are used only if
their SHA-256 is what it was. The interface of tools is the one that `spec/code.md` shows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from guests.build import HERE
from guests.wheels import COMPONENTIZE, cached, program
from tools import missing, need

APP: Final = HERE / "scripts" / "component"
SPEC: Final = HERE.parents[1] / "spec" / "code.md"
WIT: Final = "@bytecodealliance/jco@1.35.0"
WIT_SHA256: Final = "893e80e993a2cb3735e195a0c2dc3ab7d683877a813bb024a27499ee86e12b13"
WASI: Final = "package/lib/wit/builtin/0.2.12/"


@cache
def component() -> bytes:
    """The component, with an interpreter and its library inside: 19 MB, made in 15 s."""
    tool = program(COMPONENTIZE)
    with tempfile.TemporaryDirectory() as place:
        wit, made = Path(place, "wit"), Path(place, "made.wasm")
        _interfaces(wit / "deps")
        (wit / "world.wit").write_bytes((APP / "world.wit").read_bytes())
        start = "import sys; from componentize_py.componentize_py import script; sys.exit(script())"
        words = ["-d", wit, "-w", "guest", "componentize", "-p", APP, "app", "-o", made]
        env = os.environ | {"PYTHONPATH": str(tool.parents[1])}
        command = [sys.executable, "-c", start, *map(str, words)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return made.read_bytes()


def _interfaces(folder: Path) -> None:
    """Put the WIT files of what the component imports into a folder, by package."""
    packages = cached(WIT, WIT_SHA256, ".tgz", _download)
    if isinstance(packages, str):
        missing(packages)
    with tarfile.open(packages) as opened:
        for member in opened:
            if member.isfile() and member.name.startswith(WASI):
                file = folder / member.name.removeprefix(WASI)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(opened.extractfile(member).read())
    (tools := folder / "tools").mkdir()
    (told,) = re.findall(r"```wit\n(package .*?)```", SPEC.read_text(), re.DOTALL)
    (tools / "package.wit").write_text(told)


def _download(place: Path) -> str:
    """What npm says last where it fails."""
    command = [need("npm"), "pack", "--silent", "--ignore-scripts", WIT]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=place)
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
