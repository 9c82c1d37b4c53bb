"""Ed25519 verification equals the strict rule and libsodium on every external case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from moat import AgentId
from moat.errors import InvalidSignature, MalformedInput

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One signature to judge, all in bytes."""

    name: str
    key: bytes
    message: bytes
    signature: bytes

    @classmethod
    def of(cls, name: object, key: str, message: bytes, signature: str) -> Case:
        return cls(str(name), bytes.fromhex(key), message, bytes.fromhex(signature))


def ours(case: Case) -> bool:
    """Whether Moat takes the signature; a refusal is one of two exceptions, never another."""
    try:
        AgentId.from_bytes(case.key).verify(case.message, case.signature)
    except (InvalidSignature, MalformedInput):
        return False
    return True


def libsodium(case: Case) -> bool:
    """Whether libsodium takes the signature."""
    try:
        VerifyKey(case.key).verify(case.message, case.signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def disagreements(cases: list[tuple[Case, bool]]) -> list[str]:
    """Names of cases on which Moat or libsodium differ from what is expected."""
    return [
        f"{case.name}: expected {expected}, ours {ours(case)}, libsodium {libsodium(case)}"
        for case, expected in cases
        if not expected == ours(case) == libsodium(case)
    ]


def test_cctv_equals_the_strict_rule_and_accepts_43(external: Path) -> None:
    folder = external / "cctv-ed25519"
    rules = {rule["number"]: rule["strict"] for rule in load(folder / "expected_by_rule.json")}
    vectors = load(folder / "ed25519" / "ed25519vectors.json")
    cases = [
        (Case.of(v["number"], v["key"], v["msg"].encode(), v["sig"]), rules[v["number"]])
        for v in vectors
    ]
    assert len(cases) == 914
    assert disagreements(cases) == []
    assert sum(ours(case) for case, _ in cases) == 43


def test_speccheck_accepts_only_case_3(external: Path) -> None:
    vectors = load(external / "ed25519-speccheck" / "cases.json")
    cases = [
        Case.of(number, v["pub_key"], bytes.fromhex(v["message"]), v["signature"])
        for number, v in enumerate(vectors)
    ]
    assert len(cases) == 12
    assert [case.name for case in cases if ours(case)] == ["3"]
    assert disagreements([(case, case.name == "3") for case in cases]) == []


def test_wycheproof_has_no_mismatch(external: Path) -> None:
    data = load(external / "wycheproof" / "ed25519_test.json")
    cases = [
        (
            Case.of(t["tcId"], g["publicKey"]["pk"], bytes.fromhex(t["msg"]), t["sig"]),
            t["result"] == "valid",
        )
        for g in data["testGroups"]
        for t in g["tests"]
    ]
    assert len(cases) == data["numberOfTests"] == 151
    assert disagreements(cases) == []


def test_signatures_only_a_holder_can_make_are_judged_strictly(external: Path) -> None:
    cases = [
        (
            Case.of(v["name"], v["public_key"], bytes.fromhex(v["message"]), v["signature"]),
            v["expect"]["strict"],
        )
        for v in load(external / "moat-extra" / "ed25519_holder_made.json")
    ]
    assert len(cases) == 3
    assert disagreements(cases) == []


def test_a_signature_of_another_length_is_refused(external: Path) -> None:
    data = load(external / "wycheproof" / "ed25519_test.json")
    short = [
        Case.of(t["tcId"], g["publicKey"]["pk"], bytes.fromhex(t["msg"]), t["sig"])
        for g in data["testGroups"]
        for t in g["tests"]
        if len(t["sig"]) != 128
    ]
    assert short, "the set has signatures that are too short and too long"
    assert not any(ours(case) for case in short)
