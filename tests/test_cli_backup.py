"""`moat backup`, `moat restore --from` and `moat audit accept`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from cli_kit import DENIED, ERROR, INVALID, READER, USAGE, Cli, fresh
from moat import AgentId, Moat
from moat.audit import anchor_path
from moat.cli import bars
from moat.runtime import code_cache
from tools import need

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a second gate and one run in its log."""
    made = fresh(tmp_path, "planner", "worker")
    Moat.open(made.state, gate="second").close()
    held = made.issue("--allow", "code://reader run", "--standard")
    made("run", READER, "--token", held, code=ERROR)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


def test_a_backup_is_one_private_file_and_says_what_is_in_it(moat: Cli, file: Path) -> None:
    made = moat.json("backup", file)
    assert made["file"] == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["bytes"] == file.stat().st_size
    assert made["sha256"] == sha256(file.read_bytes()).hexdigest()
    assert [gate["name"] for gate in made["gates"]] == ["main", "second"]
    report = moat.json("audit", "verify")
    main = made["gates"][0]
    assert (main["entries"], main["root"]) == (report["entries"], report["root"])
    assert main["signed"] == main["anchor"] == main["entries"]
    assert made["keys"] is True
    assert list(file.parent.glob(".*")) == []


def test_a_person_is_told_that_keys_are_in_it(moat: Cli, file: Path) -> None:
    told = moat("backup", file).stdout
    assert "secret keys are in it" in told
    assert "secret keys" not in moat("backup", f"{file}2", "--no-keys").stdout


def test_plain_tools_read_it(moat: Cli, file: Path, tmp_path: Path) -> None:
    moat("backup", file)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([need("tar"), "-xf", file, "-C", out], check=True)
    subprocess.run([need("sha256sum"), "--check", "MANIFEST.sha256"], check=True, cwd=out)
    log = out / "gates" / "main" / "log"
    assert moat.json("audit", "verify", "--log", log)["ok"]


def test_a_backup_replaces_nothing(moat: Cli, file: Path) -> None:
    file.write_bytes(b"mine")
    assert "replaces nothing" in moat.error("backup", file, code=ERROR)["message"]
    assert file.read_bytes() == b"mine"


def test_a_backup_that_does_not_verify_is_not_left_behind(moat: Cli, file: Path) -> None:
    (segment,) = (moat.state / "gates" / "main" / "log" / "seg").iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"i":2', b'"i":3', 1))
    assert moat.error("backup", file, code=INVALID)["code"] == "chain_broken"
    assert not file.exists()
    assert moat.json("backup", file, "--gate", "second")["gates"][0]["name"] == "second"
    assert moat.error("backup", f"{file}2", "--gate", "third", code=ERROR)["next"] is None
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_log_behind_its_anchor_is_not_backed_up(moat: Cli, file: Path, tmp_path: Path) -> None:
    shutil.copytree(moat.state, tmp_path / "copy")
    moat("revoke", "worker")
    assert Cli(tmp_path / "copy").error("backup", file, code=INVALID)["code"] == "rolled_back"
    assert not file.exists()


def test_a_backup_is_made_while_the_gate_writes(moat: Cli, file: Path) -> None:
    """The segment has a line that is half written, and lines that are not signed yet."""
    with Moat.open(moat.state) as running:
        running.revoke(running.identity("worker"))
        (segment,) = (moat.state / "gates" / "main" / "log" / "seg").iterdir()
        whole = segment.read_bytes()
        with segment.open("ab") as log:
            log.write(b'{"i":99,"t":')
        made = moat.json("backup", file)
        entries = made["gates"][0]["entries"]
        assert entries == len(whole.splitlines())
        segment.write_bytes(whole)
    other = Cli(moat.state.parent / "other")
    assert other.json("restore", "--from", file)["gates"][0]["entries"] == entries


def test_other_files_are_named_and_not_taken(moat: Cli, file: Path) -> None:
    (moat.state / "notes.txt").touch()
    assert moat.json("backup", file)["left_out"] == ["cache", "notes.txt"]
    assert "notes.txt" in moat("backup", f"{file}2").stdout


