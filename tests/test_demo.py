"""`moat demo`: every scene goes as it must, for a person and for a machine."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from cli_kit import DEAD, ERROR, INVALID, READER, Cli
from guests import build
from moat import Identity, demo
from moat.demo import network
from moat.demo.server import DAY, certificate

if TYPE_CHECKING:
    from pathlib import Path

    from moat.demo.stage import Scene, Stage

EXPECTED = {
    "identities": "4 keys",
    "delegation": "3 links, each narrower",
    "work": "ok",
    "outside": "1 of 1 refused, 0 bytes read",
    "escape": "2 of 2 refused, 0 bytes read",
    "not_granted": "denied: not_granted",
    "widening": "refused: AttenuationViolation",
    "forged": "denied: widened",
    "stolen": "denied: wrong_holder",
    "replay": "allowed, then denied: replayed",
    "fuel": "out_of_fuel",
    "egress": "401, 1 request seen",
    "secret": "the server saw the key, the code its handle",
    "elsewhere": "3 of 3 refused, 0 requests seen",
    "revoked": "denied: revoked",
}


def test_every_scene_goes_as_it_must(tmp_path: Path) -> None:
    told = Cli(tmp_path).json("demo")
    assert set(told) == {"ok", "seconds", "state", "gate", "scenes"}
    scenes = {scene["name"]: scene for scene in told["scenes"]}
    assert [*scenes] == [*EXPECTED, "verified", "tampered"]
    assert {name: scenes[name]["happened"] for name in EXPECTED} == EXPECTED
    for scene in told["scenes"]:
        assert set(scene) == {
            "name", "title", "attempted", "expected", "happened", "ok", "reason", "entry",
            "detail", "output",
        }  # fmt: skip
        assert scene["ok"] is True, scene
        assert scene["happened"] == scene["expected"]
    assert told["ok"] is True
    assert told["state"] is None
    # What is counted only (a stranger, a replay) has no entry; every other answer has one.
    assert scenes["stolen"]["entry"] is None
    assert scenes["replay"]["entry"] is None
    assert scenes["tampered"]["entry"] == scenes["not_granted"]["entry"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("interpreters")
def test_an_agents_own_python_is_played_if_asked_for(tmp_path: Path) -> None:
    told = Cli(tmp_path).json("demo", "--code")
    (scene,) = [scene for scene in told["scenes"] if scene["name"] == "code"]
    assert told["ok"] is True
    assert (scene["happened"], scene["reason"]) == ("1 search made, 0 letters sent", "ok")
    found, refused = scene["output"]
    assert found.endswith("of the files know the word")
    assert int(found.split()[0]) > 0
    assert "no grant reaches `tool://mail/outbox`" in refused


def test_what_the_server_says_reaches_the_code_without_the_key(tmp_path: Path) -> None:
    told = Cli(tmp_path).json("demo")
    output = {scene["name"]: scene["output"] for scene in told["scenes"]}
    assert output["egress"] == ["who are you?"]
    assert output["secret"] == ["200", "welcome; you showed me `Bearer secret://notes`"]
    assert len(output["elsewhere"]) == 3
    assert all(line.endswith("refused: HTTP-request-denied") for line in output["elsewhere"])


def test_a_key_that_comes_through_to_the_code_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scene looks at what the code got, not at what should have happened."""
    shown = network._call

    def leaky(stage: Stage, scene: Scene, *argv: str) -> SimpleNamespace:
        outcome = shown(stage, scene, *argv)
        told = outcome.stdout.replace(b"secret://notes", stage.key.encode())
        return SimpleNamespace(stdout=told, stderr=outcome.stderr, status=outcome.status)

    monkeypatch.setattr(network, "_call", leaky)
    told = json.loads(Cli(tmp_path)("demo", "--json", code=ERROR).stdout)
    wrong = {scene["name"]: scene["happened"] for scene in told["scenes"] if not scene["ok"]}
    assert wrong == {"secret": "the code saw the key"}


