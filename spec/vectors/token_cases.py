"""Cases of spec/token.md."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import forge
from cases import GATE, OTHER_GATE, PLANNER, ROOT, STRANGER, WORKER, Case, token
from forge import ABSENT, NOW, Claim

if TYPE_CHECKING:
    from collections.abc import Iterator

WEAK = bytes(32)
MANIFEST, SLSA = "urn:moat:manifest:v1", "https://slsa.dev/provenance/v1"
NOT_REDUCED = bytes.fromhex("ee" + "ff" * 30 + "7f")


def first(*, claims: Any = None, **terms: Any) -> forge.Chain:
    """A root's link for the planner; ``claims`` replaces single claims."""
    return forge.first(ROOT, PLANNER, forged={"claims": claims}, **terms)


def cose(**forged: Any) -> forge.Chain:
    """A root's link for the planner in another envelope."""
    return forge.first(ROOT, PLANNER, forged=forged)


PLAIN = first()
PAIR = PLAIN.then(WORKER)


def cases() -> Iterator[Case]:
    """Every case, positive ones first."""
    yield from _good()
    yield from _bytes()
    yield from _envelope()
    yield from _claims()
    yield from _grants()
    yield from _attestations()
    yield from _limits()
    yield from _keys()
    yield from _chain()
    yield from _times()
    yield from _signatures()


def _good() -> Iterator[Case]:
    yield token("one link", "a root's link alone is a token", PLAIN)
    yield token("two links", "a holder may delegate", PAIR)
    deep = first(further=15)
    for index in range(15):
        deep = deep.then((WORKER, PLANNER)[index % 2])
    yield token("sixteen links", "a chain has at most 16 links", deep)
    yield token("alg -19", "Ed25519 may be named by -19", cose(headers={1: -19}))
    yield token("nothing", "empty and zero are allowed and mean nothing", NOTHING)
    vouched = (("code", MANIFEST, (PLANNER.public, WORKER.public), 1, 60),)
    tighter = (
        ("code", MANIFEST, (WORKER.public,), 1, 59),
        ("tool", MANIFEST, (ROOT.public,), 1, 1),
    )
    made = first(attestations=vouched).then(WORKER, attestations=tighter)
    yield token("tighter attestations", "a child tightens and adds", made)
    yield token("every action", "`*` alone is every action", first(allow=(EVERY,)))
    yield token(
        "no args", "a grant may take no arguments", first(allow=(("tool://t", ("a",), {}),))
    )
    yield token("bound", "a link may be bound to this gate", first(aud=GATE.public))
    yield token("newly bound", "a child may add an audience", PLAIN.then(WORKER, aud=GATE.public))
    yield token("last second", "a link lives until its exp", first(exp=NOW + 1))
    yield token("skewed nbf", "nbf may be 60 s ahead", first(nbf=NOW + 60))
    yield token("skewed iat", "iat may be 60 s ahead", first(iat=NOW + 60))
    yield token("far limits", "limits are below 2^63", first(fuel=(1 << 63) - 1))
    far = first(exp=253_402_300_799)
    yield token("year 9999", "times are below the year 10000", far)
    yield token("narrowed", "every axis may be narrowed at once", PLAIN.then(WORKER, **NARROW))
    split = (("tool://search/web", ("call",), {}), ("tool://search/web", ("list",), "any"))
    yield token("split", "one grant may become two", PLAIN.then(WORKER, allow=split))


EVERY = ("tool://t/**", ("*",), "any")
NOTHING = first(
    allow=(),
    deny=(),
    fuel=0,
    memory=0,
    time=0,
    output=0,
    hosts=(),
    read=(),
    write=(),
    secrets=(),
    further=0,
)
NARROW: dict[str, Any] = {
    "allow": (("tool://search/web", ("call",), {}),),
    "deny": (("tool://search/**", ("list",)), ("tool://search/private/**", ("*",))),
    "fuel": 1,
    "memory": 1,
    "time": 1,
    "output": 1,
    "hosts": (
        ("https://a.example.org/v1/x", ("GET",), ()),
        ("https://git.example.net/**", ("DELETE",), ("10.1.0.0/16", "10.2.3.4/32")),
    ),
    "read": ("file:///data/in/**",),
    "write": (),
    "secrets": (("secret://key", "https://a.example.org", "authorization"),),
    "exp": NOW + 1,
    "nbf": NOW,
    "further": 0,
    "aud": GATE.public,
}


