"""RFC 8949 appendix A, one item at a time in a typed place of a signed object.

Moat has no generic CBOR value: a reader asks for one type and takes its shortest, definite form.
So every item of the appendix is put where an unsigned integer is asked for (a link's fuel), where
bytes are (a message's payload), and where claims are. Each is taken with the right value, or
refused.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

import forge
from moat import Message, Token
from moat.errors import MoatError

if TYPE_CHECKING:
    from pathlib import Path

ROOT, AGENT, GATE = map(forge.key, ("root", "agent", "gate"))


def items(external: Path) -> list[dict[str, Any]]:
    """The 82 items: ``hex``, ``roundtrip`` and ``decoded`` or ``diagnostic``."""
    text = (external / "cbor-appendix-a" / "appendix_a.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    assert len(found) == 82
    return found


def fuel_of(item: bytes) -> int | None:
    """The fuel of a link that holds this item as its fuel, or None when it is refused."""
    limits = {**forge.Terms().limits(), 1: forge.Raw(item)}
    chain = forge.first(ROOT, AGENT, forged={"claims": {forge.Claim.LIMITS: limits}})
    try:
        return Token.from_bytes(chain.token).links[0].limits.fuel
    except MoatError:
        return None


def payload_of(item: bytes, value: bytes) -> bytes | None:
    """The payload of a message that holds this item there, or None when it is refused."""
    fields = {
        forge.Field.PAYLOAD: forge.Raw(item),
        forge.Field.DIGEST: hashlib.sha256(value).digest(),
    }
    wire = forge.message(forge.first(ROOT, AGENT), GATE.public, forged={"fields": fields})
    try:
        return Message.from_bytes(wire).payload
    except MoatError:
        return None


def is_uint(item: dict[str, Any]) -> bool:
    """Whether an item is an unsigned integer in its shortest form, as limits allow it."""
    major = bytes.fromhex(item["hex"])[0] >> 5
    return major == 0 and item["roundtrip"] and item["decoded"] < 1 << 63


def test_only_unsigned_integers_are_fuel_and_keep_their_value(external: Path) -> None:
    taken = {}
    for item in items(external):
        got = fuel_of(bytes.fromhex(item["hex"]))
        assert got == (item["decoded"] if is_uint(item) else None), item
        taken |= {} if got is None else {item["hex"]: got}
    assert len(taken) == 10


def test_only_definite_byte_strings_are_a_payload_and_keep_their_value(external: Path) -> None:
    values = {"40": b"", "4401020304": b"\1\2\3\4"}
    for item in items(external):
        value = values.get(item["hex"])
        assert payload_of(bytes.fromhex(item["hex"]), value or b"") == value, item


def test_no_item_is_a_token_a_message_or_claims(external: Path) -> None:
    for item in items(external):
        data = bytes.fromhex(item["hex"])
        for decode in (Token.from_bytes, Message.from_bytes):
            with pytest.raises(MoatError):
                decode(data)
        with pytest.raises(MoatError):
            Token.from_bytes(forge.first(ROOT, AGENT, forged={"claims": data}).token)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_integer_longer_than_needed_is_refused(size: int) -> None:
    assert fuel_of(b"\x17") == 23
    assert fuel_of(forge.cbor(forge.Wide(23, size))) is None
