"""``config.json`` of a state folder: whom its gates trust, and what they require of everybody.

::

    {"operators":[did,…],["policy":text,]"roots":[did,…],"version":1}

One line, in one spelling. ``policy`` is the text of a policy (spec/message.md), and is there where
it is another one than ``chain-only``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from moat import _files
from moat._native import AgentId, Policy
from moat.errors import MalformedInput, MoatError

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

CONFIG: Final = "config.json"
CONFIG_VERSION: Final = 1


@dataclass(frozen=True)
class Config:
    """Who is trusted. One spelling is accepted, and what is not known is refused."""

    roots: tuple[AgentId, ...]
    operators: tuple[AgentId, ...] = ()
    policy: Policy = Policy.CHAIN_ONLY

    def to_bytes(self) -> bytes:
        """Write JSON with sorted keys and no spaces, one line."""
        fields: dict[str, object] = {
            "operators": sorted({str(key) for key in self.operators}),
            "roots": sorted({str(key) for key in self.roots}),
            "version": CONFIG_VERSION,
        }
        if self.policy != Policy.CHAIN_ONLY:
            fields["policy"] = self.policy.text
        return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` writes; anything else is ``MalformedInput``."""
        try:
            fields = json.loads(data)
            config = cls(
                roots=tuple(map(AgentId, fields["roots"])),
                operators=tuple(map(AgentId, fields["operators"])),
                policy=Policy(fields.get("policy", Policy.CHAIN_ONLY.text)),
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            message = "config.json is not a configuration of ours; restore it or make a new folder"
            raise MalformedInput(message) from error
        if config.to_bytes() != data:
            message = "config.json has another spelling or unknown keys; restore it"
            raise MalformedInput(message)
        return config


def read_config(path: str | PathLike[str]) -> Config:
    """Read a state folder's configuration without opening its gate; ``MoatError`` if there is none.

    The file is refused unless it is ours and closed to others: it says whom to trust.
    """
    try:
        return Config.from_bytes(_files.read(Path(path) / CONFIG, secret=True))
    except FileNotFoundError as error:
        message = f"there is no state folder at `{path}`; make one with `moat init`"
        raise MoatError(message) from error
