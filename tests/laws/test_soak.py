"""The long comparison of ``soak/attenuation.py``, for a moment: it runs, and it can fail."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

import forge
from laws.strategies import model
from reference import caveats as reference
from soak import attenuation

TRIPLES = 2_000 if os.environ.get("CI") == "true" else 500


def test_the_core_agrees_with_the_model_on_random_triples() -> None:
    seen = attenuation.compare(7, TRIPLES)
    assert seen["triples"] == TRIPLES == seen["made"] + seen["refused"]
    assert min(seen[sort] for sort in ("made", "refused", "permitted", "lost on the way")) > 20


def test_a_core_that_lets_one_axis_through_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the model sees no fuel beyond one, and the core does."""

    def blind(terms: forge.Terms) -> reference.Caveats:
        return model(replace(terms, fuel=min(terms.fuel, 1)))

    monkeypatch.setattr(attenuation, "model", blind)
    with pytest.raises(attenuation.DisagreementError, match="seed 7"):
        attenuation.compare(7, 500)
