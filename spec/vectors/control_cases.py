"""Cases of spec/message.md: control statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import forge
from cases import (
    GATE,
    OPERATOR,
    OTHER_GATE,
    PLANNER,
    ROOT,
    STRANGER,
    WORKER,
    Case,
    Step,
    case,
    control,
    message,
    step,
)
from forge import ABSENT, NOW

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAIN = forge.first(ROOT, PLANNER)
PAIR = CHAIN.then(WORKER)
OTHER = forge.first(ROOT, STRANGER).then(WORKER)


def one(name: str, rule: str, expect: str, **more: Any) -> Case:
    """A case of one statement by the root against the planner."""
    signer = more.pop("signer", ROOT)
    return case(name, rule, step("control", control(signer, "revoke", PLANNER, **more), expect))


def cases() -> Iterator[Case]:
    """Every case, positive ones first."""
    yield from _standing()
    yield from _suspension()
    yield from _bytes()
    yield from _fields()
    yield from _times_and_signatures()


def asks(chain: forge.Chain, number: int, expect: str = "ok", **more: Any) -> Step:
    """The chain's holder asks once."""
    return step("message", message(chain, number=number), expect, **more)


def says(expect: str, *what: Any, **more: Any) -> Step:
    """A statement."""
    return step("control", control(*what, **more), expect)


def _standing() -> Iterator[Case]:
    none = "no_standing"
    dead = asks(PAIR, 1, "revoked", link=0)
    rule = "a root or an operator revokes anything"
    yield case("by a root", rule, says("ok", ROOT, "revoke", PLANNER), dead)
    yield case("by an operator", rule, says("ok", OPERATOR, "revoke", PLANNER), dead)
    link = says("ok", ROOT, "revoke", CHAIN.ids[0])
    yield case("by a root, a link", rule, link, dead)
    seen = asks(PAIR, 0)
    rule = "an agent revokes itself, once the gate has seen a link that it holds"
    itself = says("ok", PLANNER, "revoke", PLANNER)
    yield case("by itself", rule, seen, itself, asks(PAIR, 1, "revoked", link=0))
    yield case("by itself, not seen", rule, says(none, PLANNER, "revoke", PLANNER))
    rule = "a delegator revokes what it gave, in chains that the gate has seen"
    given = says("ok", PLANNER, "revoke", WORKER)
    yield case("by the delegator", rule, seen, given, asks(PAIR, 1, "revoked", link=1))
    own = says("ok", PLANNER, "revoke", PAIR.ids[1])
    yield case("a link by its issuer", rule, seen, own, asks(PAIR, 1, "revoked", link=1))
    rule = "a delegator takes back what it gave, not what others gave"
    yield case("given by another", rule, seen, given, asks(OTHER, 1))
    rule = "nobody else has standing"
    yield case("by a stranger", rule, seen, says(none, STRANGER, "revoke", WORKER))
    yield case("by the gate", rule, seen, says(none, GATE, "revoke", WORKER))
    yield case("by a descendant", rule, seen, says(none, WORKER, "revoke", PLANNER))
    yield case("a parent link", rule, seen, says(none, WORKER, "revoke", PAIR.ids[0]))
    yield case("before it was seen", rule, says(none, PLANNER, "revoke", WORKER))
    revoked = says("ok", ROOT, "revoke", PLANNER)
    again = says(none, PLANNER, "revoke", WORKER, nonce="b")
    yield case("by a revoked agent", "a revoked agent has no say", seen, revoked, again)
    restored = says("ok", ROOT, "restore", PLANNER, nonce="b")
    rule = "a root restores"
    yield case("restored", rule, revoked, dead, restored, asks(PAIR, 2))
    rule = "the signer of a revocation restores"
    by_operator = says("ok", OPERATOR, "revoke", PLANNER)
    back = says("ok", OPERATOR, "restore", PLANNER, nonce="b")
    yield case("restored by its signer", rule, by_operator, back, asks(PAIR, 2))
    rule = "nobody else restores"
    refused = says(none, OPERATOR, "restore", PLANNER, nonce="b")
    yield case("restored by another", rule, revoked, refused)
    refused = says(none, PLANNER, "restore", PLANNER, nonce="b")
    yield case("restored by the target", rule, revoked, refused)
    rule = "what is not revoked is not restored"
    yield case("nothing to restore", rule, says(none, ROOT, "restore", PLANNER))
    rule = "a nonce counts once"
    yield case("twice", rule, revoked, revoked | {"expect": "replayed"})
    rule = "a restored target is not revoked again by the old statement"
    replayed = revoked | {"expect": "replayed"}
    yield case("replayed after restoring", rule, revoked, restored, replayed)


