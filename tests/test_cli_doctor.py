"""`moat doctor`: each fault is put in by hand, and found."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli_kit import ERROR, Cli, fresh
from moat import AuditLog, Identity, Moat, _doctor, _machine
from moat.audit import anchor_path
from moat.keystore import KeyStore
from moat.runtime import code_cache
from secret_kit import canary

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def moat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A state folder, and a machine that is not looked at."""
    monkeypatch.setattr(_machine, "examine", lambda: iter(()))
    return fresh(tmp_path, "planner")


def found(moat: Cli, check: str, status: str) -> str:
    """What the doctor says in a check, which ends like this; exit code 1 where it failed."""
    code = ERROR if status == "fail" else 0
    document = moat.json("doctor", code=code)
    assert document["ok"] == (code == 0)
    fitting = [one for one in document["checks"] if one["check"] == check]
    wanted = [one for one in fitting if one["status"] == status]
    assert wanted, fitting
    assert status in {"ok", "skip"} or wanted[0]["next"]
    return str(wanted[0]["message"])


def told(findings: Iterator[_machine.Finding]) -> list[tuple[str, str]]:
    return [(one.status, one.message) for one in findings]


def test_a_new_folder_has_no_fault(moat: Cli) -> None:
    document = moat.json("doctor")
    statuses = {one["check"]: one["status"] for one in document["checks"]}
    assert document["ok"]
    assert sum(document["counts"].values()) == len(document["checks"])
    assert document["counts"]["fail"] == 0
    checks = {"state", "keys", "config", "log", "space", "lock", "anchor", "checkpoint", "log_time"}
    assert {check for check in checks if statuses[check] != "ok"} == set()
    assert statuses["root_keys"] == "warn"


def test_a_person_is_told_what_to_do(moat: Cli) -> None:
    (moat.state / "config.json").chmod(0o644)
    said = moat("doctor", code=ERROR).stdout
    assert "fail" in said
    assert "→ " in said
    assert said.splitlines()[-1].split(", ")[-1].endswith("fail")


def test_the_whole_of_it_works_without_a_state_folder(tmp_path: Path) -> None:
    document = Cli(tmp_path / "none").json("doctor")
    statuses = {one["check"]: one["status"] for one in document["checks"]}
    assert document["state"] is None
    assert statuses["state"] == "skip"
    assert statuses["engine"] == "ok"
    assert {*_machine._CHECKS, *_machine._ON_LINUX, "clock"} <= set(statuses)
    assert not (tmp_path / "none").exists()


def test_it_changes_nothing(moat: Cli) -> None:
    def bytes_of() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in moat.state.rglob("*") if path.is_file()}

    before = bytes_of()
    moat("doctor")
    assert bytes_of() == before


def test_it_shows_no_key(moat: Cli) -> None:
    said = moat("doctor").output + moat("doctor", "--json").output
    for pem in moat.state.rglob("*.pem"):
        assert pem.read_text().splitlines()[1] not in said


# --- secrets ---


BOUND = ("secret", "set", "secret://github", "--agent", "planner", "--host", "https://a.example")


def test_a_folder_without_secrets(moat: Cli) -> None:
    assert "no secrets" in found(moat, "secrets", "ok")


def test_secrets_that_are_in_order(moat: Cli, tmp_path: Path) -> None:
    pytest.importorskip("pyrage")
    moat(*BOUND, "--identity", tmp_path / "elsewhere.key", input=(value := canary()))
    assert "handles: 1" in found(moat, "secrets", "ok")
    checks = {one["check"] for one in moat.json("doctor")["checks"]}
    assert "secret_keys" not in checks
    assert value not in moat("doctor").output


def test_an_identity_beside_the_values_that_it_opens(moat: Cli) -> None:
    pytest.importorskip("pyrage")
    moat(*BOUND, input="value")
    assert "age.key" in found(moat, "secret_keys", "warn")


@pytest.mark.parametrize("name", ["handles.json", "values.age", "age.key", "."])
def test_secrets_that_others_can_read(moat: Cli, name: str) -> None:
    pytest.importorskip("pyrage")
    moat(*BOUND, input="value")
    place = moat.state / "secrets" / name
    place.chmod(0o755 if place.is_dir() else 0o644)
    assert "others" in found(moat, "secrets", "fail")


@pytest.mark.parametrize("name", ["values.age", "age.key"])
def test_values_that_do_not_open(moat: Cli, name: str) -> None:
    pytest.importorskip("pyrage")
    moat(*BOUND, input="value")
    (place := moat.state / "secrets" / name).write_bytes(b"")
    assert str(place) in found(moat, "secrets", "fail")
    place.unlink()
    found(moat, "secrets", "fail")


