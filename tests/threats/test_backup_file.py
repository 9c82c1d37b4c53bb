"""Backups that somebody altered, made up, or took from another place."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from moat import (
    AuditError,
    ChainBroken,
    Identity,
    MalformedInput,
    Moat,
    MoatError,
    RolledBack,
    _archive,
)
from moat._archive import Archive
from threats.rotating import Rotating
from threats.saved import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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
        "gates/main/key/other.pem", "gates/main/former/1/key/main.pem",
        "gates/main/former/1/key/other.pub", "gates/main/former/0/log/checkpoint",
        "gates/main/former/01/log/checkpoint", "gates/main/next/key/main.pem", "control/x",
        "keys/Ünused.pem", "keys\\a.pem", ".gitignore",
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


SEGMENT = "gates/main/former/1/log/seg/000000000000.jsonl"


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of the first former log."""
    return facts["gates"]["main"]["former"]["1"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda _, facts: facts["gates"]["main"].pop("former"),
        lambda _, facts: facts["gates"]["main"].update(former={}),
        lambda _, facts: facts["gates"]["main"]["former"].update({"2": told(facts)}),
        lambda _, facts: told(facts).update(former={}),
        lambda _, facts: told(facts).update(entries=told(facts)["entries"] + 1),
        lambda _, facts: told(facts).update(root="00" * 32),
        lambda _, facts: told(facts).update(id=facts["gates"]["main"]["id"]),
        lambda files, facts: files.update(
            {"gates/main/former/1/key/main.pub": files["gates/main/key/main.pub"]}
        ),
        lambda files, _: files.update({SEGMENT: files[SEGMENT].replace(b'"open"', b'"opem"')}),
        lambda files, _: files.update({SEGMENT: files[SEGMENT].rpartition(b'{"i"')[0]}),
        lambda files, _: files.pop("gates/main/former/1/log/checkpoint"),
    ],
)  # fmt: skip
def test_former_logs_that_do_not_fit(tmp_path: Path, edit: Any) -> None:
    place, other = Rotating(tmp_path), tmp_path / "other"
    place.rotate()
    place.back_up()
    good = place.file.read_bytes()
    place.file.write_bytes(rebuilt(place.file, edit))
    with pytest.raises((MalformedInput, AuditError)):
        place.restore(state=other, replace=False)
    assert not other.exists()
    place.file.write_bytes(good)
    place.restore(state=other, replace=False)


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
