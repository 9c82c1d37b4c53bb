"""Writes the corpus of each fuzz target from ``spec/vectors/*.json``.

``python fuzz/seed.py`` writes it; with ``--check`` it only says whether it is as it would be
written. Bytes lie in ``.bin`` files, text in ``.txt``; of a file named ``found-…``, which a run
has found, it knows nothing. Drafts are objects without their envelopes, which a target signs
itself (``fuzz/src/lib.rs``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE: Final = Path(__file__).resolve().parent
VECTORS: Final = HERE.parent / "spec" / "vectors"
MOST: Final = 64
"""Files of one target."""
LARGE: Final = 3000
"""Bytes above which a case is left out: small inputs are mutated faster."""
BLANK: Final = b"\xaa" * 32
"""Stands in a draft for a hash that is known only once what it is of has been signed."""
NOW: Final = 1_750_000_000


def main(arguments: list[str]) -> int:
    stale = 0
    for target, files in corpus().items():
        folder = HERE / "corpus" / target
        kept = {path for path in folder.glob("*") if not path.name.startswith("found-")}
        wanted = {folder / name: data for name, data in files.items()}
        if arguments == ["--check"]:
            stale += kept != wanted.keys() or any(
                path.read_bytes() != data for path, data in wanted.items()
            )
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for path in kept - wanted.keys():
            path.unlink()
        for path, data in wanted.items():
            path.write_bytes(data)
    if stale:
        sys.stderr.write("the corpus is stale: run `python fuzz/seed.py`\n")
    return 1 if stale else 0


def corpus() -> dict[str, dict[str, bytes]]:
    """Names and contents of the files of each target."""
    made = {
        "attest": binaries(attestations()),
        "checkpoint": texts(notes()),
        "control": binaries(signed("control", control_draft)),
        "line": texts(lines()),
        "message": binaries(messages()),
        "pattern": texts(patterns()),
        "token": binaries(signed("token", token_draft)),
        "url": texts(urls()),
    }
    for target, files in made.items():
        if len(files) > MOST:
            raise ValueError(f"{target} has {len(files)} files, at most {MOST}")
    return made


def binaries(cases: Iterator[tuple[str, bytes]]) -> dict[str, bytes]:
    return {f"{slug(name)}.bin": data for name, data in cases}


def texts(cases: Iterator[tuple[str, str]]) -> dict[str, bytes]:
    return {f"{slug(name)}.txt": text.encode() for name, text in cases}


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def read(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def signed(kind: str, draft: Callable[[bytes], bytes]) -> Iterator[tuple[str, bytes]]:
    """Every good case, as it is received and as a draft; of each kind of refusal the shortest."""
    once = {}
    for case in read(kind)["cases"]:
        for step in [step for step in case["steps"] if step["kind"] == kind][-1:]:
            once.setdefault(step["hex"], (case["name"], step, bytes.fromhex(step["hex"])))
    found = [one for one in once.values() if 0 < len(one[2]) <= LARGE]
    shortest: dict[str, tuple[str, bytes]] = {}
    for name, step, data in found:
        expected = f"{step['expect']} {step.get('axis', '')}"
        if step["expect"] == "ok":
            yield name, data
            yield f"{name} draft", draft(data)
        elif expected not in shortest or len(data) < len(shortest[expected][1]):
            shortest[expected] = name, data
    # What only a signature brings to light is mutated as a draft.
    for expected, (name, data) in shortest.items():
        late = expected.startswith(("widened", "not_granted", "forbidden"))
        yield (f"{name} draft", draft(data)) if late else (name, data)


def token_draft(token: bytes) -> bytes:
    """The claims of each link, with a blank for the id of the link before."""
    drafts, before = [], BLANK
    for link in cbor2.loads(token):
        protected, _, claims, _ = cbor2.loads(link).value
        drafts.append(claims.replace(before, BLANK))
        before = hashlib.sha256(cbor2.dumps(["Signature1", protected, b"", claims])).digest()
    return cbor2.dumps(drafts)


def message_draft(wire: bytes) -> bytes:
    """The token's draft and the request, with a blank for the token's hash."""
    token, request = cbor2.loads(wire)
    body = cbor2.loads(request).value[2]
    return cbor2.dumps([token_draft(token), body.replace(hashlib.sha256(token).digest(), BLANK)])


def messages() -> Iterator[tuple[str, bytes]]:
    """Those of the vectors, and one on a token that dies before the message does."""
    yield from signed("message", message_draft)
    short = {case["name"]: case for case in read("token")["cases"]}["last second"]["steps"][0]
    plain = {case["name"]: case for case in read("message")["cases"]}["plain"]["steps"][0]
    _, body = cbor2.loads(message_draft(bytes.fromhex(plain["hex"])))
    yield "short-lived token draft", cbor2.dumps([token_draft(bytes.fromhex(short["hex"])), body])


def control_draft(statement: bytes) -> bytes:
    return cbor2.loads(statement).value[2]


def notes() -> Iterator[tuple[str, str]]:
    """Checkpoints and proofs."""
    for case in read("audit")["cases"]:
        if case["kind"] in {"checkpoint", "inclusion", "consistency"}:
            yield f"{case['kind']} {case['name']}", case["text"]


def lines() -> Iterator[tuple[str, str]]:
    """Lines and logs as received, and drafts of `kind body`."""
    vectors = read("audit")
    for case in vectors["cases"]:
        if case["kind"] == "line" and len(case["text"]) <= LARGE:
            yield f"line {case['name']}", case["text"]
        if case["kind"] == "log" and case["expect"] == "ok":
            yield f"log {case['name']}", "\n".join(case["lines"])
    bodies = [re.search(r'"body":(.*),"mac"', line) for line in vectors["log"]["lines"]]
    drafted = [f"note {body[1]}" for body in bodies if body]
    yield "draft of the log", "\n".join(drafted)
    for body in drafted:
        yield f"body {body[:24]}", body.removeprefix("note ")
    entries = dict(entry_bodies())
    for kind, body in entries.items():
        yield f"draft {kind}", f"{kind} {compact(body)}"
    yield "draft of all", "\n".join(f"{kind} {compact(body)}" for kind, body in entries.items())
    yield "body of nested", '{"a":' + "[" * 31 + "]" * 31 + "}"
    yield "body too deep", '{"a":' + "[" * 32 + "]" * 32 + "}"


def entry_bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """One body of each kind that a gate writes (spec/audit.md)."""
    token, control = read("token"), read("control")
    (link,) = cbor2.loads(bytes.fromhex(token["cases"][0]["steps"][0]["hex"]))
    protected, _, claims, _ = cbor2.loads(link).value
    link_id = hashlib.sha256(cbor2.dumps(["Signature1", protected, b"", claims])).hexdigest()
    did = {name: key["did"] for name, key in token["keys"].items()}
    statement = bytes.fromhex(control["cases"][0]["steps"][0]["hex"])
    said = cbor2.loads(control_draft(statement))
    digest = "00" * 32
    yield "rules", {"policy": "chain-only", "roots": [did["root"]], "operators": []}
    yield "link", {"id": link_id, "link": base64url(link)}
    yield (
        "decision",
        {
            "allow": True, "stage": "capability", "holder": did["planner"], "token": link_id,
            "message": digest, "recipient": "gate", "action": "call",
            "resource": "tool://search/web", "args": digest, "payload": digest,
            "policy": token["policy"], "stream": "11" * 16, "number": 0, "expires": NOW + 60,
        },
    )  # fmt: skip
    yield "outcome", {"decision": 3, "status": "ok", "fuel": 1}
    yield "outcome", {"decision": 3, "status": "ok", "fuel": 1, "deterministic": True}
    yield (
        "control",
        {
            "verb": said[1], "target": "agent", "id": did["planner"], "signer": did["root"],
            "scope": "gate", "nonce": said[5].hex(), "expires": said[7],
            "statement": base64url(statement),
        },
    )  # fmt: skip
    yield "summary", {"since": NOW, "counts": {"stale": 2}}
    yield "recovered", {"pending": [3]}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def patterns() -> Iterator[tuple[str, str]]:
    """Pairs that are compared, four in a file, and what is read alone."""
    cases = read("pattern")
    pairs = [case for case in cases if case["kind"] in {"covers", "match"}]
    named = [
        text
        for case in pairs
        for text in (
            case.get("parent", case.get("pattern")),
            case.get("child", case.get("resource")),
        )
    ]
    alone = [case["text"] for case in cases if case["kind"] in {"parse", "canonicalize"}]
    for name, texts_, size in (("pairs", named, 8), ("texts", alone, 14)):
        fitting = [text for text in texts_ if len(text) <= LARGE]
        for number, start in enumerate(range(0, len(fitting), size)):
            yield f"{name} {number}", "\n".join(fitting[start : start + size])


def attestations() -> Iterator[tuple[str, bytes]]:
    """Statements, which the target signs itself, and envelopes with a signature of the gate's."""
    for name, said in statements():
        payload = compact(said).encode()
        yield f"statement {name}", payload
        yield f"envelope {name}", envelope(payload)
    payload = compact(dict(statements())["code"]).encode()
    yield "envelope of another type", envelope(payload, kind="text/plain")
    yield "envelope without a signature", envelope(payload, signatures=[])
    yield "envelope with a short signature", envelope(payload, signatures=[{"sig": "AA=="}])
    yield "envelope with two payloads", envelope(payload).replace(b"{", b'{"payload":"e30=",', 1)
    yield "envelope in url characters", envelope(payload, spell=base64.urlsafe_b64encode)
    yield "statement with a name twice", payload.replace(b"{", b'{"subject":[],', 1)
    yield "tool description", b'{"name":"search","inputSchema":{"type":"object","n":1.0}}'


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """One of each predicate and kind, and what is refused for one reason each (spec/attest.md)."""
    subject = [{"name": "x", "digest": {"sha256": "ab" * 32}}]

    def said(uri: str, predicate: Any, **changes: Any) -> dict[str, Any]:
        whole = {"_type": "https://in-toto.io/Statement/v1", "predicateType": uri}
        return whole | {"subject": subject, "predicate": predicate} | changes

    manifest, slsa = "urn:moat:manifest:v1", "https://slsa.dev"
    for kind in ("code", "tool"):
        yield kind, said(manifest, {"kind": kind, "issued": NOW})
    files = {"a.md": "cd" * 32, "sub/b.py": "ef" * 32}
    listed = [{"digest": {"sha256": hashlib.sha256(compact(files).encode()).hexdigest()}}]
    yield "skill", said(manifest, {"kind": "skill", "issued": NOW, "files": files}, subject=listed)
    built = {
        "buildDefinition": {"buildType": "https://build.example", "externalParameters": {}},
        "runDetails": {
            "builder": {"id": "https://builder.example"},
            "metadata": {"finishedOn": "2025-06-15T15:06:40.5Z"},
        },
    }
    yield "provenance", said(f"{slsa}/provenance/v1", built)
    passed = {
        "verifier": {"id": "https://verifier.example"}, "timeVerified": "2025-06-15T15:06:40Z",
        "resourceUri": "pkg:x", "policy": {"uri": "https://policy.example"},
        "verificationResult": "PASSED", "verifiedLevels": ["SLSA_BUILD_LEVEL_3"],
    }  # fmt: skip
    yield "summary", said(f"{slsa}/verification_summary/v1", passed)
    failed = passed | {"verificationResult": "FAILED"}
    yield "failed", said(f"{slsa}/verification_summary/v1", failed)
    yield "unknown", said("https://slsa.dev/provenance/v2", built)
    many = [*subject, {"digest": {"sha512": "00" * 64}}, {"digest": {"sha256": "cd" * 32}}]
    yield "many", said(manifest, {"kind": "code", "issued": NOW}, subject=many)
    yield "undated", said(manifest, {"kind": "code"})