def _suspension() -> Iterator[Case]:
    none = "no_standing"
    suspended = says("ok", ROOT, "suspend", PLANNER)
    dead, seen = asks(CHAIN, 1, "suspended", link=0), asks(PAIR, 0)
    rule = "a root or an operator suspends anything"
    yield case("suspended by a root", rule, suspended, dead)
    yield case("suspended by an operator", rule, says("ok", OPERATOR, "suspend", PLANNER), dead)
    rule = "a delegator suspends what it gave"
    given = says("ok", PLANNER, "suspend", WORKER)
    yield case("suspended by the delegator", rule, seen, given, asks(PAIR, 1, "suspended", link=1))
    yield case("given by another goes on", rule, seen, given, asks(OTHER, 1))
    rule = "nobody suspends itself"
    yield case("suspended by itself", rule, seen, says(none, PLANNER, "suspend", PLANNER))
    rule = "a suspended agent has no say"
    says_more = says(none, PLANNER, "revoke", WORKER, nonce="b")
    yield case("by a suspended agent", rule, seen, suspended, says_more)
    rule = "the signer of a suspension or a root resumes"
    resumed = says("ok", ROOT, "resume", PLANNER, nonce="b")
    yield case("resumed by a root", rule, suspended, dead, resumed, asks(PAIR, 2))
    refused = says(none, OPERATOR, "resume", PLANNER, nonce="b")
    yield case("resumed by another", rule, suspended, refused)
    rule = "a suspension is not a revocation"
    wrong = says(none, ROOT, "restore", PLANNER, nonce="b")
    yield case("restored instead of resumed", rule, suspended, wrong)
    revoked = says("ok", ROOT, "revoke", PLANNER, nonce="b")
    both = says("ok", ROOT, "resume", PLANNER, nonce="c")
    yield case("revoked as well", rule, suspended, revoked, both, asks(PAIR, 2, "revoked", link=0))


def _bytes() -> Iterator[Case]:
    bad = "malformed"
    data = control(ROOT, "revoke", PLANNER)
    for name, rule, changed in (
        ("no bytes", "a statement is CBOR", b""),
        ("cut", "nothing is missing at the end", data[:-1]),
        ("bytes after", "nothing follows the end", data + b"\0"),
        ("no tag", "a statement is tagged 18", data[1:]),
    ):
        yield case(name, rule, step("control", changed, bad))
    long = data + bytes(1024)
    yield case("more than 1 KiB", "at most 1 KiB", step("control", long, "too_large"))
    as_link = step("control", CHAIN.links[0], "wrong_type")
    yield case("a link", "a statement has its own typ", as_link)
    request = forge.cbor2.loads(message(CHAIN))[1]
    yield case("a request", "a statement has its own typ", step("control", request, "wrong_type"))


def _fields() -> Iterator[Case]:
    bad = "malformed"
    for field in range(1, 8):
        yield one(f"no field {field}", "the field is required", bad, fields={field: ABSENT})
    for name, rule, fields, reason in (
        ("an unknown field", "fields are known", {8: 1}, "unknown_claim"),
        ("pause", "a verb is known", {1: "pause"}, bad),
        ("verb in capitals", "a verb is known", {1: "Revoke"}, bad),
        ("kind 2", "a target is an agent or a link", {2: [2, bytes(32)]}, bad),
        ("bare target", "a target names its kind", {2: PLANNER.public}, bad),
        ("short target", "a target has 32 bytes", {2: [1, bytes(31)]}, bad),
        ("weak target", "a key is strong", {2: [0, bytes(32)]}, "bad_key"),
        ("weak signer", "a key is strong", {4: bytes(32)}, "bad_key"),
        ("short nonce", "a nonce has 16 bytes", {5: bytes(15)}, bad),
        ("iat in 8 bytes", "integers are shortest", {6: forge.Wide(NOW, 8)}, bad),
    ):
        yield one(name, rule, reason, fields=fields)


def _times_and_signatures() -> Iterator[Case]:
    stale, bad = "stale", "bad_signature"
    yield one("longest life", "exp is iat + 3600 at most", "ok", lifetime=3600)
    yield one("3601 s", "exp is iat + 3600 at most", stale, lifetime=3601)
    yield one("at exp", "it is stale at exp, no skew", stale, now=NOW - 60)
    yield one("clock ahead", "iat may be 60 s ahead", "ok", now=NOW + 60)
    yield one("from the future", "iat is 60 s ahead at most", stale, now=NOW + 61)
    yield one("no life", "iat is before exp", stale, now=NOW + 1, lifetime=0)
    yield one("another gate", "gate is this gate", "wrong_gate", gate=OTHER_GATE)
    yield one("in another's name", "the named signer signs", bad, fields={4: STRANGER.public})
    posing = {"signer": STRANGER, "fields": {4: ROOT.public}, "headers": {4: ROOT.kid}}
    yield one("posing as the root", "the named signer signs", bad, **posing)
    data = control(ROOT, "revoke", PLANNER)
    signature = forge.parts(data)[3]
    for name, rule, value in (
        ("unsigned", "a statement is signed", bytes(64)),
        ("S + L", "S is reduced", forge.malleate(signature)),
    ):
        changed = forge.rebuilt(data, signature=value)
        yield case(name, rule, step("control", changed, bad))
    for name, typ in (("link", forge.CAP), ("message", forge.MSG)):
        headers = {16: typ}
        yield one(f"typ of a {name}", "it has its own typ", "wrong_type", headers=headers)
    yield one("alg -7", "alg is -8 or -19", "unknown_algorithm", headers={1: -7})
    yield one("another header", "headers are known", "unknown_claim", headers={3: 0})
    yield one("alg -19", "Ed25519 may be named by -19", "ok", headers={1: -19})