def _bytes() -> Iterator[Case]:
    bad = "malformed"
    yield token("no bytes", "a token is CBOR", b"", bad)
    yield token("no links", "a token has a link", forge.cbor([]), bad)
    yield token("not an array", "a token is an array", forge.cbor({}), bad)
    yield token("link not bytes", "a link lies in a byte string", forge.cbor([1]), bad)
    yield token("bytes after the token", "nothing follows the end", PLAIN.token + b"\0", bad)
    yield token("cut", "nothing is missing at the end", PLAIN.token[:-1], bad)
    link = PLAIN.links[0]
    after = PLAIN.of([link + b"\0"])
    yield token("bytes after a link", "nothing follows the end of a link", after, bad)
    endless = forge.cbor(forge.Endless([link]))
    yield token("endless array", "lengths are definite", endless, bad)
    wide = forge.cbor(forge.Wide([link], 1))
    yield token("long array head", "heads are shortest", wide, bad)
    seventeen = forge.cbor([link] * 17)
    yield token("seventeen links", "a chain has at most 16 links", seventeen, "too_large")
    name = "tool://t/" + "a" * 400
    big = first(allow=tuple((f"{name}{n:02}", ("call",), "any") for n in range(20)))
    yield token("link of 8 KiB and more", "a link is at most 8 KiB", big, "too_large", link=0)


def _envelope() -> Iterator[Case]:
    bad = "malformed"
    yield token("no tag", "a link is tagged 18", cose(tag=None), bad, link=0)
    yield token("tag 98", "a link is tagged 18", cose(tag=98), bad, link=0)
    unprotected = cose(unprotected={4: ROOT.kid})
    yield token("unprotected header", "it is empty", unprotected, "unknown_claim", link=0)
    yield token("no typ", "typ is required", cose(headers={16: ABSENT}), bad, link=0)
    yield token("no kid", "kid is required", cose(headers={4: ABSENT}), bad, link=0)
    yield token("no alg", "alg is required", cose(headers={1: ABSENT}), bad, link=0)
    other = cose(headers={3: "application/cwt"})
    yield token("another header", "headers are known", other, "unknown_claim", link=0)
    for name, typ in (("message", forge.MSG), ("control", forge.CTL)):
        made = cose(headers={16: typ})
        yield token(f"typ of a {name}", "a link has its own typ", made, "wrong_type", link=0)
    for alg in (-7, -35, -257, 5):
        made = cose(headers={1: alg})
        yield token(f"alg {alg}", "alg is -8 or -19", made, "unknown_algorithm", link=0)
    backwards = forge.cbor(forge.Pairs(((16, forge.CAP), (4, ROOT.kid), (1, -8))))
    yield token("unsorted header", "keys are sorted", cose(headers=backwards), bad, link=0)
    short = PLAIN.of([forge.rebuilt(PLAIN.links[0], signature=bytes(63))])
    yield token("63 bytes of signature", "a signature has 64 bytes", short, bad, link=0)