def test_compiled_code_and_its_secret_are_not_taken(moat: Cli, file: Path, tmp_path: Path) -> None:
    secret = code_cache(moat.state).path.parent.parent / "keys" / "code.key"
    assert moat.json("backup", file)["left_out"] == ["cache"]
    assert secret.read_bytes() not in file.read_bytes()
    other = Cli(tmp_path / "other")
    other.json("restore", "--from", file)
    assert not (other.state / "keys" / "code.key").exists()


def test_secrets_are_left_out_and_how_to_bring_them_back_is_said(moat: Cli, file: Path) -> None:
    pytest.importorskip("pyrage")
    value = "canary-in-no-backup"
    bound = ("secret://github", "--agent", "worker", "--host", "https://a.example")
    moat("secret", "set", *bound, input=value)
    told = moat("backup", file).stdout
    assert "left out" in told
    assert "no value of a secret is in it" in told
    assert moat.json("backup", f"{file}2")["left_out"] == ["cache", "secrets"]
    whole = file.read_bytes()
    assert b"handles.json" not in whole
    assert (moat.state / "secrets" / "age.key").read_bytes() not in whole
    done = moat.json("restore", "--from", file, "--replace")
    assert done["secrets"] == f"{done['before']}/secrets"
    assert not (moat.state / "secrets").exists()
    shutil.copytree(done["secrets"], moat.state / "secrets")
    assert moat.json("secret", "list", "--check")["secrets"][0]["there"]
    said = Cli(moat.state.parent / "other")("restore", "--from", file).stdout
    assert "moat secret set" in said
    said = moat("restore", "--from", file, "--replace").stdout
    assert "cp -a" in said


def test_a_backup_becomes_a_new_folder(moat: Cli, file: Path, tmp_path: Path) -> None:
    moat("backup", file)
    dids = [moat.did(name) for name in ("root", "worker", "main")]
    shutil.rmtree(moat.state)
    done = moat.json("restore", "--from", file)
    assert done["state"] == str(moat.state)
    assert done["before"] is None
    assert [gate["name"] for gate in done["gates"]] == ["main", "second"]
    assert [moat.did(name) for name in ("root", "worker", "main")] == dids
    for gate in ("main", "second"):
        report = moat.json("audit", "verify", "--gate", gate)
        assert report["kinds"]["restored"] == 1
        assert report["anchored"] == report["entries"]
    assert moat.error("revoke", "worker", code=DENIED)["code"] == "stale"


def test_a_folder_is_replaced_only_when_asked_and_is_kept(moat: Cli, file: Path) -> None:
    moat("backup", file)
    moat("revoke", "worker")
    assert "--replace" in moat.error("restore", "--from", file, code=ERROR)["message"]
    told = moat("restore", "--from", file, "--replace").stdout
    assert "2 statements that came after" not in told
    assert "1 statements" in told
    (kept,) = moat.state.parent.glob("state.before-*")
    assert (kept / "config.json").is_file()
    with Moat.open(moat.state) as opened:
        assert opened.is_revoked(opened.identity("worker"))
    with Moat.open(moat.state, gate="second") as opened:
        assert opened.is_revoked(opened.identity("worker"))


def test_what_the_owner_must_say_again_is_printed_as_commands(moat: Cli, file: Path) -> None:
    """Nobody here can: the root's key is kept elsewhere, and the log that is replaced is broken."""
    moat("agent", "register", "worker")
    moat("backup", file)
    moat("identity", "new", "worker2")
    moat("agent", "rotate", "worker", "--from", "worker", "--to", "worker2", "--gate", "main")
    (segment,) = (moat.state / "gates" / "main" / "log" / "seg").iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"open"', b'"opem"'))
    done = moat.json("restore", "--from", file, "--replace")
    main, second = done["gates"]
    assert main["unread"]
    assert main["lost"][0]["next"] == "moat agent register worker --gate main"
    assert second["unread"] is None
    assert second["lost"] == []
    again = file.with_name("again.tar")
    moat("backup", again)
    (segment,) = (moat.state / "gates" / "main" / "log" / "seg").iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"open"', b'"opem"'))
    assert (
        "what came after the backup is not known"
        in moat("restore", "--from", again, "--replace").stdout
    )


