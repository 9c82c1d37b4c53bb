"""Types and prose of the native core.

Every value is frozen, final and hashable; its repr shows no secret. Times are whole seconds
since the Unix epoch, UTC. Where ``now`` is left out the system clock is read; where ``rng`` is
left out the operating system's randomness is used (``rng(n)`` returns n bytes). Text and bytes
that do not have the form asked for raise ``moat.errors.MalformedInput``.
"""

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NoReturn, Self, final

__all__ = [
    "ANY",
    "AXES",
    "REASONS",
    "AgentId",
    "Any_",
    "Attestation",
    "Checkpoint",
    "CodeFolder",
    "ConsistencyProof",
    "Control",
    "Decision",
    "Denial",
    "Egress",
    "Gate",
    "Grant",
    "Host",
    "Identity",
    "InclusionProof",
    "Limits",
    "Lines",
    "Link",
    "Message",
    "Module",
    "Pattern",
    "Permit",
    "Policy",
    "Registration",
    "Reply",
    "Report",
    "Requirement",
    "SandboxOutcome",
    "Secret",
    "Sender",
    "Token",
    "Toolbox",
    "canonicalize",
    "check_rules",
    "hand_on",
    "keep_apart",
    "read_log",
    "read_url",
    "serve",
    "skill_digest",
    "tool_digest",
    "verify_log",
]

type _Json = bool | int | float | str | Sequence[_Json] | Mapping[str, _Json] | None
type _Rng = Callable[[int], bytes]

@final
class AgentId:
    """The public key of an agent: a canonical Ed25519 key (RFC 8032), written as a did:key."""

    def __new__(cls, text: str) -> Self: ...
    @staticmethod
    def from_bytes(key: bytes) -> AgentId:
        """Take 32 bytes; a weak or non-canonical key raises ``MalformedInput``."""
    def __bytes__(self) -> bytes: ...
    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a 64-byte signature by the strict rule, or raise ``InvalidSignature``."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __str__(self) -> str: ...

@final
class Identity:
    """A secret key with a name of 1 to 63 of a-z, 0-9, ``.``, ``_``, ``-``."""

    @staticmethod
    def generate(name: str, *, rng: _Rng | None = None) -> Identity: ...
    @staticmethod
    def from_pem(name: str, pem: str) -> Identity:
        """Read a PKCS#8 PEM private key (RFC 8410)."""
    def to_pem(self) -> str:
        """The private key as PKCS#8 PEM. Write it to a file only its owner can read."""
    def sign(self, message: bytes) -> bytes:
        """Sign (RFC 8032 §5.1.6); 64 bytes."""
    @property
    def name(self) -> str: ...
    @property
    def id(self) -> AgentId: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> NoReturn:
        """A secret key is not pickled."""

@final
class Pattern:
    """A resource pattern (spec/pattern.md)."""

    def __new__(cls, text: str) -> Self: ...
    def matches(self, resource: str) -> bool: ...
    def covers(self, child: Pattern) -> bool:
        """Whether every resource that ``child`` matches is matched by this one (exact)."""
    def witness(self, child: Pattern) -> str | None:
        """A resource that ``child`` matches and this one does not, or None when covered."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __str__(self) -> str: ...

def canonicalize(text: str) -> str:
    """Repair a URL or resource into its one canonical spelling, or raise ``MalformedInput``.

    Parsing never repairs; call this on what a person typed, before sealing a message.
    """

@final
class Any_:
    """The type of ``ANY``: any arguments, written out."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

ANY: Final[Any_]

@final
class Grant:
    """One allowance: actions on the resources of a pattern, with ``ANY`` arguments or ``{}``."""

    def __new__(
        cls,
        resource: str | Pattern,
        actions: Iterable[str],
        args: Any_ | Mapping[str, Any] = ...,
    ) -> Self: ...
    @property
    def resource(self) -> Pattern: ...
    @property
    def actions(self) -> frozenset[str]: ...
    @property
    def args(self) -> Any_ | dict[str, Any]: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Denial:
    """What is refused whatever is granted: actions on the resources of a pattern."""

    def __new__(cls, resource: str | Pattern, actions: Iterable[str]) -> Self: ...
    @property
    def resource(self) -> Pattern: ...
    @property
    def actions(self) -> frozenset[str]: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Host:
    """One allowance to send requests: methods, on the URLs of a pattern, at some addresses.

    ``Host("https://api.github.com/repos/**", {"GET"})``. In a list of ``Limits`` a text stands for
    any method (``{"*"}``): of the URLs of its pattern, and where it has no path, of all of a host.
    """

    def __new__(
        cls, pattern: str | Pattern, methods: Iterable[str], cidr: Iterable[str] | None = None
    ) -> Self:
        """Take a pattern in http or https with a path, and methods in capitals, or ``{"*"}``.

        Without ``cidr`` only global unicast addresses may be connected to; with it only those in
        one of its ranges (``["10.0.0.0/8"]``, at most 8). CONNECT and TRACE are never allowed.
        Raises ``MalformedInput``.
        """
    @property
    def pattern(self) -> Pattern: ...
    @property
    def methods(self) -> frozenset[str]: ...
    @property
    def cidr(self) -> tuple[str, ...]:
        """Address ranges, sorted; one within another is left out."""
    def covers(self, child: Host) -> bool:
        """Whether this one rule allows all that the child does.

        A rule with ``cidr`` and one without never cover one another.
        """
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __str__(self) -> str:
        """``https://a.example/** GET,POST 10.0.0.0/8``: what ``--host`` takes."""

