"""The form of a case: a name, the rule it shows, and steps that a gate takes in order."""

from __future__ import annotations

from typing import Any

import forge

ROOT, PLANNER, WORKER, STRANGER, OPERATOR, GATE, OTHER_GATE = KEYS = tuple(
    map(
        forge.key,
        ("root", "planner", "worker", "stranger", "operator", "gate", "other-gate"),
    )
)

Step = dict[str, Any]
Case = dict[str, Any]


def case(name: str, rule: str, *steps: Step) -> Case:
    """A case; the last step is what it is about, the others prepare the gate."""
    return {"name": name, "rule": rule, "steps": list(steps)}


def step(kind: str, data: bytes, expect: str = "ok", **more: Any) -> Step:
    """One thing handed to the gate: a ``token``, a ``message`` or a ``control`` statement.

    ``expect`` is ``ok`` or a reason code; ``link`` and ``axis`` say where, ``now`` when.
    """
    return {"kind": kind, "hex": data.hex(), "now": forge.NOW, "expect": expect} | more


def token(name: str, rule: str, made: forge.Chain | bytes, expect: str = "ok", **more: Any) -> Case:
    """A case of one token, presented by its holder (the planner, where only bytes are given)."""
    data, holder = (made, PLANNER) if isinstance(made, bytes) else (made.token, made.holder)
    return case(name, rule, step("token", data, expect, holder=holder.name, **more))


def stream(label: str) -> bytes:
    """A stream or a nonce that is the same in every run."""
    return forge.hashlib.sha256(b"vector " + label.encode()).digest()[:16]


def message(chain: forge.Chain, *, gate: forge.Key = GATE, **more: Any) -> bytes:
    """A message on a fixed stream; ``more`` goes to ``forge.message``."""
    return forge.message(chain, gate.public, **({"stream": stream("stream")} | more))


def control(
    signer: forge.Key, verb: str, target: forge.Key | bytes, *, nonce: str = "nonce", **more: Any
) -> bytes:
    """A control statement with a fixed nonce; ``more`` goes to ``forge.control``."""
    gate = more.pop("gate", GATE).public
    fields = more.pop("fields", {})
    if not isinstance(fields, bytes):
        fields = {5: stream(nonce)} | fields
    return forge.control(signer, verb, target, gate, fields=fields, **more)
