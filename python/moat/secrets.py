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
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast, runtime_checkable

from moat._injection import Boxed, fetch, inject, inject_async
from moat._native import AgentId, Pattern, Permit, canonicalize
from moat.errors import InjectorFailed, MalformedInput, MoatError, UnknownHandle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from moat._native import Host, Secret

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
        result, failure = inject(secret, into)
        if failure is not None:
            raise failure
        return cast("R", result)

    async def fill_async(
        self, permit: Permit, handle: str, *, host: str, into: Callable[[str], Awaitable[R]]
    ) -> R:
        """Do what ``fill`` does with an ``async def`` injector."""
        secret = self._claim(permit, handle, host)
        result, failure = await inject_async(secret, into)
        if failure is not None:
            raise failure
        return cast("R", result)

    def reveal(self, permit: Permit, *, agent: AgentId | None = None) -> list[tuple[str, str]]:
        """Give handle and value of every secret that the token of an open permit names.

        For the engine that sends a guest's requests, which puts each only where every link binds
        it (spec/egress.md); a guest never sees one. Left out, and logged for the owner, is what
        is not bound to the agent, or not to all of the hosts that the token names for it.

        The agent is the permit's sender. Where the host made the sender's key itself, for one
        run, it says with ``agent`` who let that key in: the holder of the link before.
        """
        values = []
        for secret in permit.limits.secrets:
            found, why = self._for_code(permit, secret, agent)
            if found is None:
                _LOG.warning("kept %s from code (entry %d): %s", secret.handle, permit.entry, why)
                continue
            values.append((secret.handle, found.reveal()))
            found.wipe()
        return values

    def acting_for(self, agent: AgentId) -> ActingFor:
        """Give what ``Sandbox.run`` takes as ``secrets`` for a key that ``agent`` let in."""
        return ActingFor(self, agent)

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

    def _claim(self, permit: Permit, handle: str, host: str) -> Boxed:
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
            secret, failure = fetch(binding.source.get, binding.name)
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

    def _for_code(
        self, permit: Permit, secret: Secret, agent: AgentId | None
    ) -> tuple[Boxed | None, str | None]:
        """Fetch the value for one line of a token's secrets, or say what speaks against it."""
        try:
            binding = self._find(secret.handle)
        except MoatError as error:
            return None, str(error)
        agent = permit.sender if agent is None else agent
        if binding is None or agent not in binding.agents or agent not in permit.holders[-2:]:
            return None, "no such handle for this agent"
        if not (permit.is_open and permit.gate == self._gate):
            return None, "the permit is not open in this process, or another gate's"
        if not any(pattern.covers(secret.host) for pattern in binding.hosts):
            return None, "the handle is not bound to all hosts that the token names for it"
        found, failure = fetch(binding.source.get, binding.name)
        if failure is not None and not isinstance(failure, InjectorFailed):
            raise failure
        why = None if failure is None else f"backend `{binding.backend}` gave no value"
        return found, why

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


@dataclass(frozen=True)
class ActingFor:
    """Values of secrets for code that runs under a key made for its run (``reveal``)."""

    proxy: SecretProxy
    agent: AgentId

    def reveal(self, permit: Permit) -> list[tuple[str, str]]:
        """Give what the agent that let the key in would get."""
        return self.proxy.reveal(permit, agent=self.agent)


class Memory:
    """Values kept by this process alone."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        """Take values by name; the mapping given is not kept."""
        self._secrets = {name: Boxed(value) for name, value in (values or {}).items()}
        self._lock = threading.Lock()

    def get(self, name: str) -> str:
        """Give a value; ``LookupError`` where there is none."""
        with self._lock:
            return self._secrets[name].reveal()

    def set(self, name: str, value: str) -> None:
        """Put a value in the place of the one before, which is zeroed."""
        new = Boxed(value)
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
