"""``SecretProxy``: handles for secrets, and the one way to a value: an injector, permit open.

An agent, a message and a log see handles, which are texts such as ``secret://github``. A value
comes from a ``Backend`` at the moment it is needed, goes into one function of the host (the
*injector*) and nowhere else.

Three things hold a value back, and a fourth cannot be held back:

- **what the injector raises** is dropped, with its text, notes, causes and frames, since any of
  them may hold the value; ``InjectorFailed`` is raised in its place and names its class alone;
- **what the injector returns** is plain data (text, bytes, numbers, lists, dicts) in which the
  value does not occur in its plain spelling, or it is refused. An open connection or a response
  that remembers its request would carry the value, and the authority, out of the permit;
- **what is kept** lies in a box that has no text, is not copied and not pickled, and is
  overwritten with zeros when it is dropped;
- **Python strings cannot be wiped.** Copies of a value stay in this process's memory until they
  happen to be overwritten, and code in this process that looks for them finds them.

Why a fill was refused is logged for the owner under ``moat.secrets``; the caller is told nothing
that would help to find out which handles there are.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar, cast, runtime_checkable

from moat._native import AgentId, Pattern, Permit, canonicalize
from moat.errors import InjectorFailed, MalformedInput, MoatError, UnknownHandle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from moat._native import Host

R = TypeVar("R")

SCHEME: Final = "secret://"
"""Every handle starts so; it is a canonical resource (spec/pattern.md)."""

_HOST: Final = re.compile(r"(https?|wss?)://[^/]+")

_LOG: Final = logging.getLogger("moat.secrets")


class Backend(Protocol):
    """Where values come from. It is asked at every fill, from any thread."""

    def get(self, name: str) -> str:
        """Give the value as it is now; ``LookupError`` where there is none."""


@runtime_checkable
class Writable(Backend, Protocol):
    """A backend whose values can be changed here."""

    def set(self, name: str, value: str) -> None:
        """Put a value in the place of the one before."""

    def remove(self, name: str) -> None:
        """Forget a value; one that is not there is no error."""


@dataclass(frozen=True)
class Binding:
    """What a handle stands for, for whom and where."""

    source: Backend
    backend: str
    """The backend's name."""
    name: str
    """The backend's name for the value."""
    agents: frozenset[AgentId]
    hosts: tuple[Pattern, ...]


class Book(Protocol):
    """Handles that are kept elsewhere, and may change at any time."""

    def find(self, handle: str) -> Binding | None:
        """Give what a handle stands for now; ``MoatError`` where that cannot be known."""

    def names(self) -> Iterable[str]:
        """List the handles."""

    def drop(self, handle: str) -> None:
        """Make a handle unknown and forget its value; ``UnknownHandle`` where it is already."""


