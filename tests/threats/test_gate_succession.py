"""The log that comes after another, and the folder in which it takes the place of that."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moat import (
    AuditLog,
    Identity,
    KeysExposed,
    Limits,
    MalformedInput,
    Moat,
    MoatError,
    RolledBack,
    _files,
    _succession,
)
from moat._native import hand_on, keep_apart, read_log
from moat.audit import anchor_path
from moat.errors import AuditError, ChainBroken
from moat.keystore import KeyStore
from moat.runtime import protected
from threats.rotating import Rotating
from threats.world import RIVAL, agent


@pytest.fixture
def place(tmp_path: Path) -> Rotating:
    return Rotating(tmp_path)


# --- the next log ---


@pytest.fixture
def long(place: Rotating) -> Rotating:
    """A gate that takes over more than one line holds."""
    with place.open() as moat:
        for n in range(360):
            moat.revoke(hashlib.sha256(b"%d" % n).digest())
        moat.revoke(place.agent)
    place.rotate()
    with place.open() as moat:
        parts = [e["body"] for e in moat.audit.entries() if e["kind"] == "inherited"]
    assert len(parts) == parts[0]["of"] > 1
    return place


def lines_of(log: Path) -> list[bytes]:
    return list(read_log(log))


def rewrite(log: Path, lines: list[bytes], signer: Identity | None = None) -> None:
    """Put other lines in the place of a log's, chained anew; with a signer, signed as well."""
    leaf, made = lines[0][lines[0].index(b'"prev":"') + 8 :][:64].decode(), []
    for at, line in enumerate(lines):
        entry = json.loads(line)
        entry |= {"i": at, "prev": leaf}
        made.append(json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode())
        leaf = hashlib.sha256(b"\0" + made[-1]).hexdigest()
    (log / "seg" / "000000000000.jsonl").write_bytes(b"".join(line + b"\n" for line in made))
    shutil.rmtree(log / "tile", ignore_errors=True)
    (log / "checkpoint").unlink()
    if signer is not None:
        text = f"moat.log/{signer.id}\n{len(made)}\n{base64.b64encode(root(made)).decode()}\n"
        origin, public = f"moat.log/{signer.id}", bytes(signer.id)
        key = hashlib.sha256(origin.encode() + b"\n\x01" + public).digest()[:4]
        signed = base64.b64encode(key + signer.sign(text.encode())).decode()
        (log / "checkpoint").write_text(f"{text}\n\u2014 {origin} {signed}\n", encoding="utf-8")


def root(lines: list[bytes]) -> bytes:
    """RFC 6962 §2.1."""
    if len(lines) == 1:
        return hashlib.sha256(b"\0" + lines[0]).digest()
    half = 1 << (len(lines) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(lines[:half]) + root(lines[half:])).digest()


def test_the_two_logs_fit_together(long: Rotating) -> None:
    alone = AuditLog.verify(long.home / "log", log=long.gate)
    assert any("was not compared" in sentence for sentence in alone.unchecked)
    before, entries, found = alone.former or pytest.fail("it inherited nothing")
    (former,) = _succession.formers(long.home)
    assert before == former.id
    report = AuditLog.verify(former.log, log=former.id)
    assert (report.entries, report.root) == (entries, found)
    assert report.signed == report.anchored == entries
    assert len(report.unchecked) == 1
    together = long.verify()
    assert not any("was not compared" in sentence for sentence in together.unchecked)


def test_one_byte_of_what_was_inherited(long: Rotating) -> None:
    """By a neighbour, who has no key."""
    segment = long.home / "log" / "seg" / "000000000000.jsonl"
    data = segment.read_bytes()
    revoked = hashlib.sha256(b"7").hexdigest().encode()
    assert revoked in data
    segment.write_bytes(data.replace(revoked, revoked[::-1]))
    with pytest.raises(ChainBroken):
        AuditLog.verify(long.home / "log", log=long.gate)
    with pytest.raises(ChainBroken):
        long.open()


@pytest.mark.parametrize("keep", [1, 2], ids=["all of it", "its second part"])
@pytest.mark.parametrize("torn", [b"", b'{"i":2,"t":19'], ids=["", "torn"])
def test_what_was_inherited_cut_off(long: Rotating, keep: int, torn: bytes) -> None:
    """Without checkpoint and anchor a cut log cannot be told: but this one is no new gate's."""
    log = long.home / "log"
    lines = lines_of(log)[:keep]
    (log / "seg" / "000000000000.jsonl").write_bytes(b"\n".join([*lines, torn]))
    with pytest.raises(RolledBack if keep == 1 else ChainBroken):
        long.open()
    (log / "checkpoint").unlink()
    anchor_path(long.gate).unlink()
    before = (log / "seg" / "000000000000.jsonl").read_bytes()
    with pytest.raises(AuditError, match="go on after" if keep == 1 else "ends after 1 of"):
        long.open()
    if keep > 1:
        assert (log / "seg" / "000000000000.jsonl").read_bytes() == before
        with pytest.raises(ChainBroken):
            AuditLog.verify(log, log=long.gate)
    with pytest.raises(AuditError):
        long.verify()


