"""Another distribution that installs a package ``moat`` too: found, and named.

The public index has an unrelated project called ``moat``, with relatives that put modules into
the same package. Files of both in one directory are neither.
"""

from __future__ import annotations

import os
from typing import Final

_OURS: Final = {"__pycache__", "_demo", "cli", "demo"}
"""The directories of this package."""


def check(package: str) -> None:
    """Raise ``ImportError`` if a foreign distribution shares our directory.

    One listing of the directory when all is well: the installed distributions are only asked
    where it holds a directory that is not ours.
    """
    with os.scandir(package) as entries:
        strange = any(entry.is_dir() and entry.name not in _OURS for entry in entries)
    if strange and (names := foreign()):
        raise ImportError(_message(names))


def without_native() -> ImportError:
    """Explain why ``moat._native`` may be missing."""
    if names := foreign():
        return ImportError(_message(names))
    return ImportError("cannot load `moat._native`; run `pip install .` in Moat's checkout")


def foreign() -> list[str]:
    """Names and versions of distributions that install ``moat`` but not its native module."""
    from importlib.metadata import (  # noqa: PLC0415 - slow to import, seldom needed
        distribution,
        packages_distributions,
    )

    found = []
    for name in sorted(set(packages_distributions().get("moat", ()))):
        other = distribution(name)
        files = (file.as_posix() for file in other.files or ())
        if not any(file.startswith("moat/_native.") for file in files):
            found.append(f"{name} {other.version}")
    return found


def _message(names: list[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names)
    return (
        f"another project installs a package `moat` here: {listed}; uninstall it, then install "
        "this one again, from its checkout or a wheel"
    )