class SecretProxy:
    """Fills secrets in for agents whose permit is open; hands out handles and no values.

    A handle is bound to agents and to hosts. A value is filled in when a permit of ``gate`` is
    open, its sender is one of the agents, and the host is one of the handle's. The token must
    want it too: name the secret at this host (``permit.limits.secrets``), and allow requests to
    the host (``permit.limits.hosts``). No agents means nobody, no hosts nowhere.

    What the injector does with a value, and whether it talks to the host it was asked for, is
    the host program's business: the injector is trusted, the agent is not. Safe across threads.
    """

    def __init__(
        self, backends: Mapping[str, Backend], *, gate: AgentId, book: Book | None = None
    ) -> None:
        """Take named backends, and the gate (``pep.id``) whose permits count.

        ``book`` has further handles, as those of a state folder (``moat secret``).
        """
        self._backends = dict(backends)
        self._gate = gate
        self._book = book
        self._bindings: dict[str, Binding] = {}
        self._lock = threading.Lock()

    def bind(
        self,
        handle: str,
        *,
        backend: str,
        name: str,
        agents: Iterable[AgentId],
        hosts: Iterable[str],
    ) -> None:
        """Say what a handle stands for, for whom and where; the value is not looked at.

        ``handle`` is as ``secret://github``; ``name`` is the backend's name for the value;
        ``hosts`` are patterns without a path, as ``https://*.github.com``.

        Raises ``MoatError`` where the handle is bound already or there is no such backend,
        ``MalformedInput`` for a wrong form.
        """
        check_handle(handle)
        bound = frozenset(agents)
        if not all(isinstance(agent, AgentId) for agent in bound):
            message = "a secret is bound to agents by their keys; give `identity.id`"
            raise MalformedInput(message)
        if backend not in self._backends:
            message = f"there is no backend `{backend}`; name one that the proxy was given"
            raise MoatError(message)
        source = self._backends[backend]
        binding = Binding(source, backend, name, bound, read_hosts(hosts))
        with self._lock:
            if handle in self._bindings or (self._book and self._book.find(handle)):
                message = f"`{handle}` is bound already; remove it first"
                raise MoatError(message)
            self._bindings[handle] = binding

    def fill(self, permit: Permit, handle: str, *, host: str, into: Callable[[str], R]) -> R:
        """Call ``into(value)`` with the permit open, and return its result.

        ``host`` is where the value will go, in its one spelling, as ``https://api.github.com``;
        another form is ``MalformedInput``. Whatever else is amiss with the handle, the permit,
        the agent or the host is one and the same ``UnknownHandle``. ``InjectorFailed`` stands
        for anything that the injector raised, and for a result that is not plain data or holds
        the value. An interrupt, an exit and a cancellation go on as what they are, emptied.
        """
        secret = self._claim(permit, handle, host)
        result, failure = _inject(secret, into)
        if failure is not None:
            raise failure
        return cast("R", result)

    async def fill_async(
        self, permit: Permit, handle: str, *, host: str, into: Callable[[str], Awaitable[R]]
    ) -> R:
        """Do what ``fill`` does with an ``async def`` injector."""
        secret = self._claim(permit, handle, host)
        result, failure = await _inject_async(secret, into)
        if failure is not None:
            raise failure
        return cast("R", result)

    def rotate(self, handle: str, value: str) -> None:
        """Put a new value behind a handle; the next fill gets it.

        Raises ``UnknownHandle`` where the handle is not bound, and ``MoatError`` where its
        backend only reads.
        """
        binding = self._find(handle)
        if binding is None:
            raise _unbound(handle)
        if not isinstance(binding.source, Writable):
            message = f"backend `{binding.backend}` only reads; change the value where it is kept"
            raise MoatError(message)
        binding.source.set(binding.name, value)
        _LOG.info("rotated %s", handle)

    def remove(self, handle: str) -> None:
        """Make a handle unknown, from the next fill on; ``UnknownHandle`` where it is already.

        The value goes too, where its backend can forget and no other handle stands for it.
        """
        with self._lock:
            binding = self._bindings.pop(handle, None)
            if binding is None and self._book is None:
                raise _unbound(handle)
            if binding is None and self._book is not None:
                self._book.drop(handle)
            elif binding is not None:
                place = (binding.backend, binding.name)
                shared = any((b.backend, b.name) == place for b in self._bindings.values())
                if not shared and isinstance(binding.source, Writable):
                    binding.source.remove(binding.name)
        _LOG.info("removed %s", handle)

    def handles(self) -> tuple[str, ...]:
        """List the bound handles, sorted: for the owner, not for agents."""
        more = self._book.names() if self._book else ()
        with self._lock:
            return tuple(sorted({*self._bindings, *more}))

    def __repr__(self) -> str:
        """Count the handles."""
        return f"<SecretProxy: {len(self.handles())} handles>"

    def _find(self, handle: str) -> Binding | None:
        with self._lock:
            binding = self._bindings.get(handle)
        return binding or (self._book and self._book.find(handle)) or None

    def _claim(self, permit: Permit, handle: str, host: str) -> _Secret:
        """Fetch the value for this use of it, or refuse with one text for every reason."""
        if not isinstance(permit, Permit):
            message = "a secret is filled for a `Permit`; ask the gate for one"
            raise TypeError(message)
        _check_place(host)
        secret = why = None
        try:
            binding: Binding | None = self._find(handle)
        except MoatError as error:  # the book cannot be read: nothing in it is known
            binding, why = None, str(error)
        else:
            why = self._objection(permit, handle, binding, host)
        if binding is not None and why is None:
            secret, failure = _fetch(binding.source, binding.name)
            if failure is not None and not isinstance(failure, InjectorFailed):
                raise failure
            why = f"backend `{binding.backend}` gave no value: {getattr(failure, 'kind', None)}"
        if secret is None:
            seen = (_printable(handle), permit.sender, host, permit.entry, why)
            _LOG.warning("refused %s to %s at %s (entry %d): %s", *seen)
            message = f"no secret `{_printable(handle)}` for this agent, host and permit; "
            raise UnknownHandle(message + "the owner's log `moat.secrets` says why")
        _LOG.debug("filling %s for %s at %s (entry %d)", handle, permit.sender, host, permit.entry)
        return secret

    def _objection(
        self, permit: Permit, handle: str, binding: Binding | None, host: str
    ) -> str | None:
        """Say what speaks against this fill, the permit first."""
        bound, limits = binding or Binding(Memory(), "", "", frozenset(), ()), permit.limits
        secrets = [secret.host for secret in limits.secrets if secret.handle == handle]
        needed = {
            "the permit is not open in this process": permit.is_open,
            "the permit is another gate's": permit.gate == self._gate,
            "no such handle": binding is not None,
            "the handle is not bound to this agent": permit.sender in bound.agents,
            "the handle is not bound to this host": _some_matches(bound.hosts, host),
            "the token does not name this secret for this host": _some_matches(secrets, host),
            "the token does not name this host": _some_matches(map(_origin, limits.hosts), host),
        }
        return next((why for why, holds in needed.items() if not holds), None)