def test_handles_that_nobody_wrote(moat: Cli) -> None:
    pytest.importorskip("pyrage")
    moat(*BOUND, input="value")
    (moat.state / "secrets" / "handles.json").write_text("{}")
    assert "as Moat writes it" in found(moat, "secrets", "fail")


def test_a_vault_whose_token_cannot_be_read(moat: Cli, tmp_path: Path) -> None:
    pytest.importorskip("hvac")
    (token := tmp_path / "token").write_text("s.token")
    token.chmod(0o600)
    folder = moat.state / "secrets"
    folder.mkdir(mode=0o700)
    entry = {
        "agents": [moat.did("planner")], "backend": "vault", "hosts": [], "name": "github",
    }  # fmt: skip
    made = {"kind": "vault", "url": "https://vault.example", "token_file": str(token), "ca": "",
            "mount": "secret", "path": "moat"}  # fmt: skip
    read = {"backends": {"vault": made}, "handles": {"secret://github": entry}, "version": 1}
    (folder / "handles.json").touch(mode=0o600)
    text = json.dumps(read, separators=(",", ":"), sort_keys=True)
    (folder / "handles.json").write_text(text + "\n")
    found(moat, "secrets", "ok")
    token.chmod(0o644)
    assert str(token) in found(moat, "secrets", "fail")


# --- the folder ---


def test_a_folder_that_others_can_read_or_write(moat: Cli) -> None:
    moat.state.chmod(0o755)
    assert "look into" in found(moat, "state", "warn")
    moat.state.chmod(0o770)
    assert "others can write" in found(moat, "state", "fail")


def test_a_folder_above_in_which_others_can_put_another(moat: Cli) -> None:
    above = moat.state.parent
    above.chmod(0o777)
    assert str(above) in found(moat, "state", "fail")
    above.chmod(0o1777)  # nobody renames what is another's there
    found(moat, "state", "ok")


def test_a_folder_that_is_a_link(moat: Cli) -> None:
    link = moat.state.parent / "link"
    link.symlink_to(moat.state)
    assert "symbolic link" in found(Cli(link), "state", "warn")


def test_a_folder_of_another_user(moat: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "another user" in found(moat, "state", "fail")


def test_a_folder_without_its_configuration(moat: Cli) -> None:
    (moat.state / "config.json").unlink()
    found(moat, "config", "fail")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file.chmod(0o644), "open to other users"),
        (lambda file: file.write_text("{}"), "not a configuration"),
        (
            lambda file: file.rename(file.with_name("c")).chmod(0o600) or file.symlink_to("c"),
            "link",
        ),
    ],
    ids=["mode", "form", "link"],
)
def test_a_configuration_that_no_gate_would_take(moat: Cli, change: Any, says: str) -> None:
    change(moat.state / "config.json")
    assert says in found(moat, "config", "fail")


def test_a_gate_that_trusts_nobody(moat: Cli) -> None:
    file = moat.state / "config.json"
    file.write_text('{"operators":[],"roots":[],"version":1}\n')
    assert "no root" in found(moat, "config", "fail")


def test_the_keys_of_those_who_are_trusted(tmp_path: Path, moat: Cli) -> None:
    assert "root `root`" in found(moat, "root_keys", "warn")
    away, by = Identity.generate("away"), Identity.generate("by")
    with Moat.init(tmp_path / "apart", root=away.id, operators=[by.id]) as apart:
        apart.identity("planner", create=True)
    found(Cli(tmp_path / "apart"), "root_keys", "ok")
    KeyStore(tmp_path / "apart" / "keys").save(by)
    assert "operator `by`" in found(Cli(tmp_path / "apart"), "root_keys", "warn")


@pytest.mark.parametrize("where", ["keys/planner.pem", "gates/main/key/main.pem"])
def test_keys_that_cannot_be_trusted(moat: Cli, where: str) -> None:
    file = moat.state / where
    found(moat, "keys", "ok")
    file.chmod(0o640)
    assert "open to other users" in found(moat, "keys", "fail")
    file.chmod(0o600)
    file.with_suffix(".pub").write_text(f"{Identity.generate('other').id}\n")
    assert "names another key" in found(moat, "keys", "fail")
    file.with_suffix(".pub").unlink()
    file.write_text("no key")
    found(moat, "keys", "fail")
    file.unlink()
    file.symlink_to("/dev/null")
    assert "symbolic link" in found(moat, "keys", "fail")


def test_the_folder_of_control_statements(moat: Cli) -> None:
    folder = moat.state / "control"
    folder.mkdir(mode=0o700)
    found(moat, "control", "ok")
    folder.chmod(0o777)
    assert "open to other users" in found(moat, "control", "fail")
    folder.rmdir()
    folder.symlink_to(moat.state / "keys")
    assert "symbolic link" in found(moat, "control", "fail")


