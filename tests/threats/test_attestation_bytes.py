"""Envelopes and statements that are not what they seem: nothing is read before it is verified."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from threats.vouching import (
    ALICE,
    CODE,
    IN_TOTO,
    MANIFEST,
    SLSA,
    VSA,
    ask,
    envelope,
    pae,
    refuse,
    reject,
    required,
    requiring,
    statement,
    take,
)
from threats.world import MALLORY, World


@pytest.mark.parametrize(
    "other",
    [
        "application/vnd.in-toto+js\u043en",
        "application/vnd.in\u2010toto+json",
        "application/vnd.in-toto+json\u200b",
        "\ufeffapplication/vnd.in-toto+json",
        "Application/vnd.in-toto+json",
        "application/vnd.in-toto+json; v=1",
        "application/json",
        "",
    ],
    ids=ascii,
)
def test_another_payload_type(world: World, other: str) -> None:
    said = json.dumps(statement()).encode()
    reject(world, envelope(said, ALICE, payload_type=other), "wrong_type")
    # The type is signed: an honest signature under another type is none under this one.
    reject(world, envelope(said, ALICE, signed=pae(other, said)), "bad_signature")


def test_lengths_in_characters_are_not_lengths_in_bytes(world: World) -> None:
    said = json.dumps(statement() | {"note": "é" * 9}, ensure_ascii=False)
    counted = b" ".join(
        [b"DSSEv1", b"28", IN_TOTO.encode(), str(len(said)).encode(), said.encode()]
    )
    reject(world, envelope(said.encode(), ALICE, signed=counted), "bad_signature")
    take(world, envelope(said.encode(), ALICE), ALICE)


def test_the_encoding_of_another_type_and_body(world: World) -> None:
    said = json.dumps(statement()).encode()
    for signed in (
        said,
        b"DSSEv1" + pae(IN_TOTO, said)[6:].replace(b" ", b"", 1),
        pae(IN_TOTO + " ", said),
        pae(IN_TOTO, said) + b"\n",
        pae(f"{IN_TOTO} {len(said)} ", said),
        pae("", pae(IN_TOTO, said)),
        b"DSSEv1 028 " + pae(IN_TOTO, said)[10:],
        b"DSSEv2" + pae(IN_TOTO, said)[6:],
    ):
        reject(world, envelope(said, ALICE, signed=signed), "bad_signature")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 20_000, b'{"_type":"x"}', b"null"],
    ids=["nothing", "cut", "no text", "twice", "deep", "another type", "null"],
)
def test_nothing_is_read_from_bytes_that_were_not_verified(world: World, payload: bytes) -> None:
    reject(world, envelope(payload, MALLORY), "bad_signature", ALICE)
    reject(world, envelope(payload), "bad_signature", ALICE)


def test_the_bytes_that_were_signed_are_the_bytes_that_are_read(world: World) -> None:
    """A second payload, under any name that a careless reader would take, changes nothing."""
    ours, theirs = (json.dumps(statement(digest=d)).encode() for d in (CODE, bytes(32)))
    text = base64.b64encode(ours).decode()
    signed = envelope(theirs, ALICE, Payload=text, body=text, statement=text)
    take(world, signed, ALICE)
    refuse(world, requiring(required(ALICE)))
    swapped = envelope(ours, ALICE, signed=pae(IN_TOTO, theirs))
    reject(world, swapped, "bad_signature")


@pytest.mark.parametrize(
    ("name", "twice"),
    [
        ('"sha256":', '"sha256": "' + "00" * 32 + '", "sha256":'),
        ('"sha256":', '"sha\\u00325\\u0036": "' + "00" * 32 + '", "sha256":'),
        ('"predicate":', '"predicate": {}, "predicate":'),
        ('"issued":', '"issued": 0, "issued":'),
        ('"subject":', '"subject": [], "subject":'),
    ],
)
def test_a_name_that_stands_twice(world: World, name: str, twice: str) -> None:
    said = json.dumps(statement()).replace(name, twice, 1).encode()
    reject(world, envelope(said, ALICE), "malformed")


def test_an_envelope_with_two_payloads(world: World) -> None:
    sealed = envelope(statement(), ALICE).decode()
    other = base64.b64encode(json.dumps(statement(digest=bytes(32))).encode()).decode()
    for doubled in (
        sealed.replace('"payload":', f'"payload": "{other}", "payload":', 1),
        sealed.replace('"payload":', f'"p\\u0061yload": "{other}", "payload":', 1),
        sealed.replace('"signatures":', '"signatures": [], "signatures":', 1),
        sealed + sealed,
        "\ufeff" + sealed,
        sealed[:-1] + ",}",
    ):
        reject(world, doubled.encode(), "malformed")


@pytest.mark.parametrize(
    "digest",
    [
        {"sha512": CODE.hex()},
        {"SHA256": CODE.hex()},
        {"sha-256": CODE.hex()},
        {"\u0455ha256": CODE.hex()},
        {"sha256\u200b": CODE.hex()},
        {"gitCommit": CODE.hex()},
        {"sha256": CODE.hex().upper()},
        {"sha256": CODE.hex() + "\n"},
        {"sha256": "0x" + CODE.hex()},
        {"sha256": CODE.hex().translate({ord("0"): "\uff10"})},
        {"sha256": [CODE.hex()]},
    ],
    ids=ascii,
)
def test_our_digest_in_another_place_or_spelling(world: World, digest: dict[str, Any]) -> None:
    reject(world, envelope(statement(subject=[{"digest": digest}]), ALICE), "malformed")
    beside = [{"digest": digest}, {"digest": {"sha256": "00" * 32}}]
    if "sha256" not in digest:
        take(world, envelope(statement(subject=beside), ALICE), ALICE)
    refuse(world, requiring(required(ALICE)))


def test_a_summary_that_did_not_pass_or_has_no_time(world: World) -> None:
    passed = {
        "verifier": {"id": "https://verifier.example"},
        "timeVerified": "2025-06-15T15:06:40Z",
        "resourceUri": "pkg:x",
        "policy": {"uri": "https://policy.example"},
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_3"],
    }
    for change in (
        {"verificationResult": "FAILED"},
        {"verificationResult": "passed"},
        {"verificationResult": True},
        {"timeVerified": None},
        {"timeVerified": "2025-06-15T15:06:40+02:00"},
        {"timeVerified": "yesterday"},
    ):
        said = statement(predicateType=VSA, predicate=passed | change)
        reject(world, envelope(said, ALICE), "malformed")
    chain = requiring(required(ALICE, uri=VSA))
    take(world, envelope(statement(predicateType=VSA, predicate=passed), ALICE), ALICE)
    world.allow(ask(world, chain))
    # A summary is no provenance and no manifest.
    refuse(world, requiring(required(ALICE, uri=SLSA)))
    refuse(world, requiring(required(ALICE)))


def test_a_predicate_type_that_is_not_known(world: World) -> None:
    for uri in (MANIFEST + "/", MANIFEST.upper(), SLSA[:-1] + "2", SLSA + "#", ""):
        reject(world, envelope(statement(predicateType=uri), ALICE), "unknown_claim")
