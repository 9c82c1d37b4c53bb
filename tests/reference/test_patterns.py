"""The reference model agrees with the vectors, and its table with the Unicode database."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from reference import patterns

VECTORS = Path(__file__).parents[2] / "spec" / "vectors" / "pattern.json"
CASES = [case for case in json.loads(VECTORS.read_text()) if case["kind"] != "canonicalize"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_reference_agrees_with_every_vector(case: dict[str, Any]) -> None:
    if case["kind"] == "match":
        assert patterns.matches(case["pattern"], case["resource"]) == case["matches"]
    elif case["kind"] == "covers":
        assert patterns.covers(case["parent"], case["child"]) == case["covers"]
    elif "ok" in case:
        patterns.parse(case["text"], wild=case["as"] == "pattern")
    else:
        with pytest.raises(patterns.RefusedError) as refused:
            patterns.parse(case["text"], wild=case["as"] == "pattern")
        assert refused.value.reason == case["reason"]


def test_no_control_format_space_or_private_character_is_left_out_of_the_table() -> None:
    for code in range(0x80, 0x110000):
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"}:
            assert code in patterns.REFUSED, f"{code:04X}"


def test_no_character_that_folds_to_a_separator_or_wildcard_is_left_out_of_the_table() -> None:
    for code in range(0x80, 0x110000):
        if unicodedata.is_normalized("NFC", chr(code)):
            folded = unicodedata.normalize("NFKD", chr(code))
            if set(folded) & set("/\\%*?#;") or set(folded) == {"."}:
                assert code in patterns.REFUSED, f"{code:04X}"