def envelope(
    payload: bytes,
    kind: str = "application/vnd.in-toto+json",
    signatures: list[dict[str, str]] | None = None,
    spell: Callable[[bytes], bytes] = base64.standard_b64encode,
) -> bytes:
    """A DSSE envelope, signed by the gate of the vectors."""
    control = read("control")
    seed = bytes.fromhex(control["keys"][control["gate"]]["seed"])
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(signed)
    if signatures is None:
        signatures = [{"keyid": "", "sig": spell(signature).decode()}]
    made = {"payload": spell(payload).decode(), "payloadType": kind, "signatures": signatures}
    return compact(made).encode()


def urls() -> Iterator[tuple[str, str]]:
    """Those of the vectors that name a host, and what parsers read differently."""
    cases = read("pattern")
    found = sorted(
        {
            case[key].replace("**", "a").replace("*", "b")
            for case in cases
            for key in ("text", "resource", "child")
            if case.get(key, "").startswith("http")
        }
    )
    for number, start in enumerate(range(0, len(found), 4)):
        yield f"vectors {number}", "\n".join(found[start : start + 4])
    for number, url in enumerate(URLS):
        yield f"url {number}", url


URLS: Final = (
    "https://a.example/", "https://a.example?q=1", "https://a.example:8443/a/b?c=d&e#f",
    "http://127.0.0.1:8080/a", "http://[::1]/", "https://[2001:db8::1]:1/a//b",
    "http://allowed\\@evil.example/", "http://a@b.example/", "http://evil.example\t/",
    "http://2130706433/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "http://a.example./",
    "HTTP://a.example/", "http://a.example:80/", "http://xn--e1afmkfd.example/%D0%B0",
    "http://\u0435vil.example/", "http://a.example/%2e%2e/b", "http://a.example/a/../b;c",
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