def _claims() -> Iterator[Case]:
    bad = "malformed"
    required = set(Claim) - {Claim.AUD, Claim.PARENT}
    for claim in sorted(required, reverse=True):
        made = first(claims={claim: ABSENT})
        yield token(f"no {claim.name.lower()}", "the claim is required", made, bad, link=0)
    yield token("sub", "claims are known", first(claims={2: "me"}), "unknown_claim", link=0)
    cti = first(claims={Claim.CTI: bytes(15)})
    yield token("short cti", "cti has 16 bytes", cti, bad, link=0)
    did = first(claims={Claim.ISS: ROOT.did.upper()})
    yield token("iss not a did", "iss is a did:key", did, bad, link=0)
    codec = forge.did(ROOT.public, codec=b"\xec\x01")
    yield token("iss of X25519", "iss is Ed25519", first(claims={Claim.ISS: codec}), bad, link=0)
    curve = first(claims={Claim.CNF: {1: {1: 1, -1: 4, -2: PLANNER.public}}})
    yield token("cnf of X25519", "cnf is Ed25519", curve, bad, link=0)
    floating = first(claims={Claim.EXP: forge.Raw(bytes.fromhex("fb41da138c8a400000"))})
    yield token("exp as a float", "there are no floats", floating, bad, link=0)
    long = first(claims={Claim.EXP: forge.Wide(NOW + 3_600, 8)})
    yield token("exp in 8 bytes", "integers are shortest", long, bad, link=0)
    text = first(claims={Claim.EXP: str(NOW + 3_600)})
    yield token("exp as text", "times are integers", text, bad, link=0)
    nested = first(claims={Claim.EXP: forge.Tag(1, NOW + 3_600)})
    yield token("exp tagged", "there is no tag inside", nested, bad, link=0)
    pairs = forge.cbor2.loads(forge.parts(PLAIN.links[0])[2])
    twice = forge.cbor(forge.Pairs((*sorted_pairs(pairs), (Claim.DEPTH, [0, 4]))))
    yield token("depth twice", "a claim stands once", first(claims=twice), bad, link=0)
    unsorted = forge.cbor(forge.Pairs(tuple(reversed(sorted_pairs(pairs)))))
    yield token("unsorted claims", "keys are sorted", first(claims=unsorted), bad, link=0)
    endless = forge.cbor(forge.Endless(dict(sorted_pairs(pairs))))
    yield token("endless claims", "lengths are definite", first(claims=endless), bad, link=0)
    further = first(claims={Claim.DEPTH: [0, 16]})
    yield token("depth of 16", "depth is at most 15", further, bad, link=0)


def sorted_pairs(claims: dict[int, Any]) -> tuple[tuple[int, Any], ...]:
    """The claims in the order in which they stand."""
    return tuple(sorted(claims.items(), key=lambda pair: forge.cbor(pair[0])))


def _grants() -> Iterator[Case]:
    a, b = ["tool://a", ["call"], "any"], ["tool://b", ["call"], "any"]
    many = [[f"tool://t/{n:03}", ["a"], "any"] for n in range(257)]
    for name, rule, allow, reason in (
        ("unsorted grants", "grants are sorted", [b, a], "malformed"),
        ("a grant twice", "grants are unique", [a, a], "malformed"),
        ("args before any", "`any` stands first", [[*a[:2], {}], a], "malformed"),
        ("no action", "a grant has an action", [["tool://a", [], "any"]], "malformed"),
        ("unsorted actions", "sorted", [["tool://a", ["b", "a"], "any"]], "malformed"),
        ("an action twice", "unique", [["tool://a", ["a", "a"], "any"]], "malformed"),
        ("star and more", "`*` is alone", [["tool://a", ["*", "a"], "any"]], "malformed"),
        ("action in capitals", "lower case", [["tool://a", ["Call"], "any"]], "malformed"),
        ("digit first", "a letter is first", [["tool://a", ["1a"], "any"]], "malformed"),
        ("long action", "at most 64", [["tool://a", ["a" * 65], "any"]], "malformed"),
        ("two fields", "a grant has three", [["tool://a", ["call"]]], "malformed"),
        ("args as text", "`any` or a map", [["tool://a", ["call"], "all"]], "malformed"),
        ("constraints", "they are reserved", [[*a[:2], {"q": "x"}]], "unknown_claim"),
        ("dots", "a pattern is canonical", [["tool://a/../b", ["call"], "any"]], "malformed"),
        ("no scheme", "a pattern has a scheme", [["a/b", ["call"], "any"]], "malformed"),
        ("long pattern", "512 bytes", [["tool://" + "a" * 506, ["a"], "any"]], "too_large"),
        ("257 grants", "at most 256 grants", many, "too_large"),
        ("33 actions", "at most 32", [[a[0], [f"a{n:02}" for n in range(33)], "any"]], "too_large"),
    ):
        made = first(claims={Claim.ALLOW: allow})
        yield token(name, rule, made, reason, link=0)
    unsorted = first(claims={Claim.DENY: [b[:2], a[:2]]})
    yield token("unsorted denials", "denials are sorted", unsorted, "malformed", link=0)
    three = first(claims={Claim.DENY: [a]})
    yield token("denial with args", "a denial has two fields", three, "malformed", link=0)


