"""Moat: signed capability tokens that only narrow, a gate, a provable log and a sandbox.

Values are native and here at once; what holds files or callbacks is imported when first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat import _clash

try:
    from moat import _native  # noqa: F401 - asked for on its own, to explain when it is missing
except ImportError as error:
    raise _clash.without_native() from error
_clash.check(__path__[0])

from moat import errors
from moat._native import (
    ANY,
    REASONS,
    AgentId,
    Attestation,
    Checkpoint,
    ConsistencyProof,
    Control,
    Decision,
    Denial,
    Grant,
    Host,
    Identity,
    InclusionProof,
    Limits,
    Link,
    Message,
    Pattern,
    Permit,
    Policy,
    Registration,
    Report,
    Requirement,
    SandboxOutcome,
    Secret,
    Sender,
    Token,
    canonicalize,
)
from moat.errors import (
    AttenuationViolation,
    AuditError,
    AuditUnavailable,
    ChainBroken,
    Denied,
    EgressDenied,
    GateBusy,
    GuestTrap,
    InjectorFailed,
    InvalidSignature,
    KeysExposed,
    LimitExceeded,
    MalformedInput,
    MessageRefused,
    MoatError,
    NotAttested,
    RolledBack,
    SandboxError,
    TokenRefused,
    Undelivered,
    UnknownHandle,
)

_LAZY = {
    "AuditLog": "moat.audit",
    "CodeCache": "moat.sandbox",
    "Endpoint": "moat.endpoint",
    "Moat": "moat.runtime",
    "Pep": "moat.pep",
    "Registry": "moat.registry",
    "Router": "moat.router",
    "Sandbox": "moat.sandbox",
    "SecretProxy": "moat.secrets",
    "Session": "moat.session",
    "tool": "moat.session",
}

if TYPE_CHECKING:
    from moat.audit import AuditLog
    from moat.endpoint import Endpoint
    from moat.pep import Pep
    from moat.registry import Registry
    from moat.router import Router
    from moat.runtime import Moat
    from moat.sandbox import CodeCache, Sandbox
    from moat.secrets import SecretProxy
    from moat.session import Session, tool

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """Import a name that holds files or callbacks, once."""
        import importlib  # noqa: PLC0415 - `import moat` is to be quick

        if name in _LAZY:
            value = getattr(importlib.import_module(_LAZY[name]), name)
        elif name == "__version__":
            value = importlib.import_module("importlib.metadata").version("moat")
        else:
            message = f"module `moat` has no attribute `{name}`"
            raise AttributeError(message)
        return globals().setdefault(name, value)

    def __dir__() -> list[str]:
        """List the public names, loaded or not."""
        return sorted({*globals(), *__all__})


__all__ = [
    "ANY",
    "REASONS",
    "AgentId",
    "AttenuationViolation",
    "Attestation",
    "AuditError",
    "AuditLog",
    "AuditUnavailable",
    "ChainBroken",
    "Checkpoint",
    "CodeCache",
    "ConsistencyProof",
    "Control",
    "Decision",
    "Denial",
    "Denied",
    "EgressDenied",
    "Endpoint",
    "GateBusy",
    "Grant",
    "GuestTrap",
    "Host",
    "Identity",
    "InclusionProof",
    "InjectorFailed",
    "InvalidSignature",
    "KeysExposed",
    "LimitExceeded",
    "Limits",
    "Link",
    "MalformedInput",
    "Message",
    "MessageRefused",
    "Moat",
    "MoatError",
    "NotAttested",
    "Pattern",
    "Pep",
    "Permit",
    "Policy",
    "Registration",
    "Registry",
    "Report",
    "Requirement",
    "RolledBack",
    "Router",
    "Sandbox",
    "SandboxError",
    "SandboxOutcome",
    "Secret",
    "SecretProxy",
    "Sender",
    "Session",
    "Token",
    "TokenRefused",
    "Undelivered",
    "UnknownHandle",
    "__version__",
    "canonicalize",
    "errors",
    "tool",
]
