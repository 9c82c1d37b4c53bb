"""Arguments are RFC 8785 JSON, byte for byte.

Arguments are an object, so of the six external inputs the five that are objects are sealed as
they are. ``arrays`` is not one: it is sealed as the value of a member, which RFC 8785 writes the
same way.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from moat import ANY, Grant, Identity, Message, Policy, Token
from moat.errors import MalformedInput

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000
OBJECTS = ("french", "structures", "unicode", "values", "weird")


def sealed(args: dict[str, Any]) -> Message:
    """A message that carries these arguments, decoded from its own bytes."""
    root, gate = Identity.generate("root"), Identity.generate("gate")
    token = Token.issue(
        root,
        holder=root.id,
        allow=[Grant("tool://t", {"call"}, ANY)],
        expires_in=timedelta(hours=1),
        now=NOW,
    )
    wire = Message.seal(
        root,
        gate=gate.id,
        token=token,
        policy=Policy.CHAIN_ONLY.hash,
        action="call",
        resource="tool://t",
        args=args,
        now=NOW,
    )
    return Message.from_bytes(wire)


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_written_as_rfc_8785_says(external: Path, name: str) -> None:
    folder = external / "jcs" / "testdata"
    given = json.loads((folder / "input" / f"{name}.json").read_text(encoding="utf-8"))
    message = sealed(given)
    assert message.args_json == (folder / "output" / f"{name}.json").read_bytes()
    assert message.args_json == bytes.fromhex((folder / "outhex" / f"{name}.txt").read_text())
    assert message.args == given


def test_an_array_is_written_as_rfc_8785_says_inside_an_object(external: Path) -> None:
    folder = external / "jcs" / "testdata"
    given = json.loads((folder / "input" / "arrays.json").read_text(encoding="utf-8"))
    expected = (folder / "output" / "arrays.json").read_bytes()
    assert sealed({"a": given}).args_json == b'{"a":' + expected + b"}"


def test_all_external_inputs_are_used(external: Path) -> None:
    inputs = {path.stem for path in (external / "jcs" / "testdata" / "input").iterdir()}
    assert inputs == {*OBJECTS, "arrays"}


@pytest.mark.parametrize(
    "args",
    [
        {"n": float("nan")},
        {"n": float("inf")},
        {"n": 2**53 + 1},
        {"n": -(2**53) - 1},
        {"s": "\ud800"},
        {"\udc00": 1},
        {"b": b"bytes"},
        {1: "a key that is no text"},
        [1, 2],
        "text",
    ],
    ids=repr,
)
def test_what_json_cannot_carry_exactly_is_refused(args: Any) -> None:
    with pytest.raises((MalformedInput, TypeError)):
        sealed(args)


@pytest.mark.parametrize("number", [2**53, -(2**53), 0, 1])
def test_integers_up_to_two_to_the_53_stay_integers(number: int) -> None:
    message = sealed({"n": number})
    assert message.args_json == b'{"n":%d}' % number
    assert message.args == {"n": number}


def test_true_is_not_one() -> None:
    assert sealed({"n": True}).args_json == b'{"n":true}'
    assert sealed({"n": True}).args["n"] is True


def nested(depth: int) -> dict[str, Any]:
    """An object of this many levels of objects."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_nesting_up_to_32_levels_is_carried_and_33_refused() -> None:
    assert sealed(nested(32)).args == nested(32)
    with pytest.raises(MalformedInput):
        sealed(nested(33))


def test_args_larger_than_32_kib_are_refused() -> None:
    room = 32 * 1024 - len(b'{"a":""}')
    assert len(sealed({"a": "x" * room}).args_json) == 32 * 1024
    with pytest.raises(MalformedInput):
        sealed({"a": "x" * (room + 1)})
