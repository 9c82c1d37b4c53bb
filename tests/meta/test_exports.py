"""What a person may import is one written list, and importing it is cheap and clean."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata, resources

import pytest

import moat
from moat import errors

SURFACE = """
    ANY AgentId AttenuationViolation AuditError AuditLog AuditUnavailable ChainBroken Checkpoint
    ConsistencyProof Control Decision Denial Denied EgressDenied Grant GuestTrap Identity
    InclusionProof InvalidSignature LimitExceeded Limits Link MalformedInput Message
    MessageRefused Moat MoatError Pattern Pep Permit Policy REASONS Report RolledBack Sandbox
    SandboxError SandboxOutcome Sender Session Token TokenRefused UnknownHandle __version__
    canonicalize errors tool
""".split()  # noqa: SIM905 - a list that a person reads


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_public_names_are_the_written_ones():
    assert sorted(moat.__all__) == sorted(SURFACE)
    assert set(SURFACE) <= set(dir(moat))


@pytest.mark.parametrize("name", SURFACE)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(moat, name)
    if name not in {"ANY", "REASONS", "__version__"}:
        assert value.__doc__


def test_every_exception_is_public():
    defined = {name for name in vars(errors) if isinstance(getattr(errors, name), type)}
    assert defined <= set(moat.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="`Sesion`"):
        _ = moat.Sesion


def test_the_version_is_the_distributions():
    assert moat.__version__ == metadata.version("moat")


def test_import_loads_neither_the_command_line_nor_what_is_slow():
    loaded = run("import moat, sys; print(*sys.modules)").split()
    unwanted = ("click", "rich", "asyncio", "importlib.metadata", "moat.cli", "moat.runtime")
    assert "moat._native" in loaded
    assert not set(unwanted) & set(loaded)


def test_the_library_needs_neither_click_nor_rich():
    names = "moat.audit, moat.keystore, moat.pep, moat.runtime, moat.sandbox, moat.session"
    loaded = run(f"import sys, {names}; print(*sys.modules)").split()
    assert not {"click", "rich"} & set(loaded)


@pytest.mark.parametrize("name", ["py.typed", "_native.pyi"])
def test_types_are_shipped(name):
    assert (resources.files("moat") / name).is_file()


def test_the_demo_program_is_shipped_beside_its_source():
    names = {entry.name for entry in (resources.files("moat") / "_demo").iterdir()}
    programs = {name.removesuffix(".wasm") for name in names if name.endswith(".wasm")}
    assert programs
    assert {f"{name}.c" for name in programs} <= names
