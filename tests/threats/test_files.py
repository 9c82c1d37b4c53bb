"""Files for tools of the host: what a tree does not hold is not opened, whatever is in the way.

Every test runs with the kernel's help (`openat2`) and without it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cast import LIMITS, PLANNER, issue
from moat import Denied, MalformedInput, MoatError, Pep, Permit, Session, files
from moat.errors import KeysExposed

ROUNDS = 10_000
EXTERNAL = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "path-traversal"
Given = Callable[..., Permit]


@pytest.fixture(params=["openat2", "by hand"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by hand":
        monkeypatch.setattr(files, "_openat2", lambda *_: None)
    else:
        root = os.open("/", os.O_PATH)
        found = files._openat2(root, "proc", os.O_PATH)
        os.close(root)
        if found is None:
            pytest.skip("this kernel has no openat2")
        os.close(found)
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_text("inside\n")
    (made / "sub" / "file").write_text("deeper\n")
    (tmp_path / "secret").write_text("outside\n")
    return made


@pytest.fixture
def permit(pep: Pep, tree: Path) -> Iterator[Permit]:
    """An open one, to read and write the tree."""
    with given(pep, read=[tree], write=[tree]) as opened:
        yield opened


def given(pep: Pep, read: list[Path] | None = None, write: list[Path] | None = None) -> Permit:
    def trees(paths: list[Path] | None) -> list[str]:
        return [f"file://{path}/**" for path in paths or []]

    limits = LIMITS.replace(read=trees(read), write=trees(write))
    return Session(pep, PLANNER, issue(limits=limits)).request("call", "tool://search/web")


@contextmanager
def denied(reason: str) -> Iterator[None]:
    with pytest.raises(Denied) as caught:
        yield
    assert caught.value.decision.reason == reason


def read(permit: Permit, path: Path | str) -> str:
    with files.open(permit, path) as file:
        return str(file.read())


@contextmanager
def meanwhile(change: Callable[[], None]) -> Iterator[None]:
    """Go on changing something on another thread."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            change()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_files_are_read_made_added_to_and_emptied(permit: Permit, tree: Path) -> None:
    assert read(permit, tree / "sub" / "file") == "deeper\n"
    with files.open(permit, tree / "new", "x", encoding="latin-1") as file:
        file.write("ü")
    assert (tree / "new").read_bytes() == b"\xfc"
    with pytest.raises(FileExistsError):
        files.open(permit, tree / "new", "x")
    with files.open(permit, tree / "new", "ab") as file:
        file.write(b"more")
    with files.open(permit, tree / "new", "r+b") as file:
        assert file.read() == b"\xfcmore"
        file.write(b"!")
    with files.open(permit, tree / "new", "w") as file:
        file.write("less")
    assert (tree / "new").read_text() == "less"
    with pytest.raises(FileNotFoundError):
        read(permit, tree / "none")
    with pytest.raises(IsADirectoryError):
        read(permit, tree / "sub")


def test_reading_and_writing_are_two_rights(pep: Pep, tree: Path) -> None:
    with given(pep, read=[tree]) as permit:
        assert read(permit, tree / "file") == "inside\n"
        for mode in ("w", "a", "x", "r+", "w+", "a+"):
            with denied("not_granted"):
                files.open(permit, tree / "file", mode)
    with given(pep, write=[tree]) as permit:
        for mode in ("r", "r+", "w+"):
            with denied("not_granted"):
                files.open(permit, tree / "file", mode)
    assert (tree / "file").read_text() == "inside\n"


def test_a_permit_that_is_not_open_opens_nothing(pep: Pep, tree: Path) -> None:
    permit = given(pep, read=[tree])
    with denied("permit_spent"):
        read(permit, tree / "file")
    with permit:
        assert read(permit, tree / "file") == "inside\n"
    with denied("permit_spent"):
        read(permit, tree / "file")


def test_a_permit_without_trees_opens_nothing(pep: Pep, tree: Path) -> None:
    with given(pep) as permit, denied("not_granted"):
        read(permit, tree / "file")


