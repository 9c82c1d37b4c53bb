"""`Attestation`, `Requirement` and `moat.attest`: what is signed, read, measured and kept."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from cast import GATE, HOUR, MALLORY, NOW, PLANNER, ROOT, WORKER, clock
from moat import (
    Attestation,
    AuditLog,
    Denied,
    Grant,
    MalformedInput,
    Message,
    NotAttested,
    Pep,
    Policy,
    Requirement,
    Token,
    attest,
)
from moat._native import skill_digest, tool_digest

if TYPE_CHECKING:
    from pathlib import Path

CODE = sha256(b"code").digest()
MANIFEST = "urn:moat:manifest:v1"
DAY = timedelta(days=1)


def signed(*signers: object, now: int = NOW) -> Attestation:
    return Attestation.sign(signers or (WORKER,), "code", CODE, name="x", now=now)


def test_an_attestation_is_what_was_signed():
    made = signed(WORKER, MALLORY)
    assert (made.kind, made.predicate, made.issued) == ("code", MANIFEST, NOW)
    assert made.subjects == (CODE,)
    assert set(made.signers) == {WORKER.id, MALLORY.id}
    again = Attestation.verify(bytes(made), [WORKER.id])
    assert again.signers == (WORKER.id,)
    assert again.statement == made.statement
    assert again != made
    assert made == Attestation.verify(bytes(made), [MALLORY.id, WORKER.id])
    assert hash(made) == hash(again)
    assert repr(made) == f"Attestation(code {CODE.hex()}, 2 signers)"
    payload = base64.b64decode(json.loads(bytes(made))["payload"])
    assert sha256(payload).digest() == made.statement


def test_any_statement_of_a_known_type_can_be_signed():
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": CODE.hex()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {"buildType": "https://b.example", "externalParameters": {}},
            "runDetails": {
                "builder": {"id": "https://b.example"},
                "metadata": {"finishedOn": "2027-01-15T08:00:00.5Z"},
            },
        },
    }
    made = Attestation.sign_statement([WORKER], json.dumps(said).encode())
    assert (made.predicate, made.issued) == ("https://slsa.dev/provenance/v1", NOW)
    with pytest.raises(MalformedInput):
        Attestation.sign_statement([WORKER], b"{}")


@pytest.mark.parametrize(
    ("kind", "subject"),
    [("code", b"short"), ("model", CODE), ("skill", {}), ("skill", {"../x": b""}), ("tool", b"")],
)
def test_what_cannot_be_vouched_for(kind: str, subject: bytes | dict[str, bytes]) -> None:
    with pytest.raises(MalformedInput):
        Attestation.sign([WORKER], kind, subject, now=NOW)


def test_a_requirement_is_a_value():
    one = Requirement("code", [WORKER.id, MALLORY.id, WORKER.id], threshold=2, max_age=DAY)
    assert one == Requirement("code", [MALLORY.id, WORKER.id], threshold=2, max_age=DAY)
    assert one.kind == "code"
    assert one.predicate == MANIFEST
    assert set(one.signers) == {WORKER.id, MALLORY.id}
    assert (one.threshold, one.max_age) == (2, DAY)
    assert hash(one) != hash(Requirement("code", [WORKER.id], max_age=DAY))
    kind, uri, threshold, signers, age = str(one).split()
    assert (kind, uri, threshold, age) == ("code", MANIFEST, "2", "86400s")
    assert set(signers.split(",")) == {str(WORKER.id), str(MALLORY.id)}
    assert repr(one) == f"Requirement({one})"
    for wrong in (
        {"threshold": 3},
        {"threshold": 0},
        {"max_age": timedelta(days=3651)},
        {"max_age": timedelta(milliseconds=1500)},
        {"predicate": "https://example.com"},
    ):
        with pytest.raises(MalformedInput):
            Requirement("code", [WORKER.id, MALLORY.id], **{"max_age": DAY} | wrong)


def test_a_requirement_is_checked_without_a_gate():
    one = Requirement("code", [WORKER.id, MALLORY.id], threshold=2, max_age=DAY)
    both = [signed(WORKER), signed(MALLORY, now=NOW + 1)]
    assert set(one.check(CODE, both, now=NOW)) == {made.statement for made in both}
    with pytest.raises(NotAttested, match="1 of 2 signers") as refused:
        one.check(CODE, both[:1], now=NOW)
    assert refused.value.reason == "not_attested"


def test_a_link_states_what_it_requires_and_attenuate_adds():
    one = Requirement("code", [WORKER.id], max_age=DAY)
    two = Requirement("skill", [WORKER.id], max_age=DAY)
    grants = [Grant("code://x", {"run"})]
    token = Token.issue(
        ROOT, holder=PLANNER.id, allow=grants, expires_in=HOUR, depth=2, attestations=[one]
    )
    assert token.links[0].attestations == token.attestations == (one,)
    child = token.attenuate(PLANNER, holder=WORKER.id, attestations=[two, one])
    assert child.attestations == (one, two)
    assert child.attenuate(WORKER, holder=PLANNER.id).attestations == (one, two)
    free = Token.issue(ROOT, holder=PLANNER.id, allow=grants, expires_in=HOUR)
    assert free.attestations == ()


def test_a_gate_keeps_what_it_was_told(tmp_path: Path):
    def gate() -> tuple[AuditLog, Pep]:
        audit = AuditLog.open(tmp_path / "log", signer=GATE, anchor=None, clock=clock)
        return audit, Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=audit)

    token = Token.issue(
        ROOT,
        holder=PLANNER.id,
        allow=[Grant("code://x", {"run"})],
        expires_in=HOUR,
        attestations=[Requirement("code", [WORKER.id], max_age=DAY)],
        now=NOW,
    )

    def ask(pep: Pep) -> object:
        wire = Message.seal(
            PLANNER, gate=pep.id, token=token, policy=pep.policy.hash, action="run",
            resource="code://x", code=CODE, now=NOW,
        )  # fmt: skip
        return pep.authorize(wire)

    audit, pep = gate()
    with pytest.raises(Denied) as denied:
        ask(pep)
    assert denied.value.reason == "not_attested"
    made = signed()
    entry = pep.attest(made)
    assert json.loads(audit.read(entry))["kind"] == "attested"
    with pytest.raises(Denied):
        pep.attest(bytes(made), signers=[WORKER.id])  # said before
    with pytest.raises(Denied, match="none of the keys"):
        pep.attest(bytes(made))
    ask(pep)
    audit.close()
    audit, pep = gate()
    ask(pep)
    audit.close()


def test_files_are_measured_as_what_they_are(tmp_path: Path):
    (tmp_path / "x.wasm").write_bytes(b"code")
    (tmp_path / "t.json").write_text('{ "b": 1, "a": "é" }')
    (tmp_path / "s" / "sub").mkdir(parents=True)
    (tmp_path / "s" / "SKILL.md").write_text("a")
    (tmp_path / "s" / "sub" / "b.py").write_text("b")
    code = attest.measure("code", tmp_path / "x.wasm")
    assert (code.name, code.digest, code.files) == ("x.wasm", CODE, {"x.wasm": b"code"})
    tool = attest.measure("tool", tmp_path / "t.json")
    assert tool.digest == tool_digest('{"a":"é","b":1}'.encode())
    assert tool.digest == sha256('{"a":"é","b":1}'.encode()).digest()
    skill = attest.measure("skill", tmp_path / "s")
    assert skill.files == {"SKILL.md": b"a", "sub/b.py": b"b"}
    listing = {path: sha256(data).hexdigest() for path, data in skill.files.items()}
    text = json.dumps(listing, separators=(",", ":"), sort_keys=True)
    assert skill.digest == skill_digest(skill.files) == sha256(text.encode()).digest()
    for one in (code, tool, skill):
        made = one.sign(WORKER, now=NOW)
        assert made.subjects == (one.digest,)
        assert made.kind == one.kind


def test_what_is_too_large_or_no_file_is_not_measured(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(attest, "FILE_BYTES", 10)
    (tmp_path / "s").mkdir()
    for name in ("a", "b"):
        (tmp_path / "s" / name).write_bytes(bytes(6))
    with pytest.raises(MalformedInput, match="too large"):
        attest.measure("skill", tmp_path / "s")
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(MalformedInput, match="too large"):
        attest.measure("code", tmp_path / "big")
    with pytest.raises(OSError, match="s"):
        attest.measure("code", tmp_path / "s" / "missing")
    with pytest.raises(MalformedInput, match="not a file"):
        attest.measure("code", "/dev/null")
    monkeypatch.setattr(attest, "SKILL_FILES", 1)
    with pytest.raises(MalformedInput, match="at most 1 files"):
        attest.measure("skill", tmp_path / "s")


def test_an_envelope_and_its_keys_travel_together():
    made = signed()
    assert attest.unpack(attest.pack(bytes(made), made.signers)) == (bytes(made), [WORKER.id])
    for wrong in (b"", b"[]", b"{}", b'{"envelope":1,"signers":[]}', b'{"envelope":"x"}', b"\xff"):
        with pytest.raises(MalformedInput):
            attest.unpack(wrong)
