"""The forging kit itself: what it writes by default is what other libraries read."""

from __future__ import annotations

import cbor2
import nacl.signing
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

import forge
from forge import Endless, Pairs, Raw, Tag, Wide, cbor

_ATOMS = (
    st.booleans()
    | st.none()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=80)
)
_VALUES = st.recursive(
    _ATOMS,
    lambda inner: (
        st.lists(inner, max_size=30) | st.dictionaries(st.integers(-9, 99_999), inner, max_size=9)
    ),
    max_leaves=20,
)


@given(_VALUES)
def test_a_decoder_reads_what_the_kit_writes(value: object) -> None:
    assert cbor2.loads(cbor(value)) == value


def test_the_shortest_heads_are_those_of_rfc_8949_appendix_a() -> None:
    cases = {0: "00", 23: "17", 24: "1818", 255: "18ff", 256: "190100", 65536: "1a00010000"}
    cases |= {2**32: "1b0000000100000000", 2**64 - 1: "1bffffffffffffffff", -1: "20", -100: "3863"}
    assert {value: cbor(value).hex() for value in cases} == cases


def test_a_map_is_sorted_by_the_bytes_of_its_keys() -> None:
    assert cbor({-65537: 1, 8: 2, 100: 3, -1: 4}).hex() == "a408021864032004" + "3a0001000001"


def test_odd_forms_decode_to_the_same_value() -> None:
    odd = [Wide(1, 8), Wide(b"x", 2), Endless(b"x"), Endless({1: 2}), Raw(b"\x18\x01")]
    assert cbor2.loads(cbor(odd)) == [1, b"x", b"x", {1: 2}, 1]
    assert cbor2.loads(cbor(Pairs(((2, 1), (1, 2))))) == {2: 1, 1: 2}
    assert cbor2.loads(cbor(Tag(18, [1]))) == cbor2.CBORTag(18, [1])


def test_a_signature_by_the_kit_verifies_elsewhere() -> None:
    root = forge.key("root")
    protected, _, payload, signature = forge.parts(
        forge.link(root, forge.key("planner"), forge.Terms())
    )
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    Ed25519PublicKey.from_public_bytes(root.public).verify(signature, signed)


def test_a_signature_with_a_chosen_r_satisfies_the_cofactored_equation() -> None:
    """OpenSSL checks neither R's order nor its spelling, so it takes what a strict gate may not."""
    key, identity = forge.key("holder"), b"\x01" + bytes(31)
    signature = key.sign_with_r(b"message", identity)
    Ed25519PublicKey.from_public_bytes(key.public).verify(signature, b"message")


def test_a_malleated_signature_is_refused_by_libsodium() -> None:
    key = forge.key("holder")
    verifier = nacl.signing.VerifyKey(key.public)
    verifier.verify(b"message", key.sign(b"message"))
    with pytest.raises(nacl.exceptions.BadSignatureError):
        verifier.verify(b"message", forge.malleate(key.sign(b"message")))


def test_a_name_always_gives_the_same_key() -> None:
    assert forge.Key("a").public == forge.Key("a").public != forge.Key("b").public