def test_the_log_of_the_own_gate_is_out_of_reach(pep: Pep, tmp_path: Path) -> None:
    with given(pep, read=[tmp_path]) as permit, pytest.raises(KeysExposed):
        read(permit, tmp_path / "log" / "checkpoint")


@pytest.mark.parametrize("mode", ["", "rw", "rtb", "r+b+", "U", "wx", "R", "rr"])
def test_an_odd_mode_is_refused(mode: str, permit: Permit, tree: Path) -> None:
    with pytest.raises(MalformedInput):
        files.open(permit, tree / "file", mode)


@pytest.mark.parametrize(
    "path",
    ["{tree}/../secret", "{tree}/sub/../../secret", "{tree}/./file", "{tree}//file", "file", "",
     "{tree}/file/", "{tree}", "{tree}/fi\0le", "/proc/self/root{tree}/../secret",
     "file://{tree}/file", "{tree}-other/file", "{outside}/secret"],
)  # fmt: skip
def test_a_path_that_leaves_its_tree_is_refused(path: str, permit: Permit, tree: Path) -> None:
    with pytest.raises((Denied, MalformedInput)):
        read(permit, path.format(tree=tree, outside=tree.parent))


def test_no_published_traversal_leads_out(permit: Permit, tree: Path) -> None:
    if not EXTERNAL.is_dir():
        pytest.skip("the external vectors are not here")
    tried = 0
    for source in sorted(EXTERNAL.glob("*.txt")):
        for line in source.read_bytes().splitlines():
            text = line.decode("utf-8", "surrogateescape")
            for path in (f"{tree}/{text}", text):
                tried += 1
                try:
                    found = read(permit, path)
                except (MoatError, OSError, UnicodeError):
                    continue
                assert found in {"inside\n", "deeper\n"}, path
    assert tried > 40_000


def test_a_symbolic_link_is_not_followed_wherever_it_is(
    pep: Pep, permit: Permit, tree: Path
) -> None:
    (tree / "link").symlink_to(tree.parent / "secret")
    (tree / "inner").symlink_to("file")
    (tree / "up").symlink_to("..")
    (tree / "root").symlink_to("/proc/self/root")
    (tree / "gone").symlink_to(tree.parent / "made")
    for path in ("link", "inner", "up/secret", f"root{tree}/file", "gone"):
        for mode in ("r", "w", "a", "r+"):
            with pytest.raises(MoatError, match="in the way"):
                files.open(permit, tree / path, mode)
    with pytest.raises((MoatError, FileExistsError)):
        files.open(permit, tree / "gone", "x")
    assert not (tree.parent / "made").exists()
    (tree.parent / "alias").symlink_to(tree)
    with (
        given(pep, read=[tree.parent / "alias"]) as aliased,
        pytest.raises(MoatError, match="in the way"),
    ):
        read(aliased, tree.parent / "alias" / "file")
    assert (tree.parent / "secret").read_text() == "outside\n"


def test_the_memory_of_this_process_is_out_of_reach(pep: Pep, tree: Path) -> None:
    """In `/proc` it is a regular file, and the gate's key is in it."""
    for place in ("/proc", f"/proc/{os.getpid()}", "/proc/self"):
        with given(pep, read=[Path(place)], write=[Path(place)]) as permit:
            for path in ("/proc/self/mem", f"/proc/{os.getpid()}/environ"):
                with pytest.raises(KeysExposed):
                    files.open(permit, path, "rb")
            with pytest.raises(KeysExposed):
                files.walk(permit, place)
    (tree / "fd").symlink_to("/proc/self/fd")
    (tree / "mem").symlink_to("/proc/self/mem")
    with given(pep, read=[tree]) as permit:
        for path in (tree / "fd" / "0", tree / "mem"):
            with pytest.raises(MoatError, match="in the way"):
                read(permit, path)


