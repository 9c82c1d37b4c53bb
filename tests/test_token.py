"""Tokens as values: issued, narrowed, read, spelt and verified."""

from __future__ import annotations

import copy
import hashlib
import pickle
from datetime import UTC, datetime, timedelta

import pytest

from cast import GATE, HOUR, LIMITS, MALLORY, NOW, PLANNER, ROOT, SEARCH, WORKER, issue, rng
from moat import (
    ANY,
    AgentId,
    AttenuationViolation,
    Denial,
    Grant,
    Identity,
    InvalidSignature,
    Limits,
    MalformedInput,
    MoatError,
    Pattern,
    Secret,
    Token,
    TokenRefused,
    canonicalize,
)

WEB = Grant("tool://search/web", {"call"})


def narrow(**terms):
    return issue().attenuate(PLANNER, **({"holder": WORKER.id, "now": NOW} | terms))


def test_a_first_link_states_what_was_asked():
    token = issue()
    (link,) = token.links
    assert (link.issuer, link.holder) == (token.root, token.holder) == (ROOT.id, PLANNER.id)
    assert (link.index, link.depth, link.parent) == (0, 2, None)
    assert (link.issued, link.not_before, link.expires) == (NOW, NOW, NOW + 3600)
    assert (link.allow, link.deny, link.limits) == ((SEARCH,), (), LIMITS)
    assert link.id == token.id
    assert link.audience is None


def test_a_further_link_keeps_what_it_is_not_told_to_narrow():
    first, second = narrow().links
    assert second.issuer == first.holder == PLANNER.id
    assert second.parent == first.id
    assert (second.allow, second.limits, second.expires) == (
        first.allow,
        first.limits,
        first.expires,
    )
    assert (second.index, second.depth) == (1, 1)


KEY = Secret("secret://key", host="https://example.com", header="authorization")


@pytest.mark.parametrize(
    ("caveat", "terms"),
    [
        ("resource", {"allow": [Grant("tool://*/**", {"call"})]}),
        ("action", {"allow": [Grant("tool://search/web", {"call", "write"})]}),
        ("fuel", {"limits": LIMITS.replace(fuel=LIMITS.fuel + 1)}),
        ("memory", {"limits": LIMITS.replace(memory=LIMITS.memory + 1)}),
        ("time", {"limits": LIMITS.replace(time=timedelta(seconds=3))}),
        ("output", {"limits": LIMITS.replace(output=LIMITS.output + 1)}),
        ("hosts", {"limits": LIMITS.replace(hosts=["https://example.com"])}),
        ("read", {"limits": LIMITS.replace(read=["file:///data/**"])}),
        ("write", {"limits": LIMITS.replace(write=["file:///data/**"])}),
        ("secrets", {"limits": LIMITS.replace(secrets=[KEY])}),
        ("expiry", {"expires_in": timedelta(hours=2)}),
        ("not_before", {"not_before": NOW - 1}),
        ("depth", {"depth": 2}),
    ],
)
def test_asking_for_more_says_on_which_axis(caveat, terms):
    with pytest.raises(AttenuationViolation) as caught:
        narrow(**terms)
    assert caught.value.caveat == caveat


def test_a_wider_resource_is_shown_by_a_witness():
    with pytest.raises(AttenuationViolation) as caught:
        narrow(allow=[Grant("tool://*/**", {"call"})])
    action, resource = caught.value.witness.split()
    assert action == "call"
    assert Pattern("tool://*/**").matches(resource)
    assert not SEARCH.resource.matches(resource)
    assert resource in str(caught.value)


def test_only_the_holder_delegates():
    with pytest.raises(AttenuationViolation):
        issue().attenuate(MALLORY, holder=MALLORY.id, now=NOW)


def test_a_depth_of_none_ends_the_chain():
    with pytest.raises(AttenuationViolation) as caught:
        issue(depth=0).attenuate(PLANNER, holder=WORKER.id, now=NOW)
    assert caught.value.caveat == "depth"


def test_denials_only_grow():
    web = Denial("tool://search/web", {"*"})
    token = issue(deny=[web]).attenuate(PLANNER, holder=WORKER.id, now=NOW)
    assert token.deny == (web,)
    assert not token.permits("call", "tool://search/web")
    assert token.permits("call", "tool://search/all")


def test_limits_are_the_meet_of_all_links():
    token = narrow(limits=LIMITS.replace(fuel=7))
    assert token.limits == LIMITS.replace(fuel=7)
    assert token.links[0].limits == LIMITS


def test_a_question_is_answered_and_explained():
    token = narrow(allow=[WEB])
    assert token.permits("call", "tool://search/web", {"q": 1})
    assert token.explain("call", "tool://search/web") is None
    assert not token.permits("call", "tool://search/all")
    assert "tool://search/all" in token.explain("call", "tool://search/all")
    assert not token.permits("write", "tool://search/web")


def test_a_grant_of_no_arguments_allows_none():
    token = issue(allow=[Grant("tool://search/web", {"call"}, args={})])
    assert token.permits("call", "tool://search/web")
    assert token.permits("call", "tool://search/web", {})
    assert not token.permits("call", "tool://search/web", {"q": "moat"})


