"""A private Sigstore: an authority, a certificate log and a signature log, and what they sign.

Certificates, SCTs, entries, checkpoints, stamps and bundles are made from the pages that define
them: RFC 5280, RFC 6962, RFC 3161, Fulcio's OIDs, Rekor's entries, signed notes, the bundle's JSON.
"""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import pytest
from asn1crypto import cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

if TYPE_CHECKING:
    from pathlib import Path

TIME: Final = 1_750_000_000
"""When everything here was signed."""
WHO: Final = "builder@example.org"
BY: Final = "https://accounts.example.org"
NAMED: Final = {"identity": WHO, "issuer": BY}

IN_TOTO: Final = "application/vnd.in-toto+json"
SLSA: Final = "https://slsa.dev/provenance/v1"
ISSUER_OID: Final = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
SCT_OID: Final = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
DER: Final = serialization.Encoding.DER
BEGIN, END = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
ALWAYS: Final = {"start": "2020-01-01T00:00:00Z"}


def b64(data: bytes) -> str:
    """Base64 as JSON has it."""
    return base64.b64encode(data).decode()


def second(time: int) -> dt.datetime:
    """A Unix second as certificates have it."""
    return dt.datetime.fromtimestamp(time, dt.UTC)


def statement(digest: bytes, **changes: Any) -> dict[str, Any]:
    """An in-toto statement, as builders make it."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "x", "digest": {"sha256": digest.hex()}}],
        "predicateType": SLSA,
        "predicate": {"buildDefinition": {}, "runDetails": {"builder": {"id": "urn:x"}}},
    } | changes


class Signer:
    """A key of the P-256 curve, and the id that logs give it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.spki = self.key.public_key().public_bytes(DER, form)
        self.id = sha256(self.spki).digest()

    def sign(self, data: bytes) -> bytes:
        """Sign the SHA-256 of data with ECDSA."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))


class Authority(Signer):
    """Issues certificates for ten minutes, each with the promise of a certificate log."""

    def __init__(self) -> None:
        super().__init__()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        made = _certificate(self._name, self._name, self.key, BEGIN, END)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        self.root = made.sign(self.key, hashes.SHA256()).public_bytes(DER)

    def issue(
        self,
        key: Signer,
        ct: Signer | None,
        *,
        name: x509.GeneralName,
        issuer: str = BY,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
    ) -> x509.Certificate:
        """Certify a key from ``TIME`` on; without a log there is no promise."""
        begin, end = second(TIME), second(TIME + 600)
        made = _certificate(x509.Name([]), self._name, key.key, begin, end)
        ours = self.key.public_key()
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage("digital_signature"), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(ours), False),
            (x509.SubjectAlternativeName([name]), True),
            (x509.UnrecognizedExtension(ISSUER_OID, _der(0x0C, issuer.encode())), False),
        ):
            made = made.add_extension(extension, critical=critical)
        if ct is not None:
            before = made.sign(self.key, hashes.SHA256()).tbs_certificate_bytes
            promise = x509.UnrecognizedExtension(SCT_OID, _promise(ct, self.id, before))
            made = made.add_extension(promise, critical=False)
        return made.sign(self.key, hashes.SHA256())

    def appoint(self, clock: Signer) -> bytes:
        """Certify a key that says what time it is."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clock of the tests")])
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        made = _certificate(name, self._name, clock.key, BEGIN, END)
        made = made.add_extension(_usage("digital_signature"), critical=True)
        made = made.add_extension(use, critical=True).add_extension(ours, critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(DER)


class Clock(Signer):
    """An authority for time, with a root of its own."""

    def __init__(self) -> None:
        super().__init__()
        ca = Authority()
        self.chain = [ca.appoint(self), ca.root]

    def stamp(self, data: bytes, time: int) -> bytes:
        """Say that data was there at this second (RFC 3161, RFC 5652)."""
        algorithm = {"algorithm": "sha256"}
        certificate = asn1_x509.Certificate.load(self.chain[0])
        imprint = {"hash_algorithm": algorithm, "hashed_message": sha256(data).digest()}
        info = tsp.TSTInfo(
            {
                "version": "v1",
                "policy": "1.2.3",
                "message_imprint": imprint,
                "serial_number": 7,
                "gen_time": second(time),
            }
        ).dump()
        ours = {"certs": [{"cert_hash": sha256(self.chain[0]).digest()}]}
        said = {
            "content_type": "tst_info",
            "message_digest": sha256(info).digest(),
            "signing_certificate_v2": ours,
        }
        attributes = cms.CMSAttributes([{"type": k, "values": [v]} for k, v in said.items()])
        number = {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
        signer = {
            "version": "v1",
            "sid": cms.IssuerAndSerialNumber(number),
            "digest_algorithm": algorithm,
            "signed_attrs": attributes,
            "signature_algorithm": {"algorithm": "sha256_ecdsa"},
            "signature": self.sign(attributes.dump()),
        }
        content = {"content_type": "tst_info", "content": core.ParsableOctetString(info)}
        signed = cms.SignedData(
            {
                "version": "v3",
                "digest_algorithms": [algorithm],
                "signer_infos": [signer],
                "encap_content_info": content,
                "certificates": [certificate],
            }
        )
        token = {"content_type": "signed_data", "content": signed}
        answer = {"status": {"status": "granted"}, "time_stamp_token": token}
        return bytes(tsp.TimeStampResp(answer).dump())


class World:
    """One Sigstore. Each argument of its methods is one thing that an attacker changes."""

    def __init__(self) -> None:
        self.ca, self.ct, self.rekor, self.clock = Authority(), Signer(), Signer(), Clock()

    def trusted_root(self) -> dict[str, Any]:
        """What a verifier is told to trust."""

        def log(signer: Signer) -> dict[str, Any]:
            key = {
                "rawBytes": b64(signer.spki),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": ALWAYS,
            }
            return {
                "baseUrl": "https://log.invalid",
                "hashAlgorithm": "SHA2_256",
                "publicKey": key,
                "logId": {"keyId": b64(signer.id)},
            }

        def authority(*chain: bytes) -> dict[str, Any]:
            return {
                "subject": {"organization": "tests", "commonName": "authority of the tests"},
                "uri": "https://ca.invalid",
                "certChain": {"certificates": [{"rawBytes": b64(one)} for one in chain]},
                "validFor": ALWAYS,
            }

        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor)],
            "certificateAuthorities": [authority(self.ca.root)],
            "ctlogs": [log(self.ct)],
            "timestampAuthorities": [authority(*self.clock.chain)],
        }

    def message(self, data: bytes, *, logged: bytes | None = None, **more: Any) -> dict[str, Any]:
        """A bundle with a signature over data; ``logged`` is what its entry is about instead."""
        key = Signer()
        certificate = self._certify(key, more)
        signature = key.sign(data)
        of = data if logged is None else logged
        content = signature if logged is None else key.sign(logged)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        spec = {
            "data": {"hash": {"algorithm": "sha256", "value": sha256(of).hexdigest()}},
            "signature": {"content": b64(content), "publicKey": {"content": b64(pem)}},
        }
        made = self._bundle(certificate, "hashedrekord", spec, **more)
        digest = {"algorithm": "SHA2_256", "digest": b64(sha256(data).digest())}
        made["messageSignature"] = {"messageDigest": digest, "signature": b64(signature)}
        return made

    def envelope(
        self, said: dict[str, Any] | bytes, *, payload_type: str = IN_TOTO, **more: Any
    ) -> dict[str, Any]:
        """A bundle with a DSSE envelope around a statement."""
        key = Signer()
        certificate = self._certify(key, more)
        payload = said if isinstance(said, bytes) else json.dumps(said).encode()
        kind = payload_type.encode()
        signature = key.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        made = {
            "payload": b64(payload),
            "payloadType": payload_type,
            "signatures": [{"sig": b64(signature)}],
        }
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": "00" * 32},
            "payloadHash": {"algorithm": "sha256", "value": sha256(payload).hexdigest()},
            "signatures": [{"signature": b64(signature), "verifier": b64(pem)}],
        }
        return self._bundle(certificate, "dsse", spec, **more) | {"dsseEnvelope": made}

    def stamped(
        self, bundle: dict[str, Any], time: int, *, clock: Clock | None = None, of: bytes = b""
    ) -> dict[str, Any]:
        """Date a bundle with a stamp of its signature, or of other bytes; keep no promise."""
        made = copy.deepcopy(bundle)
        material = made["verificationMaterial"]
        del material["tlogEntries"][0]["inclusionPromise"]
        signed = of or base64.b64decode(made["messageSignature"]["signature"])
        stamp = b64((clock or self.clock).stamp(signed, time))
        material["timestampVerificationData"] = {"rfc3161Timestamps": [{"signedTimestamp": stamp}]}
        return made

    def _certify(self, key: Signer, more: dict[str, Any]) -> x509.Certificate:
        asked = {name: more.pop(name) for name in ("issuer", "usage") if name in more}
        name = more.pop("name", x509.RFC822Name(WHO))
        ca, ct = more.pop("ca", self.ca), more.pop("ct", self.ct)
        return ca.issue(key, ct, name=name, **asked)

    def _bundle(
        self,
        certificate: x509.Certificate,
        kind: str,
        spec: dict[str, Any],
        *,
        time: int = TIME + 5,
        rekor: Signer | None = None,
        promises: Signer | None = None,
    ) -> dict[str, Any]:
        """Log a body as the second of two leaves: ``rekor`` signs the tree and the promise."""
        rekor = rekor or self.rekor
        body = _canonical({"apiVersion": "0.0.1", "kind": kind, "spec": spec})
        other, ours = sha256(b"\0another").digest(), sha256(b"\0" + body).digest()
        root = sha256(b"\1" + other + ours).digest()
        note = f"log.invalid - 1\n2\n{b64(root)}\n"
        signed = b64(rekor.id[:4] + rekor.sign(note.encode()))
        promise = {
            "body": b64(body), "integratedTime": time, "logID": rekor.id.hex(), "logIndex": 1001,
        }  # fmt: skip
        entry = {
            "logIndex": "1001",
            "logId": {"keyId": b64(rekor.id)},
            "kindVersion": {"kind": kind, "version": "0.0.1"},
            "integratedTime": str(time),
            "inclusionPromise": {
                "signedEntryTimestamp": b64((promises or rekor).sign(_canonical(promise)))
            },
            "inclusionProof": {
                "logIndex": "1",
                "treeSize": "2",
                "rootHash": b64(root),
                "hashes": [b64(other)],
                "checkpoint": {"envelope": f"{note}\n— log.invalid {signed}\n"},
            },
            "canonicalizedBody": b64(body),
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(DER))},
                "tlogEntries": [entry],
            },
        }