def test_a_certificate_holds_for_its_host_and_its_days() -> None:
    """As another library reads it."""
    key = Identity.generate("server")
    made = x509.load_der_x509_certificate(certificate(key, "notes.example", 1_800_000_000))
    made.verify_directly_issued_by(made)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["notes.example"]
    assert made.not_valid_before_utc.timestamp() == 1_800_000_000 - DAY
    assert made.not_valid_after_utc.timestamp() == 1_800_000_000 + DAY
    assert made.public_key().public_bytes_raw() == bytes(key.id)  # type: ignore[union-attr]


def test_the_worker_reads_real_files(tmp_path: Path) -> None:
    desk = tmp_path / "mine"
    desk.mkdir()
    (desk / "list.txt").write_text("milk\nflour and milk\neggs\n")
    told = Cli(tmp_path).json("demo", "--read", desk, "--find", "milk")
    work = next(scene for scene in told["scenes"] if scene["name"] == "work")
    assert "  line 2: flour and milk" in work["output"]
    assert told["ok"] is True


def test_what_is_kept_goes_on_with_the_other_commands(tmp_path: Path) -> None:
    kept = Cli(tmp_path / "kept")
    told = kept("demo", "--state", kept.state).stdout
    assert "17 of 17" in told
    gate = kept.json("identity", "show", "main")["identities"][0]["id"]
    asked = ["audit", "verify", "--log", kept.state / "edited-log", "--key", gate]
    assert kept.error(*asked, code=INVALID)["code"] == "chain_broken"
    assert kept.json("audit", "verify")["ok"] is True
    denied = [one["kind"] for one in kept.json("audit", "show", "--denied")["entries"]]
    assert (denied.count("decision"), denied.count("request")) == (3, 3)
    worker = kept.state / "tokens" / "worker.token"
    assert len(kept.json("token", "inspect", worker)["links"]) == 3
    assert kept.error("token", "verify", worker, code=DEAD)["code"] == "revoked"
    # Every command that the demo names at its end does what it says.
    named = [line.split()[1:] for line in told.splitlines() if line.startswith("  moat ")]
    ends = [0, 0, INVALID, 0, DEAD, 0]
    for words, code in zip(named, ends, strict=True):
        kept(*words, code=code)
    assert kept.json("token", "verify", worker)["valid"] is True


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("x")
    found = Cli(tmp_path).error("demo", "--state", tmp_path / "used", code=ERROR)
    assert "not empty" in found["message"]
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine.txt"]


def test_the_worker_is_not_let_into_the_demos_own_state_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    asked = ("demo", "--state", tmp_path / "kept", "--read")
    assert "keys" in Cli(tmp_path).error(*asked, tmp_path, code=ERROR)["message"]
    assert "no files" in Cli(tmp_path).error(*asked, tmp_path / "mine", code=ERROR)["message"]
    assert not (tmp_path / "kept").exists()


def test_the_workers_code_is_what_its_source_gives() -> None:
    rebuilt = build.c("reader", READER.parent)
    assert READER.stat().st_size <= 40_000
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True)
    if "14.0.6" not in version.stdout:
        pytest.skip("another clang than the one that reader.c names makes other bytes")
    assert rebuilt == READER.read_bytes()


def test_it_is_told_in_plain_text_when_piped(tmp_path: Path) -> None:
    told = Cli(tmp_path)("demo").stdout
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= 100
    assert "✗" not in told


def test_a_scene_that_does_not_go_as_it_must_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(stage: Stage, scene: Scene) -> None:
        scene.expected = "denied: revoked"
        stage.ask(scene, stage.seal("worker", stage.tokens["worker"], "call", "tool://search/web"))

    scenes = tuple(
        (name, title, careless if name == "revoked" else play) for name, title, play in demo.SCENES
    )
    monkeypatch.setattr(demo, "SCENES", scenes)
    result = Cli(tmp_path)("demo", "--json", code=ERROR)
    told = json.loads(result.stdout)
    assert told["ok"] is False
    assert [scene["name"] for scene in told["scenes"] if not scene["ok"]] == ["revoked"]
    assert "expected denied: revoked" in Cli(tmp_path)("demo", code=ERROR).stdout