def test_compiled_code(moat: Cli) -> None:
    folder = code_cache(moat.state).path
    found(moat, "cache", "ok")
    folder.chmod(0o720)
    assert "open to other users" in found(moat, "cache", "fail")
    folder.chmod(0o700)
    (moat.state / "keys" / "code.key").chmod(0o644)
    assert "code.key" in found(moat, "cache", "fail")
    (moat.state / "keys" / "code.key").unlink()
    found(moat, "cache", "fail")


# --- a gate's log ---


def log_of(moat: Cli) -> Path:
    return moat.state / "gates" / "main" / "log"


def test_files_of_the_log_that_others_could_change(moat: Cli) -> None:
    lines = next(log_of(moat).glob("seg/*.jsonl"))
    lines.chmod(0o644)
    assert "can read" in found(moat, "log", "warn")
    lines.chmod(0o620)
    assert "can write" in found(moat, "log", "fail")
    lines.chmod(0o600)
    log_of(moat).chmod(0o1777)
    assert "can write" in found(moat, "log", "fail")
    log_of(moat).chmod(0o700)
    (log_of(moat) / "seg" / "x").symlink_to("/dev/null")
    assert "symbolic link" in found(moat, "log", "fail")
    (log_of(moat) / "seg" / "x").unlink()
    os.mkfifo(log_of(moat) / "pipe")
    assert "neither" in found(moat, "log", "fail")


def test_a_name_that_would_steer_a_terminal_does_not(moat: Cli) -> None:
    (log_of(moat) / "\x1b[2Jfine").symlink_to("x")
    assert "\x1b" not in moat("doctor", code=ERROR).stdout


@LINUX
def test_the_process_that_has_the_gate_is_named(moat: Cli) -> None:
    assert "no process" in found(moat, "lock", "ok")
    with Moat.open(moat.state):
        assert f"process {os.getpid()} (" in found(moat, "lock", "ok")
        found(moat, "anchor", "ok")


