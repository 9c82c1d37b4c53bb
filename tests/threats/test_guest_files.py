"""A tree that a guest may write, and the files in it that somebody's program runs by itself.

Every test sets a module (WASI Preview 1) and a component (WASI 0.2) on it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

import forge
from guests.build import c, wat
from guests.wheels import PYTHON
from moat import MoatError, Permit, Sandbox, files
from threats.test_files import EXTERNAL, meanwhile
from threats.test_guest_real import SCRIPTS, everything, run
from threats.world import ROOT, WORKER, World

LIMITS = {"fuel": 10**11, "memory": 64 << 20, "time": 300_000, "output": 1 << 20}
ROUNDS = 10_000
READ, WRITE, CREATE, TRUNCATE, DONE = 1, 2, 1, 8, 255


@dataclass
class Guest:
    """One kind of guest, over a tree that it may read and write."""

    world: World
    kind: str
    tree: Path
    write: tuple[Path, ...] | None = None
    asked: int = 0

    def tries(self, what: str, *paths: str) -> bool:
        """Whether it was done: ``make``, ``cut``, ``touch`` … with paths below the tree."""
        ask = self.module if self.kind == "module" else self.component
        return ask(what, *paths)

    def module(self, what: str, *paths: str) -> bool:
        below = [path if path in {"", "x"} else f"{self.tree}/{path}" for path in paths]
        outcome = Sandbox(c("files")).run(self.permit(), args=[what, *below])
        assert outcome.status in {"ok", "exit"}, outcome
        return outcome.status == "ok"

    def component(self, what: str, *paths: str) -> bool:
        opens = {"make": (CREATE | TRUNCATE, WRITE), "append": (0, WRITE), "cut": (TRUNCATE, READ)}
        if what in opens:
            args: tuple[object, ...] = ("open", *paths, True, *opens[what])
        elif what == "touch":
            args = ("touch", *paths, True)
        else:
            args = (what, *paths)
        outcome = Sandbox(wat("paths")).call(self.permit(), str(args[0]), args[1:])
        assert isinstance(outcome.check().result, int)
        return outcome.result == DONE

    def permit(self) -> Permit:
        read = (f"file://{self.tree}/**",)
        write = read if self.write is None else [f"file://{tree}/**" for tree in self.write]
        chain = forge.first(ROOT, WORKER, hosts=(), read=read, write=write, **LIMITS)
        self.asked += 1
        return self.world.allow(self.world.ask(chain, stream=bytes(16), number=self.asked))


@pytest.fixture(params=["module", "component"])
def guest(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> Guest:
    tree = tmp_path.resolve() / "repo"
    for folder in (".git/hooks", ".github/workflows", ".config/fish", "sub/.husky", "empty/.ssh"):
        (tree / folder).mkdir(parents=True)
    for file in CONTROL:
        (tree / file).write_text("ours\n")
    (tree / "note").write_text("note\n")
    (tree / "sub" / "deep").write_text("deep\n")
    return Guest(world, request.param, tree)


CONTROL = [
    ".git/hooks/pre-commit", ".bashrc", ".mcp.json", ".github/workflows/ci.yml",
    ".config/fish/config.fish", "sub/.husky/pre-push", "sub/CLAUDE.md", "lib.pth",
]  # fmt: skip
NEW = [
    ".git/hooks/post-merge", ".git/new", ".zshrc", "sub/.envrc", "sub/.vscode", ".HUSKY",
    ".Bashrc.", "sub/../.git/x", "sub/.././.git//hooks/x", "./.gitconfig",
    ".github/workflows/x.yml", ".config/git", "empty/.ssh/authorized_keys", "sub/x.PTH",
    ".git/hooks/../x",
]  # fmt: skip


@pytest.mark.parametrize("path", CONTROL)
def test_a_guest_changes_nothing_that_runs_by_itself(guest: Guest, path: str) -> None:
    before = everything(guest.tree)
    for what in ("make", "append", "cut", "unlink", "touch", "touch-open"):
        assert not guest.tries(what, path), what
    for what in ("rename", "link"):
        assert not guest.tries(what, path, "got"), what
        assert not guest.tries(what, "note", path), what
    assert everything(guest.tree) == before


@pytest.mark.parametrize("path", NEW)
def test_a_guest_makes_nothing_that_runs_by_itself(guest: Guest, path: str) -> None:
    before = everything(guest.tree)
    for what in ("make", "mkdir"):
        assert not guest.tries(what, path), what
    for what in ("rename", "link"):
        assert not guest.tries(what, "note", path), what
    assert not guest.tries("rename", "sub", path)
    assert everything(guest.tree) == before


def test_a_folder_of_what_runs_is_neither_removed_nor_moved(guest: Guest) -> None:
    before = everything(guest.tree)
    for folder in (".git", ".git/hooks", ".github/workflows", ".config/fish", "empty/.ssh"):
        assert not guest.tries("rmdir", folder), folder
        assert not guest.tries("rename", folder, "moved"), folder
        assert not guest.tries("touch", folder), folder
    assert everything(guest.tree) == before


def test_a_link_of_the_hosts_is_no_way_to_what_runs(guest: Guest) -> None:
    (guest.tree / "h").symlink_to(".git/hooks")
    (guest.tree / "f").symlink_to(".bashrc")
    (guest.tree / "sub" / "up").symlink_to("..")
    (guest.tree / "fine").symlink_to("sub")
    before = everything(guest.tree)
    for path in ("h/new", "h/pre-commit", "f", "sub/up/.bashrc", "sub/up/.git/new", "fine/new"):
        for what in ("make", "append", "cut", "mkdir", "touch"):
            assert not guest.tries(what, path), (what, path)
        for what in ("rename", "link"):
            assert not guest.tries(what, "note", f"{path}/x"), (what, path)
    for path in ("h/pre-commit", "sub/up/.bashrc"):
        assert not guest.tries("unlink", path)
        assert not guest.tries("rename", path, "got")
        assert not guest.tries("link", path, "got")
    # A directory that was opened through the link is known by where it is.
    assert not guest.tries("moved", "h", "", "", "x")
    assert everything(guest.tree) == before


def test_a_folder_that_is_held_or_filled_gets_no_such_name(guest: Guest) -> None:
    for folder in ("made/hooks", "made/fish", "made/workflows", "made/sub"):
        (guest.tree / folder).mkdir(parents=True)
    before = everything(guest.tree)
    for held, to in [
        ("made/hooks", ".hg"), ("made/hooks", "empty/.git"), ("made/fish", "sub/.config"),
        ("made/workflows", "sub/.GITHUB"), ("made/sub", "sub/.vscode"),
    ]:  # fmt: skip
        assert not guest.tries("moved", held, "made", to, "x"), to
    # Nor does what has a meaning by its place lose it, to get it back with another content.
    assert not guest.tries("rename", ".config", "made/config")
    assert not guest.tries("rename", ".github", "made/github")
    assert everything(guest.tree) == before
    # What is held goes on where it is moved to, if it is only data.
    assert guest.tries("moved", "made/sub", "made", "kept", "x")
    assert (guest.tree / "kept" / "sub" / "x").exists()


def test_another_name_of_a_file_is_no_way_to_write_it(guest: Guest) -> None:
    """Hard links that are there: to what runs by itself, and to a file outside the tree."""
    (outside := guest.tree.parent / "outside").write_text("outside\n")
    os.link(guest.tree / ".git/hooks/pre-commit", guest.tree / "alias")
    os.link(outside, guest.tree / "sub" / "alias")
    before = everything(guest.tree)
    for path in ("alias", "sub/alias"):
        for what in ("make", "append", "cut", "touch", "touch-open"):
            assert not guest.tries(what, path), (what, path)
    assert everything(guest.tree) == before
    assert outside.read_text() == "outside\n"


def test_a_link_of_the_hosts_stays_where_it_is(guest: Guest) -> None:
    """Moved up or down, it would lead elsewhere: out of the tree, for a host that follows it."""
    (guest.tree / "sub" / "sl").symlink_to("../note")
    before = everything(guest.tree)
    for what in ("rename", "link"):
        assert not guest.tries(what, "sub/sl", "sl"), what
    for what in ("make", "append", "cut", "touch"):
        assert not guest.tries(what, "sub/sl"), what
    assert not guest.tries("symlink", "../../../etc/hostname", "planted")
    assert everything(guest.tree) == before
    assert guest.tries("unlink", "sub/sl")
    assert (guest.tree / "note").read_text() == "note\n"


def test_a_tree_that_names_such_a_place_is_written(guest: Guest) -> None:
    hooks = guest.tree / ".git" / "hooks"
    guest.write, guest.tree = (hooks,), hooks
    assert guest.tries("make", "post-merge")
    assert guest.tries("cut", "pre-commit")
    assert not guest.tries("make", ".bashrc")
    assert (hooks / "post-merge").exists()


@pytest.mark.parametrize("path", ["note", "sub", "sub/deep", "new", ".bashrc", "inner", "sl"])
def test_a_tree_that_may_only_be_read_stays_as_it_is(guest: Guest, path: str) -> None:
    (guest.tree / "inner").symlink_to("sub/deep")
    (guest.tree / "sl").symlink_to("../../../etc/hostname")
    guest.write, before = (), everything(guest.tree)
    for what in ("make", "append", "cut", "unlink", "touch", "touch-open", "mkdir", "rmdir"):
        assert not guest.tries(what, path), what
    for what in ("rename", "link", "symlink"):
        assert not guest.tries(what, path, "got"), what
        assert not guest.tries(what, "note", path), what
    assert not guest.tries("moved", "sub", "", "", "x")
    assert everything(guest.tree) == before


def test_what_a_guest_planted_is_not_followed_by_who_collects(guest: Guest) -> None:
    """The guest cannot plant a link; one that is there all the same is not followed."""
    assert not guest.tries("symlink", "../../../etc/hostname", "sl")
    assert guest.tries("make", "out")
    (guest.tree / "sl").symlink_to("../../../etc/hostname")
    with guest.permit() as permit:
        found = set(files.walk(permit, guest.tree))
        assert str(guest.tree / "out") in found
        assert str(guest.tree / "sl") not in found
        with files.open(permit, guest.tree / "out") as file:
            assert file.read() == "new\n"[: 4 * (guest.kind == "module")]
        with pytest.raises(MoatError, match="symbolic link"):
            files.open(permit, guest.tree / "sl")


@pytest.mark.skipif(not EXTERNAL.is_dir(), reason="no ../shared/vectors beside the project")
def test_no_published_traversal_leads_a_guest_out(world: World, tmp_path: Path) -> None:
    """CPython, as it comes from others, tries each to read and to write, below and as it is."""
    home = tmp_path.resolve() / "a" / "b"
    (home / "tree").mkdir(parents=True)
    (home / "secret").write_text("outside\n")
    lists = EXTERNAL.resolve()
    trees = {"read": [home / "tree", lists, SCRIPTS], "write": [home / "tree"]}
    outside = {
        path: seen for path, seen in everything(tmp_path / "a").items() if "tree" not in path
    }
    told = run(
        world,
        PYTHON,
        SCRIPTS / "traverse.py",
        home / "tree",
        lists,
        fuel=10**12,
        time=120_000,
        **trees,
    ).check()
    assert told.stdout.decode() == "22582 paths, read [], left []\n"
    after = {path: seen for path, seen in everything(tmp_path / "a").items() if "tree" not in path}
    assert after == outside


def test_a_place_swapped_for_a_way_out_is_never_read(world: World, tmp_path: Path) -> None:
    """A host's thread swaps a folder for a link to the one outside, while a guest reads in it."""
    home = tmp_path.resolve()
    for folder, text in (("tree/d", "inside\n"), ("private", "secret\n")):
        (home / folder).mkdir(parents=True)
        (home / folder / "note").write_text(text)
    tree = home / "tree"
    (tree / "l").symlink_to("../private")

    def swap() -> None:
        for one, other in (("d", "aside"), ("l", "d"), ("d", "l"), ("aside", "d")):
            (tree / one).rename(tree / other)

    guest = Guest(world, "module", tree)
    with meanwhile(swap):
        permit = guest.permit()
        ended = Sandbox(c("files")).run(permit, args=["reads", f"{tree}/d/note", str(ROUNDS)])
    assert ended.status == "ok", ended
    assert b"inside" in ended.stdout
    assert b"secret" not in ended.stdout