def _attestations() -> Iterator[Case]:
    one, other = (MANIFEST, [WORKER.public], 1, 60), (SLSA, [WORKER.public], 1, 60)
    keys = sorted(bytes([n]) * 32 for n in range(1, 18))
    for name, rule, required, reason in (
        ("unsorted attestations", "they are sorted", [["tool", *one], ["code", *one]], "malformed"),
        ("an attestation twice", "none stands twice", [["code", *one]] * 2, "malformed"),
        ("unknown kind", "kinds are known", [["model", *one]], "unknown_claim"),
        (
            "unknown predicate type", "predicate types are known",
            [["code", SLSA + "/", [WORKER.public], 1, 60]], "unknown_claim",
        ),
        ("a skill with provenance", "SLSA speaks of code", [["skill", *other]], "malformed"),
        ("no signer", "there is a signer", [["code", MANIFEST, [], 1, 60]], "malformed"),
        (
            "signer twice", "signers are distinct",
            [["code", MANIFEST, [WORKER.public] * 2, 1, 60]], "malformed",
        ),
        ("17 signers", "at most 16 signers", [["code", MANIFEST, keys, 1, 60]], "too_large"),
        ("weak signer", "keys are not weak", [["code", MANIFEST, [WEAK], 1, 60]], "bad_key"),
        ("threshold 0", "one at least", [["code", MANIFEST, keys[:2], 0, 60]], "malformed"),
        ("threshold 3", "no more than signers", [["code", MANIFEST, keys[:2], 3, 60]], "malformed"),
        ("age 0", "an age is bounded", [["code", MANIFEST, keys[:2], 1, 0]], "malformed"),
        (
            "age of 3650 days and 1 s", "an age is bounded",
            [["code", MANIFEST, keys[:2], 1, 3650 * 86400 + 1]], "malformed",
        ),
        (
            "17 attestations", "at most 16",
            [["code", MANIFEST, [WORKER.public], 1, age] for age in range(1, 18)], "too_large",
        ),
    ):  # fmt: skip
        made = first(claims={Claim.ATTESTATIONS: required})
        yield token(name, rule, made, reason, link=0)


def _limits() -> Iterator[Case]:
    limits = forge.Terms().limits()
    good, key = ["https://a.example/**", ["GET"], []], ["secret://a", "https://a.example", "x"]

    def host(at: int, value: Any) -> dict[int, Any]:
        return {5: [[*good[:at], value, *good[at + 1 :]]]}

    def secret(at: int, value: Any) -> dict[int, Any]:
        return {8: [[*key[:at], value, *key[at + 1 :]]]}

    hosts = [[f"https://h{n:02}.example/**", ["GET"], []] for n in range(65)]
    names = [chr(65 + n) for n in range(17)]
    ranges = [f"10.{n}.0.0/16" for n in range(9)]
    keys = [[f"secret://{n:02}", *key[1:]] for n in range(17)]
    for name, rule, changes, reason in (
        ("no fuel", "every limit is required", {1: ABSENT}, "malformed"),
        ("no write", "every limit is required", {7: ABSENT}, "malformed"),
        ("no secrets", "every limit is required", {8: ABSENT}, "malformed"),
        ("a ninth limit", "limits are known", {9: 1}, "unknown_claim"),
        ("negative fuel", "limits are unsigned", {1: -1}, "malformed"),
        ("fuel of 2^63", "limits are below 2^63", {1: 1 << 63}, "malformed"),
        ("host as text", "a host has three fields", {5: [good[0]]}, "malformed"),
        ("host of two", "a host has three fields", {5: [good[:2]]}, "malformed"),
        ("host without a path", "a host has a path", host(0, "https://a.example"), "malformed"),
        ("host of files", "a host has a web scheme", host(0, "tool://a/**"), "malformed"),
        ("host of sockets", "a host has a web scheme", host(0, "wss://a/**"), "malformed"),
        ("unsorted hosts", "sorted", {5: hosts[1::-1]}, "malformed"),
        ("host twice", "unique", {5: [good, good]}, "malformed"),
        ("host in capitals", "canonical", host(0, "https://A.example/**"), "malformed"),
        ("default port", "canonical", host(0, "https://a.example:443/**"), "malformed"),
        ("no method", "a host has a method", host(1, []), "malformed"),
        ("method in small letters", "upper case", host(1, ["get"]), "malformed"),
        ("unsorted methods", "sorted", host(1, ["POST", "GET"]), "malformed"),
        ("a method twice", "unique", host(1, ["GET", "GET"]), "malformed"),
        ("method star and more", "`*` is alone", host(1, ["*", "GET"]), "malformed"),
        ("CONNECT", "no tunnel", host(1, ["CONNECT"]), "malformed"),
        ("TRACE", "no echo", host(1, ["GET", "TRACE"]), "malformed"),
        ("17 methods", "at most 16", host(1, names), "too_large"),
        ("an address", "a range has a prefix", host(2, ["10.0.0.1"]), "malformed"),
        ("host bits", "host bits are zero", host(2, ["10.0.0.1/8"]), "malformed"),
        ("mapped range", "one spelling", host(2, ["::ffff:10.0.0.0/104"]), "malformed"),
        ("long address", "RFC 5952", host(2, ["fd00:0:0:0:0:0:0:0/8"]), "malformed"),
        ("unsorted ranges", "sorted", host(2, ["127.0.0.0/8", "10.0.0.0/8"]), "malformed"),
        ("a range twice", "unique", host(2, ["10.0.0.0/8"] * 2), "malformed"),
        ("range in a range", "none within", host(2, ["10.0.0.0/8", "10.1.0.0/16"]), "malformed"),
        ("nine ranges", "at most 8", host(2, ranges), "too_large"),
        ("65 hosts", "at most 64", {5: hosts}, "too_large"),
        ("secret of two", "a secret has three fields", {8: [key[:2]]}, "malformed"),
        ("handle of a tool", "a handle is `secret`", secret(0, "tool://a"), "malformed"),
        ("handle with a star", "one handle", secret(0, "secret://*"), "malformed"),
        ("secret for all", "a host is named", secret(1, "https://*"), "malformed"),
        ("secret with a path", "a host alone", secret(1, "https://a.example/**"), "malformed"),
        ("header in capitals", "lower case", secret(2, "Authorization"), "malformed"),
        ("header of two lines", "a field name", secret(2, "x\r\ny"), "malformed"),
        ("header of the sender", "not for secrets", secret(2, "host"), "malformed"),
        ("unsorted secrets", "sorted", {8: keys[1::-1]}, "malformed"),
        ("secret twice", "unique", {8: [key, key]}, "malformed"),
        ("17 secrets", "at most 16", {8: keys}, "too_large"),
        ("read of one file", "a path is a tree", {6: ["file:///data/a"]}, "malformed"),
        ("read elsewhere", "a path is a file URL", {6: ["tool://data/**"]}, "malformed"),
        ("write with a star", "a tree has no star", {7: ["file:///d*/**"]}, "malformed"),
    ):
        merged = {k: v for k, v in {**limits, **changes}.items() if v is not ABSENT}
        made = first(claims={Claim.LIMITS: merged})
        yield token(name, rule, made, reason, link=0)