def test_a_backup_without_keys_needs_the_folder_that_has_them(moat: Cli, file: Path) -> None:
    moat("backup", file, "--no-keys")
    assert b"PRIVATE KEY" not in file.read_bytes()
    other = Cli(moat.state.parent / "other")
    found = other.error("restore", "--from", file, code=ERROR)
    assert "no secret key of gate `main`" in found["message"]
    assert not other.state.exists()
    moat("restore", "--from", file, "--replace")
    assert moat.did("worker")
    moat.json("audit", "checkpoint")


def test_a_target_or_a_backup_and_never_both(moat: Cli, file: Path) -> None:
    moat("backup", file)
    for args in (
        [],
        ["worker", "--from", file],
        ["worker", "--replace"],
        ["--from", file, "--gate", "main"],
    ):
        moat.error("restore", *args, code=USAGE)
    moat("revoke", "worker")
    moat("restore", "worker")


def test_a_bad_backup_is_exit_code_4(moat: Cli, file: Path) -> None:
    file.write_bytes(b"no backup")
    file.chmod(0o600)
    assert moat.error("restore", "--from", file, "--replace", code=INVALID)["code"] == "malformed"


def test_a_running_gate_is_not_replaced(moat: Cli, file: Path) -> None:
    moat("backup", file)
    with Moat.open(moat.state, gate="second"):
        found = moat.error("restore", "--from", file, "--replace", code=ERROR)
    assert found["code"] == "gate_busy"


def test_a_log_behind_its_anchor_is_accepted_by_command(moat: Cli, tmp_path: Path) -> None:
    shutil.copytree(moat.state, tmp_path / "copy")
    moat("revoke", "worker")
    shutil.rmtree(moat.state)
    (tmp_path / "copy").rename(moat.state)
    refused = moat.error("audit", "verify", code=INVALID)
    assert refused["code"] == "rolled_back"
    assert "moat restore --from" in refused["next"]
    assert "moat audit accept" in refused["next"]
    assert moat.error("audit", "accept", code=ERROR)["code"] == "not_confirmed"
    moat.error("audit", "verify", code=INVALID)
    anchor = anchor_path(AgentId(moat.did("main")))
    os.utime(anchor, (1 << 32, 1 << 32))
    assert moat.error("audit", "accept", "--yes", code=ERROR)["code"] == "clock_behind"
    os.utime(anchor)
    told = moat("audit", "accept", "--yes").stdout
    assert "revoke again" in told
    assert moat.json("audit", "verify")["kinds"]["restored"] == 1
    assert moat.json("audit", "accept")["accepted"] is False
    assert "nothing to accept" in moat("audit", "accept").stdout


def test_long_work_shows_how_far_it_is(
    moat: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bars.copying(quiet=True) as progress:
        assert progress is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with bars.copying(quiet=False) as progress:
        assert progress is not None
        progress("writing", 1, 2)
    seen = []
    with Moat.open(moat.state) as opened:
        opened.backup(file, progress=lambda *at: seen.append(at))
    assert {part for part, _, _ in seen} == {"writing", "verifying main", "verifying second"}
    assert all(done <= total for _, done, total in seen)


def test_backups_hold_together_while_the_log_goes_on_in_new_files(
    moat: Cli, tmp_path: Path
) -> None:
    """One thread writes as fast as it can; every copy verifies, or it would not be there."""
    stop = threading.Event()
    with Moat.open(moat.state, segment_bytes=1 << 12) as running:
        worker = running.identity("worker")

        def write() -> None:
            while not stop.is_set():
                running.suspend(worker)
                running.resume(worker)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            sizes = [
                moat.json("backup", tmp_path / f"{n}.tar", "--gate", "main")["gates"][0]["entries"]
                for n in range(8)
            ]
        finally:
            stop.set()
            writer.join()
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert len(list(moat.state.glob("gates/main/log/seg/*"))) > 1
