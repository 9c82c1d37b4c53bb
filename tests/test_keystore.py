"""Keys are kept in files that only their owner can read, written whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization

from cast import WORKER, identity
from moat import MalformedInput, MoatError, _files
from moat.keystore import KeyStore


@pytest.fixture
def keys(tmp_path):
    return KeyStore(tmp_path / "keys")


@pytest.fixture
def pem(keys, tmp_path):
    """The file of a saved secret."""
    keys.save(WORKER)
    return tmp_path / "keys" / "worker.pem"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_saved_identity_is_loaded_again(keys):
    made = keys.create("planner")
    assert keys.load("planner") == made
    assert keys.public("planner") == made.id
    assert keys.names() == ["planner"]
    assert "planner" in keys
    assert "worker" not in keys


def test_two_created_identities_differ(keys):
    assert keys.create("a").id != keys.create("b").id


def test_directory_and_secret_are_closed_to_others(pem):
    old = os.umask(0)
    try:
        KeyStore(pem.parent.parent / "open" / "keys").save(WORKER)
    finally:
        os.umask(old)
    for folder in (pem.parent, pem.parent.parent / "open", pem.parent.parent / "open" / "keys"):
        assert mode(folder) == 0o700
    assert mode(pem) == mode(pem.parent.parent / "open" / "keys" / "worker.pem") == 0o600


def test_the_secret_is_a_pkcs8_key_that_others_read(pem):
    key = serialization.load_pem_private_key(pem.read_bytes(), password=None)
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    assert key.public_key().public_bytes(*raw) == bytes(WORKER.id)


def test_the_public_part_is_one_line(keys, pem):
    assert pem.with_suffix(".pub").read_text() == f"{WORKER.id}\n"
    pem.unlink()
    assert keys.public("worker") == WORKER.id


def test_the_public_part_is_found_in_the_secret_when_its_file_is_missing(keys, pem):
    pem.with_suffix(".pub").unlink()
    assert keys.public("worker") == WORKER.id


def test_a_taken_name_is_not_overwritten_unless_asked(keys, pem):
    before = pem.read_bytes()
    other = identity("another")
    other = type(other).from_pem("worker", other.to_pem())
    with pytest.raises(MoatError, match="there is a key `worker` already"):
        keys.save(other)
    assert pem.read_bytes() == before
    assert keys.public("worker") == WORKER.id
    keys.save(other, overwrite=True)
    assert keys.load("worker") == other
    assert keys.public("worker") == other.id


def test_a_missing_key_says_so(keys):
    with pytest.raises(MoatError, match="there is no key `nobody`"):
        keys.load("nobody")
    assert keys.names() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../worker", "a/b", "A", "a\0", "-x", "x" * 64])
def test_a_name_cannot_leave_the_directory(keys, pem, name):
    for use in (keys.load, keys.public, keys.create, keys.__contains__):
        with pytest.raises(MalformedInput, match="is not a name"):
            use(name)


@pytest.mark.parametrize("bits", [0o040, 0o004, 0o020, 0o002, 0o010])
def test_a_secret_open_to_others_is_refused(keys, pem, bits):
    pem.chmod(0o600 | bits)
    with pytest.raises(MoatError, match=r"worker.pem` is open to other users.*chmod go-rwx"):
        keys.load("worker")


def test_a_directory_open_to_others_is_refused(keys, pem):
    pem.parent.chmod(0o750)
    for use in (lambda: keys.load("worker"), lambda: keys.create("new")):
        with pytest.raises(MoatError, match="keys` is open to other users"):
            use()


def test_a_public_part_that_others_can_write_is_refused(keys, pem):
    pem.with_suffix(".pub").chmod(0o666)
    with pytest.raises(MoatError, match="chmod go-w"):
        keys.public("worker")


def test_a_file_of_another_user_is_refused(keys, pem, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(MoatError, match="belongs to another user"):
        keys.load("worker")


@pytest.mark.parametrize("suffix", [".pem", ".pub"])
def test_a_symbolic_link_is_neither_read_nor_written_through(keys, pem, tmp_path, suffix):
    there = tmp_path / "elsewhere"
    link = pem.with_suffix(suffix)
    link.rename(there)
    link.symlink_to(there)
    before = there.read_bytes()
    with pytest.raises(MoatError, match="symbolic link"):
        keys.load("worker") if suffix == ".pem" else keys.public("worker")
    with pytest.raises(MoatError, match="symbolic link"):
        keys.save(WORKER, overwrite=True)
    assert there.read_bytes() == before


def test_a_fifo_is_refused_and_not_waited_for(keys, pem):
    pem.unlink()
    os.mkfifo(pem, 0o600)
    with pytest.raises(MoatError, match="not a regular file"):
        keys.load("worker")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_malformed(keys, pem, data):
    pem.write_bytes(data)
    with pytest.raises(MalformedInput):
        keys.load("worker")


def test_a_huge_file_is_refused(keys, pem):
    pem.write_bytes(b"x" * (_files.MAX_BYTES + 1))
    with pytest.raises(MoatError, match="larger than"):
        keys.load("worker")


def test_a_failed_write_leaves_the_old_key_and_no_draft(keys, pem, monkeypatch):
    def fail(_fd):
        raise OSError(5, "input/output error")

    before = pem.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output error"):
        keys.save(identity("worker"), overwrite=True)
    assert pem.read_bytes() == before
    assert sorted(path.name for path in pem.parent.iterdir()) == ["worker.pem", "worker.pub"]


def test_no_secret_is_shown(keys, pem):
    secret = pem.read_text().splitlines()[1]
    assert secret not in repr(keys.load("worker"))
    assert secret not in pem.with_suffix(".pub").read_text()
