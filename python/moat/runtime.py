"""``Moat``: one object over one state folder, for an orchestrator.

::

    config.json               who is trusted, and what all gates require (``_config``)
    keys/<name>.pem|.pub      identities kept here
    gates/<gate>/key/         the gate's key, which signs its log and nothing else
    gates/<gate>/log/         the gate's log; one process at a time has it
    gates/<gate>/former/<N>/  its logs under earlier keys, if its key was rotated
    rules.toml                rules of the monitor, if any (spec/monitor.md)
    control/                  what was signed elsewhere, on its way to running gates
    secrets/                  handles of secrets (``moat secret``), and values in `age`
    cache/code/               compiled code; keys/code.key is the secret of its entries
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from moat import _backup, _files, _restore, _succession
from moat._config import CONFIG, Config, read_config
from moat._control import ATTESTATION, STATEMENT, ControlFolder, Watcher
from moat._handles import FOLDER as SECRETS
from moat._handles import Handles
from moat._native import AgentId, Policy, Token
from moat.attest import unpack
from moat.audit import DEFAULT_ANCHOR, AuditLog, anchors, ready_anchor
from moat.endpoint import Endpoint
from moat.errors import MoatError
from moat.keystore import KeyStore, check_name
from moat.monitor import Monitor
from moat.pep import Pep
from moat.registry import Registry
from moat.router import Router
from moat.sandbox import CodeCache
from moat.secrets import SecretProxy
from moat.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from os import PathLike
    from types import TracebackType
    from typing import Self

    from moat._backup import Backup
    from moat._native import Denial, Grant, Identity, Limits, Requirement
    from moat._restore import Restored
    from moat.audit import Anchor
    from moat.monitor import Alert
    from moat.pep import Target
    from moat.secrets import Backend

CONTROL: Final = "control"
RULES: Final = "rules.toml"
CACHE: Final = "cache"
PROTECTED: Final = (CONFIG, RULES, CONTROL, CACHE, "gates", "keys", SECRETS)
"""What of a state folder no code may reach, whatever its token says (``KeysExposed``)."""


class Moat:
    """A gate, its log and the identities beside it, over one state folder.

    Open it once per process and share it: it is safe across threads, and one process at a time
    has a gate. Close it, or use it in a ``with`` statement. What another process needs is the
    public part: ``moat.id`` and ``moat.roots``.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        audit: AuditLog,
        *,
        on_alert: Callable[[Alert], object] | None = None,
        secrets: Mapping[str, Backend] | None = None,
    ) -> None:
        """Put the parts together; ``Moat.open`` finds them in a folder.

        Code that runs with a permit from here reaches nothing of what ``protected`` names.
        """
        self._config = config
        self.path = folder
        self.keys = KeyStore(folder / "keys")
        self.audit = audit
        self.registry = Registry(audit.gate)
        self.monitor = _monitor(folder, on_alert)
        self.pep = _pep(folder, config, audit, self.monitor)
        self.router = Router(self.pep, self.registry)
        book = Handles(folder / SECRETS)
        self.secrets = SecretProxy(secrets or {}, gate=self.pep.id, book=book)
        self._watcher = Watcher(ControlFolder(folder / CONTROL), self.take)

    def take(self, statement: bytes, kind: str = STATEMENT) -> int:
        """Take up what was signed elsewhere.

        It is a control statement, a registration (``.reg``) or an attestation (``.att``). Gives its
        entry's index; raises ``Denied``. What is left in the folder ``control`` comes in here too.
        """
        if kind == STATEMENT:
            return self.pep.control(statement)
        if kind == ATTESTATION:
            envelope, signers = unpack(statement)
            return self.pep.attest(envelope, signers=signers)
        return self.registry.take(statement)

    @classmethod
    def init(
        cls,
        path: str | PathLike[str],
        *,
        root: str | AgentId = "root",
        operators: Iterable[AgentId] = (),
        policy: Policy = Policy.CHAIN_ONLY,
        gate: str = "main",
        anchor: Anchor = DEFAULT_ANCHOR,
        clock: Callable[[], int] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        secrets: Mapping[str, Backend] | None = None,
    ) -> Self:
        """Make a state folder and open its gate.

        ``root`` is the name of an identity to create and trust, or the key of a root whose
        secret is kept elsewhere. Operators may revoke and restore anything. ``policy`` is what
        every gate of the folder requires (``Policy.requiring``). Raises ``MoatError`` where there
        is a state folder already, or where the default anchor would lie inside.
        """
        folder = Path(path)
        if anchor is DEFAULT_ANCHOR and anchors().resolve().is_relative_to(folder.resolve()):
            message = f"`{folder}` is for the anchors of logs, which lie apart; choose another"
            raise MoatError(message)
        ready_anchor(anchor)
        keys = KeyStore(folder / "keys")
        trusted = root if isinstance(root, AgentId) else _identity(keys, root, create=True).id
        config = Config(roots=(trusted,), operators=tuple(operators), policy=policy)
        _files.make_dirs(folder)
        try:
            # Last of all, so that a folder without it can be made again from the start.
            _files.write(folder / CONFIG, config.to_bytes(), secret=True, overwrite=False)
        except FileExistsError as error:
            message = f"`{folder}` is a state folder already; open it"
            raise MoatError(message) from error
        return cls.open(
            folder, gate=gate, anchor=anchor, clock=clock, on_alert=on_alert, secrets=secrets
        )

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        gate: str = "main",
        anchor: Anchor = DEFAULT_ANCHOR,
        create: bool = True,
        accept_restored: bool = False,
        segment_bytes: int | None = None,
        clock: Callable[[], int] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        secrets: Mapping[str, Backend] | None = None,
    ) -> Self:
        """Open a state folder's gate; make folder, root and gate where they are missing.

        With ``create=False`` what is missing is a ``MoatError``. ``anchor``,
        ``accept_restored`` and ``segment_bytes`` are as in ``AuditLog.open``; ``clock`` gives
        Unix seconds and is the system's when left out. ``on_alert`` hears what the rules in
        ``rules.toml`` have to tell (``Monitor``); ``secrets`` are the backends of
        ``moat.secrets``.
        """
        folder = Path(path)
        if create and not (folder / CONFIG).exists():
            return cls.init(
                folder, gate=gate, anchor=anchor, clock=clock, on_alert=on_alert, secrets=secrets
            )
        config = read_config(folder)
        check_name(gate)
        ready_anchor(anchor)
        home = folder / "gates" / gate
        audit = _succession.open_log(
            home,
            signer=lambda: _identity(KeyStore(home / "key"), gate, create=create),
            anchor=anchor,
            accept_restored=accept_restored,
            segment_bytes=segment_bytes,
            clock=clock,
        )
        try:
            return cls(folder, config, audit, on_alert=on_alert, secrets=secrets)
        except BaseException:
            audit.close()
            raise

    @property
    def id(self) -> AgentId:
        """The gate's public key: what messages are sealed for and what the log is named by."""
        return self.pep.id

    @property
    def roots(self) -> tuple[AgentId, ...]:
        """Whose first links are trusted."""
        return self._config.roots

    @property
    def operators(self) -> tuple[AgentId, ...]:
        """Who may revoke and restore anything, apart from the roots."""
        return self._config.operators

    @cached_property
    def cache(self) -> CodeCache:
        """Compiled code that is kept here, for ``Sandbox(…, cache=moat.cache)``."""
        return code_cache(self.path)

    def identity(self, name: str, *, create: bool = False) -> Identity:
        """Load an identity that is kept here; make it if asked to and missing."""
        return _identity(self.keys, name, create=create)

    def issue(
        self,
        *,
        holder: AgentId,
        allow: Iterable[Grant],
        expires_in: timedelta,
        root_name: str = "root",
        limits: Limits | None = None,
        deny: Iterable[Denial] = (),
        not_before: datetime | int | None = None,
        depth: int = 0,
        audience: AgentId | None = None,
        attestations: Iterable[Requirement] = (),
    ) -> Token:
        """Sign a first link with a root that is kept here (``Token.issue``)."""
        return Token.issue(
            self.identity(root_name),
            holder=holder,
            allow=allow,
            expires_in=expires_in,
            limits=limits,
            deny=deny,
            not_before=not_before,
            depth=depth,
            audience=audience,
            attestations=attestations,
            now=self.pep.now(),
        )

    def session(self, identity: Identity | str, token: Token) -> Session:
        """Start work as an identity, or as the one of that name kept here."""
        if isinstance(identity, str):
            identity = self.identity(identity)
        return Session(self.pep, identity, token, secrets=self.secrets)

    def connect(self, identity: Identity | str, token: Token) -> Endpoint:
        """Give a registered agent its place at the router: a session with a mailbox."""
        return Endpoint(self.router, self.session(identity, token))

    def revoke(self, target: Target, *, by: Identity | str = "root") -> int:
        """Withdraw trust from an agent or a link and all that descends from it (``Pep``)."""
        by = self.identity(by) if isinstance(by, str) else by
        return self.pep.revoke(target, by=by)

    def restore(self, target: Target, *, by: Identity | str = "root") -> int:
        """Lift a revocation (``Pep``)."""
        by = self.identity(by) if isinstance(by, str) else by
        return self.pep.restore(target, by=by)

    def suspend(self, target: Target, *, by: Identity | str = "root") -> int:
        """Pause an agent or a link and all that descends from it (``Pep``)."""
        by = self.identity(by) if isinstance(by, str) else by
        return self.pep.suspend(target, by=by)

    def resume(self, target: Target, *, by: Identity | str = "root") -> int:
        """Lift a suspension (``Pep``)."""
        by = self.identity(by) if isinstance(by, str) else by
        return self.pep.resume(target, by=by)

    def is_revoked(self, target: Target) -> bool:
        """Whether any standing revocation names this very agent or link (``Pep``)."""
        return self.pep.is_revoked(target)

    def is_suspended(self, target: Target) -> bool:
        """Whether any standing suspension names this very agent or link (``Pep``)."""
        return self.pep.is_suspended(target)

    def register(self, identity: Identity | str, name: str | None = None) -> int:
        """Register an identity, or the one of that name kept here, under its name or another."""
        if isinstance(identity, str):
            identity = self.identity(identity)
        return self.registry.register(identity, name, now=self.pep.now())

    def backup(
        self,
        file: str | PathLike[str],
        *,
        keys: bool = True,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Backup:
        """Write all of the state folder into one new file (0600) and verify it; gates may run.

        Secret keys are in it: keep it as you keep them. Without ``keys`` they stay out. Raises as
        ``AuditLog.verify``, and then there is no file.
        """
        self.audit.checkpoint()
        return _backup.backup(self.path, file, keys=keys, clock=self.pep.now, progress=progress)

    @staticmethod
    def restore_from(
        file: str | PathLike[str],
        path: str | PathLike[str],
        *,
        replace: bool = False,
        clock: Callable[[], int] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Restored:
        """Put a backup into a new folder, or with ``replace`` in the place of one, which is kept.

        Every log says that it was restored: what is dated before that, or up to 60 s after, is
        stale. What the replaced logs say was withdrawn since is withdrawn again; read ``lost`` in
        each gate's ``carried`` for what you must say again. Anchors are the default ones.
        """
        return _restore.restore(file, path, replace=replace, clock=clock, progress=progress)

    @classmethod
    def change_policy(
        cls,
        path: str | PathLike[str],
        policy: Policy,
        *,
        clock: Callable[[], int] | None = None,
    ) -> tuple[str, ...]:
        """Have all gates of a folder enforce another policy; gives their names.

        Each logs it in a line ``rules``. Messages sealed for the former one are refused
        (``policy_mismatch``). Raises ``GateBusy`` while a process has one of the gates, and then
        nothing has changed. Anchors are the default ones.
        """
        folder = Path(path)
        names = tuple(sorted(home.name for home in folder.glob("gates/*")))
        with ExitStack() as held:
            gates = [
                held.enter_context(cls.open(folder, gate=name, create=False, clock=clock))
                for name in names
            ]
            config = replace(read_config(folder), policy=policy)
            _files.write(folder / CONFIG, config.to_bytes(), secret=True, overwrite=True)
            for moat in gates:
                moat.pep = _pep(folder, config, moat.audit, moat.monitor)
        return names

    @classmethod
    def rotate_gate(
        cls,
        path: str | PathLike[str],
        *,
        gate: str = "main",
        name: str | None = None,
        anchor: Anchor = DEFAULT_ANCHOR,
        clock: Callable[[], int] | None = None,
    ) -> GateRotated:
        """Give a gate a new key: it goes on in a new log, with all that the old one knew.

        What is withdrawn, who is registered, and what rules have counted stays. Messages have to
        be sealed for the new key, and tokens that are bound to the old one issued again. The old
        log stays beside, to be verified; the old secret is destroyed. A gate without a name is
        registered as ``name``, or as what it is called in the folder. Raises ``GateBusy`` while a
        process has the gate. If it is interrupted, the next ``open`` finishes it, or this again.
        """
        home = Path(path) / "gates" / gate
        begun = len(_succession.formers(home))
        with cls.open(path, gate=gate, anchor=anchor, create=False, clock=clock) as moat:
            if len(_succession.formers(home)) == begun:
                _succession.require_seated(moat.audit)
                with _succession.held(home):
                    ControlFolder(moat.path / CONTROL).drain(moat.take)
                    _succession.hand_over(home, name, moat.audit, moat.registry)
                    moat.close()
                    _succession.complete(home, anchor, moat.pep.now())
        before = _succession.formers(home)[-1]
        with cls.open(path, gate=gate, anchor=anchor, create=False, clock=clock) as moat:
            known = moat.registry.name_of(moat.id) or gate
            _, entries, _ = moat.audit.gate.former or (None, 0, None)
            return GateRotated(gate, known, before.id, moat.id, entries, before.number)

    def close(self) -> None:
        """Shut down: no message is on its way any more, and every later decision is denied.

        Those who wait at a mailbox are released, alerts are told, and a last checkpoint is
        signed. May be called again.
        """
        self._watcher.stop()
        self.router.close()
        self.monitor.close()
        self.audit.close()

    async def __aenter__(self) -> Self:
        """Return itself; ``close`` is called at the end."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it, without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - slow to import, and not needed by synchronous callers

        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        """Return itself; ``close`` is called at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class GateRotated(NamedTuple):
    """A gate that goes on under a new key."""

    gate: str
    """What it is called in the state folder."""
    name: str
    """What it is registered as; its history there has every key."""
    former: AgentId
    id: AgentId
    """The new key: what messages are sealed for from now on."""
    entries: int
    """How many entries the former log has."""
    number: int
    """The former log lies in ``gates/<gate>/former/<number>``."""


def code_cache(folder: Path) -> CodeCache:
    """Open a state folder's compiled code, without its gate."""
    return CodeCache.open(folder / CACHE / "code", key=folder / "keys" / "code.key")


def protected(folder: Path) -> list[Path]:
    """Name what of a state folder is kept from code, whether it is there already or not."""
    return [folder / name for name in PROTECTED]


def _pep(folder: Path, config: Config, audit: AuditLog, monitor: Monitor) -> Pep:
    """Have a gate enforce what the configuration says; a change of it is logged."""
    return Pep(
        policy=config.policy,
        roots=config.roots,
        operators=config.operators,
        audit=audit,
        protected=protected(folder),
        monitor=monitor,
    )


def _monitor(folder: Path, on_alert: Callable[[Alert], object] | None) -> Monitor:
    """Take the rules of a state folder: whoever opens its gate enforces the same ones."""
    if not os.path.lexists(folder / RULES):  # a link that leads nowhere is no leave to go without
        return Monitor(on_alert=on_alert)
    return Monitor.load(folder / RULES, on_alert=on_alert)


def _identity(keys: KeyStore, name: str, *, create: bool) -> Identity:
    if create and name not in keys:
        return keys.create(name)
    return keys.load(name)
