"""One code per reason, one class per exception: the same in Rust, in Python and in the spec."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

import moat
from moat import _native, errors

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = (PROJECT / "rust" / "core" / "src" / "error.rs").read_text()
SPEC = PROJECT / "spec"


def test_reasons_and_their_stages_are_those_of_the_heart():
    declared = re.findall(r'^    \w+ = "(\w+)" in (\w+),$', SOURCE, re.MULTILINE)
    assert len(declared) > 20
    assert list(moat.REASONS.items()) == [(code, stage.lower()) for code, stage in declared]


def test_axes_are_those_of_the_heart():
    declared = re.findall(r'^    \w+ = "(\w+)",$', SOURCE, re.MULTILINE)
    assert len(declared) > 10
    assert list(_native.AXES) == declared


@pytest.mark.parametrize("code", moat.REASONS)
def test_the_spec_has_every_reason(code):
    pages = [page.read_text() for page in SPEC.glob("*.md")]
    assert any(f"`{code}`" in page for page in pages)


def test_vectors_name_known_reasons_only():
    named: set[str] = set()

    def collect(value):
        if isinstance(value, dict):
            named.update(v for k, v in value.items() if k == "reason" and isinstance(v, str))
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                collect(part)

    for path in (SPEC / "vectors").glob("*.json"):
        collect(json.loads(path.read_text()))
    assert named, "no vector names a reason"
    assert named <= set(moat.REASONS)


def test_the_tree_of_exceptions_is_drawn_as_it_is():
    """Each drawn line names a class; deeper lines are its subclasses."""
    line = re.compile(r"^(?P<lead>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<also>\w+)\))?(?:  .*)?$")
    drawn, above = {}, {}
    for text in inspect.getdoc(errors).partition("::")[2].splitlines():
        if found := line.match(text.removeprefix("    ")):
            depth = len(found["lead"]) // 4
            above[depth] = found["name"]
            parent = above.get(depth - 1, "Exception")
            drawn[found["name"]] = {parent, *([found["also"]] if found["also"] else [])}
    defined = {
        name: {base.__name__ for base in value.__bases__}
        for name, value in vars(errors).items()
        if isinstance(value, type)
    }
    assert drawn == defined
