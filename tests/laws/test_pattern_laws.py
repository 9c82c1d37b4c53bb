"""Laws of patterns: exact containment, a witness for every no, one spelling."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from strategies import asked_patterns, patterns

from moat import Pattern
from moat.errors import MalformedInput
from reference import patterns as reference

SEGMENTS = ("a", "b", "*", "a*", "*b", "a*b", "*a*")
WORDS = ("a", "b", "z", "ab", "aa", "za", "zb", "azb", "bab")
NEAR_MISSES = st.text("ab*/.:%-_~?#@[]\\ A\u0301\u202e\x00", max_size=24)


@given(patterns())
def test_a_pattern_covers_itself(text: str) -> None:
    pattern = Pattern(text)
    assert pattern.covers(pattern)
    assert pattern.witness(pattern) is None


@given(patterns(), patterns(), patterns())
def test_covering_is_transitive(first: str, second: str, third: str) -> None:
    a, b, c = map(Pattern, (first, second, third))
    if a.covers(b) and b.covers(c):
        assert a.covers(c)


@given(asked_patterns())
def test_a_covered_pattern_matches_nothing_more(asked: tuple[str, str, str]) -> None:
    parent, child, resource = asked
    wide, narrow = Pattern(parent), Pattern(child)
    if wide.covers(narrow) and narrow.matches(resource):
        assert wide.matches(resource)


@given(asked_patterns())
def test_a_no_comes_with_a_witness_that_proves_it(asked: tuple[str, str, str]) -> None:
    parent, child, _ = asked
    wide, narrow = Pattern(parent), Pattern(child)
    witness = wide.witness(narrow)
    assert (witness is None) == wide.covers(narrow)
    if witness is not None:
        assert narrow.matches(witness)
        assert not wide.matches(witness)


@given(asked_patterns())
def test_the_reference_agrees(asked: tuple[str, str, str]) -> None:
    parent, child, resource = asked
    assert Pattern(parent).covers(Pattern(child)) == reference.covers(parent, child)
    assert Pattern(parent).matches(resource) == reference.matches(parent, resource)
    assert Pattern(child).matches(resource) == reference.matches(child, resource)


@given(patterns())
def test_an_accepted_pattern_is_its_own_spelling(text: str) -> None:
    assert str(Pattern(text)) == text
    assert Pattern(str(Pattern(text))) == Pattern(text)


@given(st.sampled_from(("tool://", "https://", "file://", "")), NEAR_MISSES)
def test_the_reference_takes_the_same_texts(scheme: str, rest: str) -> None:
    text = scheme + rest
    try:
        native = str(Pattern(text))
    except MalformedInput:
        native = None
    try:
        reference.parse(text)
    except ValueError:
        assert native is None, text
    else:
        assert native == text


def test_covering_is_what_brute_force_finds_over_a_small_alphabet() -> None:
    """All patterns of up to two segments against all resources of up to three."""
    names = ("t", "*", "*.t", "t.t")
    tails = [list(tail) for n in range(3) for tail in product(SEGMENTS, repeat=n)]
    paths = [[*tail, *end] for tail in tails for end in ([], ["**"])]
    texts = ["/".join([f"tool://{name}", *path]) for name in names for path in paths]
    words = [list(word) for n in range(4) for word in product(WORDS, repeat=n)]
    hosts = ("t", "z", "t.t", "z.t", "z.z.t")
    asked = ["/".join([f"tool://{host}", *word]) for host in hosts for word in words]

    parsed = [Pattern(text) for text in texts]
    matched = {
        pattern: sum(1 << bit for bit, resource in enumerate(asked) if pattern.matches(resource))
        for pattern in parsed
    }
    yes = 0
    for wide, narrow in product(parsed, parsed):
        found = matched[narrow] & ~matched[wide] == 0
        assert wide.covers(narrow) == found, f"{wide} {narrow}"
        yes += found
    assert yes > len(parsed), "some pairs that differ are covered"