def forged(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Any:
    def apply(lines: list[bytes]) -> list[bytes]:
        entries = [json.loads(line) for line in lines]
        change(entries[1]["body"], entries[2]["body"])
        return [json.dumps(entry, separators=(",", ":")).encode() for entry in entries]

    return apply


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        (forged(lambda _, last: last["items"].pop()), True),
        (forged(lambda first, _: first["items"].__delitem__(slice(5, 9))), True),
        (forged(lambda first, last: [b.update(entries=b["entries"] - 1) for b in (first, last)]),
         True),
        (forged(lambda first, last: [b.update(root="00" * 32) for b in (first, last)]), True),
        (forged(lambda first, last: [b.update(gate=str(agent(RIVAL))) for b in (first, last)]),
         False),
        (forged(lambda first, _: first.update(root="00" * 32)), False),
        (forged(lambda first, last: [b.update(of=3) for b in (first, last)]), False),
        (forged(lambda first, _: first["items"][0].update(time=1)), False),
        (forged(lambda _, last: last["items"].append({"is": "pending", "decisions": [1]})), False),
        (forged(lambda _, last: last["items"].append({"is": "nonce", "expires": 9, "nonce": "0"})),
         False),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], False),
        (lambda lines: [lines[0], lines[1], *lines[3:]], False),
        (lambda lines: [*lines, lines[1]], False),
    ],
)  # fmt: skip
def test_an_owner_who_writes_another_inheritance(
    long: Rotating, change: Any, *, alone: bool
) -> None:
    """With the new key. What is well formed is found by whoever has the former log as well."""
    log, signer = long.home / "log", KeyStore(long.home / "key").load("main")
    lines = lines_of(log)
    rewrite(log, lines, signer)
    assert AuditLog.verify(log, log=signer.id, anchor=None).entries == len(lines)
    former = long.home / "former" / "1" / "log"
    AuditLog.verify(log, log=signer.id, anchor=None, former=former)
    rewrite(log, change(lines), signer)
    if alone:
        AuditLog.verify(log, log=signer.id, anchor=None)
    with pytest.raises(AuditError):
        AuditLog.verify(log, log=signer.id, anchor=None, former=former)


def test_another_log_in_the_place_of_the_former(place: Rotating) -> None:
    """One of the same key, forked before the revocation and handed over all the same."""
    shutil.copytree(place.home / "log", fork := place.folder / "fork")
    with place.open() as moat:
        moat.revoke(place.agent)
    place.rotate()
    former = place.home / "former" / "1" / "log"
    with pytest.raises(AuditError, match="handed over|hand over|entries"):
        AuditLog.verify(place.home / "log", log=place.gate, former=fork)
    with pytest.raises(AuditError, match="not handed over"):
        hand_on(fork, _succession.formers(place.home)[0].id, place.folder / "new",
                Identity.generate("mallory"), now=place.now)  # fmt: skip
    with pytest.raises(AuditError, match="not handed over"):
        hand_on(former, _succession.formers(place.home)[0].id, place.folder / "new",
                Identity.generate("mallory"), now=place.now)  # fmt: skip


def test_a_former_log_whose_end_is_not_signed(place: Rotating) -> None:
    """The rotation may be there and not be the gate's: only the signature over it says so."""
    with place.open() as moat:
        signer = KeyStore(place.home / "key").load("main")
        moat.registry.register(signer, role="gate", now=place.now)
        early = str(moat.audit.checkpoint())
        heir = Identity.generate("main")
        moat.registry.rotate("main", heir, previous=signer, role="gate", now=place.now)
    log, new = place.home / "log", place.folder / "new"
    whole = (log / "checkpoint").read_text()
    (log / "checkpoint").write_text(early)
    with pytest.raises(AuditError, match="has not signed"):
        hand_on(log, place.gate, new, heir, now=place.now)
    (log / "checkpoint").write_text(whole)
    assert hand_on(log, place.gate, new, heir, now=place.now) == len(lines_of(log))
    with pytest.raises(AuditError, match="holds a log already"):
        hand_on(log, place.gate, new, heir, now=place.now)