@final
class Secret:
    """A secret behind a handle, for one header of requests to the hosts of a pattern."""

    def __new__(cls, handle: str, *, host: str | Pattern, header: str) -> Self:
        """Take ``secret://name``, ``https://name`` without a path, and a header in lower case.

        ``*.name`` may stand for hosts, ``*`` may not; headers that say where a request ends or
        goes (``host``, ``content-length``, ``proxy-…``) are ``MalformedInput``.
        """
    @property
    def handle(self) -> str: ...
    @property
    def host(self) -> Pattern: ...
    @property
    def header(self) -> str: ...
    def covers(self, child: Secret) -> bool:
        """Whether handle and header are the same and every host of the child is one of these."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __str__(self) -> str:
        """``secret://github https://api.github.com authorization``: what ``--secret`` takes."""

@final
class Limits:
    """What code run under a token may spend and reach; an axis left out is zero or empty."""

    UNMETERED: ClassVar[int]
    """Fuel for code that time alone bounds: the largest number, 2^63 - 1."""

    def __new__(
        cls,
        *,
        fuel: int | None = None,
        memory: int | None = None,
        time: timedelta | None = None,
        output: int | None = None,
        hosts: Iterable[str | Pattern | Host] | None = None,
        read: Iterable[str | Pattern] | None = None,
        write: Iterable[str | Pattern] | None = None,
        secrets: Iterable[Secret] | None = None,
    ) -> Self:
        """Fuel in wasmtime units, memory and output in bytes, time in whole milliseconds.

        Hosts are requests that may be sent (``Host``); read and write are directory trees, as
        ``file:///dir/**``; secrets are filled into requests.
        """
    @staticmethod
    def standard() -> Limits:
        """An everyday value: 1e9 fuel, 256 MiB, 10 s, 1 MiB of output; no hosts or files."""
    def replace(
        self,
        *,
        fuel: int | None = None,
        memory: int | None = None,
        time: timedelta | None = None,
        output: int | None = None,
        hosts: Iterable[str | Pattern | Host] | None = None,
        read: Iterable[str | Pattern] | None = None,
        write: Iterable[str | Pattern] | None = None,
        secrets: Iterable[Secret] | None = None,
    ) -> Limits:
        """The same limits with the named axes set."""
    def covers(self, child: Limits) -> bool: ...
    @property
    def fuel(self) -> int: ...
    @property
    def memory(self) -> int: ...
    @property
    def time(self) -> timedelta: ...
    @property
    def output(self) -> int: ...
    @property
    def hosts(self) -> tuple[Host, ...]: ...
    @property
    def read(self) -> tuple[str, ...]: ...
    @property
    def write(self) -> tuple[str, ...]: ...
    @property
    def secrets(self) -> tuple[Secret, ...]: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Attestation:
    """An in-toto statement in a DSSE envelope, its signatures verified (spec/attest.md).

    There is none that was not: it comes from signing, or from ``verify`` with the keys that count.
    """

    @staticmethod
    def sign(
        signers: Iterable[Identity],
        kind: str,
        subject: bytes | dict[str, bytes],
        *,
        name: str = "",
        now: int | None = None,
    ) -> Attestation:
        """Vouch for code, a skill or a tool with Moat's own predicate, ``urn:moat:manifest:v1``.

        ``subject`` is a 32-byte digest for ``code`` (SHA-256 of its bytes) and ``tool``
        (``tool_digest``), and for ``skill`` the bytes of each file by its path below the folder.
        ``name`` is for people. Raises ``MalformedInput``.
        """
    @staticmethod
    def sign_statement(signers: Iterable[Identity], statement: bytes) -> Attestation:
        """Sign the JSON of an in-toto v1 statement whose predicate type is known."""
    @staticmethod
    def verify(envelope: bytes, signers: Iterable[AgentId]) -> Attestation:
        """Verify an envelope (at most 32 KiB) with at most 16 keys; only then is it read.

        Raises ``InvalidSignature`` where none of them has signed it, else ``MalformedInput``.
        Whether that is enough, and recent enough, is for ``Requirement.check`` to say.
        """
    @property
    def signers(self) -> tuple[AgentId, ...]:
        """Which of the keys asked about have signed, each once."""
    @property
    def statement(self) -> bytes:
        """SHA-256 of the statement's bytes."""
    @property
    def subjects(self) -> tuple[bytes, ...]:
        """The SHA-256 digests that it is about."""
    @property
    def kind(self) -> str:
        """``code``, ``skill`` or ``tool``."""
    @property
    def predicate(self) -> str:
        """The predicate type's URI."""
    @property
    def issued(self) -> int:
        """The Unix second at which it was said; signed with it."""
    def __bytes__(self) -> bytes:
        """The envelope, as received."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Requirement:
    """Who must have vouched for what runs: a term of a link (spec/attest.md)."""

    def __new__(
        cls,
        kind: str,
        signers: Iterable[AgentId],
        *,
        max_age: timedelta,
        threshold: int = 1,
        predicate: str = "urn:moat:manifest:v1",
    ) -> Self:
        """So many of at most 16 distinct signers, not longer ago than ``max_age`` (whole seconds,
        at most 3650 days). The SLSA v1 predicates speak of ``code`` alone."""
    def check(
        self, digest: bytes, attestations: Iterable[Attestation], *, now: int | None = None
    ) -> tuple[bytes, ...]:
        """Give the statements by which a digest meets this, or raise ``NotAttested``."""
    @property
    def kind(self) -> str: ...
    @property
    def predicate(self) -> str: ...
    @property
    def signers(self) -> tuple[AgentId, ...]: ...
    @property
    def threshold(self) -> int: ...
    @property
    def max_age(self) -> timedelta: ...
    def __str__(self) -> str:
        """Kind, predicate type, threshold, signers and seconds."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