def test_a_token_is_read_back_from_bytes_and_text():
    token = narrow()
    assert str(token).startswith("moat1.")
    assert Token.parse(str(token)) == Token.from_bytes(bytes(token)) == token
    assert hash(Token.parse(str(token))) == hash(token)


@pytest.mark.parametrize("text", ["", "moat1.", "moat2.gA", "moat1.gA=", "moat1.!!", "moat1.9g"])
def test_other_text_is_no_token(text):
    with pytest.raises(MoatError):
        Token.parse(text)


def test_a_chain_is_verified_to_a_trusted_root():
    token = narrow()
    token.verify([ROOT.id], now=NOW)
    with pytest.raises(TokenRefused) as caught:
        token.verify([MALLORY.id], now=NOW)
    assert caught.value.reason == "unknown_root"
    with pytest.raises(TokenRefused):
        token.verify([], now=NOW)


@pytest.mark.parametrize(
    ("now", "reason"),
    [(NOW + 3600, "expired"), (NOW - 61, "not_yet_valid"), (NOW + 3599, None), (NOW - 60, None)],
)
def test_a_chain_is_verified_at_a_time(now, reason):
    if reason is None:
        narrow().verify([ROOT.id], now=now)
        return
    with pytest.raises(TokenRefused) as caught:
        narrow().verify([ROOT.id], now=now)
    assert caught.value.reason == reason


def test_a_chain_may_be_bound_to_a_gate():
    token = issue(audience=GATE.id)
    token.verify([ROOT.id], gate=GATE.id, now=NOW)
    with pytest.raises(TokenRefused) as caught:
        token.verify([ROOT.id], gate=MALLORY.id, now=NOW)
    assert caught.value.reason == "wrong_gate"


def test_a_changed_signature_is_refused():
    data = bytearray(bytes(issue()))
    data[-1] ^= 1
    with pytest.raises(InvalidSignature):
        Token.from_bytes(bytes(data)).verify([ROOT.id], now=NOW)


def test_not_before_is_a_time_or_a_number():
    at = datetime.fromtimestamp(NOW + 60, UTC)
    assert issue(not_before=at).links[0].not_before == NOW + 60
    assert issue(not_before=NOW + 60).links[0].not_before == NOW + 60
    with pytest.raises((MalformedInput, TypeError, ValueError)):
        issue(not_before=at.replace(tzinfo=None))


@pytest.mark.parametrize(
    "terms", [{"expires_in": timedelta(0)}, {"expires_in": -HOUR}, {"depth": 16}, {"depth": -1}]
)
def test_terms_out_of_range_are_refused(terms):
    with pytest.raises((ValueError, OverflowError)):
        issue(**terms)


def test_the_same_randomness_makes_the_same_token():
    assert issue(rng=rng("a")) == issue(rng=rng("a"))
    assert issue(rng=rng("a")).id != issue(rng=rng("b")).id


def test_values_are_frozen_and_compare_by_what_they_say():
    assert Grant("tool://a", ["x", "y"]) == Grant(Pattern("tool://a"), {"y", "x"}, args=ANY)
    assert len({WEB, Grant("tool://search/web", {"call"}), SEARCH}) == 2
    assert Limits() == Limits(fuel=0, hosts=[])
    assert LIMITS.covers(LIMITS.replace(fuel=1))
    assert not LIMITS.replace(fuel=1).covers(LIMITS)
    for value, name in ((WEB, "actions"), (LIMITS, "fuel"), (issue(), "depth"), (ROOT, "name")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_an_agent_is_its_key():
    assert AgentId(str(ROOT.id)) == AgentId.from_bytes(bytes(ROOT.id)) == ROOT.id
    assert str(ROOT.id).startswith("did:key:z6Mk")
    ROOT.id.verify(b"words", ROOT.sign(b"words"))
    with pytest.raises(InvalidSignature):
        ROOT.id.verify(b"word", ROOT.sign(b"words"))


def test_a_secret_is_neither_shown_nor_pickled():
    seed = rng("root")(32)
    shown = repr(ROOT) + str(ROOT)
    assert "root" in shown
    assert seed.hex() not in shown
    assert hashlib.sha256(seed).hexdigest() not in shown
    for duplicate in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(ROOT)


def test_a_secret_is_written_and_read():
    assert Identity.from_pem("root", ROOT.to_pem()) == ROOT
    with pytest.raises(MalformedInput):
        Identity.from_pem("root", "no key")
    with pytest.raises(MalformedInput):
        Identity.generate("No Name")


def test_patterns_contain_one_another_exactly():
    assert Pattern("tool://search/**").covers(Pattern("tool://search/web"))
    assert Pattern("tool://search/**").witness(Pattern("tool://search/w*")) is None
    witness = Pattern("tool://search/w*").witness(Pattern("tool://search/*"))
    assert Pattern("tool://search/*").matches(witness)
    assert not Pattern("tool://search/w*").matches(witness)


def test_a_spelling_is_repaired_only_when_asked():
    with pytest.raises(MalformedInput):
        Pattern("HTTPS://Example.com:443/a")
    assert canonicalize("HTTPS://Example.com:443/a") == "https://example.com/a"