class Memory:
    """Values kept by this process alone."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        """Take values by name; the mapping given is not kept."""
        self._secrets = {name: _Secret(value) for name, value in (values or {}).items()}
        self._lock = threading.Lock()

    def get(self, name: str) -> str:
        """Give a value; ``LookupError`` where there is none."""
        with self._lock:
            return self._secrets[name].reveal()

    def set(self, name: str, value: str) -> None:
        """Put a value in the place of the one before, which is zeroed."""
        new = _Secret(value)
        with self._lock:
            old = self._secrets.get(name)
            self._secrets[name] = new
            if old is not None:
                old.wipe()

    def remove(self, name: str) -> None:
        """Forget a value and zero it."""
        with self._lock:
            if name in self._secrets:
                self._secrets.pop(name).wipe()

    def __repr__(self) -> str:
        """Count the values."""
        return f"<Memory: {len(self._secrets)} secrets>"


class Environment:
    """Variables of the environment whose names start with a prefix; an empty one is none.

    By default they are *taken*: read once, here, and removed from ``os.environ``, so that child
    processes do not inherit them. The block that the kernel shows in ``/proc/<pid>/environ``
    stays as it was when the process started: other processes of this user can read it there.
    """

    def __init__(self, prefix: str = "MOAT_SECRET_", *, take: bool = True) -> None:
        """Take the variables, or with ``take=False`` leave them and read at every fill."""
        if not prefix:
            message = "an environment of secrets has a prefix, such as `MOAT_SECRET_`"
            raise MalformedInput(message)
        self._prefix = prefix
        self._taken: Memory | None = None
        if take:
            found = [name for name in os.environ if name.startswith(prefix)]
            full = {name: os.environ.pop(name) for name in found}
            self._taken = Memory({name: value for name, value in full.items() if value})

    def get(self, name: str) -> str:
        """Give the value of the variable ``prefix + name``; ``LookupError`` where it has none."""
        variable = self._prefix + name
        return os.environ[variable] if self._taken is None else self._taken.get(variable)

    def __repr__(self) -> str:
        """Show the prefix."""
        return f"<Environment: {self._prefix}*>"


# --- what a value lies in ------------------------------------------------------------------------


class _Secret:
    """A box around one value: no text, no copy, no pickle."""

    __slots__ = ("_data",)

    def __init__(self, value: object) -> None:
        if not isinstance(value, str) or not value:
            message = "a secret is text of at least one character"
            raise MalformedInput(message)
        # Without `surrogatepass` an odd byte in a variable would raise an error that holds it.
        self._data = bytearray(value.encode("utf-8", "surrogatepass"))

    def reveal(self) -> str:
        """Give the value: a new string, which nobody can wipe."""
        return self._data.decode("utf-8", "surrogatepass")

    def wipe(self) -> None:
        """Overwrite it with zeros."""
        self._data[:] = bytes(len(self._data))

    def is_in(self, part: object) -> bool:
        """Whether it occurs in bytes, in a text or in how a number is written."""
        if not isinstance(part, bytes | bytearray):
            part = str(part).encode("utf-8", "surrogatepass")
        return self._data in part

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:  # copying asks for it too
        message = "a secret is not copied or pickled; fill it in where it is needed"
        raise TypeError(message)


def _unbound(handle: str) -> UnknownHandle:
    return UnknownHandle(f"`{_printable(handle)}` is not bound; `handles()` lists what is")


def check_handle(handle: str) -> None:
    """Refuse what is no handle, with ``MalformedInput``."""
    if not handle.startswith(SCHEME) or handle == SCHEME or canonicalize(handle) != handle:
        message = f"`{_printable(handle)}` is no handle; write one as `secret://github`"
        raise MalformedInput(message)


def read_hosts(patterns: Iterable[str]) -> tuple[Pattern, ...]:
    """Read patterns of hosts, as exactly as a token's: no path, no second spelling.

    Raises ``MalformedInput``.
    """
    if isinstance(patterns, str):
        message = "hosts are a list of patterns, not one text"
        raise TypeError(message)
    hosts = tuple(map(Pattern, patterns))
    for host in hosts:
        if not _HOST.fullmatch(str(host)):
            message = f"`{host}` is not a host; write `https://name` or `https://*.name`"
            raise MalformedInput(message)
    return hosts


def _check_place(host: str) -> None:
    """Refuse what is not one host in its one spelling."""
    if "*" in host:
        message = f"`{_printable(host)}` is many hosts; name the one that the value goes to"
        raise MalformedInput(message)
    read_hosts([host])


def _origin(rule: Host) -> Pattern:
    """Give the hosts of a rule: its pattern without the path."""
    return Pattern("/".join(str(rule.pattern).split("/")[:3]))


def _some_matches(patterns: Iterable[Pattern], host: str) -> bool:
    return any(pattern.matches(host) for pattern in patterns)


def _printable(text: object) -> str:
    """Make a text that a stranger chose fit for one line of a log."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:100])