def test_a_former_log_that_is_missing_or_cut(long: Rotating) -> None:
    former = long.home / "former" / "1" / "log"
    segment = former / "seg" / "000000000000.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(AuditError):
        long.verify()
    segment.write_bytes(whole)
    long.verify()


def test_segments_and_their_removal_on_both_sides(place: Rotating) -> None:
    """What was inherited is in every snapshot, and so is that it was."""
    with place.open() as moat:
        moat.revoke(place.agent)
    first = place.gate
    for number in (1, 2):
        place.rotate()
        with place.open(segment_bytes=1) as moat:
            for _ in range(24):
                place.now += 400
                assert moat.pep.decide(place.ask()).reason == "revoked"
        together = place.verify(number)
        assert together.segments > 2
        assert not any("was not compared" in sentence for sentence in together.unchecked)
        with place.open() as moat:
            assert moat.audit.prune(len(moat.audit)).entries > 0
            assert moat.audit.gate.former is not None
        later = place.verify(number)
        assert later.former == together.former
        assert any("was not compared" in sentence for sentence in later.unchecked)
        with place.open() as moat:
            assert moat.is_revoked(place.agent)
    second = _succession.formers(place.home)[1]
    AuditLog.verify(second.log, log=second.id)
    assert first == _succession.formers(place.home)[0].id


# --- the folder ---


def test_the_former_secret_is_gone_and_its_log_stays(place: Rotating) -> None:
    secret = (place.home / "key" / "main.pem").read_bytes()
    place.rotate()
    kept = [path for path in place.state.rglob("*") if path.is_file()]
    assert all(path.read_bytes() != secret for path in kept)
    former = place.home / "former" / "1"
    assert sorted(path.name for path in (former / "key").iterdir()) == ["main.pub"]
    assert not (place.home / "next").exists()


def test_no_code_reaches_the_former_logs(place: Rotating) -> None:
    place.rotate()
    for folder in (place.home / "former", place.home / "former" / "1" / "log"):
        with pytest.raises(KeysExposed):
            keep_apart(Limits.standard().replace(read=[f"file://{folder}/**"]),
                       protected(place.state))  # fmt: skip


