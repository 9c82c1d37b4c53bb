"""Every exception of Moat.

::

    MoatError
    ├── MalformedInput (ValueError)      bytes or text of the wrong shape
    ├── InvalidSignature                 a signature that does not verify
    ├── NotAttested                      too few signers vouch for a digest
    ├── AttenuationViolation             a child that asks for more than its parent has
    ├── TokenRefused                     a token that is expired, foreign or out of order
    ├── MessageRefused                   a message that is stale or meant for another gate
    ├── Denied                           a gate said no; ``.decision`` says why
    ├── Undelivered                      a message that did not reach its recipient
    ├── SandboxError
    │   ├── LimitExceeded                ``.limit`` names the axis
    │   ├── EgressDenied                 ``.host``
    │   ├── KeysExposed                  a directory that reaches keys or a log
    │   └── GuestTrap
    ├── AuditError
    │   ├── ChainBroken                  ``.index`` of the first line that is wrong
    │   ├── AuditUnavailable             the log cannot be written, so nothing is allowed
    │   │   └── GateBusy                 another process has the gate
    │   └── RolledBack                   the log is behind its anchor
    ├── UnknownHandle (LookupError)      a secret that is not there for this use
    └── InjectorFailed                   what a secret was filled into failed; ``.kind``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moat._native import Decision


class MoatError(Exception):
    """The base of every exception here.

    ``reason`` is a stable snake_case code where there is one: ``moat.REASONS`` lists the gate's,
    spec/egress.md those of requests.
    """

    reason: str | None = None


class MalformedInput(MoatError, ValueError):
    """Bytes or text that do not have the form asked for."""


class InvalidSignature(MoatError):
    """A signature that does not verify."""


class NotAttested(MoatError):
    """Too few of those who must vouch for a digest have done so, or too long ago."""


class AttenuationViolation(MoatError):
    """A child asks for more than its parent has."""

    caveat: str | None = None
    """The axis that was too wide, such as ``fuel`` or ``resource``."""
    witness: str | None = None
    """Something the child would allow and the parent does not."""


class TokenRefused(MoatError):
    """A token that is expired, not valid yet, out of order or from an unknown root."""


class MessageRefused(MoatError):
    """A message that is stale, meant for another gate or by someone else."""


class Denied(MoatError):
    """A gate said no; the decision says at which stage, why, and what to do next."""

    decision: Decision


class Undelivered(MoatError):
    """A message that did not reach its recipient; ``reason`` says why (spec/router.md)."""

    reason: str


class SandboxError(MoatError):
    """Code that could not be run, or did not end well."""


class LimitExceeded(SandboxError):
    """Code that reached a limit of its token."""

    limit: str
    """The axis: ``fuel``, ``memory``, ``time`` or ``output``."""


class EgressDenied(SandboxError):
    """A request that its token does not allow, or that ended early (spec/egress.md)."""

    host: str | None = None
    """Host and port of its URL, where that could be read."""


class KeysExposed(SandboxError):
    """A token with a directory that reaches the keys of a state folder, or a gate's log.

    Code that reads a key is whoever the key stands for.
    """


class GuestTrap(SandboxError):
    """Code that trapped."""


class AuditError(MoatError):
    """A log that could not be read, written or believed."""


class ChainBroken(AuditError):
    """A log that was edited."""

    index: int
    """The first line that is wrong."""


class AuditUnavailable(AuditError):
    """A log that cannot be written; every decision is a denial until it is reopened."""


class GateBusy(AuditUnavailable):
    """A gate that another process has; speak to it through the state folder's ``control``."""


class RolledBack(AuditError):
    """A log that is behind its anchor: cut, or restored from a copy."""


class UnknownHandle(MoatError, LookupError):
    """A secret handle that is not bound, or not for this agent, host and permit."""


class InjectorFailed(MoatError):
    """What a secret was filled into raised something, or gave back what it must not.

    Nothing of the original is kept but its class's name, since any of it may hold the value.
    """

    kind: str | None = None
    """The name of the class that was raised; None where the result was refused."""
