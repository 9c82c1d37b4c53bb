"""Sigstore bundles, verified with what is here: nothing of this asks the network.

The extra ``sigstore`` brings the verifier: certificate, promise of the certificate log, entry of
the signature log, signature. What it lacks is here: bounds, what a statement is about, and roots
that are those of the package or of a named file, never those that some cache of the user holds.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sigstore.errors import VerificationError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy

from moat.errors import InvalidSignature, MalformedInput, MoatError, NotAttested

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

ROOT_BYTES: Final = 1 << 20
"""Bytes of a file of roots."""

_ROOTS: Final = ("_store", "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev", "trusted_root.json")
"""Where the package has the roots of the public Sigstore."""
_IN_TOTO: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_BUILT: Final = "https://slsa.dev/provenance/v1"
"""The one predicate that counts: others may say that something is wrong with the bytes."""


def verify(
    bundle: bytes,
    data: bytes,
    *,
    identity: str,
    issuer: str,
    trust_root: str | PathLike[str] | None = None,
) -> dict[str, str | int]:
    """Verify that this identity, as this issuer names it, signed for data; say so.

    Given back are ``identity``, ``issuer`` and, where the signature log has signed it, the Unix
    second ``integrated``. Raises ``InvalidSignature`` for what does not verify, ``NotAttested``
    for a statement about other bytes, ``MalformedInput`` for what cannot be read.
    """
    if not identity or not issuer:
        message = "name the identity and the issuer; without both, anybody could have signed"
        raise MalformedInput(message)
    verifier = _verifier(trust_root)
    with _refusing("the bundle cannot be read; give the whole file of a Sigstore bundle"):
        read = Bundle.from_json(bundle)
        shown = json.loads(read.to_json())
    who = policy.AllOf([policy.OIDCIssuerV2(issuer), policy.Identity(identity=identity)])
    with _refusing("the bundle does not verify", InvalidSignature):
        if "messageSignature" in shown:
            verifier.verify_artifact(data, read, who)
        else:
            _about(*verifier.verify_dsse(read, who), hashlib.sha256(data).hexdigest())
    said: dict[str, str | int] = {"identity": identity, "issuer": issuer}
    (entry,) = shown["verificationMaterial"]["tlogEntries"]
    if "inclusionPromise" in entry and int(entry.get("integratedTime", 0)):
        said["integrated"] = int(entry["integratedTime"])
    return said


def _verifier(trust_root: str | PathLike[str] | None) -> Verifier:
    if trust_root is None:
        packed = importlib.resources.files("sigstore").joinpath(*_ROOTS)
        with (
            _refusing("this version of `sigstore` has no roots where they were; name a file"),
            importlib.resources.as_file(packed) as path,
        ):
            return Verifier(trusted_root=TrustedRoot.from_file(str(path)))
    path = Path(trust_root)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > ROOT_BYTES:
        message = f"`{path}` is no file of at most {ROOT_BYTES >> 10} KiB; name a trusted root"
        raise MalformedInput(message)
    with _refusing(f"`{path}` is no trusted root that can be used"):
        return Verifier(trusted_root=TrustedRoot.from_file(str(path)))


def _about(payload_type: str, payload: bytes, digest: str) -> None:
    """Refuse a statement that does not say of these bytes that they were built."""
    if payload_type != _IN_TOTO:
        message = f"the bundle signs a `{_plain(payload_type)}`, not an in-toto statement"
        raise NotAttested(message)
    try:
        said = json.loads(payload.decode(), object_pairs_hook=_once)
        form, predicate = said["_type"], said["predicateType"]
        named = [subject["digest"].get("sha256") for subject in said["subject"]]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        message = "the bundle's statement is not an in-toto v1; ask its signer for another"
        raise MalformedInput(message) from error
    if (form, predicate) != (_STATEMENT, _BUILT):
        message = (
            f"a statement `{_plain(form)}` with `{_plain(predicate)}` vouches for nothing here; "
            f"what does is an in-toto v1 with `{_BUILT}`"
        )
        raise NotAttested(message)
    if digest not in named:
        message = f"the bundle's statement is not about {digest}; give the file that it is about"
        raise NotAttested(message)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        message = "a name stands twice"
        raise ValueError(message)
    return found


@contextmanager
def _refusing(what: str, refused: type[MoatError] = MalformedInput) -> Iterator[None]:
    """Let nothing out of the verifier but what this package raises."""
    try:
        yield
    except MoatError:
        raise
    except VerificationError as error:
        message = f"{what}: {_plain(error)}"
        raise refused(message) from error
    except Exception as error:  # its parsers raise whatever a stranger's bytes lead to
        message = f"{what}: {_plain(error)}"
        raise MalformedInput(message) from error


def _plain(text: object) -> str:
    """Text of strangers, short and in one line that a terminal can show."""
    words = " ".join(str(text).split()).rstrip(".")
    return "".join(c if c.isprintable() else "?" for c in words)[:200]
