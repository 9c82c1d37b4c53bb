"""`moat.attest.from_sigstore`: somebody else's signature, and the word that a local key gives."""

from __future__ import annotations

import base64
import json
import socket
import sys
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from cast import NOW, PLANNER, WORKER
from cli_kit import ERROR, INVALID, READER, USAGE, Cli, fresh
from moat import Attestation, MalformedInput, MoatError, Requirement
from moat._native import tool_digest
from moat.attest import from_sigstore, measure
from sigstore_kit import BY, NAMED, TIME, WHO, World, offline, roots, sigstore, statement

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["offline", "roots", "sigstore"]

pytestmark = pytest.mark.usefixtures("offline")
DIGEST = sha256(READER.read_bytes()).digest()


def vouch(bundle: dict[str, Any], roots: Path, path: Path = READER, **named: Any) -> Attestation:
    kind = "tool" if path.suffix == ".json" else "code"
    asked = NAMED | {"signers": [WORKER], "trust_root": roots, "now": NOW} | named
    return from_sigstore(json.dumps(bundle).encode(), measure(kind, path), **asked)


def said(made: Attestation) -> dict[str, Any]:
    """The statement that the local key has signed."""
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(bytes(made))["payload"]))
    return found


def test_the_network_is_out_of_reach_here() -> None:
    with pytest.raises(AssertionError, match="network"):
        socket.create_connection(("127.0.0.1", 1))
    with pytest.raises(AssertionError, match="network"), socket.socket() as made:
        made.connect(("127.0.0.1", 1))


def test_a_signature_over_a_file_becomes_the_word_of_a_local_key(
    sigstore: World, roots: Path
) -> None:
    made = vouch(sigstore.message(READER.read_bytes()), roots, signers=[WORKER, PLANNER])
    assert (made.kind, made.subjects, made.issued) == ("code", (DIGEST,), NOW)
    assert set(made.signers) == {WORKER.id, PLANNER.id}
    asked = Requirement("code", [WORKER.id, PLANNER.id], threshold=2, max_age=timedelta(days=1))
    assert set(asked.check(DIGEST, [made], now=NOW)) == {made.statement}
    assert Attestation.verify(bytes(made), [WORKER.id]).predicate == "urn:moat:manifest:v1"


def test_the_statement_says_who_it_was(sigstore: World, roots: Path) -> None:
    told = said(vouch(sigstore.message(READER.read_bytes()), roots))
    (subject,) = told["subject"]
    assert subject["name"] == READER.name
    who = {"identity": WHO, "issuer": BY, "integrated": TIME + 5}
    assert subject["annotations"] == {"sigstore": who}
    assert told["predicate"] == {"kind": "code", "issued": NOW}


def test_a_builders_statement_about_a_file(sigstore: World, roots: Path) -> None:
    about = statement(DIGEST)
    about["subject"].insert(0, {"name": "other", "digest": {"sha256": "00" * 32}})
    about["subject"].insert(0, {"name": "other", "digest": {"sha512": "00" * 64}})
    assert vouch(sigstore.envelope(about), roots).subjects == (DIGEST,)


def test_who_signs_may_be_a_workflow(sigstore: World, roots: Path) -> None:
    flow = "https://example.org/a/b/.github/workflows/release.yml@refs/tags/v1"
    name = x509.UniformResourceIdentifier(flow)
    bundle = sigstore.message(READER.read_bytes(), name=name)
    assert vouch(bundle, roots, identity=flow).subjects == (DIGEST,)