def _keys() -> Iterator[Case]:
    for name, key in (("weak", WEAK), ("not reduced", NOT_REDUCED)):
        holder = first(claims={Claim.CNF: forge.cnf(key)})
        yield token(f"{name} holder", "a key is canonical and strong", holder, "bad_key", link=0)
        issuer = first(claims={Claim.ISS: forge.did(key)})
        yield token(f"{name} issuer", "a key is canonical and strong", issuer, "bad_key", link=0)
        gate = first(claims={Claim.AUD: forge.did(key)})
        yield token(f"{name} audience", "a key is canonical and strong", gate, "bad_key", link=0)


def _chain() -> Iterator[Case]:
    lost = "broken_chain"
    stranger = forge.first(STRANGER, PLANNER)
    yield token("strange root", "a root is trusted", stranger, "unknown_root", link=0)
    parent = first(claims={Claim.PARENT: bytes(32)})
    yield token("root with a parent", "link 0 has none", parent, lost, link=0)
    index = first(claims={Claim.DEPTH: [1, 4]})
    yield token("root of index 1", "link 0 has index 0", index, lost, link=0)
    orphan = PLAIN.then(WORKER, forged={"parent": None})
    yield token("no parent", "link 1 names its parent", orphan, lost, link=1)
    adopted = PLAIN.then(WORKER, forged={"parent": bytes(32)})
    yield token("another parent", "parent is link 0's id", adopted, lost, link=1)
    skipped = PLAIN.then(WORKER, forged={"index": 2})
    yield token("index skipped", "index is one more", skipped, lost, link=1)
    repeated = PLAIN.then(WORKER, forged={"index": 0})
    yield token("index repeated", "index is one more", repeated, lost, link=1)
    usurped = PLAIN.then(WORKER, issuer=STRANGER)
    yield token("issuer not the holder", "a link is its holder's", usurped, lost, link=1)
    three = PAIR.then(STRANGER)
    swapped = replace(three, links=(PLAIN.links[0], three.links[2], three.links[1]), holder=WORKER)
    yield token("reordered", "links follow one another", swapped, lost, link=1)
    yield token(
        "link left out", "links follow one another", three.of(three.links[::2]), lost, link=1
    )
    doubled = PLAIN.of(PLAIN.links * 2)
    yield token("a link twice", "links follow one another", doubled, lost, link=1)
    yield token(
        "link 0 left out", "link 0 is a root's", PAIR.of(PAIR.links[1:]), "unknown_root", link=0
    )
    other = forge.first(ROOT, PLANNER, fuel=1).then(WORKER)
    moved = PAIR.of([PLAIN.links[0], other.links[1]])
    yield token("re-parented", "parent is link 0's id", moved, lost, link=1)
    for name, aud in (("link 0", first(aud=OTHER_GATE.public)), ("link 1", None)):
        made = aud or PLAIN.then(WORKER, aud=OTHER_GATE.public)
        reason = "wrong_gate"
        yield token(
            f"{name} for another gate", "aud is this gate", made, reason, link=int(name[-1])
        )


