"""Registrations byte by byte, from spec/registry.md: what the forging kit has beside forge.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import forge
from forge import ABSENT, NOW, Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REG: Final = "application/moat-reg+cbor"

Fields = dict[int, Any]


def payload(
    name: str,
    key: Key | bytes,
    gate: bytes,
    *,
    previous: Key | bytes | None = None,
    role: str = "agent",
    nonce: bytes = bytes(16),
    now: int = NOW,
    lifetime: int = 60,
    fields: Mapping[int, Any] | None = None,
) -> bytes:
    """What the keys sign; ``fields`` replaces single fields."""
    old = ABSENT if previous is None else _public(previous)
    values = (role, name, gate, _public(key), old, nonce, now, now + lifetime)
    base = dict(enumerate(values, 1)) | dict(fields or {})
    return forge.cbor({k: v for k, v in base.items() if v is not ABSENT})


def registration(
    name: str,
    key: Key,
    gate: bytes,
    *,
    previous: Key | None = None,
    signers: Sequence[Key] | None = None,
    cose: Mapping[str, Any] | None = None,
    **more: Any,
) -> bytes:
    """A registration as it travels, signed by its keys or by ``signers``; ``cose`` goes to
    :func:`forge.sign1`, the rest to :func:`payload`."""
    signed = payload(name, key, gate, previous=previous, **more)
    by = [key, *([previous] if previous else [])] if signers is None else signers
    return wire(*(forge.sign1(one, REG, signed, **(cose or {})) for one in by))


def wire(*statements: bytes) -> bytes:
    """Signed statements as one registration."""
    return forge.cbor(list(statements))


def statements(data: bytes) -> list[bytes]:
    """The signed statements of a registration."""
    return list(forge.cbor2.loads(data))


def _public(key: Key | bytes) -> bytes:
    return key if isinstance(key, bytes) else key.public
