"""A Sigstore bundle that does not show what it is taken for, and is never believed by half."""

from __future__ import annotations

import base64
import copy
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from cast import WORKER
from moat import Attestation, InvalidSignature, MalformedInput, MoatError, NotAttested
from moat._native import Module
from moat.attest import BUNDLE_BYTES, from_sigstore, measure
from sigstore_kit import (
    BY,
    NAMED,
    TIME,
    WHO,
    Authority,
    Clock,
    Signer,
    World,
    offline,
    roots,
    sigstore,
    statement,
)
from threats.vouching import CODE, MANIFEST, OTHER_WASM, WASM, ask, refuse, requiring
from threats.world import World as Gate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["offline", "roots", "sigstore"]

pytestmark = pytest.mark.usefixtures("offline")
Bundle = dict[str, Any]
OTHER: Final = sha256(OTHER_WASM).digest()


@pytest.fixture
def vouch(roots: Path, tmp_path: Path) -> Callable[..., Attestation]:
    """Vouch for the code as of a bundle, given as a document or as bytes."""
    file = tmp_path / "code.wasm"
    file.write_bytes(WASM)

    def give(bundle: Bundle | bytes, **named: Any) -> Attestation:
        text = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
        asked = NAMED | {"signers": [WORKER], "trust_root": roots, "now": TIME} | named
        return from_sigstore(text, measure("code", file), **asked)

    return give


@pytest.fixture
def refuses(vouch: Callable[..., Attestation]) -> Callable[..., None]:
    """No word is given, for this reason."""

    def give(bundle: Bundle | bytes, kind: type[MoatError], why: str, **named: Any) -> None:
        with pytest.raises(MoatError, match=why) as refused:
            vouch(bundle, **named)
        assert type(refused.value) is kind
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 500

    return give


def entry(bundle: Bundle) -> Bundle:
    (found,) = bundle["verificationMaterial"]["tlogEntries"]
    return found


# --- what is vouched for is what was signed ---


def test_code_runs_on_a_word_that_rests_on_a_bundle_and_no_other_code_does(
    sigstore: World, vouch: Callable[..., Attestation], world: Gate
) -> None:
    chain = requiring(("code", MANIFEST, (bytes(WORKER.id),), 1, 3600))
    refuse(world, chain)
    made = vouch(sigstore.message(WASM))
    world.gate.attest(bytes(made), signers=[WORKER.id])
    permit = world.allow(ask(world, chain))
    assert Module(WASM).run(permit).status == "ok"
    refuse(world, chain, code=OTHER)


def test_a_bundle_of_another_file(sigstore: World, vouch, refuses) -> None:
    vouch(sigstore.message(WASM))
    bundle = sigstore.message(OTHER_WASM)
    refuses(bundle, InvalidSignature, "digest mismatch")
    digest = base64.b64encode(CODE).decode()
    bundle["messageSignature"]["messageDigest"]["digest"] = digest
    refuses(bundle, InvalidSignature, "Signature is invalid")
    del bundle["messageSignature"]["messageDigest"]
    refuses(bundle, InvalidSignature, "Signature is invalid")


def test_a_statement_about_another_file(sigstore: World, vouch, refuses) -> None:
    vouch(sigstore.envelope(statement(CODE)))
    refuses(sigstore.envelope(statement(OTHER)), NotAttested, "not about")
    for digest in (
        {"sha512": CODE.hex()},
        {"SHA256": CODE.hex()},
        {"sha256": CODE.hex().upper()},
        {"sha256": [CODE.hex()]},
        {"sha256": CODE.hex()[:-1]},
        {},
    ):
        about = statement(CODE, subject=[{"name": CODE.hex(), "digest": digest}])
        refuses(sigstore.envelope(about), NotAttested, "not about")
    refuses(sigstore.envelope(statement(CODE, subject=[])), NotAttested, "not about")


def test_a_statement_that_says_something_else_of_the_file(sigstore: World, refuses) -> None:
    for kind in (
        "https://slsa.dev/verification_summary/v1",  # it may have failed
        "https://in-toto.io/attestation/vulns/v0.1",
        "https://slsa.dev/provenance/v1 ",
        MANIFEST,
    ):
        about = statement(CODE, predicateType=kind)
        refuses(sigstore.envelope(about), NotAttested, "vouches for nothing here")
    old = statement(CODE, _type="https://in-toto.io/Statement/v0.1")
    refuses(sigstore.envelope(old), NotAttested, "vouches for nothing here")
    other = sigstore.envelope(statement(CODE), payload_type="application/json")
    refuses(other, NotAttested, "not an in-toto statement")