def test_a_lock_is_found_by_its_device_and_by_its_number_alone(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    node = file.stat().st_ino
    here = f"{os.major(file.stat().st_dev):02x}:{os.minor(file.stat().st_dev):02x}:{node}"
    rows = [
        f"1: POSIX  ADVISORY  WRITE 1 {here} 0 EOF",
        f"2: FLOCK  ADVISORY  WRITE 2 aa:bb:{node}1 0 EOF",
        f"3: -> FLOCK  ADVISORY  WRITE 3 {here} 0 EOF",
        f"4: FLOCK  ADVISORY  WRITE 4 aa:bb:{node} 0 EOF",
        f"5: FLOCK  ADVISORY  WRITE 5 {here} 0 EOF",
    ]
    assert _doctor.holder(file, "\n".join(rows)) == 5
    assert _doctor.holder(file, "\n".join(rows[:4])) == 4
    assert _doctor.holder(file, "\n".join(rows[:3])) is None


def anchor_of(moat: Cli) -> Path:
    key = KeyStore(moat.state / "gates" / "main" / "key").public("main")
    return anchor_path(key)


def test_an_anchor_that_is_missing_foreign_or_open(moat: Cli, tmp_path: Path) -> None:
    anchor = anchor_of(moat)
    assert "covers 2 of 2" in found(moat, "anchor", "ok")
    anchor.chmod(0o666)
    assert "can write" in found(moat, "anchor", "fail")
    anchor.chmod(0o600)
    with AuditLog.open(tmp_path / "x", signer=Identity.generate("x"), anchor=tmp_path / "a"):
        pass
    shutil.copy(tmp_path / "a", anchor)
    found(moat, "anchor", "fail")
    anchor.unlink()
    assert "no anchor" in found(moat, "anchor", "warn")


def test_a_log_that_is_behind_its_anchor(moat: Cli, tmp_path: Path) -> None:
    shutil.copytree(log_of(moat), tmp_path / "old")
    moat("revoke", "planner", "--by", "root")
    shutil.rmtree(log_of(moat))
    shutil.copytree(tmp_path / "old", log_of(moat))
    assert "behind its anchor" in found(moat, "anchor", "fail")


def test_a_log_that_was_edited(moat: Cli) -> None:
    lines = next(log_of(moat).glob("seg/*.jsonl"))
    lines.write_bytes(lines.read_bytes().replace(b'"version":1', b'"version":2', 1))
    found(moat, "anchor", "fail")


def test_an_anchor_in_the_state_folder(moat: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    old = anchor_of(moat)
    monkeypatch.setenv("XDG_STATE_HOME", str(moat.state))
    new = anchor_of(moat)
    new.parent.mkdir(parents=True)
    shutil.copy(old, new)
    assert "lies in the state folder" in found(moat, "anchor", "fail")


def test_a_checkpoint_that_is_missing_old_or_broken(moat: Cli, tmp_path: Path) -> None:
    checkpoint = log_of(moat) / "checkpoint"
    shutil.copy(checkpoint, tmp_path / "old")
    moat("revoke", "planner", "--by", "root")
    found(moat, "checkpoint", "ok")
    anchor_of(moat).unlink()  # which would find it too
    shutil.copy(tmp_path / "old", checkpoint)
    os.utime(checkpoint, (time.time() - 3600,) * 2)
    assert "leaves out 1 entries" in found(moat, "checkpoint", "warn")
    checkpoint.write_text("nonsense")
    found(moat, "checkpoint", "fail")
    checkpoint.unlink()
    assert "nothing is signed" in found(moat, "checkpoint", "warn")


def test_a_log_that_is_ahead_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "examine", lambda: iter(()))
    with Moat.open(tmp_path / "state", clock=lambda: int(time.time()) + 3600):
        pass
    assert "ahead of the clock" in found(Cli(tmp_path / "state"), "log_time", "fail")
    with Moat.open(tmp_path / "early", clock=lambda: int(time.time()) + 40):
        pass
    assert "ahead of the clock" in found(Cli(tmp_path / "early"), "log_time", "warn")


def test_the_last_line_is_read_from_the_end(tmp_path: Path) -> None:
    (tmp_path / "seg").mkdir()
    assert _doctor.last_line(tmp_path) is None
    lines = [json.dumps({"i": i, "t": 7, "body": "x" * 60_000}) for i in range(9)]
    (tmp_path / "seg" / "000000000000.jsonl").write_text("\n".join([*lines, '{"i":9,"to']))
    assert (_doctor.last_line(tmp_path) or {})["i"] == 8
    (tmp_path / "seg" / "000000000009.jsonl").write_text('{"i"')
    assert (_doctor.last_line(tmp_path) or {})["i"] == 8


def test_a_state_folder_without_a_gate(moat: Cli) -> None:
    shutil.rmtree(moat.state / "gates")
    assert "no gate" in found(moat, "log", "warn")


def test_a_check_that_breaks_has_not_passed(moat: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda _: 1 // 0)
    assert "cannot be checked" in found(moat, "space", "fail")


# --- the disk ---


@pytest.mark.parametrize(
    ("free", "files", "status"),
    [(1 << 40, 10**6, "ok"), (50 << 20, 10**6, "warn"), (1000, 10**6, "fail"),
     (1 << 40, 10, "warn"), (1 << 40, 0, "fail")],
)  # fmt: skip
def test_room_on_the_disk(
    moat: Cli, monkeypatch: pytest.MonkeyPatch, free: int, files: int, status: str
) -> None:
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    counts = SimpleNamespace(f_files=10**7, f_favail=files)
    monkeypatch.setattr(_doctor.os, "statvfs", lambda _: counts)
    found(moat, "space", status)


MOUNTS = """\
20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
21 20 0:5 / /mem rw - tmpfs tmpfs rw
22 20 0:6 / /net rw - nfs4 server:/x rw,vers=4
23 20 0:7 / /with\\040space ro - ext4 /dev/sdb1 rw
24 20 0:8 / /fuse rw shared:1 - fuse.sshfs x rw
25 20 0:9 / /layer rw - overlay overlay rw,lowerdir=x
26 20 8:3 / /fast rw - ext4 /dev/sdc1 rw,nobarrier
27 20 8:4 / /twice rw - ext4 /dev/sdd1 rw
28 20 0:9 / /twice rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [("/home", "ext4", "ok"), ("/memory", "ext4", "ok"), ("/mem/a", "tmpfs", "warn"),
     ("/net/a", "nfs4", "warn"), ("/with space/a", "ext4", "fail"), ("/fuse", "fuse", "warn"),
     ("/layer/x", "container", "warn"), ("/fast/x", "power failure", "warn"),
     ("/twice", "tmpfs", "warn")],
)  # fmt: skip
@LINUX
def test_what_the_log_lies_on(
    monkeypatch: pytest.MonkeyPatch, path: str, kind: str, status: str
) -> None:
    monkeypatch.setattr(_doctor, "MOUNTS", SimpleNamespace(read_text=lambda errors: MOUNTS))
    ((got, message),) = told(_doctor._file_system(Path(path)))
    assert (got, kind in message) == (status, True)


@pytest.mark.parametrize(("took", "status"), [(1e-6, "warn"), (1e-3, "ok"), (0.2, "warn")])
def test_a_sync_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, status: str
) -> None:
    ticks = iter([10.0, 10.0 + took])
    monkeypatch.setattr(_doctor.time, "perf_counter", lambda: next(ticks))
    ((got, message),) = told(_doctor._sync(tmp_path))
    assert (got, "ms" in message) == (status, True)
    assert not list(tmp_path.iterdir())