def skill_digest(files: dict[str, bytes]) -> bytes:
    """SHA-256 of a skill's listing: every path below its folder with the SHA-256 of its bytes.

    A path that is absolute, has ``..``, a space or an invisible character, or differs from
    another in case alone, is ``MalformedInput``.
    """

def tool_digest(description: bytes) -> bytes:
    """SHA-256 of the canonical JSON (RFC 8785) of a tool's description, in any spelling."""

@final
class Link:
    """One signed link of a token."""

    @property
    def id(self) -> bytes:
        """SHA-256 of the link's Sig_structure, 32 bytes: what ``revoke`` takes."""
    @property
    def issuer(self) -> AgentId: ...
    @property
    def holder(self) -> AgentId: ...
    @property
    def allow(self) -> tuple[Grant, ...]: ...
    @property
    def deny(self) -> tuple[Denial, ...]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def expires(self) -> int: ...
    @property
    def not_before(self) -> int: ...
    @property
    def issued(self) -> int: ...
    @property
    def depth(self) -> int:
        """How many further delegations this link allows."""
    @property
    def index(self) -> int: ...
    @property
    def audience(self) -> AgentId | None: ...
    @property
    def attestations(self) -> tuple[Requirement, ...]: ...
    @property
    def parent(self) -> bytes | None: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __bytes__(self) -> bytes:
        """The COSE_Sign1 bytes (RFC 9052), which any COSE library verifies."""