# --- the injection -------------------------------------------------------------------------------
# INVARIANT: no exception passes through the three functions that call a backend or an injector.
# Whatever is raised to the caller is made here, and raised where no frame has a value.


def _fetch(backend: Backend, name: str) -> tuple[_Secret | None, BaseException | None]:
    try:
        return _Secret(backend.get(name)), None
    except BaseException as error:  # noqa: BLE001 (nothing that was raised may go on)
        return None, _stand_in(error)


def _inject(secret: _Secret, into: Callable[[str], R]) -> tuple[R | None, BaseException | None]:
    try:
        return _fit(into(secret.reveal()), secret)
    except BaseException as error:  # noqa: BLE001 (as above)
        return None, _stand_in(error, secret)
    finally:
        secret.wipe()


async def _inject_async(
    secret: _Secret, into: Callable[[str], Awaitable[R]]
) -> tuple[R | None, BaseException | None]:
    try:
        return _fit(await into(secret.reveal()), secret)
    except BaseException as error:  # noqa: BLE001 (as above)
        return None, _stand_in(error, secret)
    finally:
        secret.wipe()


def _stand_in(error: BaseException, secret: _Secret | None = None) -> BaseException:
    """Make what is raised in the place of an error: of its text, frames and causes, nothing."""
    if isinstance(error, SystemExit):
        code = error.code if type(error) is SystemExit else 1
        return SystemExit(code if code is None or type(code) is int else 1)
    for kind in (KeyboardInterrupt, GeneratorExit):
        if isinstance(error, kind):
            return kind()
    if not isinstance(error, Exception):
        from asyncio import CancelledError  # noqa: PLC0415 - slow to import, and seldom needed

        if isinstance(error, CancelledError):
            return CancelledError()
    name = _name(error, secret)
    message = f"the injector raised `{name}`, whose text may hold the secret; handle it inside"
    return _failed(message, name)


def _fit(result: R, secret: _Secret) -> tuple[R | None, InjectorFailed | None]:
    """Let plain data through in which the value does not occur as it is written."""
    waiting: list[Any] = [result]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind in {list, tuple, set, frozenset, dict}:
            if id(part) not in seen:
                seen.add(id(part))
                waiting += part
                waiting += part.values() if kind is dict else ()
        elif part is None or kind is bool:
            continue
        elif kind not in {int, float, str, bytes, bytearray}:
            if hasattr(part, "close"):  # a connection, or a coroutine that nobody awaited
                part.close()
            message = f"the injector returned `{_name(part, secret)}`, which may hold the secret; "
            return None, _failed(message + "return text, bytes or what JSON can hold")
        elif secret.is_in(part):
            message = "what the injector returned holds the secret; return what the agent may see"
            return None, _failed(message)
    return result, None


def _name(thing: object, secret: _Secret | None) -> str:
    """Name a thing's class, unless somebody made a class that is named by the value."""
    name = type(thing).__name__
    return "object" if secret is not None and secret.is_in(name) else name


def _failed(message: str, kind: str | None = None) -> InjectorFailed:
    failed = InjectorFailed(message)
    failed.kind = kind
    return failed
