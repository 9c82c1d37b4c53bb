"""Backends of secrets: a real age file, a real keyring and a real OpenBao server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import vault_kit
from moat.backends import AgeFile, Keyring, Vault
from moat.errors import MalformedInput, MoatError
from moat.secrets import Writable
from secret_kit import canary
from tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def age(tmp_path: Path) -> AgeFile:
    pytest.importorskip("pyrage")
    return AgeFile.create(tmp_path / "values.age", identity=tmp_path / "id" / "age.key")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    pytest.importorskip("hvac")
    folder = tmp_path_factory.mktemp("vault")
    with vault_kit.server(folder) as address:
        yield address, folder / "token"


def exercise(backend: Writable) -> None:
    """What every backend that can be written does."""
    for value in (canary(), "ü\n\"'\\ 0", "x" * 8000):
        backend.set("a/name", value)
        assert backend.get("a/name") == value
    backend.set("other", "stays")
    backend.remove("a/name")
    backend.remove("a/name")
    with pytest.raises(LookupError):
        backend.get("a/name")
    assert backend.get("other") == "stays"


def test_an_age_file_keeps_values(age: AgeFile) -> None:
    exercise(age)


def test_an_age_file_holds_no_value_in_the_clear(age: AgeFile, tmp_path: Path) -> None:
    value = canary()
    age.set("github", value)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600
            assert value.encode() not in path.read_bytes()
            assert b"github" not in path.read_bytes()


def test_making_an_age_file_again_loses_nothing(age: AgeFile, tmp_path: Path) -> None:
    age.set("github", "kept")
    again = AgeFile.create(tmp_path / "values.age", identity=tmp_path / "id" / "age.key")
    assert again.get("github") == "kept"


def test_an_age_file_opens_with_its_own_identity_alone(age: AgeFile, tmp_path: Path) -> None:
    age.set("github", "value")
    other = AgeFile.create(tmp_path / "other.age", identity=tmp_path / "other.key")
    with pytest.raises(MoatError, match="does not open"):
        AgeFile(tmp_path / "values.age", identity=tmp_path / "other.key").get("github")
    with pytest.raises(LookupError):
        other.get("github")


def test_an_age_file_that_was_changed_does_not_open(age: AgeFile, tmp_path: Path) -> None:
    age.set("github", "value")
    file = tmp_path / "values.age"
    sealed = bytearray(file.read_bytes())
    for at in range(0, len(sealed), 17):
        file.write_bytes(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(MoatError, match="does not open"):
            age.get("github")


def test_threads_that_write_to_an_age_file_lose_nothing(age: AgeFile) -> None:
    threads = [threading.Thread(target=age.set, args=(f"n{n}", f"v{n}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [age.get(f"n{n}") for n in range(16)] == [f"v{n}" for n in range(16)]


def test_an_identity_that_others_can_read_is_refused(age: AgeFile, tmp_path: Path) -> None:
    age.set("github", "value")
    (tmp_path / "id" / "age.key").chmod(0o640)
    with pytest.raises(MoatError, match="open to other users"):
        age.get("github")


def test_a_vault_keeps_values(vault: tuple[str, Path]) -> None:
    url, token = vault
    exercise(Vault(url, token_file=token))


def test_a_vault_is_asked_each_time(vault: tuple[str, Path]) -> None:
    url, token = vault
    one, other = Vault(url, token_file=token), Vault(url, token_file=token)
    one.set("shared", "first")
    assert other.get("shared") == "first"
    one.set("shared", "second")
    assert other.get("shared") == "second"


def test_a_wrong_token_opens_nothing_and_is_not_told(
    vault: tuple[str, Path], tmp_path: Path
) -> None:
    hvac, (url, _) = pytest.importorskip("hvac"), vault
    token = tmp_path / "token"
    token.write_text(value := canary())
    token.chmod(0o600)
    with pytest.raises(hvac.exceptions.Forbidden) as caught:
        Vault(url, token_file=token).get("shared")
    assert value not in f"{caught.value}{caught.value!r}"


def test_proxies_of_the_environment_are_not_used(
    vault: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, token = vault
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "VAULT_ADDR", "VAULT_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    exercise(Vault(url, token_file=token))


@pytest.mark.parametrize(
    "url",
    ["http://vault.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "vault.example", "",
     "https://user:pass@vault.example", "https://vault.example/?a=b"],
)  # fmt: skip
def test_a_vault_that_others_can_listen_to_is_refused(url: str, tmp_path: Path) -> None:
    pytest.importorskip("hvac")
    with pytest.raises(MalformedInput):
        Vault(url, token_file=tmp_path / "token")


@pytest.mark.parametrize("name", ["..", "a/../b", "", "a//b", "./a"])
def test_a_name_does_not_leave_its_folder_in_a_vault(name: str, vault: tuple[str, Path]) -> None:
    url, token = vault
    with pytest.raises(MalformedInput):
        Vault(url, token_file=token).get(name)


IN_A_SESSION = """
import sys
from moat.backends import Keyring
ring = Keyring("moat-tests")
ring.set("a/name", "value"); assert ring.get("a/name") == "value"
ring.set("a/name", "other"); assert Keyring("moat-tests").get("a/name") == "other"
ring.remove("a/name"); ring.remove("a/name")
try:
    ring.get("a/name")
except LookupError:
    print("kept and forgotten")
"""


def test_a_keyring_of_the_system_keeps_values(tmp_path: Path) -> None:
    pytest.importorskip("keyring")
    need("gnome-keyring-daemon")
    script = "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null; exec "
    command = [need("dbus-run-session"), "--", "sh", "-c", script + '"$@"', "sh"]
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"],
           "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    ran = subprocess.run(
        [*command, sys.executable, "-c", IN_A_SESSION], env=env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    if "org.freedesktop.DBus" in ran.stderr and ran.returncode != 0:
        missing(f"no session bus here: {ran.stderr}")
    assert (ran.stdout, ran.returncode) == ("kept and forgotten\n", 0), ran.stderr


def test_a_keyring_that_keeps_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backends import fail, null

    for unfit in (fail.Keyring(), null.Keyring(), type("PlaintextKeyring", (), {})()):
        monkeypatch.setattr(keyring, "get_keyring", lambda unfit=unfit: unfit)
        with pytest.raises(MoatError, match="keeps a secret"):
            Keyring()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("keyring", "pyrage", "hvac"):
        monkeypatch.setitem(sys.modules, module, None)
    makers = {
        "keyring": Keyring,
        "age": lambda: AgeFile(tmp_path / "a", identity=tmp_path / "b"),
        "vault": lambda: Vault("https://vault.example", token_file=tmp_path / "t"),
    }
    for extra, make in makers.items():
        with pytest.raises(MoatError, match=rf"pip install 'moat\[{extra}\]'"):
            make()


def test_reprs_show_no_value(age: AgeFile, tmp_path: Path) -> None:
    value = canary()
    age.set("github", value)
    assert value not in repr(age) + str(age)
    assert json.dumps(repr(age))