def test_data_is_written_as_before(guest: Guest) -> None:
    for what, *paths in [
        ("mkdir", "new"), ("make", "new/file"), ("append", "new/file"), ("cut", "new/file"),
        ("touch", "new/file"), ("touch-open", "new/file"), ("touch", "new"),
        ("rename", "new/file", "new/../sub/./moved"), ("link", "note", "note2"),
        ("unlink", "note"), ("append", "note2"), ("rename", "new", "other"), ("rmdir", "other"),
        ("mkdir", ".config/app"), ("make", ".config/app/settings.json"), ("make", ".gitignore"),
        ("mkdir", "slash/"), ("rmdir", "slash/"),
    ]:  # fmt: skip
        assert guest.tries(what, *paths), (what, paths)
    assert (guest.tree / "sub" / "moved").exists()
    assert (guest.tree / ".config" / "app" / "settings.json").exists()


def test_a_place_swapped_for_what_runs_is_never_written(world: World, tmp_path: Path) -> None:
    """A host's thread swaps a folder for a link to the hooks, while a guest writes into it."""
    tree = tmp_path.resolve() / "repo"
    for folder in ("d", ".git/hooks"):
        (tree / folder).mkdir(parents=True)
    (tree / "l").symlink_to(".git/hooks")

    def swap() -> None:
        for one, other in (("d", "aside"), ("l", "d"), ("d", "l"), ("aside", "d")):
            (tree / one).rename(tree / other)

    hooks = tree / ".git" / "hooks"
    before = hooks.stat().st_mtime_ns
    module, permit = Sandbox(c("files")), Guest(world, "module", tree).permit()
    with meanwhile(swap):
        ended = module.run(permit, args=["again", f"{tree}/d/x", str(ROUNDS)])
    assert ended.status == "ok", ended
    assert (hooks.stat().st_mtime_ns, list(hooks.iterdir())) == (before, [])