@final
class Token:
    """A chain of signed links, root first (spec/token.md)."""

    @staticmethod
    def issue(
        root: Identity,
        *,
        holder: AgentId,
        allow: Iterable[Grant],
        expires_in: timedelta,
        limits: Limits | None = None,
        deny: Iterable[Denial] | None = None,
        not_before: datetime | int | None = None,
        depth: int = 0,
        audience: AgentId | None = None,
        attestations: Iterable[Requirement] | None = None,
        now: int | None = None,
        rng: _Rng | None = None,
    ) -> Token:
        """Sign a first link. Limits left out are zero and empty; ``depth`` is the number of
        further delegations allowed (at most 15), ``attestations`` who must have vouched for what
        runs."""
    def attenuate(
        self,
        issuer: Identity,
        *,
        holder: AgentId,
        allow: Iterable[Grant] | None = None,
        deny: Iterable[Denial] | None = None,
        limits: Limits | None = None,
        expires_in: timedelta | None = None,
        not_before: datetime | int | None = None,
        depth: int | None = None,
        audience: AgentId | None = None,
        attestations: Iterable[Requirement] | None = None,
        now: int | None = None,
        rng: _Rng | None = None,
    ) -> Token:
        """Sign a further link. What is left out stays as it is; denials and requirements of
        attestations are added. Asking for more raises ``AttenuationViolation``; an issuer who is
        not the holder, too."""
    @staticmethod
    def from_bytes(data: bytes) -> Token:
        """Decode; signatures are checked by ``verify`` and by the gate."""
    @staticmethod
    def parse(text: str) -> Token:
        """Decode the text form ``moat1.…``."""
    def verify(
        self, roots: Iterable[AgentId], *, gate: AgentId | None = None, now: int | None = None
    ) -> None:
        """Walk the chain to a trusted root as a gate would, or raise ``Denied``'s reasons:
        ``InvalidSignature``, ``AttenuationViolation`` or ``TokenRefused``. Revocation is the
        gate's to know."""
    def permits(self, action: str, resource: str, args: Mapping[str, Any] | None = None) -> bool:
        """Whether every link permits this request. Times and signatures are not looked at."""
    def explain(
        self, action: str, resource: str, args: Mapping[str, Any] | None = None
    ) -> str | None:
        """Why not, naming link, caveat and witness; None when permitted."""
    @property
    def id(self) -> bytes: ...
    @property
    def links(self) -> tuple[Link, ...]: ...
    @property
    def root(self) -> AgentId: ...
    @property
    def holder(self) -> AgentId: ...
    @property
    def limits(self) -> Limits:
        """The meet of all links' limits."""
    @property
    def allow(self) -> tuple[Grant, ...]: ...
    @property
    def deny(self) -> tuple[Denial, ...]: ...
    @property
    def attestations(self) -> tuple[Requirement, ...]:
        """What the last link requires; a gate asks every link."""
    @property
    def expires(self) -> int: ...
    @property
    def depth(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def __str__(self) -> str:
        """The text form ``moat1.…``: a bearer of it still needs the holder's key."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Policy:
    """What a gate enforces beyond the chain of links."""

    CHAIN_ONLY: ClassVar[Policy]
    def __new__(cls, text: str) -> Self:
        """Reads ``chain-only``, or what ``requiring`` writes; any other text raises
        ``MalformedInput``, so that nothing written is silently not enforced."""
    @staticmethod
    def requiring(requirements: Iterable[Requirement]) -> Policy:
        """The chain of links, and attestations that the gate requires of every message beside
        those of the links (spec/attest.md); none is ``CHAIN_ONLY``. ``MalformedInput`` for more
        than 16."""
    @property
    def text(self) -> str: ...
    @property
    def attestations(self) -> tuple[Requirement, ...]:
        """What the gate itself requires, sorted."""
    @property
    def hash(self) -> bytes: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Message:
    """One signed request with its token (spec/message.md)."""

    @staticmethod
    def seal(
        sender: Identity,
        *,
        gate: AgentId,
        token: Token,
        policy: bytes,
        action: str,
        resource: str,
        args: Mapping[str, Any] | None = None,
        payload: bytes | None = None,
        recipient: AgentId | None = None,
        code: bytes | None = None,
        causes: Iterable[bytes] | None = None,
        labels: Iterable[str] | None = None,
        expires_in: timedelta | None = None,
        now: int | None = None,
        rng: _Rng | None = None,
    ) -> bytes:
        """Sign a request on a fresh stream; returns the wire bytes. ``recipient`` left out is
        the gate; ``expires_in`` is 60 s, at most 300 s; ``code`` is the SHA-256 of what will
        run. A stream of messages is sealed with ``Sender``."""
    @staticmethod
    def from_bytes(data: bytes) -> Message:
        """Decode without checking; ``open`` checks."""
    @staticmethod
    def open(data: bytes, *, gate: AgentId, sender: AgentId, now: int | None = None) -> Message:
        """Check gate, times and the sender's signature, not the token's authority (a gate does
        that); raises ``InvalidSignature`` or ``MessageRefused``."""
    @property
    def id(self) -> bytes: ...
    @property
    def token(self) -> Token: ...
    @property
    def gate(self) -> AgentId: ...
    @property
    def recipient(self) -> AgentId: ...
    @property
    def action(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def args_json(self) -> bytes: ...
    @property
    def args(self) -> dict[str, Any]: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def code(self) -> bytes | None: ...
    @property
    def policy(self) -> bytes: ...
    @property
    def stream(self) -> bytes: ...
    @property
    def number(self) -> int: ...
    @property
    def issued(self) -> int: ...
    @property
    def expires(self) -> int: ...
    @property
    def causes(self) -> tuple[bytes, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def __bytes__(self) -> bytes: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Sender:
    """A stream of messages from one agent to one gate under one token; safe across threads."""

    def __new__(
        cls,
        sender: Identity,
        *,
        gate: AgentId,
        token: Token,
        policy: bytes,
        rng: _Rng | None = None,
    ) -> Self: ...
    def seal(
        self,
        *,
        action: str,
        resource: str,
        args: Mapping[str, Any] | None = None,
        payload: bytes | None = None,
        recipient: AgentId | None = None,
        code: bytes | None = None,
        causes: Iterable[bytes] | None = None,
        labels: Iterable[str] | None = None,
        expires_in: timedelta | None = None,
        now: int | None = None,
    ) -> bytes: ...
    @property
    def stream(self) -> bytes: ...

@final
class Control:
    """A signed statement that revokes, restores, suspends or resumes an agent or one link
    (spec/message.md)."""

    @staticmethod
    def sign(
        signer: Identity,
        verb: Literal["revoke", "restore", "suspend", "resume"],
        target: AgentId | bytes,
        *,
        gate: AgentId,
        expires_in: timedelta | None = None,
        now: int | None = None,
        rng: _Rng | None = None,
    ) -> bytes: ...

@final
class Registration:
    """A key that registers under a name, signed by itself and by the key it replaces
    (spec/registry.md)."""

    @staticmethod
    def sign(
        identity: Identity,
        name: str,
        *,
        gate: AgentId,
        previous: Identity | None = None,
        role: Literal["agent", "root", "gate"] = "agent",
        expires_in: timedelta | None = None,
        now: int | None = None,
        rng: _Rng | None = None,
    ) -> bytes: ...

@final
class Permit:
    """Proof of a logged yes. Only a gate makes one; it opens once and is not copied or pickled.

    It dies at the message's or the chain's expiry, 30 s unopened, on revocation or suspension and
    across a fork. Open it with ``with permit:`` around a host tool, or hand it to ``Sandbox.run``.
    An exception inside ``with`` is recorded as the outcome ``raised``.
    """

    def __enter__(self) -> Self:
        """Open it, or raise ``Denied`` (``permit_spent``, ``revoked``, ``expired`` …)."""
    def __exit__(self, kind: object, _value: object, _traceback: object) -> None:
        """Append the outcome; raises ``AuditUnavailable`` where that cannot be written."""
    def record(self, result: bytes) -> None:
        """Note the result whose SHA-256 goes into the outcome entry; only while open."""
    def tree(self, path: str, *, read: bool = False, write: bool = False) -> str:
        """The deepest directory of ``limits`` in which this file may be opened so, permit open.

        Raises ``Denied`` (``not_granted``; ``forbidden`` for writing what runs by itself,
        spec/files.md; ``permit_spent``) and ``KeysExposed``."""
    def check(
        self,
        *,
        action: str | None = None,
        resource: str | None = None,
        recipient: AgentId | None = None,
        payload: bytes | None = None,
        code: bytes | None = None,
        manifest: bytes | None = None,
    ) -> None:
        """Compare an effect with what was permitted; ``Denied`` (``permit_mismatch``) if they
        differ. ``payload`` and ``code`` are the bytes themselves, ``manifest`` is the digest of a
        skill or of a tool's description (``moat.attest``). A tool or a sandbox calls this before
        it acts."""
    @property
    def is_open(self) -> bool:
        """Whether it is open now, in this process."""
    @property
    def gate(self) -> AgentId:
        """Whose it is."""
    @property
    def entry(self) -> int:
        """Index of the decision in the log."""
    @property
    def sender(self) -> AgentId: ...
    @property
    def holders(self) -> list[AgentId]:
        """Who holds each link of the token, the first link's first; the last is the sender."""
    @property
    def recipient(self) -> AgentId: ...
    @property
    def action(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def args_json(self) -> bytes: ...
    @property
    def args(self) -> dict[str, Any]: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def code(self) -> bytes | None: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def expires(self) -> int: ...
    @property
    def message_id(self) -> bytes: ...
    @property
    def outcome(self) -> int | None:
        """Index of the outcome entry, once closed."""
    def __reduce__(self) -> NoReturn: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...

@final
class Decision:
    """What a gate answered. It has no truth value: look at ``permit`` or ``reason``."""

    @property
    def allowed(self) -> bool: ...
    @property
    def permit(self) -> Permit | None: ...
    @property
    def entry(self) -> int | None:
        """Index in the log; None for what is only counted (strangers, stale, replayed)."""
    @property
    def stage(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...
    @property
    def link(self) -> int | None: ...
    @property
    def caveat(self) -> str | None: ...
    @property
    def witness(self) -> str | None: ...
    @property
    def action(self) -> str | None: ...
    @property
    def resource(self) -> str | None: ...
    @property
    def sender(self) -> AgentId | None: ...
    def explain(self) -> str:
        """A few lines for a person: what was asked, what refused it, where, what to do next."""
    def to_dict(self) -> dict[str, Any]: ...
    def __bool__(self) -> NoReturn: ...

@final
class Egress:
    """Sends the requests that the token of an open permit names, and no others (spec/egress.md)."""

    def __new__(
        cls,
        *,
        anchors: Sequence[bytes] | None = None,
        resolver: Callable[[str], Iterable[str]] | None = None,
        timeout: timedelta | None = None,
        request_bytes: int | None = None,
        response_bytes: int | None = None,
    ) -> Self:
        """Trust public issuers and ``anchors`` (certificates in DER).

        ``resolver`` gives the addresses of a name, on any thread; ``None`` is the system's.
        ``timeout`` is for a whole request (30 s), the numbers of bytes are for its body (1 MiB)
        and that of its answer (16 MiB). Raises
        ``MalformedInput`` for an anchor that is no certificate.
        """
    def send(
        self,
        permit: Permit,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, bytes]],
        body: bytes,
        secrets: Sequence[tuple[str, str]],
    ) -> tuple[int, list[tuple[str, bytes]], bytes]:
        """Send one request: status, headers and body of its answer.

        ``secrets`` are handles and values. Raises ``Denied`` where the permit is not open, and
        ``EgressDenied`` with ``reason`` and ``host``.
        """

def read_url(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path with query of a URL that every parser reads alike.

    Raises ``EgressDenied`` (``url_refused``) for every other.
    """

@final
class Gate:
    """The native gate: verification, judgement, the log and its state. ``moat.Pep`` and
    ``moat.AuditLog`` are its two faces."""

    @staticmethod
    def open(
        path: str | PathLike[str],
        signer: Identity,
        *,
        anchor: str | PathLike[str] | None,
        accept_restored: bool = False,
        segment_bytes: int | None = None,
        clock: Callable[[], int] | None = None,
        now: int | None = None,
    ) -> Gate:
        """Open or create one log directory; raises ``AuditError``'s kin. ``anchor`` is a file
        outside the folder; None keeps no anchor. ``clock`` gives Unix seconds wherever ``now``
        is left out, also when a permit of this gate is opened and closed. After
        ``segment_bytes`` (32 MiB) the log goes on in a new file."""
    def arm(
        self,
        *,
        policy: Policy,
        roots: Iterable[AgentId],
        operators: Iterable[AgentId],
        rules: bytes | None = None,
        on_alert: Callable[[bytes], object] | None = None,
    ) -> None:
        """Set what is enforced; without it no root is trusted. Changing it is logged. ``rules``
        is the JSON of a monitor's rules (spec/monitor.md); ``on_alert`` is called with each
        ``alert`` line once it is on the disk, and must not wait."""
    def protect(self, folders: Sequence[str | PathLike[str]]) -> None:
        """Add folders that no code reaches which runs with a permit of this gate; the log's own
        is one of them from the start."""
    @property
    def id(self) -> AgentId: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def roots(self) -> tuple[AgentId, ...]: ...
    @property
    def pending(self) -> tuple[int, ...]:
        """Decisions without an outcome, found at recovery."""
    @property
    def anchor_state(self) -> str:
        """What opening could compare with: ``none`` (no anchor), ``missing`` (a log with entries
        and no anchor file, which there is now), ``matched`` or ``overruled``."""
    @property
    def successor(self) -> AgentId | None:
        """The gate's next key, once it has handed over: everything is denied then."""
    @property
    def former(self) -> tuple[AgentId, int, bytes] | None:
        """Gate, entries and root of the log that this one goes on after."""
    def authorize(self, wire: bytes, *, now: int | None = None) -> Permit:
        """The permit, or ``Denied``."""
    def decide(self, wire: bytes, *, now: int | None = None) -> Decision: ...
    def decide_many(self, wires: Sequence[bytes], *, now: int | None = None) -> list[Decision]:
        """Decide a batch in order, with one sync."""
    def control(self, statement: bytes, *, now: int | None = None) -> int:
        """Take up a control statement; its entry's index, or raise ``Denied``."""
    def register(self, proof: bytes, *, now: int | None = None) -> int:
        """Take up a registration or a rotation; its entry's index, or raise ``Denied``."""
    def attest(self, envelope: bytes, *, signers: Iterable[AgentId], now: int | None = None) -> int:
        """Take up an attestation, as far as these keys have signed it; its entry's index, or
        raise ``Denied`` (``replayed`` where it says nothing new)."""
    def agents(self) -> list[tuple[str, str, list[tuple[AgentId, int]]]]:
        """Role, name and keys of everybody who is registered, by name; each key with the second
        since which it counts, newest last."""
    def agent(self, key: AgentId) -> str | None:
        """The name whose present key this is."""
    def named(self, name: str) -> AgentId | None:
        """The present key of a name."""
    def is_revoked(self, target: AgentId | bytes) -> bool:
        """Whether any standing revocation names this agent or link."""
    def is_suspended(self, target: AgentId | bytes) -> bool:
        """Whether any standing suspension names this agent or link."""
    def check_withdrawn(self, token: Token) -> None:
        """Refuse a token with a revoked or suspended agent or link, as a decision would:
        ``TokenRefused`` (``revoked``, ``suspended``)."""
    def checkpoint(self) -> Checkpoint: ...
    def prove(self, entry: int, *, size: int | None = None) -> InclusionProof: ...
    def prove_line(self, line: bytes, *, size: int | None = None) -> InclusionProof:
        """Prove a line that somebody kept, also after its segment was removed."""
    def prune(
        self, before: int, *, dry_run: bool = False, now: int | None = None
    ) -> tuple[int, int, int, list[str]]:
        """Remove the segments that lie before an entry and before the newest snapshot, or tell
        which would go: the oldest entry that stays, entries and bytes that go, files."""
    def consistency(self, old: int, *, size: int | None = None) -> ConsistencyProof: ...
    def read(self, entry: int) -> bytes: ...
    def __len__(self) -> int: ...
    def close(self, *, now: int | None = None) -> None: ...

@final
class Checkpoint:
    """A signed tree head: a C2SP tlog-checkpoint note."""

    @staticmethod
    def parse(text: str) -> Checkpoint: ...
    def verify(self, log: AgentId) -> None: ...
    @property
    def origin(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def root(self) -> bytes: ...
    def __str__(self) -> str: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class InclusionProof:
    """That one line is in a log (RFC 6962 §2.1.1), with the line itself."""

    def verify(self, checkpoint: Checkpoint, *, log: AgentId) -> None:
        """Check the signature, then the path; raises ``InvalidSignature`` or ``ChainBroken``."""
    @staticmethod
    def parse(text: str) -> InclusionProof: ...
    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the proof was made for."""
    @property
    def index(self) -> int: ...
    @property
    def line(self) -> bytes: ...
    @property
    def hashes(self) -> tuple[bytes, ...]: ...
    def __str__(self) -> str:
        """C2SP tlog-proof text, with line and checkpoint; ``parse`` reads it."""

@final
class ConsistencyProof:
    """That a smaller tree is a prefix of a larger one (RFC 6962 §2.1.2)."""

    def verify(self, old: Checkpoint, new: Checkpoint, *, log: AgentId) -> None: ...
    @staticmethod
    def parse(text: str) -> ConsistencyProof: ...
    def __str__(self) -> str: ...
    @property
    def old(self) -> int: ...
    @property
    def new(self) -> int: ...
    @property
    def hashes(self) -> tuple[bytes, ...]: ...

@final
class Report:
    """What ``verify_log`` found, and what it could not check."""

    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def root(self) -> builtins.bytes: ...
    @property
    def time(self) -> int:
        """Time of the last entry."""
    @property
    def signed(self) -> int | None:
        """Size of the tree that the newest checkpoint vouches for, if there is one."""
    @property
    def anchored(self) -> int | None:
        """Size of the tree that the anchor vouches for, if there was one."""
    @property
    def segments(self) -> int:
        """Files that the lines lie in."""
    @property
    def torn(self) -> int:
        """Unfinished bytes at the end, as a crash leaves them."""
    @property
    def former(self) -> tuple[AgentId, int, builtins.bytes] | None:
        """Gate, entries and root of the log that this one says it goes on after."""
    @property
    def unchecked(self) -> tuple[str, ...]:
        """Sentences that say what could not be checked."""
    @property
    def kinds(self) -> dict[str, int]: ...

def verify_log(
    path: str | PathLike[str],
    log: AgentId,
    *,
    anchor: str | PathLike[str] | None = None,
    former: str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read a whole log as a stranger, in constant memory: form, chain, tree, checkpoint, anchor.

    ``former`` is the log that it goes on after; what was inherited is compared with that.
    ``progress(done, total)`` is called with bytes. Raises ``ChainBroken`` (``.index``),
    ``RolledBack`` or ``InvalidSignature``.
    """

def hand_on(
    former: str | PathLike[str],
    log: AgentId,
    path: str | PathLike[str],
    heir: Identity,
    *,
    now: int | None = None,
) -> int:
    """Make the log of the gate that comes after another, in a new folder, with all that the other
    one knew; how many entries the former log has. ``log`` is the key of the former gate, whose
    log is read and verified. Raises ``AuditError``'s kin.
    """

@final
class Lines:
    """Lines of a log, one at a time, without their newlines."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...

def check_rules(rules: bytes) -> bytes:
    """Check monitor rules, a JSON array (spec/monitor.md), and give their one spelling; raises
    ``MalformedInput`` that names rule and key."""

def read_log(path: str | PathLike[str], *, start: int = 0) -> Lines:
    """Lines of a log from an index on, without checking them."""

@final
class SandboxOutcome:
    """How a run ended: ``status`` is one of ``ok``, ``exit``, ``out_of_fuel``,
    ``out_of_memory``, ``timed_out``, ``output_full``, ``trap``, ``interrupted``."""

    @property
    def status(self) -> str: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def trap(self) -> str | None: ...
    @property
    def detail(self) -> str | None:
        """What the outcome entry says beside ``status``: ``exit code 3``, or the trap."""
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...
    @property
    def fuel_used(self) -> int:
        """Fuel units; ``Limits.UNMETERED`` where the code counts none."""
    @property
    def memory_peak(self) -> int: ...
    @property
    def elapsed(self) -> timedelta: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def result(self) -> Any:  # noqa: ANN401 - the component says what
        """What a call gave back: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``,
        ``list``, ``tuple`` and ``dict`` by the component's type; ``None`` for a run, and for a
        call that did not end well."""
    @property
    def result_json(self) -> str | None:
        """The result as JSON text, the one whose SHA-256 is in the log; ``None`` where there is
        no result. Integers are written in full, bytes as numbers."""
    def check(self) -> Self:
        """Return itself when the status is ``ok``; else raise ``LimitExceeded``, ``GuestTrap``
        or ``SandboxError``."""
    def to_dict(self) -> dict[str, Any]: ...

@final
class CodeFolder:
    """A folder of compiled code, each entry authenticated with a secret of 32 bytes."""

    def __new__(cls, folder: str | PathLike[str], key: bytes, file: str | PathLike[str]) -> Self:
        """Open a folder, or make it (0700). ``SandboxError`` where it is a symbolic link, belongs
        to somebody else or is open to others. ``file`` is where the secret lies: no guest whose
        code is kept in the folder reaches either."""
    @property
    def path(self) -> Path: ...
    def counts(self) -> dict[str, int]:
        """Loads that ``found`` their code or ``missed`` it, entries that were ``refused``, and
        those that could not be written (``unwritten``)."""

@final
class Module:
    """A compiled WebAssembly module or component and the SHA-256 of its bytes."""

    def __new__(
        cls,
        wasm: bytes,
        *,
        cache: CodeFolder | None = None,
        compiler: tuple[Sequence[str], timedelta, int] | None = None,
        metered: bool = True,
    ) -> Self:
        """Compile a core module or component, or find the same bytes compiled before in this
        process or in ``cache``. ``compiler`` is a program that calls ``serve``, and the time and
        bytes of memory it may take; without one this process compiles, for as long as it takes.
        Raises ``SandboxError`` where it takes more. Code that is not ``metered`` runs where the
        fuel is ``Limits.UNMETERED``, and is ``MalformedInput`` elsewhere."""
    @property
    def sha256(self) -> bytes: ...
    @property
    def is_component(self) -> bool: ...
    @property
    def metered(self) -> bool: ...
    def run(
        self,
        permit: Permit,
        *,
        stdin: bytes | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        network: tuple[Egress, Callable[[], list[tuple[str, str]]]] | None = None,
        tools: Toolbox | None = None,
        deterministic: bool = False,
    ) -> SandboxOutcome:
        """Open the permit, run under its limits, append the outcome. The module's digest must
        be the permit's code digest where that names one. Raises ``KeysExposed``, and leaves the
        permit unopened, where a directory of its limits reaches a folder its gate protects, and
        ``MalformedInput`` for a component that is no command. ``network`` is what a component's
        requests go through, and what gives handles and values once the permit is open; without
        it every request is refused; ``tools`` is what it may call, once. A ``deterministic`` run
        has clocks and random bytes of its own; with directories, a network or tools it is
        ``MalformedInput``."""
    def call(
        self,
        permit: Permit,
        name: str,
        arguments: object,
        *,
        stdin: bytes | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        network: tuple[Egress, Callable[[], list[tuple[str, str]]]] | None = None,
        tools: Toolbox | None = None,
        deterministic: bool = False,
    ) -> SandboxOutcome:
        """Call an exported function of a component as ``run`` runs a command. ``arguments`` is a
        list or tuple in order, or a dict by the parameters' names. Raises ``MalformedInput``, and
        leaves the permit unopened, where there is no such function or the arguments do not fit
        its types."""
    def replay(
        self,
        limits: Limits,
        *,
        stdin: bytes | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> SandboxOutcome:
        """Do once more what a deterministic run did, with no effect and no line in a log; limits
        with directories are ``MalformedInput``."""

def serve(memory: int, seconds: int, metered: bool) -> None:
    """Take on limits (bytes of address space, seconds of processors), compile standard input, with
    a meter or without, and write to standard output what ``Module`` reads. The process is good for
    nothing else afterwards."""

def keep_apart(limits: Limits, folders: Sequence[str | PathLike[str]]) -> None:
    """Refuse limits with a directory that holds one of these folders or lies in one:
    ``KeysExposed``."""

REASONS: Final[Mapping[str, str]]
"""Every reason code and its stage."""
AXES: Final[tuple[str, ...]]
"""Every axis code, as ``caveat`` uses them."""

@final
class Toolbox:
    """Tools that one run of code may call: each call is a message of ``sender``, decided by the
    gate. Make it with ``session.toolbox``; a second run with it, or one of another session, is
    ``MalformedInput``."""

    def __new__(
        cls,
        gate: Gate,
        sender: Sender,
        tools: list[
            tuple[
                str,
                str,
                str,
                bytes | None,
                list[tuple[str, str | None]],
                Callable[[bytes, Reply], None],
            ]
        ],
    ) -> Self:
        """Each is its name, action, resource, the digest of its description, its parameters with
        their defaults as JSON, and a function that starts it on arguments in JSON."""
    def stop(self) -> None:
        """Stop the run that it serves, and serve no other."""

@final
class Reply:
    """Where a tool's thread says how its function ended, once."""

    def done(self, result: str) -> None:
        """Give the result as JSON."""
    def failed(self, error: BaseException) -> None:
        """Give what was raised."""
