"""The COSE examples: signatures verify, and what is not a Moat link is refused as one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cbor2
import pytest

from moat import AgentId, Token
from moat.errors import InvalidSignature, MalformedInput, MoatError

if TYPE_CHECKING:
    from pathlib import Path


def example(external: Path, name: str) -> tuple[Any, bytes, bytes]:
    """One example: its JSON, the bytes to be signed, and the signature."""
    case = json.loads((external / "cose-eddsa" / name).read_text(encoding="utf-8"))
    signature = cbor2.loads(bytes.fromhex(case["output"]["cbor"])).value[3]
    return case, bytes.fromhex(case["intermediates"]["ToBeSign_hex"]), signature


def test_the_ed25519_example_verifies(external: Path) -> None:
    case, signed, signature = example(external, "eddsa-sig-01.json")
    key = AgentId.from_bytes(bytes.fromhex(case["input"]["sign0"]["key"]["x_hex"]))
    key.verify(signed, signature)
    with pytest.raises(InvalidSignature):
        key.verify(signed + b"\0", signature)


def test_our_sig_structure_is_the_example_s(external: Path) -> None:
    case, signed, _ = example(external, "eddsa-sig-01.json")
    protected, _, payload, _ = cbor2.loads(bytes.fromhex(case["output"]["cbor"])).value
    assert cbor2.dumps(["Signature1", protected, b"", payload]) == signed


def test_the_ed448_example_has_no_key_we_take(external: Path) -> None:
    case, _, _ = example(external, "eddsa-sig-02.json")
    with pytest.raises(MalformedInput):
        AgentId.from_bytes(bytes.fromhex(case["input"]["sign0"]["key"]["x_hex"]))


@pytest.mark.parametrize("name", ["eddsa-sig-01.json", "eddsa-sig-02.json"])
def test_an_example_is_no_link_of_a_token(external: Path, name: str) -> None:
    case, _, _ = example(external, name)
    with pytest.raises(MoatError):
        Token.from_bytes(cbor2.dumps([bytes.fromhex(case["output"]["cbor"])]))
