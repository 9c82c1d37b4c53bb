"""Code that is given a directory with the gate's own keys or log in it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

import forge
from guests.build import c, wat
from moat import Grant, KeysExposed, Limits, Moat, Sandbox, SandboxOutcome, Session
from moat._native import Module
from moat._tree import tree
from threats.world import ROOT, WORKER, World


@pytest.fixture
def moat(tmp_path: Path):
    """A state folder with an agent, and a desk beside it and one inside."""
    with Moat.open(tmp_path.resolve() / "state", anchor=None) as made:
        made.identity("worker", create=True)
        (tmp_path / "state" / "desk").mkdir()
        (tmp_path / "desk").mkdir()
        (tmp_path / "desk" / "note").write_text("note\n")
        yield made


def limits(*, read: tuple[Path, ...] = (), write: tuple[Path, ...] = ()) -> Limits:
    return Limits.standard().replace(read=[*map(tree, read)], write=[*map(tree, write)])


def session(moat: Moat, allowed: Limits) -> Session:
    """Start work under these limits, as an orchestrator does."""
    worker = moat.identity("worker")
    token = moat.issue(
        holder=worker.id,
        allow=[Grant("code://files", {"run"})],
        limits=allowed,
        expires_in=timedelta(hours=1),
    )
    return moat.session(worker, token)


def run(moat: Moat, allowed: Limits, *argv: str) -> SandboxOutcome:
    """Run the guest ``files``."""
    return session(moat, allowed).run(Sandbox(c("files")), resource="code://files", argv=argv)


def kinds(moat: Moat) -> list[str]:
    return [str(line["kind"]) for line in moat.audit.entries()]


@pytest.mark.parametrize("axis", ["read", "write"])
@pytest.mark.parametrize(
    "place",
    ["..", ".", "keys", "gates", "gates/main", "gates/main/key", "gates/main/log", "control",
     "keys/not/there", "cache", "cache/code", "/"],
)  # fmt: skip
def test_a_token_over_the_state_folder(moat: Moat, tmp_path: Path, place: str, axis: str) -> None:
    """Its keys are no code's to read, nor its log and who is trusted any code's to write."""
    reached = Path(os.path.normpath(tmp_path.resolve() / "state" / place))
    pem = str(tmp_path.resolve() / "state" / "keys" / "root.pem")
    before = kinds(moat)
    with pytest.raises(KeysExposed, match="are not apart"):
        run(moat, limits(**{axis: (reached,)}), "read", pem)
    grown = kinds(moat)[len(before) :]
    assert "outcome" not in grown, "the permit was opened"


def test_a_directory_apart_from_it_is_given(moat: Moat, tmp_path: Path) -> None:
    """Beside the state folder, and in it beside the keys."""
    home = tmp_path.resolve()
    given = limits(read=(home / "desk", home / "state" / "desk"))
    assert run(moat, given, "read", str(home / "desk" / "note")).check().stdout == b"note\n"


def test_one_directory_of_many_is_enough(moat: Moat, tmp_path: Path) -> None:
    home = tmp_path.resolve()
    with pytest.raises(KeysExposed):
        run(moat, limits(read=(home / "desk",), write=(home / "state" / "keys",)), "read", "x")


@pytest.mark.parametrize("place", ["alias", "alias/keys", "short"])
def test_a_state_folder_by_another_name(moat: Moat, tmp_path: Path, place: str) -> None:
    """A symbolic link in the token's path, to the folder or into it."""
    home = tmp_path.resolve()
    (home / "alias").symlink_to(home / "state")
    (home / "short").symlink_to(home / "state" / "keys")
    with pytest.raises(KeysExposed):
        run(moat, limits(read=(home / place,)), "read", str(home / place / "root.pem"))


def test_a_state_folder_that_was_opened_by_another_name(tmp_path: Path) -> None:
    """The link is in the path that the folder was opened by, and the token names the real one."""
    home = tmp_path.resolve()
    (home / "real").mkdir()
    (home / "state").symlink_to(home / "real")
    with Moat.open(home / "state", anchor=None) as moat:
        moat.identity("worker", create=True)
        with pytest.raises(KeysExposed):
            run(moat, limits(read=(home / "real" / "keys",)), "read", "x")


def test_a_state_folder_opened_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process goes elsewhere afterwards; what was meant stays meant."""
    home = tmp_path.resolve()
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home)
    with Moat.open("state", anchor=None) as moat:
        moat.identity("worker", create=True)
        begun = session(moat, limits(read=(home / "state",)))
        monkeypatch.chdir(home / "elsewhere")
        with pytest.raises(KeysExposed):
            begun.run(Sandbox(c("files")), resource="code://files")


def test_a_gate_without_a_state_folder_keeps_its_log(world: World) -> None:
    """Whoever holds the permit: a log is no guest's, and the permit stays unopened and good."""
    log = world.folder.resolve()
    axes = {"fuel": 10**6, "memory": 1 << 20, "time": 10_000, "output": 100}
    for reached in (log, log / "seg", log.parent):
        for axis in ("read", "write"):
            trees = {"read": (), "write": ()} | {axis: (f"file://{reached}/**",)}
            permit = world.allow(world.ask(forge.first(ROOT, WORKER, **trees, **axes)))
            with world.growing_by(), pytest.raises(KeysExposed):
                Module(wat("empty")).run(permit)
            with world.growing_by("outcome"), permit:
                pass


def test_a_gate_that_was_told_of_further_folders(world: World, tmp_path: Path) -> None:
    (vault := tmp_path.resolve() / "vault").mkdir()
    axes = {"fuel": 10**6, "memory": 1 << 20, "time": 10_000, "output": 100}
    chain = forge.first(ROOT, WORKER, read=(f"file://{vault}/**",), write=(), **axes)
    assert Module(wat("empty")).run(world.allow(world.ask(chain))).status == "ok"
    world.gate.protect([vault])
    with pytest.raises(KeysExposed):
        Module(wat("empty")).run(world.allow(world.ask(chain)))
    world.gate.protect([])
    with pytest.raises(KeysExposed):
        Module(wat("empty")).run(world.allow(world.ask(chain)))