@pytest.fixture(scope="module")
def sigstore() -> World:
    """A Sigstore of the tests' own."""
    return World()


@pytest.fixture
def roots(sigstore: World, tmp_path: Path) -> Path:
    """The file that says to trust it."""
    file = tmp_path / "trusted_root.json"
    file.write_text(json.dumps(sigstore.trusted_root()))
    return file


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every way to the network fail, and a look-up of a name as well."""

    def refuse(*_: Any, **__: Any) -> None:
        message = "the network was asked"
        raise AssertionError(message)

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(f"socket.socket.{name}", refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(f"socket.{name}", refuse)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: Any, begin: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begin,
        not_valid_after=end,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return made.add_extension(identifier, critical=False)


def _usage(*names: str) -> x509.KeyUsage:
    every = {
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    }
    return x509.KeyUsage(**{name: name in names for name in every})


def _promise(ct: Signer, issuer: bytes, tbs: bytes) -> bytes:
    """The extension of RFC 6962 §3.3 with one promise for a precertificate."""
    stamp = TIME * 1000
    length = len(tbs).to_bytes(3, "big")
    signed = struct.pack(">BBQH", 0, 0, stamp, 1) + issuer + length + tbs + b"\0\0"
    signature = ct.sign(signed)
    head = struct.pack(">B32sQHBB", 0, ct.id, stamp, 0, 4, 3)
    made = head + len(signature).to_bytes(2, "big") + signature
    inner = len(made).to_bytes(2, "big") + made
    return _der(0x04, len(inner).to_bytes(2, "big") + inner)


def _der(tag: int, value: bytes) -> bytes:
    assert len(value) < 128 or tag == 0x04
    head = bytes([len(value)]) if len(value) < 128 else bytes([0x81, len(value)])
    return bytes([tag]) + head + value


def _canonical(value: Any) -> bytes:
    """RFC 8785, as far as plain ASCII needs it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
