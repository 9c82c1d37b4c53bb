"""What a person types for a size, a length of time, a grant, a host or a directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from moat import ANY, Denial, Grant, Host, Limits, Pattern, Requirement, Secret
from moat._tree import tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from moat import AgentId

NONE: Final = "none"
"""Written out: the empty set of hosts, directories or secrets."""
UNMETERED: Final = "unmetered"
"""Written out: fuel that nobody counts."""
MANIFEST: Final = "urn:moat:manifest:v1"
"""The predicate type of attestations where none is named."""

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d[\d_]*)\s*(B|kB|MB|GB|KiB|MiB|GiB)?", re.IGNORECASE)
_COUNT = re.compile(r"(\d[\d_]*)(k|M|G)?", re.IGNORECASE)

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {
    "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}  # fmt: skip
_THOUSANDS = {"k": 1000, "m": 1000**2, "g": 1000**3}


class _Type(click.ParamType[Any]):
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse text; what is no text was parsed before."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def parse(self, text: str) -> object:
        raise NotImplementedError


class Duration(_Type):
    """``90s``, ``15m``, ``1h30m``, ``7d``, ``500ms``."""

    name = "duration"

    def parse(self, text: str) -> timedelta:
        """Add the parts up; every part has a unit."""
        parts = _DURATION.findall(text)
        if not parts or "".join(map("".join, parts)) != text:
            message = f"`{text}` is not a length of time; write `90s`, `15m`, `1h30m` or `7d`"
            raise ValueError(message)
        try:
            return timedelta(milliseconds=sum(int(n) * _MILLISECONDS[unit] for n, unit in parts))
        except OverflowError as error:
            message = f"`{text}` is too long"
            raise ValueError(message) from error


class Moment(_Type):
    """``2026-07-01``, ``2026-07-01T12:00:00Z``, Unix seconds, or ``90m`` for so long ago."""

    name = "time"

    def parse(self, text: str) -> int | timedelta:
        """Give Unix seconds, or how long ago; what names no zone is UTC."""
        if text.isascii() and text.isdigit():
            return _bounded(text, int(text))
        if _DURATION.match(text):
            return Duration().parse(text)
        try:
            found = datetime.fromisoformat(text)
        except ValueError as error:
            message = f"`{text}` is not a time; write `2026-07-01T12:00:00Z`, or `90m` for ago"
            raise ValueError(message) from error
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


class Size(_Type):
    """``64MiB``, ``1MB``, ``300``: bytes."""

    name = "size"

    def parse(self, text: str) -> int:
        """Take decimal and binary units."""
        found = _SIZE.fullmatch(text)
        if not found:
            message = f"`{text}` is not a size; write `64MiB`, `1MB` or a number of bytes"
            raise ValueError(message)
        return _bounded(text, int(found[1]) * _BYTES[(found[2] or "B").lower()])


class Count(_Type):
    """``5M``, ``1_000_000``: a number."""

    name = "count"

    def parse(self, text: str) -> int:
        """Take k, M and G for thousands, millions and thousand millions."""
        found = _COUNT.fullmatch(text)
        if not found:
            message = f"`{text}` is not a number; write `5M` or `5_000_000`"
            raise ValueError(message)
        return _bounded(text, int(found[1]) * (_THOUSANDS[found[2].lower()] if found[2] else 1))


class Fuel(_Type):
    """A ``Count``, or ``unmetered`` for what time alone bounds."""

    name = "fuel"

    def parse(self, text: str) -> int:
        """Take a number, or the word."""
        return Limits.UNMETERED if text == UNMETERED else Count().parse(text)


def _bounded(text: str, number: int) -> int:
    """Refuse what no limit can be (spec/token.md)."""
    if number >= 1 << 63:
        message = f"`{text}` is too large; the most is 2^63 - 1"
        raise ValueError(message)
    return number


class GrantText(_Type):
    """``tool://search/** call,read``, with ``{}`` at the end for no arguments at all."""

    name = "grant"

    def parse(self, text: str) -> Grant:
        """Split at spaces; a pattern holds none."""
        pattern, actions, *rest = _two(text)
        if rest not in ([], ["{}"], ["any"]):
            message = f"`{text}` has too many words; write `PATTERN ACTIONS`, then maybe `{{}}`"
            raise ValueError(message)
        return Grant(pattern, actions.split(","), {} if rest == ["{}"] else ANY)


