"""Cases of spec/registry.md: registrations and the table of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import forge
import forge_registration as reg
from cases import (
    GATE,
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
    stream,
)
from forge import ABSENT, NOW

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD, STALE, TAKEN, NONE = "malformed", "stale", "name_taken", "no_standing"


def cases() -> Iterator[Case]:
    """Every case, positive ones first."""
    yield from _names()
    yield from _look_alikes()
    yield from _keys()
    yield from _roles()
    yield from _bytes()
    yield from _fields()
    yield from _times_and_signatures()


def says(
    name: str,
    key: forge.Key,
    previous: forge.Key | None = None,
    *,
    expect: str = "ok",
    at: int = NOW,
    **more: Any,
) -> Step:
    """A registration handed to the gate."""
    more = {"nonce": stream("nonce")} | more
    gate = more.pop("gate", GATE).public
    data = reg.registration(name, key, gate, previous=previous, **more)
    return step("registration", data, expect, now=at)


def one(name: str, rule: str, expect: str, **more: Any) -> Case:
    """A case of one first registration of the worker."""
    return case(name, rule, says("worker", WORKER, expect=expect, **more))


def two(name: str, rule: str, expect: str, **more: Any) -> Case:
    """A case of a rotation from the worker's key to the planner's."""
    rotated = says("worker", PLANNER, WORKER, expect=expect, **more)
    return case(name, rule, says("worker", WORKER), rotated)


def _names() -> Iterator[Case]:
    rule = "a name is 1 to 63 of a-z 0-9 . _ -, letter or digit first"
    for name in ("a", "0", "web-search", "team_a.worker-2", "a" * 63):
        yield case(f"named {name}", rule, says(name, WORKER))
    for name in ("", "-a", ".a", "_a", "A", "a b", "a/b", "ä", "\u0430", "a\n", "a" * 64):
        yield case(f"named {name!a}", rule, says(name, WORKER, expect=BAD))
    rule = "a name is given once"
    first = says("worker", WORKER)
    yield case("a taken name", rule, first, says("worker", PLANNER, expect=TAKEN))
    yield case("the same again", rule, first, first | {"expect": TAKEN})
    yield case("two names", rule, first, says("planner", PLANNER))


def _look_alikes() -> Iterator[Case]:
    rule = "a name that looks like another is taken"
    for name, alike in (
        ("worker", "vvorker"),
        ("admin", "adrnin"),
        ("admin", "aclmin"),
        ("planner", "p1anner"),
        ("root", "r00t"),
        ("web-search", "web_search"),
        ("web-search", "websearch"),
        ("web.search", "web--search"),
        ("modern", "r-nodern"),
    ):
        refused = says(alike, PLANNER, expect=TAKEN)
        yield case(f"{alike} beside {name}", rule, says(name, WORKER), refused)
    rule = "names that look different are different"
    for name, other in (("agent-1", "agent-2"), ("mail", "mall"), ("agent-1", "agent-10")):
        fine = says(other, PLANNER)
        yield case(f"{other} beside {name}", rule, says(name, WORKER), fine)


def _keys() -> Iterator[Case]:
    first = says("worker", WORKER)
    second = says("worker", PLANNER, WORKER)
    rule = "both keys sign a rotation"
    yield case("a rotation", rule, first, second)
    yield case("two rotations", rule, first, second, says("worker", STRANGER, PLANNER))
    rule = "a key is registered once"
    yield case("a key with a name", rule, first, says("other", WORKER, expect=TAKEN))
    refused = says("other", WORKER, expect=TAKEN)
    yield case("a former key", rule, first, second, refused)
    back = says("worker", WORKER, PLANNER, expect=TAKEN)
    yield case("back to a former key", rule, first, second, back)
    other = says("other", STRANGER)
    taken = says("worker", STRANGER, WORKER, expect=TAKEN)
    yield case("a key of another", rule, first, other, taken)
    rule = "the present key of the name hands it on"
    old = says("worker", STRANGER, WORKER, expect=NONE)
    yield case("by a former key", rule, first, second, old)
    foreign = says("worker", PLANNER, STRANGER, expect=NONE)
    yield case("by the key of another", rule, first, other, foreign)
    yield case("by a key without a name", rule, first, foreign)
    rule = "what is rotated is registered"
    unknown = says("worker", PLANNER, WORKER, expect="not_registered")
    yield case("a name nobody has", rule, unknown)
    alike = says("w0rker", PLANNER, WORKER, expect="not_registered")
    yield case("a look-alike", rule, first, alike)
    rule = "a key does not replace itself"
    itself = says("worker", WORKER, WORKER, expect=BAD)
    yield case("by itself", rule, first, itself)


def _roles() -> Iterator[Case]:
    rule = "a root is one that the gate trusts"
    yield case("a root", rule, says("root", ROOT, role="root"))
    yield case("a root's rotation", rule, says("root", ROOT, role="root"), says(
        "root", STRANGER, ROOT, role="root"))  # fmt: skip
    yield case("a root nobody trusts", rule, says("boss", STRANGER, role="root", expect=NONE))
    rule = "a gate is this gate"
    yield case("a gate", rule, says("main", GATE, role="gate"))
    yield case("another gate's key", rule, says("main", OTHER_GATE, role="gate", expect=NONE))
    rule = "a gate that has handed over decides nothing"
    seated = says("main", GATE, role="gate")
    handed = says("main", OTHER_GATE, GATE, role="gate")
    yield case("a gate's rotation", rule, seated, handed)
    late = says("worker", WORKER, expect="wrong_gate")
    yield case("a registration after it", rule, seated, handed, late)
    again = says("main", STRANGER, GATE, role="gate", expect="wrong_gate")
    yield case("a second rotation", rule, seated, handed, again)
    onward = says("main", STRANGER, OTHER_GATE, role="gate", expect="wrong_gate")
    yield case("a rotation of the next key", rule, seated, handed, onward)
    rule = "an agent is neither root nor gate"
    yield case("a root as agent", rule, says("worker", ROOT, expect=NONE))
    yield case("the gate as agent", rule, says("worker", GATE, expect=NONE))
    rule = "a role does not change"
    agent = says("root2", WORKER)
    risen = says("root2", STRANGER, WORKER, role="root", expect=NONE)
    yield case("an agent turned root", rule, agent, risen)
    rule = "names are one list for all roles"
    root = says("root", ROOT, role="root")
    yield case("an agent named as a root", rule, root, says("root", WORKER, expect=TAKEN))
    rule = "a role is known"
    for role in ("Agent", "operator", ""):
        yield one(f"role {role!r}", rule, BAD, role=role)


def _bytes() -> Iterator[Case]:
    data = reg.registration("worker", WORKER, GATE.public)
    [statement] = reg.statements(data)
    both = reg.registration("worker", PLANNER, GATE.public, previous=WORKER)
    new, old = reg.statements(both)
    other = reg.registration("worker", PLANNER, GATE.public, previous=WORKER, nonce=bytes([1] * 16))
    rule = "a registration is an array of its statements"
    for name, changed, reason in (
        ("no bytes", b"", BAD),
        ("cut", data[:-1], BAD),
        ("bytes after", data + b"\0", BAD),
        ("no array", statement, BAD),
        ("nobody signed", reg.wire(), BAD),
        ("three statements", reg.wire(new, old, old), "too_large"),
        ("a head of two bytes", b"\x98\x01" + data[1:], BAD),
        ("of indefinite length", forge.cbor(forge.Endless([statement])), BAD),
        ("bare statement", b"\x81" + statement, BAD),
        ("more than 2 KiB", data + bytes(2048), "too_large"),
    ):
        yield case(name, rule, step("registration", changed, reason))
    rule = "a rotation is signed by the new key, then by the one it replaces"
    for name, changed in (
        ("only the new key", reg.wire(new)),
        ("only the old key", reg.wire(old)),
        ("of different statements", reg.wire(new, reg.statements(other)[1])),
    ):
        yield case(name, rule, step("registration", changed, BAD))
    for name, changed in (
        ("the old key first", reg.wire(old, new)),
        ("the new key twice", reg.wire(new, new)),
        ("the old key twice", reg.wire(old, old)),
    ):
        yield case(name, rule, step("registration", changed, "bad_signature"))
    rule = "a first registration is signed by its key alone"
    twice = reg.wire(statement, statement)
    yield case("a first one, twice", rule, step("registration", twice, BAD))
    rule = "a statement has its own typ"
    link = forge.first(ROOT, WORKER).links[0]
    request = forge.cbor2.loads(message(forge.first(ROOT, WORKER)))[1]
    for name, signed in (
        ("a link", link),
        ("a request", request),
        ("a control statement", control(WORKER, "revoke", PLANNER)),
    ):
        wrong = step("registration", reg.wire(signed), "wrong_type")
        yield case(name, rule, wrong)


def _fields() -> Iterator[Case]:
    for field in (1, 2, 3, 4, 6, 7, 8):
        rule = "the field is required"
        yield one(f"no field {field}", rule, BAD, fields={field: ABSENT})
    for name, rule, fields, reason in (
        ("an unknown field", "fields are known", {9: 1}, "unknown_claim"),
        ("role as a number", "a role is text", {1: 0}, BAD),
        ("name as bytes", "a name is text", {2: b"worker"}, BAD),
        ("a long key", "a key has 32 bytes", {4: WORKER.public + b"\0"}, BAD),
        ("a weak key", "a key is strong", {4: bytes(32)}, "bad_key"),
        ("a weak gate", "a key is strong", {3: bytes(32)}, "bad_key"),
        ("a key as did", "a key is 32 bytes", {4: WORKER.did}, BAD),
        ("short nonce", "a nonce has 16 bytes", {6: bytes(15)}, BAD),
        ("iat in 8 bytes", "integers are shortest", {7: forge.Wide(NOW, 8)}, BAD),
        ("previous as null", "previous is a key or absent", {5: None}, BAD),
    ):
        yield one(name, rule, reason, fields=fields)
    weak = {5: bytes(32)}
    yield two("a weak previous key", "a key is strong", "bad_key", fields=weak)


def _times_and_signatures() -> Iterator[Case]:
    bad = "bad_signature"
    yield one("longest life", "exp is iat + 3600 at most", "ok", lifetime=3600)
    yield one("3601 s", "exp is iat + 3600 at most", STALE, lifetime=3601)
    yield one("at exp", "it is stale at exp, no skew", STALE, now=NOW - 60)
    yield one("a second before exp", "it is stale at exp, no skew", "ok", now=NOW - 59)
    yield one("clock ahead", "iat may be 60 s ahead", "ok", now=NOW + 60)
    yield one("from the future", "iat is 60 s ahead at most", STALE, now=NOW + 61)
    yield one("no life", "iat is before exp", STALE, now=NOW + 1, lifetime=0)
    yield one("another gate", "gate is this gate", "wrong_gate", gate=OTHER_GATE)
    rule = "every key signs"
    posing = {"headers": {4: WORKER.kid}}
    yield one("someone else's key", rule, bad, signers=[STRANGER], cose=posing)
    yield one("someone else's hint", rule, bad, signers=[STRANGER])
    yield two("the old key did not sign", rule, bad, signers=[PLANNER, STRANGER])
    yield two("the new key did not sign", rule, bad, signers=[STRANGER, WORKER])
    [statement] = reg.statements(reg.registration("worker", WORKER, GATE.public))
    signature = forge.parts(statement)[3]
    for name, value in (("unsigned", bytes(64)), ("S + L", forge.malleate(signature))):
        changed = reg.wire(forge.rebuilt(statement, signature=value))
        yield case(name, "the signature is strict", step("registration", changed, bad))
    for role in ("root", "gate"):
        risen = forge.rebuilt(
            statement, payload=reg.payload("worker", WORKER, GATE.public, role=role)
        )
        rule = "the role is signed"
        yield case(f"turned {role}", rule, step("registration", reg.wire(risen), bad))
    for name, typ in (("link", forge.CAP), ("message", forge.MSG), ("control", forge.CTL)):
        elsewhere = forge.sign1(WORKER, typ, forge.parts(statement)[2])
        put_right = forge.rebuilt(statement, signature=forge.parts(elsewhere)[3])
        rule = "a signature for another kind is none"
        wrong = step("registration", reg.wire(elsewhere), "wrong_type")
        yield case(f"signed as a {name}", rule, wrong)
        hidden = step("registration", reg.wire(put_right), bad)
        yield case(f"signed as a {name}, header put right", rule, hidden)
    rule = "alg is -8 or -19"
    yield one("alg -19", rule, "ok", cose={"headers": {1: -19}})
    yield one("alg -7", rule, "unknown_algorithm", cose={"headers": {1: -7}})
    rule = "headers are known"
    yield one("another header", rule, "unknown_claim", cose={"headers": {3: 0}})
