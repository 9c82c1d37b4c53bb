"""A gate's next key: a new log that goes on with what the old one knew, put in its place.

::

    gates/<gate>/key, log         the gate's key and its log
    gates/<gate>/next/key, log    the next ones, while they are made
    gates/<gate>/former/1, 2 …    what they were before: log, and key without the secret

The rotation is the old log's last entry. From then on there is one way, and it is gone to its end
by whoever opens the gate next: the new log is made beside and compared with the old one, the logs
change places, the keys change places, the old secret is destroyed, `next` becomes `former`. Each
is one step, and what was done can be told from what is there (spec/registry.md).
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from moat import _files
from moat._native import AgentId, Checkpoint, hand_on, read_log
from moat.audit import AuditLog, anchor_file, ready_anchor
from moat.errors import AuditError, Denied, GateBusy, MoatError
from moat.keystore import KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from moat._native import Identity
    from moat.audit import Anchor
    from moat.registry import Registry

NEXT: Final = "next"
FORMER: Final = "former"


class FormerLog(NamedTuple):
    """A log that a gate wrote under an earlier key. It never changes again."""

    number: int
    """Counted from 1, the oldest."""
    path: Path
    """Its folder, with ``log`` and ``key`` in it."""
    id: AgentId

    @property
    def log(self) -> Path:
        """The log directory."""
        return self.path / "log"


def formers(home: Path) -> list[FormerLog]:
    """Find a gate's former logs, the oldest first."""
    found = [path for path in (home / FORMER).glob("*") if path.name.isdecimal()]
    found.sort(key=lambda path: int(path.name))
    return [FormerLog(int(p.name), p, KeyStore(p / "key").public(home.name)) for p in found]


def require_settled(home: Path) -> None:
    """Refuse a gate whose rotation was begun and has not come to its end."""
    if (home / NEXT).exists():
        message = (
            f"a rotation of the key of gate `{home.name}` in `{home.parent.parent}` is not "
            "finished; open the gate once, which finishes it"
        )
        raise MoatError(message)


# --- opening -------------------------------------------------------------------------------------


def open_log(
    home: Path,
    *,
    signer: Callable[[], Identity],
    anchor: Anchor,
    accept_restored: bool = False,
    segment_bytes: int | None = None,
    clock: Callable[[], int] | None = None,
) -> AuditLog:
    """Open a gate's log, after a rotation of its key that was begun has come to its end.

    ``signer`` loads the gate's key, the rest is as in ``AuditLog.open``. A gate that has handed
    over to a key that is not kept here opens, and denies everything.
    """
    begun = (home / NEXT).exists()
    if begun:
        with held(home), unopened(home / "log"):
            _switch(home, anchor, made=False)

    def opened() -> AuditLog:
        return AuditLog.open(
            home / "log",
            signer=signer(),
            anchor=anchor,
            accept_restored=accept_restored,
            segment_bytes=segment_bytes,
            clock=clock,
        )

    audit = opened()
    try:
        if begun and (home / NEXT).exists():
            if audit.gate.successor is None:
                # It was begun and never signed: nobody has heard of that key.
                with held(home):
                    shutil.rmtree(home / NEXT)
            elif _next_key(home) == audit.gate.successor:
                audit.close()
                with held(home):
                    complete(home, anchor, audit.now())
                audit = opened()
        _require_heir(home, audit)
    except BaseException:
        audit.close()
        raise
    return audit


def _require_heir(home: Path, audit: AuditLog) -> None:
    """Refuse a log that does not go on after the newest former one: it would know nothing."""
    last = max((path for path in (home / FORMER).glob("*") if path.name.isdecimal()),
               key=lambda path: int(path.name), default=None)  # fmt: skip
    if last is None:
        return
    known, before = KeyStore(last / "key").public(home.name), audit.gate.former
    if before is None or before[0] != known:
        message = (
            f"the log of gate `{home.name}` does not go on after `{last}`, so what was revoked "
            "there would be forgotten; put back the whole log"
        )
        raise AuditError(message)


def _next_key(home: Path) -> AgentId | None:
    with suppress(MoatError):
        return KeyStore(home / NEXT / "key").load(home.name).id
    return None


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Have a gate's key and log to oneself; ``GateBusy`` where another rotation has them."""
    with ExitStack() as stack:
        try:
            stack.enter_context(_files.locked(home))
        except BlockingIOError as error:
            message = f"the key of gate `{home.name}` is being rotated by another process"
            raise GateBusy(message) from error
        yield


