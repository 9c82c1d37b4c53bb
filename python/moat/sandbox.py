"""``Sandbox``: run a WebAssembly module (WASI Preview 1) with a Permit and under its limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from moat._native import Module
from moat.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from moat._native import Permit, SandboxOutcome

PROGRAM: Final = "main"
"""What every guest sees as its own name: the first of its arguments, by C's custom."""


class Sandbox:
    """A compiled module; each run has a fresh memory, and nothing passes from one to another.

    Compiling is slow and running is not. A process compiles the same bytes once, wherever they
    come from, and keeps what it used last: 64 modules and 256 MiB. Safe across threads; a forked
    child makes its own.
    """

    def __init__(self, module: str | PathLike[str] | bytes) -> None:
        """Compile a ``.wasm`` file, or its bytes; ``SandboxError`` where that cannot be done."""
        if not isinstance(module, bytes):
            try:
                module = Path(module).read_bytes()
            except OSError as error:
                message = f"cannot read `{error.filename}`; give the path of a .wasm file"
                raise SandboxError(message) from error
        self._module = Module(module)

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the module's bytes, 32 bytes: the ``code`` of a message that runs it."""
        return self._module.sha256

    def run(
        self,
        permit: Permit,
        *,
        stdin: bytes = b"",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> SandboxOutcome:
        """Open the permit, run under its limits, log the outcome and return it.

        The guest sees ``stdin``, ``args`` (after a program name, ``main``), ``env`` and the
        directories of ``permit.limits``, and nothing else. However it ends is an outcome and no
        exception; ``outcome.check()`` raises unless it ended well. Raises ``Denied`` where the
        permit is for other code or is spent, ``KeysExposed`` where its directories reach the
        gate's keys or log, and ``AuditUnavailable`` where the outcome cannot be written.
        """
        return self._module.run(permit, stdin=stdin, args=[PROGRAM, *args], env=env)
