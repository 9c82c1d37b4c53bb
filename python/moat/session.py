"""``Session``: one agent at work; ``tool``: a function that acts only through a gate."""

from __future__ import annotations

import contextvars
import functools
import inspect
import json
import threading
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypedDict, TypeVar, cast

from moat._native import Identity, Sender, canonicalize, tool_digest
from moat.errors import MalformedInput
from moat.secrets import SecretProxy

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Unpack

    from moat._native import (
        AgentId,
        Denial,
        Grant,
        Limits,
        Permit,
        Reply,
        Requirement,
        SandboxOutcome,
        Token,
        Toolbox,
    )
    from moat.pep import Described, Pep
    from moat.sandbox import Sandbox, Values

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Tool(Generic[P, R_co]):
    """A function with the resource and action under which a gate knows it.

    It is no function any more: calling it raises ``TypeError``, so that nothing acts around the
    gate by accident. ``session.call(search, q="moat")`` asks the gate first. ``search.function``
    is the bare function, for its own unit test.
    """

    def __init__(
        self,
        function: Callable[P, R_co],
        resource: str,
        action: str,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        """Use the decorator ``tool``."""
        canonical = canonicalize(resource)
        if canonical != resource:
            message = f"`{resource}` is not canonical; write `{canonical}`"
            raise MalformedInput(message)
        self.function = function
        self.resource = resource
        self.action = action
        self.digest = None
        if description is not None:
            self.digest = tool_digest(json.dumps(description).encode())
        self.is_async = inspect.iscoroutinefunction(function)
        self._signature = inspect.signature(function)
        for parameter in self._signature.parameters.values():
            if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
                message = f"parameter `{parameter}` of a tool has no name of its own; give it one"
                raise TypeError(message)
        functools.update_wrapper(self, function)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """Name every argument, defaults included: this is what the gate is asked about."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def parameters(self) -> list[tuple[str, str | None]]:
        """Name each parameter, with its default as JSON where it has one."""
        return [
            (one.name, None if one.default is one.empty else _json(one.default))
            for one in self._signature.parameters.values()
        ]

    def apply(self, args: Mapping[str, Any]) -> R_co:
        """Run the bare function on named arguments; a session does, with a permit open."""
        return cast("Callable[..., R_co]", self.function)(**args)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """Refuse: a tool acts only through a gate."""
        del args, kwargs
        name = self.function.__name__
        message = f"`{name}` acts only through a gate; use `session.call({name}, …)`"
        raise TypeError(message)

    def __repr__(self) -> str:
        """Show what a gate is asked for."""
        return f"<tool {self.function.__name__}: {self.action} {self.resource}>"


def tool(
    resource: str, *, action: str = "call", description: Mapping[str, Any] | None = None
) -> Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a function a ``Tool`` on a canonical resource, such as ``tool://search/web``.

    Parameters have names and take what JSON can hold; so does the result, or it is ``bytes``.
    ``description`` is what agents are told of it, as JSON: where a token or the gate's policy
    requires that tools are attested, this is what must be vouched for, on ``tool://`` and
    ``mcp://``.
    """
    return lambda function: Tool(function, resource, action, description)


class Narrowing(TypedDict, total=False):
    """What ``Session.delegate`` may narrow, as in ``Token.attenuate``."""

    allow: Iterable[Grant]
    deny: Iterable[Denial]
    limits: Limits
    expires_in: timedelta
    not_before: datetime | int
    depth: int
    audience: AgentId
    attestations: Iterable[Requirement]


class Session:
    """An agent's identity and token at one gate: each call is sealed, decided, run and logged.

    A session is one stream of messages, and a gate keeps at most 8 live streams of one holder:
    keep a session for as long as its agent works. Safe across threads.
    """

    def __init__(
        self, pep: Pep, identity: Identity, token: Token, *, secrets: Values | None = None
    ) -> None:
        """Start a stream at a gate, by whose clock it goes.

        ``secrets`` fills the handles in what code that is run here sends (``Sandbox.run``).
        """
        self._pep = pep
        self._secrets = secrets
        self._identity = identity
        self._token = token
        required = {one.kind for link in token.links for one in link.attestations}
        required |= {one.kind for one in pep.policy.attestations}
        self._tools_attested = "tool" in required
        self._sender = Sender(identity, gate=pep.id, token=token, policy=pep.policy.hash)

    @property
    def identity(self) -> Identity:
        """Who acts."""
        return self._identity

    @property
    def token(self) -> Token:
        """What they may do."""
        return self._token

    @property
    def secrets(self) -> Values | None:
        """What fills the handles in what code sends that is run here."""
        return self._secrets

    def now(self) -> int:
        """Give the second by the gate's clock."""
        return self._pep.now()

    def seal(
        self,
        action: str,
        resource: str,
        *,
        args: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        recipient: AgentId | None = None,
        code: bytes | None = None,
        causes: Iterable[bytes] = (),
        labels: Iterable[str] = (),
    ) -> bytes:
        """Sign the next message of this stream, for a gate elsewhere or a batch."""
        return self._sender.seal(
            action=action,
            resource=resource,
            args=args,
            payload=payload,
            recipient=recipient,
            code=code,
            causes=causes,
            labels=labels,
            now=self.now(),
        )

    def request(
        self,
        action: str,
        resource: str,
        *,
        args: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        recipient: AgentId | None = None,
        code: bytes | None = None,
        causes: Iterable[bytes] = (),
        labels: Iterable[str] = (),
    ) -> Permit:
        """Ask the gate for one action; raises ``Denied``. Open the permit around the effect."""
        wire = self.seal(
            action,
            resource,
            args=args,
            payload=payload,
            recipient=recipient,
            code=code,
            causes=causes,
            labels=labels,
        )
        return self._pep.authorize(wire)

    def call(self, tool: Tool[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask the gate, then run a tool with its permit open; raises ``Denied`` or what it raises.

        The function is given the arguments that the gate saw (through JSON, defaults filled in).
        The SHA-256 of its result goes into the outcome: of bytes as they are, of anything else
        as JSON with sorted keys and no spaces. An exception is the outcome ``raised``.
        """
        if tool.is_async:
            message = f"`{tool.function.__name__}` is asynchronous; use `await call_async(…)`"
            raise TypeError(message)
        permit = self.request(
            tool.action,
            tool.resource,
            args=tool.bind(*args, **kwargs),
            code=tool.digest if self._tools_attested else None,
        )
        with permit:
            result = tool.apply(permit.args)
            permit.record(_recorded(result))
        return result

    async def call_async(
        self, tool: Tool[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Do what ``call`` does with an ``async def`` tool; the gate's sync blocks no loop."""
        if not tool.is_async:
            message = f"`{tool.function.__name__}` is not asynchronous; use `call(…)`"
            raise TypeError(message)
        wire = self.seal(
            tool.action,
            tool.resource,
            args=tool.bind(*args, **kwargs),
            code=tool.digest if self._tools_attested else None,
        )
        permit = await self._pep.authorize_async(wire)
        with permit:
            result = await tool.apply(permit.args)
            permit.record(_recorded(result))
        return result

    def run(
        self,
        sandbox: Sandbox,
        *,
        resource: str,
        stdin: bytes = b"",
        argv: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        tools: Iterable[Tool[..., Any]] = (),
        deterministic: bool = False,
    ) -> SandboxOutcome:
        """Ask the gate for ``run`` on a resource with this very module, then run it.

        All that the code is given is signed and logged by digest: the module as ``code``, its
        input as the payload (so below 1 MiB), ``argv`` and ``env`` as arguments. A
        ``deterministic`` run (``Sandbox.run``) can therefore be repeated from the log alone. A
        component may call ``tools`` by name (``toolbox``).
        """
        tools = list(tools)
        box = self.toolbox(tools) if tools else None
        args: dict[str, Any] = {"argv": list(argv)}
        if env:
            args["env"] = dict(env)
        permit = self.request("run", resource, args=args, payload=stdin, code=sandbox.sha256)
        seen = permit.args
        return sandbox.run(
            permit,
            stdin=permit.payload,
            args=seen["argv"],
            env=seen.get("env"),
            secrets=self._secrets,
            tools=box,
            deterministic=deterministic,
        )

    def toolbox(
        self, tools: Iterable[Tool[..., Any]], *, loop: AbstractEventLoop | None = None
    ) -> Toolbox:
        """Offer tools to one run of code, under the names of their functions.

        Each call the code makes is this session's message, caused by the one that asked for the
        run, and is decided and logged as any other; a token that names the run but not the tool is
        ``Denied``, which the code is told. Functions run on a thread of their own, with the
        context variables of this call, and while they do the code's time runs. Those that are
        asynchronous run on ``loop``, which must be running elsewhere; without one they are a
        ``TypeError``. Results are what JSON can hold.
        """
        context = contextvars.copy_context()
        attested = self._tools_attested
        described = [_described(tool, context, loop, attested=attested) for tool in tools]
        names = [name for name, *_ in described]
        if len(set(names)) < len(names):
            message = f"two tools have the same name, of {', '.join(sorted(names))}; rename one"
            raise MalformedInput(message)
        return self._pep.toolbox(self._sender, described)

    def child(self, name: str, **narrowing: Unpack[Narrowing]) -> Session:
        """Start a session of a fresh key with a narrower token; nobody else has that key.

        It is gone with the session. ``name`` is how the key is shown. The token needs a depth of 1
        or more; asking for more than it allows is ``AttenuationViolation``. Secrets are those of
        this session's agent, whose key let the new one in.
        """
        key = Identity.generate(name)
        token = self.delegate(key.id, **narrowing)
        secrets = self._secrets
        if isinstance(secrets, SecretProxy):
            secrets = secrets.acting_for(self.identity.id)
        return Session(self._pep, key, token, secrets=secrets)

    def delegate(self, holder: AgentId, **narrowing: Unpack[Narrowing]) -> Token:
        """Sign a further link for another agent; asking for more is ``AttenuationViolation``."""
        return self._token.attenuate(self._identity, holder=holder, now=self.now(), **narrowing)


def _described(
    tool: Tool[..., Any],
    context: contextvars.Context,
    loop: AbstractEventLoop | None,
    *,
    attested: bool,
) -> Described:
    """Say what a tool is and takes, as ``Toolbox`` has it."""
    name = tool.function.__name__
    if tool.is_async and loop is None:
        message = f"`{name}` is asynchronous; use `await moat.code.run_async(…)`"
        raise TypeError(message)

    def work(args: bytes, reply: Reply) -> None:
        try:
            result = tool.apply(json.loads(args))
            if loop is not None and tool.is_async:
                result = _awaited(result, loop)
            text = _json(result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this call alone
            reply.failed(error)
        else:
            reply.done(text)

    def call(args: bytes, reply: Reply) -> None:
        name = f"moat-tool-{tool.function.__name__}"
        run = context.copy().run
        threading.Thread(target=run, args=(work, args, reply), name=name, daemon=True).start()

    digest = tool.digest if attested else None
    return name, tool.action, tool.resource, digest, tool.parameters(), call


def _awaited(work: Coroutine[Any, Any, Any], loop: AbstractEventLoop) -> object:
    import asyncio  # noqa: PLC0415 - slow to import, and not needed by synchronous callers

    ended = asyncio.run_coroutine_threadsafe(work, loop)
    while True:
        try:
            return ended.result(timeout=1)
        except TimeoutError:
            if ended.done():
                raise  # the tool's own
            if loop.is_closed():
                message = "the event loop was closed before the tool had ended"
                raise RuntimeError(message) from None


def _recorded(result: object) -> bytes:
    return result if isinstance(result, bytes) else _json(result).encode()


def _json(result: object) -> str:
    try:
        return json.dumps(
            result, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
    except (TypeError, ValueError) as error:
        message = f"a tool's result is bytes or what JSON can hold, not `{type(result).__name__}`"
        raise MalformedInput(message) from error
