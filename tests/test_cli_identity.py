"""`moat identity import`, and public keys as OpenSSH writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import forge
from cli_kit import ERROR, USAGE, Cli, fresh
from moat import AgentId, Token, _openssh
from moat.keystore import KeyStore
from test_openssh import KEY, REFUSED, SEED_ONLY, openssh


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner."""
    return fresh(tmp_path, "planner")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key of `ssh-keygen`, closed to others."""
    path = tmp_path / "id_ed25519"
    path.write_bytes(openssh())
    path.chmod(0o600)
    return path


def test_an_imported_key_is_an_identity_like_any_other(moat: Cli, file: Path) -> None:
    made = moat.json("identity", "import", "scribe", file)
    assert set(made) == {"name", "id", "path", "warning"}
    assert made["id"] == str(AgentId.from_bytes(KEY.public)) == moat.did("scribe")
    assert made["warning"] is None
    assert Path(made["path"]).read_text() == KEY.pem()
    assert Path(made["path"]).stat().st_mode & 0o777 == 0o600
    text = moat(
        "token", "issue", "--to", "scribe", "--expires", "1h", "--depth", "1",
        "--allow", "tool://x call",
    ).stdout.strip()  # fmt: skip
    narrowed = moat.json("token", "attenuate", text, "--to", "planner")["token"]
    moat.json("token", "verify", narrowed)
    assert bytes(Token.parse(narrowed).links[1].issuer) == KEY.public


def test_a_key_comes_from_standard_input_too(moat: Cli) -> None:
    told = moat("identity", "import", "scribe", "-", input=KEY.pem().encode())
    assert moat.did("scribe") in told.stdout
    assert told.stderr == ""


def test_a_file_that_others_may_open_is_taken_with_a_warning(moat: Cli, file: Path) -> None:
    file.chmod(0o640)
    told = moat("identity", "import", "scribe", file)
    assert told.stderr.startswith("warning: other users may open")
    other = file.with_name("other")
    other.write_text(forge.key("other").pem())
    other.chmod(0o604)
    assert "chmod go-rwx" in moat.json("identity", "import", "other", other)["warning"]


def test_a_taken_name_is_refused_before_the_file_is_opened(moat: Cli, tmp_path: Path) -> None:
    before = moat.did("planner")
    asked = "identity", "import", "planner", tmp_path / "nowhere"
    assert moat.error(*asked, code=ERROR)["code"] == "exists"
    assert moat.did("planner") == before


def test_a_key_has_one_name_and_a_gate_s_key_is_no_agent_s(moat: Cli, file: Path) -> None:
    moat("identity", "import", "scribe", file)
    found = moat.error("identity", "import", "again", file, code=ERROR)
    assert found["code"] == "exists"
    assert "`scribe`" in found["message"]
    gate = moat.state / "gates" / "main" / "key" / "main.pem"
    found = moat.error("identity", "import", "again", gate, code=ERROR)
    assert "`gate main`" in found["message"]
    assert KeyStore(moat.state / "keys").names() == ["planner", "root", "scribe"]


@pytest.mark.parametrize("case", REFUSED)
def test_no_refusal_shows_a_piece_of_the_key(moat: Cli, case: str) -> None:
    data, _ = REFUSED[case]
    for form in ((), ("--json",)):
        told = moat("identity", "import", "scribe", "-", *form, input=data, code=ERROR).output
        for secret in (KEY.seed.hex(), SEED_ONLY.decode(), repr(KEY.seed)):
            assert not any(secret[at : at + 8] in told for at in range(len(secret) - 8))
    assert "scribe" not in KeyStore(moat.state / "keys")


def test_what_is_no_small_file_is_refused(moat: Cli, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(openssh() + b"\n" * 16 * 1024)
    os.mkfifo(tmp_path / "pipe")
    for name, code in (
        ("large", "malformed"), ("pipe", "malformed"), (".", "malformed"), ("no", "os_error"),
    ):  # fmt: skip
        found = moat.error("identity", "import", "scribe", tmp_path / name, code=ERROR)
        assert found["code"] == code
    moat.error("identity", "import", "../up", tmp_path / "no", code=ERROR)
    moat.error("identity", "import", "scribe", code=USAGE)
    assert KeyStore(moat.state / "keys").names() == ["planner", "root"]


def test_import_needs_a_state_folder(tmp_path: Path, file: Path) -> None:
    found = Cli(tmp_path / "no").error("identity", "import", "scribe", file, code=ERROR)
    assert found["code"] == "no_state"


def test_show_gives_public_keys_as_openssh_writes_them(moat: Cli, file: Path) -> None:
    moat("identity", "import", "scribe", file)
    line = _openssh.public_line(AgentId(moat.did("scribe")), "scribe")
    assert moat("identity", "show", "scribe", "--openssh").stdout == line + "\n"
    shown = moat.json("identity", "show", "--openssh")["identities"]
    assert {one["name"]: one["openssh"] for one in shown}["scribe"] == line
    assert all(one["openssh"].startswith("ssh-ed25519 AAAA") for one in shown)
    assert "openssh" not in moat.json("identity", "show")["identities"][0]
