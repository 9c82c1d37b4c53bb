"""What a person may import is one written list, and importing it is cheap and clean."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from importlib import metadata, resources

import pytest

import moat
from moat import _native, errors

SURFACE = """
    ANY AgentId Attestation AttenuationViolation AuditError AuditLog AuditUnavailable ChainBroken
    Checkpoint CodeCache ConsistencyProof Control Decision Denial Denied EgressDenied Endpoint
    GateBusy Grant GuestTrap Host Identity InclusionProof InjectorFailed InvalidSignature
    KeysExposed LimitExceeded Limits Link MalformedInput Message MessageRefused Moat MoatError
    NotAttested Pattern Pep Permit Policy REASONS Registration Registry Report Requirement
    RolledBack Router Sandbox SandboxError SandboxOutcome Secret SecretProxy Sender Session Token
    TokenRefused Undelivered UnknownHandle __version__ canonicalize errors tool
""".split()  # noqa: SIM905 - a list that a person reads


@cache
def prose() -> dict[str, str]:
    """What the stub says of each class and function."""
    stub = (resources.files("moat") / "_native.pyi").read_text()
    tree = ast.parse(re.sub("^type ", "", stub, flags=re.MULTILINE))  # 3.11 has no `type`
    named = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return {node.name: ast.get_docstring(node) or "" for node in named}


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
    if name not in {"REASONS", "__version__"}:
        assert value.__doc__


@pytest.mark.parametrize("name", _native.__all__)
def test_a_native_name_says_at_run_time_what_the_stub_says(name):
    """Its first paragraph; the rest is in the stub alone."""
    if said := prose().get(name):
        assert getattr(_native, name).__doc__.split() == said.partition("\n\n")[0].split()
    else:
        assert name in {"ANY", "AXES", "REASONS"}


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
    names = ("audit", "keystore", "pep", "runtime", "sandbox", "secrets", "session")
    wanted = ", ".join(f"moat.{name}" for name in names)
    loaded = run(f"import sys, {wanted}; print(*sys.modules)").split()
    assert not {"click", "rich"} & set(loaded)


@pytest.mark.parametrize("name", ["py.typed", "_native.pyi"])
def test_types_are_shipped(name):
    assert (resources.files("moat") / name).is_file()


def test_the_demo_program_is_shipped_beside_its_source():
    names = {entry.name for entry in (resources.files("moat") / "_demo").iterdir()}
    programs = {name.removesuffix(".wasm") for name in names if name.endswith(".wasm")}
    assert programs
    sources = {name.rpartition(".")[0] for name in names if name.endswith((".c", ".wat"))}
    assert sources == programs