def test_a_statement_that_reads_in_two_ways(sigstore: World, refuses) -> None:
    text = json.dumps(statement(CODE))
    subject = json.dumps({"subject": statement(OTHER)["subject"]})[1:-1]
    for said in (
        f"{text[:-1]}, {subject}}}",
        text.replace('"sha256"', f'"sha256": "{OTHER.hex()}", "sha256"'),
        text[:-1],
        f"{text}x",
        "[" * 100_000,
        "[]",
        '{"subject": 1}',
        json.dumps(statement(CODE, subject=["x"])),
        json.dumps(statement(CODE, subject={"x": {}})),
    ):
        refuses(sigstore.envelope(said.encode()), MalformedInput, "not an in-toto v1")
    refuses(sigstore.envelope(text.encode("utf-16")), MalformedInput, "not an in-toto v1")


# --- who signed ---


@pytest.mark.parametrize("make", ["message", "envelope"])
def test_another_identity_or_issuer(sigstore: World, vouch, refuses, make: str) -> None:
    bundle = sigstore.message(WASM) if make == "message" else sigstore.envelope(statement(CODE))
    vouch(bundle)
    for name in ("mallory@example.org", WHO.upper(), f"{WHO}.invalid", WHO[1:], "*", f"{WHO}\0"):
        refuses(bundle, InvalidSignature, "SANs", identity=name)
    for name in ("https://other.invalid", f"{BY}/", BY.upper(), BY[:-1], ".*"):
        refuses(bundle, InvalidSignature, "OIDCIssuerV2", issuer=name)
    foreign = sigstore.message(WASM, issuer="https://other.invalid")
    refuses(foreign, InvalidSignature, "OIDCIssuerV2")


def test_anybody(sigstore: World, refuses) -> None:
    """Who is not named is not asked for, and that would be everybody."""
    bundle = sigstore.message(WASM)
    refuses(bundle, MalformedInput, "name the identity", identity="")
    refuses(bundle, MalformedInput, "name the identity", issuer="")