def test_only_regular_files_are_opened(
    permit: Permit, pep: Pep, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tree)  # the path of a socket is short
        listener.bind("socket")
        for name in ("pipe", "socket"):
            for mode in ("r", "w", "a", "r+"):
                with pytest.raises(MoatError, match="regular"):
                    files.open(permit, tree / name, mode)
    with given(pep, read=[Path("/dev")], write=[Path("/dev")]) as devices:
        for mode in ("r", "w"):
            with pytest.raises(MoatError, match="regular"):
                files.open(devices, "/dev/null", mode)


def test_a_hard_link_is_no_way_to_write_elsewhere(permit: Permit, tree: Path) -> None:
    os.link(tree.parent / "secret", tree / "hard")
    for mode in ("w", "a", "r+"):
        with pytest.raises(MoatError, match="hard link"):
            files.open(permit, tree / "hard", mode)
    assert (tree.parent / "secret").read_text() == "outside\n"


def test_a_link_swapped_in_for_a_file_is_never_followed(permit: Permit, tree: Path) -> None:
    real, link, name = tree / "real", tree / "link", tree / "name"

    def swap() -> None:
        real.write_text("inside\n")
        real.replace(name)
        link.symlink_to(tree.parent / "secret")
        link.replace(name)

    seen = set()
    with meanwhile(swap):
        for _ in range(ROUNDS):
            try:
                seen.add(read(permit, name))
            except (MoatError, FileNotFoundError):
                seen.add(None)
    assert seen <= {"inside\n", "", None}


