"""The law of the state: what a running gate holds is what its log says.

A gate takes over the links and answers that it writes without reading them again. Its snapshots
are of that state; whoever verifies the log compares each with the lines before it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import GATE, ROOT

import forge
from forge import NOW
from moat import AgentId, Identity, Policy
from moat._native import Gate, verify_log
from moat.errors import Denied

GATE_ID, ROOT_ID = (AgentId.from_bytes(one.public) for one in (GATE, ROOT))
PEOPLE = [forge.key(f"one of many {n}") for n in range(4)]
RULES = (
    b'[{"name":"slow","rate":{"limit":2,"window":60},"then":"throttle"},'
    b'{"name":"gone","match":{"resource":"tool://shell"},"rate":{"limit":1,"window":60},'
    b'"then":"suspend"}]'
)

holders = st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4)
asked = st.tuples(
    holders,
    st.integers(0, 2).map(lambda n: 100 * (n + 1)),
    st.sampled_from(["tool://search/web", "tool://shell", "tool://search/é"]),
    st.integers(0, 90),
)
said = st.tuples(st.sampled_from(["suspend", "resume", "revoke"]), st.sampled_from(PEOPLE))


@settings(max_examples=100)  # each opens a gate of its own
@given(st.lists(st.one_of(asked, asked, said), min_size=8, max_size=24))
def test_what_a_gate_holds_is_what_its_log_says(
    steps: list[tuple[list[forge.Key], int, str, int] | tuple[str, forge.Key]],
) -> None:
    """Chains seen and never seen, long and short-lived, allowed, throttled, suspended, revoked."""
    with TemporaryDirectory() as place:
        folder, now = Path(place, "log"), NOW
        signer = Identity.from_pem("gate", GATE.pem())
        gate = Gate.open(folder, signer, anchor=None, clock=lambda: NOW, segment_bytes=1)
        gate.arm(policy=Policy.CHAIN_ONLY, roots=[ROOT_ID], operators=[], rules=RULES)
        for number, step in enumerate(steps):
            if len(step) == 2:
                verb, whom = step
                with suppress(Denied):  # there may be nothing to resume
                    gate.control(forge.control(ROOT, verb, whom, GATE.public, now=now), now=now)
                continue
            (one, *others), life, resource, wait = step
            now += wait
            chain = forge.first(ROOT, one, iat=now, nbf=now, exp=now + life, further=8)
            for other in others:
                chain = chain.then(other)
            more = {"resource": resource, "stream": bytes(16), "number": number, "now": now}
            assert gate.decide(forge.message(chain, GATE.public, **more), now=now).entry
        gate.close()
        found = verify_log(folder, GATE_ID)
        assert found.segments > 2
