"""``moat.code``: an agent's own Python or JavaScript, given as text, under a token of its own.

The text is run by an interpreter that is itself a guest: one component for each language, from
the extras ``moat[python]`` and ``moat[javascript]``. What the code does outside goes through the
gate (``call_tool``) or the egress engine, and is in the log.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict

from moat._native import Limits
from moat.errors import MalformedInput, SandboxError
from moat.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Unpack

    from moat._native import Egress, Permit, SandboxOutcome, Toolbox
    from moat.sandbox import CodeCache
    from moat.session import Narrowing, Session, Tool

Language: TypeAlias = Literal["python", "javascript"]

LANGUAGES: Final[dict[Language, tuple[str, str]]] = {
    "python": (
        "hyperlight-sandbox-python-guest", "python_guest/resources/python-sandbox.wasm",
    ),
    "javascript": (
        "hyperlight-sandbox-javascript-guest", "javascript_guest/resources/js-sandbox.wasm",
    ),
}  # fmt: skip
"""Where the interpreter of each language lies: a distribution, and a file in it."""

RUN: Final = "hyperlight:sandbox/executor#run"
_READY: Final[dict[tuple[Language, bool, Path | None, int], Sandbox]] = {}
"""Interpreters of this process; a forked child finds its own, and so does another cache."""

MARGIN: Final = timedelta(seconds=30)
"""What the token of a run outlives its time limit by: for the gate to decide in."""


@dataclass(frozen=True)
class CodeOutcome:
    """What the code wrote and how it ended."""

    stdout: str
    """What it printed; empty where it was stopped, for the interpreter holds it till the end."""
    stderr: str
    """The same for errors: an uncaught exception is here."""
    exit_code: int | None
    """0, or 1 after an uncaught exception; ``None`` where it was stopped."""
    permit: Permit
    """What the gate said, spent now: where decision and outcome are in the log, and the limits."""
    sandbox: SandboxOutcome
    """What the run cost, and why it was stopped."""

    def check(self) -> CodeOutcome:
        """Return itself where all went well; else raise as ``SandboxOutcome.check`` does."""
        self.sandbox.check()
        if self.exit_code != 0:
            last = self.stderr.strip().splitlines()[-1:] or [f"it exited with {self.exit_code}"]
            message = f"the code failed: {last[0]}"
            raise SandboxError(message)
        return self


class Terms(TypedDict, total=False):
    """What ``run`` and ``run_async`` may be told."""

    language: Language
    tools: Iterable[Tool[..., Any]]
    resource: str | None
    limits: Limits | None
    egress: Egress | None
    cache: CodeCache | None


def run(session: Session, source: str, **terms: Unpack[Terms]) -> CodeOutcome:
    """Run a text under a token attenuated to a key that lives for this run alone.

    The gate is asked for ``run`` on ``resource`` (``code://python`` or ``code://javascript``),
    with the interpreter as ``code`` and the text (UTF-8, below 1 MiB) as the payload. The token
    needs a depth of 1; ``limits`` narrows it further. Inside, ``call_tool(name, …)`` reaches
    ``tools`` by the names of their functions, with named arguments in Python and an object in
    JavaScript; what goes wrong there is an exception. Requests, files and secrets are those of the
    limits, as for any component.

    Compiling an interpreter takes half a minute; it is done once in a process, and once for all
    where a ``cache`` keeps the code (``moat.cache``). With ``fuel=Limits.UNMETERED`` in the limits
    it is one compiled without a meter. Raises ``Denied``, ``AttenuationViolation``,
    ``MalformedInput``, and ``SandboxError`` where the extra is missing.
    """
    return _allowed(session, source, terms)()


async def run_async(session: Session, source: str, **terms: Unpack[Terms]) -> CodeOutcome:
    """Do what ``run`` does beside the event loop, on which ``async def`` tools run.

    It has a thread of its own, so that tools find those of the loop free. Where the waiting task
    is cancelled the code is stopped, and its end waited for.
    """
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="moat-code")
    try:
        allowed = await loop.run_in_executor(thread, _allowed, session, source, terms, loop)
        running = loop.run_in_executor(thread, allowed)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            allowed.tools.stop()
            await asyncio.wait([running])
            raise
    finally:
        thread.shutdown(wait=False)


def interpreter(
    language: Language, *, cache: CodeCache | None = None, metered: bool = True
) -> Sandbox:
    """Find what runs a language; compiled once in this process, and not if ``cache`` has it."""
    if language not in LANGUAGES:
        message = f"`{language}` is no language of `moat.code`; it has {', '.join(LANGUAGES)}"
        raise MalformedInput(message)
    key = (language, metered, None if cache is None else cache.path, os.getpid())
    if key not in _READY:
        _READY[key] = _compiled(language, cache, metered=metered)
    return _READY[key]


def _compiled(language: Language, cache: CodeCache | None, *, metered: bool) -> Sandbox:
    name, member = LANGUAGES[language]
    try:
        path = metadata.distribution(name).locate_file(member)
    except metadata.PackageNotFoundError as error:
        message = f"`{language}` is run by an extra; install `moat[{language}]`"
        raise SandboxError(message) from error
    return Sandbox(str(path), cache=cache, metered=metered)


def _metered(session: Session, limits: Limits | None) -> bool:
    return (limits or session.token.limits).fuel != Limits.UNMETERED


@dataclass(frozen=True)
class _Run:
    """A run that the gate has allowed and that has not begun."""

    session: Session
    sandbox: Sandbox
    permit: Permit
    tools: Toolbox
    egress: Egress | None

    def __call__(self) -> CodeOutcome:
        """Do it."""
        ran = self.sandbox.call(
            self.permit,
            RUN,
            [self.permit.payload.decode()],
            egress=self.egress,
            secrets=self.session.secrets,
            tools=self.tools,
        )
        result = ran.result or {"stdout": "", "stderr": "", "exit-code": None}
        return CodeOutcome(
            stdout=result["stdout"],
            stderr=result["stderr"],
            exit_code=result["exit-code"],
            permit=self.permit,
            sandbox=ran,
        )


def _allowed(
    session: Session, source: str, terms: Terms, loop: asyncio.AbstractEventLoop | None = None
) -> _Run:
    """Make the key of a run and ask the gate for it."""
    language, limits = terms.get("language", "python"), terms.get("limits")
    sandbox = interpreter(language, cache=terms.get("cache"), metered=_metered(session, limits))
    narrowing: Narrowing = {"depth": 0, "expires_in": _lifetime(session, limits)}
    if limits is not None:
        narrowing["limits"] = limits
    own = session.child("code", **narrowing)
    box = own.toolbox(terms.get("tools", ()), loop=loop)
    resource = terms.get("resource") or f"code://{language}"
    permit = own.request("run", resource, payload=source.encode(), code=sandbox.sha256)
    return _Run(own, sandbox, permit, box, terms.get("egress"))


def _lifetime(session: Session, limits: Limits | None) -> timedelta:
    """Whole seconds: what the run may take, and no longer than the session's token lasts."""
    longest = (limits or session.token.limits).time + MARGIN
    seconds = min(int(longest.total_seconds()) + 1, session.token.expires - session.now())
    return timedelta(seconds=max(seconds, 1))
