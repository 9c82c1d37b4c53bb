"""``Sandbox``: run WebAssembly with a Permit and under its limits.

A core module runs with WASI Preview 1, a component with WASI 0.2; the bytes say which. They are
compiled in a process of their own, under limits, and what came out can be kept in a ``CodeCache``.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from moat import _files
from moat._native import CodeFolder, Egress, Module, Permit
from moat.errors import MoatError, SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from typing import Self

    from moat._native import Limits, SandboxOutcome, Toolbox

PROGRAM: Final = "main"
"""What every guest sees as its own name: the first of its arguments, by C's custom."""


class Values(Protocol):
    """What gives the values of secrets for a run: ``SecretProxy``."""

    def reveal(self, permit: Permit) -> list[tuple[str, str]]:
        """Give handle and value of what the token of an open permit names."""


@dataclass(frozen=True)
class Compiling:
    """What compiling one module may take; over it the module is refused with ``SandboxError``."""

    time: timedelta = timedelta(minutes=10)
    """Of the clock, and of all processors together."""
    memory: int = 4 << 30
    """Bytes of address space; a few hundred MiB of it are the compiler itself."""


COMPILING: Final = Compiling()
"""Enough for an interpreter of 30 MB on a small and busy machine."""


class CodeCache:
    """Compiled code in a folder, for the processes that start later.

    Machine code is run as it is found, so each entry is authenticated with a secret, in the memory
    that it is then run from. An entry that is anything else than what was written here is as good
    as none: the module is compiled again. So is one that another version of Moat wrote. 1 GiB is
    kept; what was used longest ago goes first. Safe across threads and processes.
    """

    def __init__(self, folder: CodeFolder) -> None:
        """Take an opened folder; ``CodeCache.open`` opens one."""
        self._folder = folder

    @classmethod
    def open(cls, folder: str | PathLike[str], *, key: str | PathLike[str]) -> Self:
        """Open a folder (0700) and the file of its secret (0600); make what is missing.

        Who has the secret can write code that this user then runs, so the file lies elsewhere,
        beside other keys. Raises ``MoatError`` where either is a symbolic link, belongs to somebody
        else or is open to others. No guest of a ``Sandbox`` that uses it reaches either.
        """
        where, file = Path(folder).absolute(), Path(key).absolute()
        if file.resolve().is_relative_to(where.resolve()):
            message = f"`{file}` is the secret of `{where}`, and must not lie in it"
            raise MoatError(message)
        _files.make_dirs(where.parent)
        return cls(CodeFolder(where, _secret(file), file))

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    def counts(self) -> dict[str, int]:
        """Count what happened since it was opened.

        Loads that ``found`` their code or ``missed`` it, entries that were ``refused`` because they
        are not what was written here, and entries that could not be written (``unwritten``).
        """
        return self._folder.counts()

    def __repr__(self) -> str:
        """Show the folder."""
        return f"<CodeCache: {self.path}>"


def _secret(file: Path) -> bytes:
    """Read a secret, or make one; whoever made it first wins."""
    _files.make_dirs(file.parent)
    _files.require_private_dir(file.parent)
    try:
        return _files.read(file, secret=True)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another process may make one at this very moment
            _files.write(file, secrets.token_bytes(32), secret=True, overwrite=False)
    return _files.read(file, secret=True)