def test_a_certificate_of_another_authority_or_for_another_use(sigstore: World, refuses) -> None:
    """The other authority has the same name."""
    refuses(sigstore.message(WASM, ca=Authority()), InvalidSignature, "certificate chain")
    server = sigstore.message(WASM, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    refuses(server, InvalidSignature, "code signing")


def test_a_certificate_that_no_known_log_has_promised(sigstore: World, refuses) -> None:
    refuses(sigstore.message(WASM, ct=None), InvalidSignature, "timestamp extension")
    refuses(sigstore.message(WASM, ct=Signer()), InvalidSignature, "SCT")
    refuses(sigstore.message(WASM, ct=sigstore.rekor), InvalidSignature, "SCT")


def test_a_certificate_that_had_expired_or_had_not_begun(sigstore: World, vouch, refuses) -> None:
    for time in (TIME, TIME + 600):
        vouch(sigstore.message(WASM, time=time))
    for time in (TIME - 1, TIME + 601, TIME + 10**8):
        refuses(sigstore.message(WASM, time=time), InvalidSignature, "not valid at")


def test_a_key_that_is_not_the_certificates(sigstore: World, refuses) -> None:
    ours, theirs = sigstore.message(WASM), sigstore.message(WASM)
    ours["messageSignature"] = theirs["messageSignature"]
    refuses(ours, InvalidSignature, "Signature is invalid")
    sealed, other = (sigstore.envelope(statement(CODE)) for _ in range(2))
    sealed["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]
    refuses(sealed, InvalidSignature, "invalid signature")


def test_a_payload_changed_after_it_was_signed(sigstore: World, refuses) -> None:
    bundle = sigstore.envelope(statement(OTHER))
    payload = json.dumps(statement(CODE)).encode()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    refuses(bundle, InvalidSignature, "invalid signature")


# --- the log of signatures ---


def test_an_entry_by_a_log_that_is_not_known(sigstore: World, refuses) -> None:
    bundle = sigstore.message(WASM, rekor=Signer())
    refuses(bundle, InvalidSignature, "log entry")
    known = base64.b64encode(sigstore.rekor.id).decode()
    entry(bundle)["logId"]["keyId"] = known
    refuses(bundle, InvalidSignature, "log entry")
    refuses(sigstore.message(WASM, promises=Signer()), InvalidSignature, "SET")
    refuses(sigstore.message(WASM, rekor=sigstore.ct), InvalidSignature, "log entry")


def test_an_entry_about_another_signature(sigstore: World, refuses) -> None:
    refuses(sigstore.message(WASM, logged=OTHER_WASM), InvalidSignature, "inconsistent")
    refuses(sigstore.message(WASM, logged=WASM), InvalidSignature, "inconsistent")
    ours, theirs = sigstore.message(WASM), sigstore.message(WASM)
    ours["verificationMaterial"]["tlogEntries"] = theirs["verificationMaterial"]["tlogEntries"]
    refuses(ours, InvalidSignature, "inconsistent")
    sealed = sigstore.envelope(statement(CODE))
    material = sigstore.envelope(statement(CODE))["verificationMaterial"]
    sealed["verificationMaterial"]["tlogEntries"] = material["tlogEntries"]
    refuses(sealed, InvalidSignature, "do not match")


def test_no_entry_or_more_than_one_or_half_of_one(sigstore: World, refuses) -> None:
    whole = sigstore.message(WASM)
    material = whole["verificationMaterial"]
    for entries in ([], material["tlogEntries"] * 2):
        bundle = whole | {"verificationMaterial": material | {"tlogEntries": entries}}
        refuses(bundle, MalformedInput, "exactly one log entry")
    for part in ("inclusionPromise", "inclusionProof", "canonicalizedBody", "logId"):
        bundle = copy.deepcopy(whole)
        del entry(bundle)[part]
        refuses(bundle, MalformedInput, "cannot be read")
    bundle = copy.deepcopy(whole)
    del entry(bundle)["inclusionProof"]["checkpoint"]
    refuses(bundle, MalformedInput, "checkpoint")
    for untimed in ("0", None):
        bundle = copy.deepcopy(whole)
        entry(bundle)["integratedTime"] = untimed
        refuses(bundle, InvalidSignature, "verified time")


def test_an_entry_moved_in_time_or_in_the_tree(sigstore: World, refuses) -> None:
    """A certificate that had expired, and an entry that says it was in time."""
    bundle = sigstore.message(WASM, time=TIME + 601)
    entry(bundle)["integratedTime"] = str(TIME + 5)
    refuses(bundle, InvalidSignature, "SET")
    for part, value in (
        ("logIndex", "0"),
        ("hashes", []),
        ("rootHash", base64.b64encode(bytes(32)).decode()),
    ):
        bundle = sigstore.message(WASM)
        entry(bundle)["inclusionProof"][part] = value
        refuses(bundle, InvalidSignature, "inclusion proof")
    bundle, other = sigstore.message(WASM), sigstore.message(WASM)
    entry(bundle)["inclusionProof"]["checkpoint"] = entry(other)["inclusionProof"]["checkpoint"]
    refuses(bundle, InvalidSignature, "root hash")
    entry(bundle)["integratedTime"] = str(2**64 - 1)
    refuses(bundle, MalformedInput, "does not verify")


def test_a_time_that_nobody_who_is_known_has_signed(sigstore: World, vouch, refuses) -> None:
    """Without the log's promise it is a stamp that dates a bundle, and no log's word is told."""
    bundle = sigstore.message(WASM)
    made = json.loads(bytes(vouch(sigstore.stamped(bundle, TIME + 9))))
    (subject,) = json.loads(base64.b64decode(made["payload"]))["subject"]
    assert entry(bundle)["integratedTime"] == str(TIME + 5)
    assert subject["annotations"] == {"sigstore": NAMED}
    for stamped in (
        sigstore.stamped(bundle, TIME, clock=Clock()),
        sigstore.stamped(bundle, TIME, of=b"another"),
    ):
        refuses(stamped, InvalidSignature, "verified time")
    for time in (TIME - 1, TIME + 601):
        refuses(sigstore.stamped(bundle, time), InvalidSignature, "not valid at")
    # A promise that is there must hold, even where a stamp dates the bundle too.
    stamped = sigstore.stamped(bundle, TIME)
    false = entry(sigstore.message(WASM))["inclusionPromise"]
    entry(stamped)["inclusionPromise"] = false
    refuses(stamped, InvalidSignature, "SET")


# --- bytes ---


def test_a_bundle_that_is_cut_off_or_something_else(sigstore: World, refuses) -> None:
    for whole in (sigstore.message(WASM), sigstore.envelope(statement(CODE))):
        text = json.dumps(whole).encode()
        for end in (0, 1, 100, len(text) // 2, len(text) - 1):
            refuses(text[:end], MalformedInput, "cannot be read")
        for other in (b"x" + text, text + b"x", b"[" * 100_000, b"\xff\xfe", b"null", b"[]"):
            refuses(other, MalformedInput, "cannot be read")
        refuses(whole | {"extra": 1}, MalformedInput, "cannot be read")
        refuses(whole | {"mediaType": "x"}, MalformedInput, "cannot be read")
        broken = copy.deepcopy(whole)
        broken["verificationMaterial"]["certificate"]["rawBytes"] = "AAAA"
        refuses(broken, MalformedInput, "cannot be read")


def test_a_bundle_with_two_things_signed(sigstore: World, refuses) -> None:
    """One for the verifier to look at, and one for whoever reads the rest."""
    message, sealed = sigstore.message(WASM), sigstore.envelope(statement(CODE))
    refuses(message | {"dsseEnvelope": sealed["dsseEnvelope"]}, MalformedInput, "cannot be read")
    signature = sealed["dsseEnvelope"]["signatures"]
    sealed["dsseEnvelope"]["signatures"] = signature * 2
    refuses(sealed, MalformedInput, "exactly one signature")
    sealed["dsseEnvelope"]["signatures"] = []
    refuses(sealed, MalformedInput, "exactly one signature")


def test_a_bundle_without_end(
    sigstore: World, vouch, refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(sigstore.message(WASM)).encode()
    vouch(text.ljust(BUNDLE_BYTES))
    monkeypatch.delattr("moat._sigstore.verify")  # what is too large is looked at by nobody
    refuses(text.ljust(BUNDLE_BYTES + 1), MalformedInput, "too large")


def test_words_of_strangers_do_not_steer_a_terminal(sigstore: World, refuses) -> None:
    evil = "https://x\x1b[2J\n\u202e" + "x" * 40
    refuses(sigstore.message(WASM, issuer=evil), InvalidSignature, "OIDCIssuerV2")
    kind = "text/\x1b[2J"
    refuses(sigstore.envelope(statement(CODE), payload_type=kind), NotAttested, "in-toto")
    about = statement(CODE, predicateType="\x1b[2J" * 1000)
    refuses(sigstore.envelope(about), NotAttested, "vouches for nothing")


# --- whom to trust ---


def test_roots_that_somebody_left_in_a_cache(
    sigstore: World, refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verifier's own way without a network believes what lies there, unverified."""
    from sigstore.models import ClientTrustConfig

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    ClientTrustConfig.production(offline=True)
    caches = list(tmp_path.rglob("trusted_root.json"))
    assert len(caches) == 2  # the fixture's file, which is trusted when it is named
    for cache in caches:
        cache.write_text(json.dumps(sigstore.trusted_root()))
    believed = ClientTrustConfig.production(offline=True).trusted_root.get_fulcio_certs()
    assert len(believed) == 1
    refuses(sigstore.message(WASM), InvalidSignature, "certificate chain", trust_root=None)


def test_roots_of_another_sigstore(sigstore: World, vouch, refuses, roots: Path) -> None:
    bundle = sigstore.message(WASM)
    roots.write_text(json.dumps(World().trusted_root()))
    refuses(bundle, InvalidSignature, "certificate chain")
    for part in ("tlogs", "ctlogs"):
        mixed = sigstore.trusted_root() | {part: World().trusted_root()[part]}
        roots.write_text(json.dumps(mixed))
        refuses(bundle, InvalidSignature, "log entry" if part == "tlogs" else "SCT")
    roots.write_text(json.dumps(sigstore.trusted_root()))
    vouch(bundle)