@contextmanager
def unopened(log: Path) -> Iterator[None]:
    """Have a log's lock, as an open gate has; ``GateBusy`` where a process has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(_files.locked(log / "lock"))
        except FileNotFoundError:
            pass  # there is no log
        except BlockingIOError as error:
            message = f"a process has the gate `{log.parent.name}`; stop it first"
            raise GateBusy(message) from error
        yield


# --- rotating ------------------------------------------------------------------------------------


def require_seated(audit: AuditLog) -> None:
    """Refuse a gate that has handed over to a key that is not kept here."""
    if audit.gate.successor is not None:
        message = (
            f"the gate has handed over to `{audit.gate.successor}`, whose key is not kept in its "
            f"folder `{NEXT}`; put it there, or make a new gate"
        )
        raise MoatError(message)


def hand_over(home: Path, name: str | None, audit: AuditLog, registry: Registry) -> None:
    """Make the next key and sign the rotation.

    After this the gate denies everything, and ``complete`` has to follow. A gate that has no name
    yet is registered first. Raises ``Denied`` where the name is taken.
    """
    signer, keys = KeyStore(home / "key").load(home.name), KeyStore(home / NEXT / "key")
    known = next((one.name for one in registry if one.id == signer.id), None)
    if known is not None and name not in {None, known}:
        message = f"the gate is registered as `{known}`; leave the name out"
        raise MoatError(message)
    name = known or name or home.name
    if known is None:
        registry.register(signer, name, role="gate", now=audit.now())
    heir = keys.create(home.name)
    _sync(home / NEXT, home)
    try:
        registry.rotate(name, heir, previous=signer, role="gate", now=audit.now())
    except Denied:
        shutil.rmtree(home / NEXT)
        raise


def complete(home: Path, anchor: Anchor, now: int) -> None:
    """Make the next log and put it in the place of this one. ``held`` is, and nobody has either."""
    heir, gate = KeyStore(home / NEXT / "key").load(home.name), _key(home)
    log, made = home / "log", home / NEXT / "log"
    with unopened(log):
        if made.exists():
            shutil.rmtree(made)  # it was not finished, and nobody has seen it
        hand_on(log, gate, made, heir, now=now)
        _sync(made, home / NEXT)
        _switch(home, anchor, made=True)


def _switch(home: Path, anchor: Anchor, *, made: bool) -> None:
    """Go on from wherever it was left.

    Until the logs have changed places nothing is done, unless the next one was ``made`` just now:
    one that a crash has left may be half written, and is made again.
    """
    fresh, log, key = home / NEXT, home / "log", home / "key"
    for here in (log, key):
        _mend(here, fresh / here.name)
    if not (fresh / "log").is_dir() or _signer(fresh / "log") is None:
        return
    old, new = _order(_signer(log), _signer(fresh / "log"), log)
    if _signer(log) == old:
        if not made:
            return
        AuditLog.verify(fresh / "log", log=new, anchor=None, former=log)
        _trade(log, fresh / "log")
    if _key(home) == old:
        _trade(key, fresh / "key")
    AuditLog.verify(log, log=new, anchor=None, former=fresh / "log")
    (home / FORMER).mkdir(mode=0o700, exist_ok=True)
    number = 1 + max((one.number for one in formers(home)), default=0)
    _anchor(anchor, log, old, number)
    # Its public part is what the former log is verified with. Whoever has the secret could go on
    # with that log elsewhere: a key that is not there cannot be stolen.
    (fresh / "key" / f"{home.name}.pem").unlink(missing_ok=True)
    _sync(fresh / "key")
    fresh.rename(home / FORMER / str(number))
    _sync(home / FORMER, home)


def _order(here: AgentId | None, there: AgentId | None, log: Path) -> tuple[AgentId, AgentId]:
    """Tell which of the two logs is the former one: the other one says so."""
    if here is None or there is None:
        message = f"`{log}` has no checkpoint, and its rotation cannot go on; put it back"
        raise AuditError(message)
    return (there, here) if _heir_of(log) == there else (here, there)


def _heir_of(log: Path) -> AgentId | None:
    """Name the gate whose log this one says that it goes on after."""
    line = next(iter(read_log(log, start=1)), None)
    entry = json.loads(line) if line else {}
    return AgentId(entry["body"]["gate"]) if entry.get("kind") == "inherited" else None


def _signer(log: Path) -> AgentId | None:
    """Name the gate that a log's checkpoint is of."""
    try:
        note = Checkpoint.parse(_files.read(log / "checkpoint", secret=True).decode())
    except FileNotFoundError:
        return None
    return AgentId(note.origin.removeprefix("moat.log/"))


def _key(home: Path) -> AgentId:
    return KeyStore(home / "key").public(home.name)


def _anchor(anchor: Anchor, log: Path, old: AgentId, number: int) -> None:
    """Have the anchor remember the new log. One in a place of its own keeps the former, too."""
    file = anchor_file(anchor, _required(_signer(log), log))
    if file is None:
        return
    ready_anchor(anchor)
    note = _files.read(log / "checkpoint", secret=True)
    with suppress(FileNotFoundError):
        kept = _files.read(file, secret=False)
        if Checkpoint.parse(kept.decode()).origin != f"moat.log/{old}":
            return  # it is the new log's already
        _files.write(file.with_name(f"{file.name}.{number}"), kept, secret=True, overwrite=True)
    _files.write(file, note, secret=True, overwrite=True)


def _required(gate: AgentId | None, log: Path) -> AgentId:
    if gate is None:
        message = f"`{log}` has no checkpoint; put it back"
        raise AuditError(message)
    return gate


def _trade(here: Path, there: Path) -> None:
    """Have two directories change places, in one step where the system has one for that."""
    if not _files.exchange(here, there):
        aside = there.with_name(f"{there.name}.old")
        here.rename(aside)
        there.rename(here)
        aside.rename(there)
    _sync(here.parent, there.parent)


def _mend(here: Path, there: Path) -> None:
    """Go on where a crash left two directories half way."""
    aside = there.with_name(f"{there.name}.old")
    if aside.is_dir():
        if not here.exists():
            there.rename(here)
        aside.rename(there)
        _sync(here.parent, there.parent)


def _sync(*folders: Path) -> None:
    for folder in folders:
        _files.sync_dir(folder)
