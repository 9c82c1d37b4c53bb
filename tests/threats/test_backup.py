"""Backups against an enemy: old ones put back to forget, altered ones, and crashes on the way."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest

from moat import (
    AgentId,
    ChainBroken,
    GateBusy,
    Grant,
    Identity,
    MalformedInput,
    Message,
    Moat,
    MoatError,
    Policy,
    RolledBack,
    Token,
    _archive,
    _files,
    _restore,
)
from moat._archive import Archive
from moat.audit import anchor_path

NOW = 1_900_000_000
"""Later than any file of these tests: anchors carry the second in which they were written."""


class Place:
    """A state folder, its clock, and an agent who has something to hide."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOW
        self.state, self.file = folder / "state", folder / "backup"
        with self.open(create=True) as moat:
            self.agent = moat.identity("agent", create=True)
            self.gate = moat.id
            self.token = self.issue(moat, self.agent)
        self.use(self.ask())

    def clock(self) -> int:
        return self.now

    def open(self, **more) -> Moat:
        return Moat.open(self.state, clock=self.clock, **{"create": False} | more)

    def issue(self, moat: Moat, holder: Identity) -> Token:
        allow, life = [Grant("tool://search/**", {"call"})], timedelta(days=1)
        return moat.issue(holder=holder.id, allow=allow, expires_in=life, depth=2)

    def ask(self, token: Token | None = None, sender: Identity | None = None) -> bytes:
        """A message that lives as long as one can."""
        return Message.seal(
            sender or self.agent, gate=self.gate, token=token or self.token,
            policy=Policy.CHAIN_ONLY.hash, action="call", resource="tool://search/web",
            now=self.now, expires_in=timedelta(seconds=300),
        )  # fmt: skip

    def use(self, *wires: bytes) -> None:
        with self.open() as moat:
            for wire in wires:
                moat.pep.authorize(wire)

    def back_up(self) -> None:
        with self.open() as moat:
            moat.backup(self.file)

    def restore(self, *, replace: bool = True, state: Path | None = None):
        return Moat.restore_from(self.file, state or self.state, replace=replace, clock=self.clock)

    def reason(self, wire: bytes) -> str | None:
        with self.open() as moat:
            return moat.pep.decide(wire).reason

    def kinds(self) -> list[str]:
        with self.open() as moat:
            return [entry["kind"] for entry in moat.audit.entries()]

    def picture(self) -> dict[str, bytes]:
        """Every file of the state folder, the anchor, and nothing beside them."""
        files = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name not in {"lock", "backup"}
        }
        return files | {"anchor": anchor_path(self.gate).read_bytes()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- to forget what was used ---------------------------------------------------------------------


def test_a_message_used_after_the_backup_is_not_fresh_after_the_restore(place: Place) -> None:
    place.back_up()
    used = place.ask()
    place.use(used)
    done = place.restore()
    assert place.reason(used) == "stale"
    assert place.kinds().count("restored") == 1
    assert done.before is not None
    place.now += 61
    assert place.reason(used) == "stale"
    assert place.reason(place.ask()) is None


def test_also_where_there_is_no_anchor_and_no_old_folder(place: Place) -> None:
    """On a new machine nothing says that there was more. It is logged all the same."""
    place.back_up()
    used = place.ask()
    place.use(used)
    anchor_path(place.gate).unlink()
    shutil.rmtree(place.state)
    place.restore(replace=False)
    assert place.kinds().count("restored") == 1
    assert place.reason(used) == "stale"


def test_also_where_nothing_that_is_signed_was_lost(place: Place) -> None:
    """The last lines before a crash may have reached no anchor, so an equal one proves nothing."""
    place.back_up()
    place.restore()
    assert place.kinds().count("restored") == 1


def test_a_clock_that_was_set_back_restores_nothing(place: Place) -> None:
    place.back_up()
    place.now += 200
    used = place.ask()
    place.use(used)
    before = place.picture()
    place.now -= 100
    with pytest.raises(MoatError, match="set the clock right first"):
        place.restore()
    assert place.picture() == before
    place.now += 70  # behind by less than clocks may differ
    place.restore()
    for later in (0, 30, 60, 100):
        place.now = NOW + 200 + later
        assert place.reason(used) == "stale"


def test_the_anchor_remembers_when_even_where_the_folder_is_gone(place: Place) -> None:
    place.back_up()
    shutil.rmtree(place.state)
    os.utime(anchor_path(place.gate), (NOW + 1000, NOW + 1000))
    with pytest.raises(MoatError, match="set the clock right first"):
        place.restore(replace=False)
    assert not place.state.exists()


def test_restored_twice(place: Place) -> None:
    place.back_up()
    first = place.ask()
    place.use(first)
    place.restore()
    place.now += 61
    second = place.ask()
    place.use(second)
    place.restore()
    assert place.reason(first) == place.reason(second) == "stale"
    place.now += 61
    assert place.reason(first) == place.reason(second) == "stale"
    assert place.reason(place.ask()) is None


# --- to lift what was withdrawn, and to take back names ------------------------------------------


def test_an_old_backup_does_not_lift_a_revocation(place: Place) -> None:
    place.back_up()
    other = Identity.generate("other")
    with place.open() as moat:
        for target in (place.agent.id, other.id):
            moat.revoke(target)
        moat.restore(other.id)
        moat.suspend(other.id)
    done = place.restore()
    assert done.gates[0].carried.statements == 4
    assert done.gates[0].carried.lost == []
    with place.open() as moat:
        assert moat.is_revoked(place.agent)
        assert not moat.is_revoked(other)
        assert moat.is_suspended(other)
    place.now += 61
    assert place.reason(place.ask()) == "revoked"


def test_a_revocation_that_cannot_be_taken_up_again_is_signed_anew_or_told(place: Place) -> None:
    """It stands on a link that the backup has never seen."""
    child = Identity.generate("child")
    for keep_root in (True, False):
        place.file = place.folder / f"backup {keep_root}"
        if not keep_root:
            (place.state / "keys" / "root.pem").unlink()
        place.back_up()
        token = place.token.attenuate(place.agent, holder=child.id, now=place.now)
        place.use(place.ask(token, child))
        with place.open() as moat:
            moat.revoke(child.id, by=place.agent)
        (gate,) = place.restore().gates
        with place.open() as moat:
            assert moat.is_revoked(child.id) == keep_root
        told = [(one.verb, one.target) for one in gate.carried.lost]
        assert told == ([] if keep_root else [("revoke", str(child.id))])
        assert gate.carried.signed == keep_root
        child = Identity.generate("another")
        place.now += 61


def test_an_old_log_that_was_altered_can_withdraw_and_lift_nothing(place: Place) -> None:
    place.back_up()
    with place.open() as moat:
        moat.revoke(place.agent.id)
        moat.restore(place.agent.id)
    log = place.state / "gates" / "main" / "log"
    (segment,) = log.glob("seg/*")
    segment.write_bytes(segment.read_bytes().replace(b'"open"', b'"opem"'))
    (gate,) = place.restore().gates
    assert gate.carried.unread
    assert gate.replaced is None
    with place.open() as moat:
        assert moat.is_revoked(place.agent)


def test_a_statement_that_waits_for_the_gate_is_not_lost(place: Place) -> None:
    from moat import Control
    from moat._control import ControlFolder

    place.back_up()
    with place.open() as moat:
        root = moat.identity("root")
    statement = Control.sign(root, "revoke", place.agent.id, gate=place.gate, now=place.now)
    ControlFolder(place.state / "control").drop(statement)
    place.restore()
    with place.open() as moat:
        assert moat.is_revoked(place.agent)


def test_an_old_backup_does_not_roll_back_a_registration(place: Place) -> None:
    with place.open() as moat:
        moat.register("agent", "clerk")
    place.back_up()
    new = Identity.generate("clerk")
    with place.open() as moat:
        moat.registry.rotate("clerk", new, previous=place.agent, now=place.now)
    place.restore()
    with place.open() as moat:
        assert moat.registry.current("clerk") == new.id


def test_roots_that_come_back_with_a_backup_are_told(place: Place) -> None:
    place.back_up()
    config = place.state / "config.json"
    facts = json.loads(config.read_bytes())
    (root,) = facts["roots"]
    facts["roots"] = [str(Identity.generate("new").id)]
    config.write_bytes(json.dumps(facts, separators=(",", ":"), sort_keys=True).encode() + b"\n")
    assert place.restore().trusted_again == (AgentId(root),)


# --- altered backups -----------------------------------------------------------------------------


def test_every_altered_byte_is_refused_and_nothing_is_written(place: Place) -> None:
    place.back_up()
    good = place.file.read_bytes()
    before = place.picture()
    for at in range(0, len(good), 7):
        place.file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(MalformedInput):
            place.restore()
    for bad in (good[:-1], good[:-1024], good + b"\0", good + good, good[: len(good) // 2], b""):
        place.file.write_bytes(bad)
        with pytest.raises(MalformedInput):
            place.restore()
    assert place.picture() == before
    place.file.write_bytes(good)
    place.restore()


def rebuilt(good: Path, edit) -> bytes:
    """A backup whose members somebody changed, with a manifest that agrees."""
    out = io.BytesIO()
    with good.open("rb") as file:
        archive = Archive(file)
        files = {name: archive.read(name) for name in archive.members}
        facts = {k: v for k, v in archive.facts.items() if k not in {"members", "version"}}
    edit(files, facts)
    writer = _archive.Writer(out)
    for name in sorted(files):
        writer.add(name, len(files[name]), io.BytesIO(files[name]))
    writer.finish(facts)
    return out.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "../escape", "/etc/escape", "keys/../../escape", "keys/.hidden.pem", "keys/a/b.pem",
        "gates/main/log/seg/../x.jsonl", "gates/main/log/lock", "gates/main/log/seg/1.jsonl",
        "gates/main/key/other.pem", "control/x", "keys/Ünused.pem", "keys\\a.pem", ".gitignore",
    ],
)  # fmt: skip
def test_a_file_that_belongs_nowhere(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.back_up()
    with monkeypatch.context() as patch:
        patch.setattr(_archive, "_require_known", lambda name, size: None)
        patch.setattr(_archive, "_require_next", lambda name, members: None)
        try:
            made = rebuilt(place.file, lambda files, _: files.update({name: b"x"}))
        except ValueError:
            made = rebuilt(place.file, lambda files, _: files.update({"x": b"x"}))
    place.file.write_bytes(made)
    with pytest.raises(MalformedInput, match="no file of a state folder"):
        place.restore()
    assert not (place.folder / "escape").exists()


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.CONTTYPE,
    ],
)  # fmt: skip
def test_links_devices_and_other_kinds_of_files(place: Place, kind: bytes) -> None:
    place.back_up()
    made = tarfile.TarInfo("config.json")
    made.type, made.linkname = kind, "/etc/passwd"
    place.file.write_bytes(made.tobuf(tarfile.USTAR_FORMAT) + place.file.read_bytes())
    with pytest.raises(MalformedInput, match="not written as a backup writes"):
        place.restore()


