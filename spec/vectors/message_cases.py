"""Cases of spec/message.md: messages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import forge
from cases import (
    GATE,
    OTHER_GATE,
    PLANNER,
    ROOT,
    STRANGER,
    WORKER,
    Case,
    case,
    control,
    message,
    step,
    stream,
)
from forge import ABSENT, NOW, Field

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAIN = forge.first(ROOT, PLANNER)
PAIR = CHAIN.then(WORKER)
CODE = bytes(range(32))


def one(name: str, rule: str, expect: str = "ok", **more: Any) -> Case:
    """A case of one message; ``fields`` replaces fields, ``link`` and ``axis`` are expected."""
    where = {key: more.pop(key) for key in ("link", "axis") if key in more}
    chain = more.pop("chain", CHAIN)
    if "fields" in more:
        more["forged"] = {"fields": more.pop("fields")}
    return case(name, rule, step("message", message(chain, **more), expect, **where))


def cases() -> Iterator[Case]:
    """Every case, positive ones first."""
    yield from _good()
    yield from _bytes()
    yield from _fields()
    yield from _args()
    yield from _times_and_gate()
    yield from _signatures()
    yield from _replay()
    yield from _policy()
    yield from _capability()


def _good() -> Iterator[Case]:
    yield one("plain", "a granted request is permitted")
    yield one("delegated", "the last holder asks", chain=PAIR)
    args = '{"a":[1,2.5,true,null,"\u00e9"],"b":{"c":""}}'.encode()
    yield one("args", "arguments are an RFC 8785 object", args=args)
    yield one("edge of 2^53", "integers within 2^53", args=b'{"n":-9007199254740992}')
    yield one("payload", "a payload is any bytes", payload=bytes(range(256)))
    yield one("recipient", "a recipient may be an agent", recipient=WORKER.public)
    yield one("code", "code is named by its digest", code=bytes(32))
    full = {
        Field.CAUSES: [bytes([n]) * 32 for n in range(16)],
        Field.LABELS: [f"l{n:02}" for n in range(16)],
    }
    yield one("causes and labels", "at most 16 of each", fields=full)
    yield one("longest life", "exp is iat + 300 at most", lifetime=300)
    yield one("last second", "it is fresh until exp", now=NOW - 59)
    yield one("clock ahead", "iat may be 60 s ahead", now=NOW + 60)
    yield one("largest number", "numbers are 64 bits", number=2**64 - 1)
    yield one("alg -19", "Ed25519 may be named by -19", forged={"headers": {1: -19}})


def _bytes() -> Iterator[Case]:
    bad = "malformed"
    wire = message(CHAIN)
    token, request = forge.cbor2.loads(wire)

    def raw(name: str, rule: str, data: bytes, expect: str = bad) -> Case:
        return case(name, rule, step("message", data, expect))

    yield raw("no bytes", "a message is CBOR", b"")
    yield raw("cut", "nothing is missing at the end", wire[:-1])
    yield raw("bytes after", "nothing follows the end", wire + b"\0")
    yield raw("three parts", "a message has two parts", forge.cbor([token, request, b""]))
    yield raw("token alone", "a message has two parts", token)
    yield raw("request as an item", "it lies in bytes", forge.cbor([token, forge.Raw(request)]))
    endless = forge.cbor(forge.Endless([token, request]))
    yield raw("endless array", "lengths are definite", endless)
    wide = forge.cbor([forge.Wide(token, 8), request])
    yield raw("long head", "heads are shortest", wide)
    yield raw("request unsigned", "a request is signed", forge.cbor([token, b"\xa0"]))
    other = forge.first(ROOT, PLANNER, fuel=1).token
    yield raw("another token", "the request names its token", forge.wire(other, request))
    as_link = forge.wire(token, CHAIN.links[0])
    yield raw("a link as the request", "a request has its own typ", as_link, "wrong_type")


def _fields() -> Iterator[Case]:
    bad = "malformed"
    for field in sorted(set(Field) - {Field.CODE}):
        name = f"no {field.name.lower()}"
        yield one(name, "the field is required", bad, fields={field: ABSENT})
    for name, rule, fields, reason in (
        ("an unknown field", "fields are known", {17: 1}, "unknown_claim"),
        ("every action", "one action, not `*`", {Field.ACTION: "*"}, bad),
        ("action in capitals", "lower case", {Field.ACTION: "Call"}, bad),
        ("a pattern", "a resource holds no star", {Field.RESOURCE: "tool://search/*"}, bad),
        ("a dot segment", "canonical", {Field.RESOURCE: "file:///data/../etc"}, bad),
        ("an escaped slash", "canonical", {Field.RESOURCE: "file:///data/..%2fetc"}, bad),
        ("a final slash", "canonical", {Field.RESOURCE: "tool://search/web/"}, bad),
        ("long resource", "512 bytes", {Field.RESOURCE: "tool://" + "a" * 506}, "too_large"),
        ("digest", "SHA-256 of the payload", {Field.DIGEST: bytes(32)}, bad),
        ("short stream", "a stream has 16 bytes", {Field.STREAM: bytes(15)}, bad),
        ("negative number", "numbers count from 0", {Field.NUMBER: -1}, bad),
        ("short code", "32 bytes", {Field.CODE: bytes(31)}, bad),
        ("unsorted causes", "sorted", {Field.CAUSES: [b"b" * 32, b"a" * 32]}, bad),
        ("a cause twice", "unique", {Field.CAUSES: [b"a" * 32] * 2}, bad),
        (
            "17 causes",
            "at most 16",
            {Field.CAUSES: [bytes([n]) * 32 for n in range(17)]},
            "too_large",
        ),
        ("unsorted labels", "sorted", {Field.LABELS: ["b", "a"]}, bad),
        ("a label twice", "unique", {Field.LABELS: ["a", "a"]}, bad),
        ("an empty label", "1 to 64", {Field.LABELS: [""]}, bad),
        ("a label in capitals", "lower case", {Field.LABELS: ["A"]}, bad),
        ("a long label", "1 to 64", {Field.LABELS: ["a" * 65]}, bad),
        ("17 labels", "at most 16", {Field.LABELS: [f"l{n:02}" for n in range(17)]}, "too_large"),
        ("weak recipient", "a key is strong", {Field.RECIPIENT: bytes(32)}, "bad_key"),
        ("weak gate", "a key is strong", {Field.GATE: bytes(32)}, "bad_key"),
        ("number in 8 bytes", "integers are shortest", {Field.NUMBER: forge.Wide(0, 8)}, bad),
        ("exp as a float", "there are no floats", {Field.EXP: forge.Raw(b"\xf9\x3c\0")}, bad),
        ("year 10000", "times are below it", {13: 253_402_300_799, 14: 253_402_300_800}, bad),
    ):
        yield one(name, rule, reason, fields=fields)
    plain = forge.Ask(stream=stream("stream")).fields(CHAIN.token, GATE.public)
    pairs = tuple((key, value) for key, value in plain.items() if value is not ABSENT)
    unsorted = forge.cbor(forge.Pairs(tuple(reversed(pairs))))
    yield one("unsorted fields", "keys are sorted", bad, fields=unsorted)
    twice = forge.cbor(forge.Pairs((*pairs, pairs[-1])))
    yield one("labels twice", "a field stands once", bad, fields=twice)


def _args() -> Iterator[Case]:
    bad = "malformed"
    for name, args, reason in (
        ("empty args", b"", bad),
        ("an array", b"[]", bad),
        ("a space", b'{"a": 1}', bad),
        ("unsorted members", b'{"b":1,"a":1}', bad),
        ("a member twice", b'{"a":1,"a":1}', bad),
        ("1.0", b'{"a":1.0}', bad),
        ("an escape", b'{"a":"\\u0041"}', bad),
        ("a lone surrogate", b'{"a":"\\ud800"}', bad),
        ("not UTF-8", b'{"a":"\xff"}', bad),
        ("not a number", b'{"a":NaN}', bad),
        ("minus zero", b'{"a":-0}', bad),
        ("2^53 + 1", b'{"a":9007199254740993}', bad),
        ("10^20", b'{"a":100000000000000000000}', bad),
        ("bytes after args", b"{}{}", bad),
        ("33 levels", b'{"a":' * 33 + b"1" + b"}" * 33, "too_large"),
        ("more than 32 KiB", b'{"a":"' + b"x" * (1 << 15) + b'"}', "too_large"),
    ):
        yield one(name, "arguments are canonical JSON", reason, args=args)


def _times_and_gate() -> Iterator[Case]:
    for name, rule, ask in (
        ("at exp", "it is stale at exp, no skew", {"now": NOW - 60}),
        ("from the future", "iat is 60 s ahead at most", {"now": NOW + 61}),
        ("301 s", "exp is iat + 300 at most", {"lifetime": 301}),
        ("no life", "iat is before exp", {"now": NOW + 1, "lifetime": 0}),
    ):
        yield one(name, rule, "stale", **ask)
    yield one("another gate", "gate is this gate", "wrong_gate", gate=OTHER_GATE)
    early = step("message", message(CHAIN, number=0, now=NOW - 50), now=NOW)
    behind = step("message", message(CHAIN, number=1, now=NOW - 90), "clock_behind", now=NOW - 61)
    rule = "the clock is never 60 s behind the log"
    yield case("clock behind", rule, early, behind)


def _signatures() -> Iterator[Case]:
    bad = "bad_signature"
    yield one("not the holder", "the holder signs", "wrong_holder", forged={"sender": STRANGER})
    yield one(
        "an ancestor",
        "the last holder signs",
        "wrong_holder",
        chain=PAIR,
        forged={"sender": PLANNER},
    )
    posing = {"sender": STRANGER, "headers": {4: PLANNER.kid}}
    yield one("posing as the holder", "the holder signs", bad, forged=posing)
    token, request = forge.cbor2.loads(message(CHAIN))
    signature = forge.parts(request)[3]
    signable = forge.sig_structure(*forge.parts(request)[::2])

    def rebuilt(name: str, rule: str, **changes: bytes) -> Case:
        data = forge.wire(token, forge.rebuilt(request, **changes))
        return case(name, rule, step("message", data, bad))

    yield rebuilt("unsigned", "a request is signed", signature=bytes(64))
    yield rebuilt("S + L", "S is reduced", signature=forge.malleate(signature))
    small = PLANNER.sign_with_r(signable, b"\1" + bytes(31))
    yield rebuilt("R of small order", "R is not of small order", signature=small)
    for name, ask in (
        ("action", {"action": "list"}),
        ("resource", {"resource": "tool://search/other"}),
        ("args", {"args": b'{"q":1}'}),
        ("payload", {"payload": b"other"}),
        ("number", {"number": 1}),
    ):
        fields = replace(forge.Ask(stream=stream("stream")), **ask).fields(token, GATE.public)
        payload = forge.cbor({k: v for k, v in fields.items() if v is not ABSENT})
        yield rebuilt(f"changed {name}", "every field is signed", payload=payload)
    for name, typ in (("link", forge.CAP), ("statement", forge.CTL)):
        made = {"headers": {16: typ}}
        yield one(f"typ of a {name}", "a request has its own typ", "wrong_type", forged=made)
    yield one("alg -7", "alg is -8 or -19", "unknown_algorithm", forged={"headers": {1: -7}})
    header = {"headers": {3: 0}}
    yield one("another header", "headers are known", "unknown_claim", forged=header)


def _replay() -> Iterator[Case]:
    sent = step("message", message(CHAIN))
    used = "a number is used once in its stream"
    yield case("twice", used, sent, sent | {"expect": "replayed"})
    other = step("message", message(CHAIN, resource="tool://search/other"), "replayed")
    yield case("number used again", used, sent, other)
    denied = step("message", message(CHAIN, resource="tool://other"), "not_granted", link=0)
    yield case("denied and sent again", used, denied, denied | {"expect": "replayed", "link": None})
    newest = step("message", message(CHAIN, number=5000))
    old = step("message", message(CHAIN, number=5000 - 1024), "replayed")
    rule = "1,024 numbers are remembered, older ones are used"
    yield case("behind the window", rule, newest, old)
    late = step("message", message(CHAIN, number=5000 - 1023))
    yield case("within the window", rule, newest, late)
    streams = [step("message", message(CHAIN, stream=stream(f"s{n}"))) for n in range(8)]
    ninth = step("message", message(CHAIN, stream=stream("ninth")), "streams_full")
    going_on = step("message", message(CHAIN, stream=stream("s0"), number=1))
    yield case("a ninth stream", "a holder has 8 live streams", *streams, ninth)
    rule = "live streams go on where a new one is refused"
    yield case("a live stream goes on", rule, *streams, ninth, going_on)


def _policy() -> Iterator[Case]:
    mismatch = "policy_mismatch"
    yield one("another policy", "policy is the active one's hash", mismatch, policy=bytes(32))
    for name, target, link in (
        ("holder", PLANNER, 0),
        ("link", CHAIN.ids[0], 0),
        ("root", ROOT, 0),
    ):
        revoke = step("control", control(ROOT, "revoke", target))
        asked = step("message", message(PAIR), "revoked", link=link)
        rule = "a revocation reaches every descendant"
        yield case(f"below a revoked {name}", rule, revoke, asked)
    revoke = step("control", control(ROOT, "revoke", STRANGER))
    asked = step("message", message(PAIR))
    yield case("another agent revoked", "others go on", revoke, asked)


def _capability() -> Iterator[Case]:
    none = "not_granted"
    ungranted: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("resource", "no grant names it", {"resource": "tool://other"}),
        ("action", "no grant names it", {"action": "delete"}),
        ("resource", "schemes differ", {"resource": "https://search/web"}),
    )
    for number, (axis, rule, ask) in enumerate(ungranted, 1):
        yield one(f"ungranted {axis} ({number})", rule, none, link=0, axis=axis, **ask)
    shut = forge.first(ROOT, PLANNER, allow=(("tool://search/web", ("call",), {}),))
    asked = {"chain": shut, "args": b'{"q":1}'}
    yield one("ungranted args", "`{}` allows none", none, link=0, axis="args", **asked)
    named = {"resource": "tool://search/private/notes"}
    yield one("denied by name", "a denial wins", "forbidden", link=0, axis="deny", **named)
    leaf = CHAIN.then(WORKER, allow=(("tool://search/web", ("call",), "any"),))
    asked = {"chain": leaf, "resource": "tool://search/other"}
    yield one("dropped by the leaf", "every link permits", none, link=1, axis="resource", **asked)
    more = (*CHAIN.terms.deny, ("tool://search/web", ("call",)))
    shy = CHAIN.then(WORKER, deny=more)
    yield one(
        "denied by the leaf", "every link permits", "forbidden", link=1, axis="deny", chain=shy
    )
    for kind, resource, named in (
        ("code", "code://x", CODE), ("code", "code://x", None), ("code", "tool://x", CODE),
        ("tool", "tool://x", None), ("tool", "mcp://x", CODE), ("skill", "skill://x", CODE),
    ):  # fmt: skip
        required = ((kind, "urn:moat:manifest:v1", (STRANGER.public,), 1, 60),)
        chain = forge.first(
            ROOT, PLANNER, allow=((resource, ("run",), "any"),), attestations=required
        )
        asked = {"chain": chain, "action": "run", "resource": resource, "code": named}
        where = {"link": 0, "axis": "attestations"}
        name = f"{kind} on {resource}{'' if named else ' without a digest'}"
        rule = "nothing runs that nobody vouched for"
        yield one(f"not attested: {name}", rule, "not_attested", **where, **asked)
    wide = CHAIN.then(WORKER, fuel=CHAIN.terms.fuel + 1)
    yield one("widened", "a wider link is never used", "widened", link=1, axis="fuel", chain=wide)
    strange = forge.first(STRANGER, PLANNER)
    yield one("strange root", "a root is trusted", "unknown_root", link=0, chain=strange)
    over = forge.first(ROOT, PLANNER, exp=NOW)
    yield one("expired token", "every link is alive", "expired", link=0, chain=over)