def steps(patch: pytest.MonkeyPatch, end: Callable[[], object], last: int) -> None:
    """End before the so manieth change that a rotation makes to the disk."""
    left = [last]

    def counted(real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            if left[0] == 0:
                end()
            left[0] -= 1
            return real(*args, **named)

        return call

    for owner, name in (
        (_files, "exchange"), (_files, "sync_dir"), (_files, "make_dirs"), (os, "rename"),
        (os, "link"), (os, "unlink"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"),
        (shutil, "rmtree"), (_succession, "hand_on"), (AuditLog, "close"),
    ):  # fmt: skip
        patch.setattr(owner, name, counted(getattr(owner, name)))


def crash(place: Rotating, last: int, prepare: Callable[[pytest.MonkeyPatch], object]) -> bool:
    """Rotate in a child process that ends before a step, as by ``kill -9``; whether it did."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        code = child(place, lambda: steps(patch, lambda: os._exit(9), last))
    assert code in {0, 9}
    return code == 9


def child(place: Rotating, prepare: Callable[[], object] = lambda: None) -> int:
    """Rotate in a child process; its exit code."""
    process = os.fork()
    if process == 0:
        try:
            prepare()
            Moat.rotate_gate(place.state, clock=place.clock)
        except BaseException:  # noqa: BLE001 - the parent must not go on in the child
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def one_by_one(patch: pytest.MonkeyPatch) -> None:
    """A system that cannot have two directories change places in one step."""
    patch.setattr(_files, "exchange", lambda _one, _other: False)


def nothing(_: pytest.MonkeyPatch) -> None:
    """Leave it as it is."""


@pytest.mark.parametrize("prepare", [nothing, one_by_one], ids=["exchange", "renames"])
def test_a_crash_at_every_step(
    tmp_path: Path, prepare: Callable[[pytest.MonkeyPatch], object]
) -> None:
    """Afterwards there is one gate: the old one, whole, or the new one with all that it knew."""
    origin = Rotating(tmp_path)
    with origin.open() as moat:
        moat.revoke(origin.agent)
    saved = tmp_path / "saved"
    shutil.copytree(origin.state, saved)
    anchors = anchor_path(origin.gate).parent
    shutil.copytree(anchors, tmp_path / "anchors")
    found, last = set(), 0
    while True:
        shutil.rmtree(origin.state)
        shutil.rmtree(anchors)
        shutil.copytree(saved, origin.state)
        shutil.copytree(tmp_path / "anchors", anchors)
        crashed = crash(origin, last, prepare)
        found.add(whole(origin))
        if not crashed:
            break
        last += 1
    assert found == {"old", "new"}
    assert last > 20


def whole(place: Rotating) -> str:
    """Open the gate, which finishes what was begun; which one it is."""
    with place.open() as moat:
        assert moat.pep.is_revoked(place.agent.id)
        gate = moat.id
        assert moat.audit.gate.successor is None
        assert moat.pep.decide(place.ask()).reason == (
            "revoked" if gate == place.gate else "wrong_gate"
        )
    assert not (place.home / "next").exists()
    assert KeyStore(place.home / "key").load("main").id == gate
    AuditLog.verify(place.home / "log", log=gate, anchor=anchor_path(gate))
    if gate == place.gate:
        assert not (place.home / "former").exists()
        return "old"
    (former,) = _succession.formers(place.home)
    assert former.id == place.gate
    assert not list((former.path / "key").glob("*.pem"))
    AuditLog.verify(place.home / "log", log=gate, former=former.log)
    return "new"


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_crash_while_the_next_log_is_written(place: Rotating, left: int) -> None:
    """What is there of it is not believed, however far it came; it is made again."""
    with place.open() as moat:
        moat.revoke(place.agent)
        for n in range(360):
            moat.revoke(hashlib.sha256(b"%d" % n).digest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_succession, "_switch", lambda *_, **__: os._exit(9))
        assert child(place) == 9
    segment = place.home / "next" / "log" / "seg" / "000000000000.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    segment.write_bytes(b"".join(lines[:left]) + b'{"i":')
    assert whole(place) == "new"


def test_rotating_again_after_a_crash_finishes_what_was_begun(place: Rotating) -> None:
    """The key that was signed for is the next one; no other is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_succession, "complete", lambda *_: os._exit(9))
        assert child(place) == 9
    promised = KeyStore(place.home / "next" / "key").public("main")
    done = place.rotate()
    assert (done.id, done.number, done.name) == (promised, 1, "main")
    assert place.rotate().number == 2


def test_an_anchor_in_a_place_of_its_own(place: Rotating) -> None:
    """It follows the gate, and the former one is kept beside it."""
    anchor = place.folder / "anchor"
    with place.open(anchor=anchor):
        pass
    old = place.gate
    place.rotate(anchor=anchor)
    with place.open(anchor=anchor) as moat:
        assert moat.audit.anchor_state == "matched"
    AuditLog.verify(
        place.home / "former" / "1" / "log", log=old, anchor=anchor.with_name("anchor.1")
    )


# --- backups ---


def test_a_backup_carries_the_former_logs(place: Rotating) -> None:
    with place.open() as moat:
        moat.revoke(place.agent)
    place.rotate()
    place.rotate()
    place.back_up()
    other = place.folder / "other"
    place.restore(state=other, replace=False)
    place.state = other
    assert [one.number for one in _succession.formers(place.home)] == [1, 2]
    place.verify(2)
    place.now += 61
    assert place.reason(place.ask()) == "revoked"


def test_a_backup_from_before_does_not_replace_the_gate_that_came_after(place: Rotating) -> None:
    """It would bring back a key that was given up, and forget what was withdrawn since."""
    place.back_up()
    place.rotate()
    with place.open() as moat:
        moat.revoke(place.agent)
    before = place.picture()
    with pytest.raises(MalformedInput, match="another key since the backup"):
        place.restore()
    assert place.picture() == before
    assert place.reason(place.ask()) == "revoked"


def test_a_backup_from_before_in_another_folder_is_the_former_gate_again(place: Rotating) -> None:
    """Nobody there knows of the rotation. What is refused is what was used or is for another."""
    old, wire = place.gate, place.ask()
    place.back_up()
    place.use(wire)
    place.rotate()
    new = place.ask()
    with place.open() as moat:
        moat.revoke(place.agent)
    other = place.folder / "other"
    place.restore(state=other, replace=False)
    place.state, place.gate = other, old
    assert place.reason(wire) == "stale"
    assert place.reason(new) == "wrong_gate"
    place.now += 61
    assert place.reason(place.ask()) is None  # the honest limit: spec/threats.md


def test_a_rotation_that_is_not_finished_is_not_backed_up(place: Rotating) -> None:
    assert crash(place, 12, nothing)
    if (place.home / "next").exists():
        from moat._backup import backup

        with pytest.raises(MoatError, match="not finished"):
            backup(place.state, place.file)
    place.open().close()
    place.back_up()
