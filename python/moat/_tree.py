"""The pattern of a directory tree, for ``Limits(read=…, write=…)``, and back."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from moat import Pattern
from moat.errors import MalformedInput

_ESCAPED = frozenset(' "#<>?[]^`{|}')
_NAMELESS = frozenset("%*")


def tree(path: Path) -> str:
    """Name a directory and all below it (spec/pattern.md): ``/a b`` is ``file:///a%20b/**``.

    ``path`` is absolute and resolved. Raises ``MalformedInput`` where no pattern can name it.
    """
    text = path.as_posix().rstrip("/")
    if _NAMELESS & set(text):
        message = f"`{path}` holds `%` or `*`, which no pattern can name; use another directory"
        raise MalformedInput(message)
    escaped = "".join(f"%{ord(c):02X}" if c in _ESCAPED else c for c in text)
    return str(Pattern(f"file://{escaped}/**"))


def folder(pattern: str) -> Path:
    """Give the directory that the pattern of a tree names: what ``tree`` was given."""
    return Path(unquote(pattern.removeprefix("file://").removesuffix("/**")) or "/")