class Sandbox:
    """A compiled module or component; nothing passes from one run or call to another.

    Compiling is slow and running is not. A process compiles the same bytes once, wherever they
    come from, and keeps what it used last: 64 modules and 256 MiB. Safe across threads; a forked
    child makes its own.
    """

    def __init__(
        self,
        module: str | PathLike[str] | bytes,
        *,
        cache: CodeCache | None = None,
        compiling: Compiling = COMPILING,
        metered: bool = True,
    ) -> None:
        """Compile a ``.wasm`` file, or its bytes; ``SandboxError`` where that cannot be done.

        Compiling happens in a process of its own (``sys.executable``), under ``compiling``, unless
        this process has the code in memory or ``cache`` has it.

        Code that is not ``metered`` counts no fuel and is bounded by time alone; what calls and
        branches a lot is quicker so. It runs under permits with ``fuel=Limits.UNMETERED`` only,
        and is charged that; any other one is ``MalformedInput``, and stays unopened. Such a permit
        runs metered code too, and is charged what the code used.
        """
        if not isinstance(module, bytes):
            try:
                module = Path(module).read_bytes()
            except OSError as error:
                message = f"cannot read `{error.filename}`; give the path of a .wasm file"
                raise SandboxError(message) from error
        compiler = (_compiler(), compiling.time, compiling.memory)
        kept = None if cache is None else cache._folder  # noqa: SLF001 (both are of this module)
        self._module = Module(module, cache=kept, compiler=compiler, metered=metered)

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the module's bytes, 32 bytes: the ``code`` of a message that runs it."""
        return self._module.sha256

    @property
    def is_component(self) -> bool:
        """Whether it is a component, with typed functions, and not a core module."""
        return self._module.is_component

    @property
    def metered(self) -> bool:
        """Whether its code counts fuel."""
        return self._module.metered

    def run(
        self,
        permit: Permit,
        *,
        stdin: bytes = b"",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        egress: Egress | None = None,
        secrets: Values | None = None,
        tools: Toolbox | None = None,
        deterministic: bool = False,
    ) -> SandboxOutcome:
        """Open the permit, run under its limits, log the outcome and return it.

        The guest sees ``stdin``, ``args`` (after a program name, ``main``), ``env`` and the
        directories of ``permit.limits``, and nothing else. However it ends is an outcome and no
        exception; ``outcome.check()`` raises unless it ended well. Raises ``Denied`` where the
        permit is for other code or is spent, ``KeysExposed`` where its directories reach the
        gate's keys or log, ``MalformedInput`` where a component is no command, and
        ``AuditUnavailable`` where the outcome cannot be written.

        A component whose token names hosts may send requests there (``wasi:http``,
        spec/egress.md): ``egress`` says which issuers are trusted and how much may be sent, and
        left out it is the public ones. ``secrets`` (``moat.secrets``) gives the values of the
        handles that the token names, once, before the guest starts; the guest sends the handle.
        ``tools`` (``session.toolbox``) are what a component may call by
        ``hyperlight:sandbox/tools``, each call a message through the gate; left out, none.

        A ``deterministic`` run has clocks that begin at 2000-01-01 and move when they are looked
        at, waits that are over at once, and random bytes that follow from the module. It sends
        nothing, and where it is given tools, its token names directories or the code is not
        metered it is ``MalformedInput``. The same module, input and limits give the same output
        and fuel, unless the time is over first; the outcome entry says ``deterministic``, and
        ``moat audit rerun`` repeats it.
        """
        network = None if deterministic else self._network(permit, egress, secrets)
        return self._module.run(
            permit,
            stdin=stdin,
            args=[PROGRAM, *args],
            env=env,
            network=network,
            tools=tools,
            deterministic=deterministic,
        )

    def call(
        self,
        permit: Permit,
        name: str,
        args: Sequence[Any] | Mapping[str, Any] = (),
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        egress: Egress | None = None,
        secrets: Values | None = None,
        tools: Toolbox | None = None,
        deterministic: bool = False,
    ) -> SandboxOutcome:
        """Open the permit, call one function of a component, log the outcome and return it.

        ``name`` is an exported function, or ``interface#function``. ``args`` are in order, or by
        the parameters' names; they are checked against the component's own types first. A record
        is a dict, an enum its case's name, a variant its case's name or ``{name: value}``, a
        result ``{"ok": value}`` or ``{"err": value}``, an option the value or ``None``, flags a
        list or set of names, ``list<u8>`` bytes. ``outcome.result`` is what came back, in the same
        spelling, and the log holds the digest of ``outcome.result_json``.

        Each call has a fresh instance and the limits of ``run``; the result counts as output.
        Raises as ``run`` does, and ``MalformedInput`` where there is no such function or the
        arguments do not fit; the permit is unopened then.
        """
        if isinstance(args, Mapping):
            args = dict(args)
        elif not isinstance(args, str | bytes):
            args = list(args)
        network = None if deterministic else self._network(permit, egress, secrets)
        return self._module.call(
            permit,
            name,
            args,
            stdin=stdin,
            args=[PROGRAM],
            env=env,
            network=network,
            tools=tools,
            deterministic=deterministic,
        )

    def replay(
        self,
        limits: Limits,
        *,
        stdin: bytes = b"",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> SandboxOutcome:
        """Do once more what a deterministic ``run`` under these limits did.

        It needs no permit and leaves no line, since it has no effect: no files, no network, no
        clock, and no more than its limits allow. For comparing it with what a log says. Raises
        ``MalformedInput`` where the limits name directories.
        """
        return self._module.replay(limits, stdin=stdin, args=[PROGRAM, *args], env=env)

    def _network(
        self, permit: Permit, egress: Egress | None, secrets: Values | None
    ) -> tuple[Egress, Callable[[], list[tuple[str, str]]]] | None:
        """What a guest sends through; nothing where its token names no host."""
        if not self._module.is_component or not _hosts(permit):
            return None
        return egress or Egress(), lambda: secrets.reveal(permit) if secrets else []


def _compiler() -> list[str]:
    """Give the program that compiles; nothing where there is no interpreter to start."""
    if not sys.executable or getattr(sys, "frozen", False):
        return []
    script = Path(__file__).with_name("_compile.py")
    native = sys.modules[Module.__module__].__file__
    return [sys.executable, "-I", "-S", str(script), str(native)]


def _hosts(permit: object) -> bool:
    """Whether its token names hosts; what is no permit is refused where it is to be opened."""
    return isinstance(permit, Permit) and bool(permit.limits.hosts)