class DenialText(_Type):
    """``tool://search/private/** call``, or ``*`` for every action."""

    name = "denial"

    def parse(self, text: str) -> Denial:
        """Split at spaces; a pattern holds none."""
        pattern, actions, *rest = _two(text)
        if rest:
            message = f"`{text}` has too many words; write `PATTERN ACTIONS`"
            raise ValueError(message)
        return Denial(pattern, actions.split(","))


@dataclass(frozen=True)
class Required:
    """A requirement whose signers are named as a person names them."""

    kind: str
    signers: tuple[str, ...]
    max_age: timedelta
    threshold: int
    predicate: str

    def of(self, find: Callable[[str], AgentId]) -> Requirement:
        """Find the signers' keys."""
        return Requirement(
            self.kind,
            [find(one) for one in self.signers],
            max_age=self.max_age,
            threshold=self.threshold,
            predicate=self.predicate,
        )


class RequirementText(_Type):
    """``code alice,bob 30d``, then maybe how many of them, and a predicate type."""

    name = "requirement"

    def parse(self, text: str) -> Required:
        """Split at spaces; no key, name or type holds one."""
        words = text.split()
        if not 3 <= len(words) <= 5:  # noqa: PLR2004 (three are needed, two may follow)
            message = f"`{text}` is not `KIND SIGNER,SIGNER AGE [THRESHOLD [PREDICATE]]`"
            raise ValueError(message)
        defaults = ("1", MANIFEST)
        kind, signers, age, threshold, predicate = (*words, *defaults[len(words) - 3 :])
        if not (threshold.isascii() and threshold.isdigit()):
            message = f"`{threshold}` is not how many signers must have signed"
            raise ValueError(message)
        return Required(
            kind, tuple(signers.split(",")), Duration().parse(age), int(threshold), predicate
        )


def _two(text: str) -> list[str]:
    words = text.split()
    if len(words) < 2:  # noqa: PLR2004 (a pattern and its actions)
        message = f"`{text}` needs a pattern and actions, such as `tool://search/** call,read`"
        raise ValueError(message)
    return words


class HostText(_Type):
    """``https://api.github.com/repos/** GET,HEAD``, then maybe ranges of addresses; or ``none``.

    Without methods it is any method, without a path all of the host.
    """

    name = "host"

    def parse(self, text: str) -> Host | str:
        """Split at spaces; no part holds one."""
        match text.split():
            case [one]:
                return NONE if one == NONE else Limits(hosts=[one]).hosts[0]
            case [pattern, methods]:
                return Host(pattern, methods.split(","))
            case [pattern, methods, ranges]:
                return Host(pattern, methods.split(","), ranges.split(","))
        message = f"`{text}` is not `URL`, `URL METHODS` or `URL METHODS RANGES`"
        raise ValueError(message)


class SecretText(_Type):
    """``secret://github https://api.github.com authorization``, or ``none``."""

    name = "secret"

    def parse(self, text: str) -> Secret | str:
        """Split at spaces; no part holds one."""
        match text.split():
            case ["none"]:
                return NONE
            case [handle, host, header]:
                return Secret(handle, host=host, header=header)
        message = f"`{text}` is not `HANDLE HOST HEADER`; write three words, or `none`"
        raise ValueError(message)


class Folder(_Type):
    """A directory, or a ``file:///dir/**`` pattern, or ``none``."""

    name = "dir"

    def parse(self, text: str) -> str:
        """Give the pattern of the whole tree, or ``none``."""
        if text == NONE:
            return NONE
        if text.startswith("file:"):
            return str(Pattern(text))
        path = Path(text).resolve()
        if not path.is_dir():
            message = f"`{text}` is not a directory; make it first, or write `file:///dir/**`"
            raise ValueError(message)
        return tree(path)


class FolderMode(_Type):
    """A directory as ``Folder`` takes it, then maybe ``:ro`` (left out) or ``:rw``; or ``none``."""

    name = "dir"

    def parse(self, text: str) -> tuple[str, bool]:
        """Give the tree's pattern, or ``none``, and whether it may be written."""
        name, sign, mode = text.rpartition(":")
        if not (sign and mode in {"ro", "rw"}):
            name, mode = text, "ro"
        if name == NONE and name != text:
            message = f"`{text}` names no directory; write `none` alone"
            raise ValueError(message)
        return Folder().parse(name), mode == "rw"


class KeyValue(_Type):
    """``NAME=VALUE``."""

    name = "name=value"

    def parse(self, text: str) -> tuple[str, str]:
        """Split at the first ``=``."""
        key, sign, value = text.partition("=")
        if not sign or not key:
            message = f"`{text}` is not `NAME=VALUE`"
            raise ValueError(message)
        return key, value