def _times() -> Iterator[Case]:
    yield token("expired", "dead at exp, no skew", first(exp=NOW), "expired", link=0)
    late = PLAIN.then(WORKER, exp=NOW)
    yield token("expired leaf", "every link is alive", late, "expired", link=1)
    early = PLAIN.then(WORKER, nbf=NOW + 61)
    yield token("early leaf", "every link is alive", early, "not_yet_valid", link=1)
    yield token("early", "nbf is 60 s ahead at most", first(nbf=NOW + 61), "not_yet_valid", link=0)
    issued = first(iat=NOW + 61)
    yield token("issued later", "iat is 60 s ahead at most", issued, "not_yet_valid", link=0)
    backwards = first(iat=NOW + 30, exp=NOW + 30)
    yield token("iat at exp", "iat is before exp", backwards, "malformed", link=0)
    never = first(nbf=NOW + 30, exp=NOW + 30)
    yield token("nbf at exp", "nbf is before exp", never, "malformed", link=0)
    year = first(exp=253_402_300_800)
    yield token("year 10000", "times are below it", year, "malformed", link=0)


def _signatures() -> Iterator[Case]:
    bad = "bad_signature"
    link = PLAIN.links[0]
    protected, _, payload, signature = forge.parts(link)

    def signed(value: bytes) -> forge.Chain:
        return PLAIN.of([forge.rebuilt(link, signature=value)])

    flipped = signature[:-1] + bytes([signature[-1] ^ 1])
    yield token("flipped bit", "the signature verifies", signed(flipped), bad, link=0)
    yield token("no signature", "a token is signed", signed(bytes(64)), bad, link=0)
    malleated = signed(forge.malleate(signature))
    yield token("S + L", "S is reduced", malleated, bad, link=0)
    signable = forge.sig_structure(protected, payload)
    small = signed(ROOT.sign_with_r(signable, b"\1" + bytes(31)))
    yield token("R of small order", "R is not of small order", small, bad, link=0)
    changed = PLAIN.of([forge.rebuilt(link, payload=claims_of(fuel=2))])
    yield token("changed claims", "claims are signed", changed, bad, link=0)
    impostor = cose(signer=STRANGER)
    yield token("kid of another", "kid is the issuer's", impostor, bad, link=0)
    posing = cose(signer=STRANGER, headers={4: ROOT.kid})
    yield token("signed by another", "the issuer signs", posing, bad, link=0)
    wrong = cose(headers={4: STRANGER.kid})
    yield token("wrong kid", "kid is the issuer's", wrong, bad, link=0)
    leaf = PLAIN.then(WORKER, forged={"signer": STRANGER, "headers": {4: PLANNER.kid}})
    yield token("leaf signed by another", "the holder signs", leaf, bad, link=1)
    bare = cose(sign=lambda _: ROOT.sign(payload))
    yield token("payload signed bare", "a Sig_structure is signed", bare, bad, link=0)


def claims_of(**terms: Any) -> bytes:
    """The payload of a root's link for the planner."""
    return bytes(forge.parts(first(**terms).links[0])[2])