def test_a_size_that_no_such_file_has(place: Place) -> None:
    """A header that promises more than there is, or more than may be."""
    place.back_up()
    for name, size in (("config.json", 1 << 20), ("gates/main/log/checkpoint", 1 << 32)):
        place.file.write_bytes(_archive._header(name, size) + place.file.read_bytes())
        with pytest.raises(MalformedInput, match="no such file has"):
            place.restore()
    place.file.write_bytes(_archive._header("gates/main/log/seg/000000000000.jsonl", 1 << 32))
    with pytest.raises(MalformedInput, match="ends in the middle"):
        place.restore()


def test_a_backup_that_does_not_fit_on_the_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.back_up()
    full = shutil.disk_usage(place.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    before = place.picture()
    with pytest.raises(MoatError, match="free"):
        place.restore()
    assert place.picture() == before


def test_members_twice_or_in_another_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.back_up()
    good = place.file.read_bytes()
    first = good[:1024]
    assert first.startswith(b"config.json\0")
    place.file.write_bytes(first + good)
    with pytest.raises(MalformedInput, match="twice, or not in its place"):
        place.restore()


def test_a_log_that_was_altered_together_with_the_manifest(place: Place) -> None:
    """Whoever writes the manifest can make its digests right, but not the gate's signature."""
    place.back_up()
    seg = "gates/main/log/seg/000000000000.jsonl"

    def edit(files: dict[str, bytes], facts: dict[str, object]) -> None:
        files[seg] = files[seg].replace(b"search", b"seerch")

    place.file.write_bytes(rebuilt(place.file, edit))
    before = place.picture()
    with pytest.raises(ChainBroken):
        place.restore()
    assert place.picture() == before


def test_a_log_that_was_cut_together_with_the_manifest(place: Place) -> None:
    place.back_up()
    seg = "gates/main/log/seg/000000000000.jsonl"

    def edit(files: dict[str, bytes], facts: dict[str, object]) -> None:
        files[seg] = b"".join(files[seg].splitlines(keepends=True)[:-1])

    place.file.write_bytes(rebuilt(place.file, edit))
    with pytest.raises(RolledBack):
        place.restore()


def test_a_manifest_that_tells_of_another_log(place: Place) -> None:
    place.back_up()

    def edit(files: dict[str, bytes], facts: dict[str, dict[str, dict[str, object]]]) -> None:
        facts["gates"]["main"]["entries"] = 3

    place.file.write_bytes(rebuilt(place.file, edit))
    with pytest.raises(MoatError, match="not the one that its manifest tells of"):
        place.restore()


def test_a_backup_with_the_key_of_another_gate(place: Place, tmp_path: Path) -> None:
    place.back_up()
    other = Identity.generate("main")

    def edit(files: dict[str, bytes], facts: dict[str, dict[str, dict[str, object]]]) -> None:
        files["gates/main/key/main.pem"] = other.to_pem().encode()
        files["gates/main/key/main.pub"] = f"{other.id}\n".encode()

    good = place.file.read_bytes()
    place.file.write_bytes(rebuilt(place.file, edit))
    with pytest.raises(MalformedInput, match="not the one of its log"):
        place.restore()
    place.file.write_bytes(good)

    def also(files: dict[str, bytes], facts: dict[str, dict[str, dict[str, object]]]) -> None:
        edit(files, facts)
        facts["gates"]["main"]["id"] = str(other.id)

    place.file.write_bytes(rebuilt(place.file, also))
    with pytest.raises(MoatError):
        place.restore()


def test_a_backup_of_another_state_folder_does_not_take_the_place(tmp_path: Path) -> None:
    one, two = Place(tmp_path / "one"), Place(tmp_path / "two")
    two.back_up()
    before = one.picture()
    with pytest.raises(MalformedInput, match="another one than the backup's"):
        Moat.restore_from(two.file, one.state, replace=True, clock=one.clock)
    assert one.picture() == before


def test_a_backup_that_others_can_read_or_that_is_a_link(place: Place) -> None:
    place.back_up()
    assert place.file.stat().st_mode & 0o777 == 0o600
    place.file.chmod(0o644)
    with pytest.raises(MoatError, match="open to other users"):
        place.restore()
    place.file.chmod(0o600)
    link = place.folder / "link"
    link.symlink_to(place.file)
    with pytest.raises(MoatError, match="symbolic link"):
        Moat.restore_from(link, place.folder / "new")


# --- at the wrong time ---------------------------------------------------------------------------


def test_a_gate_that_runs_is_not_replaced(place: Place) -> None:
    place.back_up()
    with place.open() as moat:
        with pytest.raises(GateBusy):
            place.restore()
        moat.pep.authorize(place.ask())


def test_a_crash_leaves_the_old_folder_or_the_new_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step that changes something on the disk, in both ways of changing places."""
    place.back_up()
    place.use(place.ask())
    steps = [
        (_restore, "extract"), (_restore, "carry"), (_restore, "_mark"), (_restore, "_held"),
        (_restore, "_swap"), (_files, "exchange"), (_files, "sync_dir"), (Path, "rename"),
        (_restore.AuditLog, "verify"),
    ]  # fmt: skip
    old = place.picture()
    for owner, name in steps:
        good = getattr(owner, name)
        for count in range(1, 40):
            left = [count]

            def crash(*args, good=good, left=left, **more):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                return good(*args, **more)

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, crash)
                try:
                    place.restore()
                except KeyboardInterrupt:
                    pass
                else:
                    _undo(place, old)
                    break
            _whole(place, old)
        assert count > 1, f"{name} was never called"


def test_without_an_exchange_of_directories_the_same_holds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "exchange", lambda *_: False)
    test_a_crash_leaves_the_old_folder_or_the_new_one(place, monkeypatch)


def _whole(place: Place, old: dict[str, bytes]) -> None:
    """The old folder is as it was, or the new one is there and the old one kept beside it."""
    now = place.picture()
    if {name: now.get(name) for name in old} == old:
        _undo(place, old)
        return
    (kept,) = place.folder.glob("state.before-*")
    for name, data in old.items():
        if name.startswith("state/"):
            assert (kept / name.removeprefix("state/")).read_bytes() == data, name
    assert b'"restored"' in next(place.state.glob("gates/main/log/seg/*")).read_bytes()
    _undo(place, old)


def _undo(place: Place, old: dict[str, bytes]) -> None:
    """Put everything back for the next try; nothing hidden was left."""
    assert not [path for path in place.folder.iterdir() if path.name.startswith(".moat-")]
    for kept in place.folder.glob("state*"):
        shutil.rmtree(kept)
    for name, data in old.items():
        target = anchor_path(place.gate) if name == "anchor" else place.folder / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for parent in target.relative_to(place.folder).parents if name != "anchor" else ():
            if str(parent) != ".":
                (place.folder / parent).chmod(0o700)
        target.write_bytes(data)
        target.chmod(0o600)


def test_a_restore_that_ended_before_the_anchor_stays_shut_until_it_is_accepted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.back_up()
    used = place.ask()
    place.use(used)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_restore._Work, "settle", crash)
        with pytest.raises(KeyboardInterrupt):
            place.restore()
    with pytest.raises(RolledBack):
        place.open()
    place.open(accept_restored=True).close()
    assert place.reason(used) == "stale"


def test_facts_of_another_shape(place: Place) -> None:
    place.back_up()
    good = place.file.read_bytes()
    edits = [
        lambda _, facts: facts.pop("gates"),
        lambda _, facts: facts.update(gates={}),
        lambda _, facts: facts["gates"].update(other=facts["gates"]["main"]),
        lambda _, facts: facts["gates"]["main"].update(entries="3"),
        lambda _, facts: facts["gates"]["main"].pop("root"),
        lambda _, facts: facts.update(time=True),
        lambda _, facts: facts.update(more=1),
        lambda files, _: files.pop("gates/main/log/seg/000000000000.jsonl") and files.pop(
            "gates/main/log/checkpoint"
        ),
    ]  # fmt: skip
    for edit in edits:
        place.file.write_bytes(good)
        place.file.write_bytes(rebuilt(place.file, edit))
        with pytest.raises(MalformedInput, match="manifest"):
            place.restore()