def test_a_tools_description_is_signed_as_a_file_and_vouched_for_as_what_it_says(
    sigstore: World, roots: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tool.json"
    file.write_text('{"name": "search",  "description": "finds"}')
    made = vouch(sigstore.message(file.read_bytes()), roots, file)
    assert (made.kind, made.subjects) == ("tool", (tool_digest(file.read_bytes()),))


def test_a_skill_is_no_file(sigstore: World, roots: Path, tmp_path: Path) -> None:
    (tmp_path / "skill").mkdir()
    (tmp_path / "skill" / "SKILL.md").write_text("use it")
    bundle = json.dumps(sigstore.message(b"use it")).encode()
    skill = measure("skill", tmp_path / "skill")
    with pytest.raises(MalformedInput, match="a folder"):
        from_sigstore(bundle, skill, signers=[WORKER], trust_root=roots, **NAMED)


def test_the_second_is_the_present_one_if_none_is_given(
    sigstore: World, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 0.9)
    assert vouch(sigstore.message(READER.read_bytes()), roots, now=None).issued == NOW


def test_the_roots_of_the_package_are_there(sigstore: World, monkeypatch: pytest.MonkeyPatch):
    """They do not know this Sigstore, and that is what is said: they were read."""
    with pytest.raises(MoatError, match="does not verify: .*certificate"):
        vouch(sigstore.message(READER.read_bytes()), None)
    monkeypatch.setattr("moat._sigstore._ROOTS", ("_store", "elsewhere.json"))
    with pytest.raises(MalformedInput, match="name a file"):
        vouch(sigstore.message(READER.read_bytes()), None)


@pytest.mark.parametrize("without", ["certificateAuthorities", "ctlogs", "tlogs", "mediaType"])
def test_roots_that_cannot_be_used(
    sigstore: World, roots: Path, tmp_path: Path, without: str
) -> None:
    bundle = sigstore.message(READER.read_bytes())
    for told in ({}, {without: []}):
        whole = {k: v for k, v in sigstore.trusted_root().items() if k != without} | told
        roots.write_text(json.dumps(whole))
        with pytest.raises(MalformedInput):
            vouch(bundle, roots)
    for other in (tmp_path, tmp_path / "large"):
        (tmp_path / "large").write_text(" " * ((1 << 20) + 1))
        with pytest.raises(MalformedInput, match="no file of at most"):
            vouch(bundle, other)
    with pytest.raises(FileNotFoundError):
        vouch(bundle, tmp_path / "missing")


def test_without_the_extra_it_is_said_how_to_get_it(
    sigstore: World, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = sigstore.message(READER.read_bytes())
    monkeypatch.delitem(sys.modules, "moat._sigstore", raising=False)
    monkeypatch.delattr("moat._sigstore", raising=False)
    monkeypatch.setitem(sys.modules, "sigstore.verify", None)
    with pytest.raises(MoatError, match=r"pip install 'moat\[sigstore\]'"):
        vouch(bundle, roots)


# --- the command line ---


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with somebody who vouches."""
    return fresh(tmp_path, "planner", "alice")


def asked(bundle: Path | str, roots: Path, **other: str) -> tuple[str | Path, ...]:
    named = NAMED | other
    return (
        *("attest", "sign", READER, "--by", "alice", "--from-sigstore", bundle),
        *("--identity", named["identity"], "--issuer", named["issuer"], "--trusted-root", roots),
    )


def test_a_file_is_vouched_for_from_the_command_line(
    moat: Cli, sigstore: World, roots: Path, tmp_path: Path
) -> None:
    file = tmp_path / "reader.sigstore.json"
    file.write_text(json.dumps(sigstore.message(READER.read_bytes())))
    made = tmp_path / "reader.att"
    told = moat.json(*asked(file, roots), "--out", made)
    assert (told["kind"], told["digest"]) == ("code", DIGEST.hex())
    assert moat.json("attest", "verify", READER, made, "--signer", "alice")["valid"] is True
    piped = moat(*asked("-", roots), input=file.read_bytes())
    assert json.loads(piped.stdout)["payloadType"] == "application/vnd.in-toto+json"


def test_the_command_line_says_what_was_wrong(
    moat: Cli, sigstore: World, roots: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "x.json", tmp_path / "x.att"
    file.write_text(json.dumps(sigstore.message(b"another")))
    refused = moat.error(*asked(file, roots), "--out", out, code=INVALID)
    assert refused["code"] == "bad_signature"
    assert "the bundle of this very file" in refused["next"]
    file.write_text(json.dumps(sigstore.envelope(statement(bytes(32)))))
    assert moat.error(*asked(file, roots), "--out", out, code=INVALID)["code"] == "not_attested"
    file.write_text("{")
    assert moat.error(*asked(file, roots), "--out", out, code=ERROR)["code"] == "malformed"
    file.write_text(" " * ((1 << 20) + 1))
    assert moat.error(*asked(file, roots), "--out", out, code=ERROR)["code"] == "too_large"
    moat.error(*asked(tmp_path / "missing", roots), "--out", out, code=ERROR)
    assert not out.exists()


def test_a_bundle_and_who_signed_it_are_named_together(moat: Cli, tmp_path: Path) -> None:
    sign = ("attest", "sign", READER, "--by", "alice")
    bundle, who, by = (("--from-sigstore", "x"), ("--identity", WHO), ("--issuer", BY))
    root = ("--trusted-root", str(tmp_path / "x"))
    for some in (bundle, (*bundle, *who), (*bundle, *by), who, by, root, ("--issuer", "")):
        moat.error(*sign, *some, code=USAGE)
    moat.error(*sign, *bundle, *by, "--identity", "", code=USAGE)