def test_a_link_swapped_in_for_a_folder_is_never_followed(permit: Permit, tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside\n")
    (tree / "a").mkdir()
    (tree / "a" / "file").write_text("inside\n")
    (tree / "b").symlink_to(outside)

    def swap() -> None:
        for one, other in (("a", "aside"), ("b", "a"), ("a", "b"), ("aside", "a")):
            (tree / one).rename(tree / other)

    seen, writes = set(), 0
    with meanwhile(swap):
        for _ in range(ROUNDS):
            try:
                seen.add(read(permit, tree / "a" / "file"))
            except (MoatError, FileNotFoundError):
                seen.add(None)
            try:
                with files.open(permit, tree / "a" / "made", "w") as file:
                    writes += file.write("x")
            except (MoatError, FileNotFoundError):
                continue
    assert seen <= {"inside\n", None}
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "outside\n"
    assert writes


def test_a_folder_moved_out_of_the_tree_is_left_behind(permit: Permit, tree: Path) -> None:
    (tree / "d" / "e").mkdir(parents=True)
    (tree / "d" / "e" / "file").write_text("inside\n")

    def move() -> None:
        (tree / "d" / "e").rename(tree.parent / "e")
        (tree.parent / "e").rename(tree / "d" / "e")

    with meanwhile(move):
        for _ in range(ROUNDS // 10):
            try:
                assert read(permit, tree / "d" / "e" / "file") == "inside\n"
            except (MoatError, FileNotFoundError):
                continue


@pytest.mark.parametrize(
    "name",
    [".git/hooks/pre-commit", ".GIT/hooks/pre-commit", ".git./config", ".bashrc", ".mcp.json",
     "sub/.vscode/tasks.json", ".github/workflows/ci.yml", "sub/evil.pth", "CLAUDE.md"],
)  # fmt: skip
def test_what_runs_by_itself_is_not_written(
    name: str, permit: Permit, pep: Pep, tree: Path
) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("as it was\n")
    for mode in ("w", "a", "x", "r+"):
        with denied("forbidden"):
            files.open(permit, path, mode)
    assert read(permit, path) == "as it was\n"
    if path.parent != tree and path.parent.name != "sub":
        with given(pep, write=[path.parent]) as named, files.open(named, path, "w") as file:
            file.write("by leave\n")


def test_nothing_stays_open(permit: Permit, tree: Path) -> None:
    (tree / "link").symlink_to("file")
    os.mkfifo(tree / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        read(permit, tree / "sub" / "file")
        for path in ("link", "none", "sub", "pipe", "none/none", "link/x"):
            with pytest.raises((MoatError, OSError)):
                files.open(permit, tree / path, "r+")
        with pytest.raises(LookupError):
            files.open(permit, tree / "file", encoding="none")
    # What earlier tests left to the collector may have gone meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- collecting what is in a tree ---


def test_a_walk_finds_the_regular_files_and_no_others(permit: Permit, tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "sub" / "deep" / "er").mkdir(parents=True)
    (tree / "sub" / "deep" / "er" / ".hidden").write_text("")
    os.mkfifo(tree / "pipe")
    (tree / "sl").symlink_to("../../../etc/hostname")
    (tree / "up").symlink_to("..")
    (tree / "sub" / "in").symlink_to("../sub")
    found = [tree / "file", tree / "sub" / "file", tree / "sub" / "deep" / "er" / ".hidden"]
    assert list(files.walk(permit, tree)) == [str(path) for path in found]
    assert list(files.walk(permit, tree / "sub" / "deep")) == [str(found[-1])]
    assert list(files.walk(permit, tree / "empty")) == []
    for path in found:
        files.open(permit, path).close()


def test_a_planted_link_is_not_collected(permit: Permit, tree: Path) -> None:
    """Neither its file, nor what lies behind it, nor by a walk that starts at it."""
    (tree / "sl").symlink_to("../../../etc/hostname")
    (tree / "out").symlink_to(tree.parent)
    assert set(files.walk(permit, tree)) == {str(tree / "file"), str(tree / "sub" / "file")}
    for path in (tree / "sl", tree / "out" / "secret"):
        with pytest.raises(MoatError, match="symbolic link"):
            read(permit, path)
    for path in (tree / "out", tree / "out" / "tree", tree / "sl"):
        with pytest.raises(MoatError, match="symbolic link"):
            list(files.walk(permit, path))


def test_a_walk_asks_for_a_tree_that_may_be_read_and_an_open_permit(pep: Pep, tree: Path) -> None:
    with given(pep, write=[tree]) as permit, denied("not_granted"):
        files.walk(permit, tree)
    with given(pep, read=[tree]) as permit:
        for path in (tree.parent, tree / "..", f"{tree}/", "tree", f"{tree}\0"):
            with pytest.raises((Denied, MalformedInput)):
                files.walk(permit, path)
        with pytest.raises(FileNotFoundError):
            list(files.walk(permit, tree / "none"))
        walked = files.walk(permit, tree)
        assert next(walked) == str(tree / "file")
    with denied("permit_spent"):
        next(walked)


def test_a_folder_swapped_for_a_link_while_it_is_walked(permit: Permit, tree: Path) -> None:
    """The walk ends with an error, or goes by; it never lists what is outside."""
    (outside := tree.parent / "outside").mkdir()
    (outside / "stolen").write_text("secret")
    (tree / "link").symlink_to(outside)

    def swap() -> None:
        for one, other in (("sub", "aside"), ("link", "sub"), ("sub", "link"), ("aside", "sub")):
            (tree / one).rename(tree / other)

    seen: set[str] = set()
    with meanwhile(swap):
        for _ in range(ROUNDS // 10):
            with suppress(MoatError):
                seen.update(files.walk(permit, tree))
    assert {Path(path).name for path in seen} == {"file"}


def test_a_tree_deeper_than_python_recurses(permit: Permit, tree: Path) -> None:
    """Folders in folders, as many as a path has room for."""
    folders = [Path(f"{tree}" + "/d" * depth) for depth in range(1, 1_501)]
    for folder in folders:
        folder.mkdir()
    end = folders[-1] / "end"
    end.write_text("")
    found = str(end) in set(files.walk(permit, tree))
    end.unlink()
    for folder in reversed(folders):  # who tidies up recurses too
        folder.rmdir()
    assert found, "the deepest file is left out"


def test_a_name_that_is_no_text_is_said_and_not_left_out(permit: Permit, tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).write_text("")
    with pytest.raises(MoatError, match="not utf-8"):
        list(files.walk(permit, tree))
