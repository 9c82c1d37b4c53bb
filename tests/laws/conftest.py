"""How hard the laws are tried: 200 examples each, 10,000 where ``CI=true``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("laws", max_examples=200, **_COMMON)
settings.register_profile("ci", max_examples=10_000, print_blob=True, **_COMMON)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "laws")
