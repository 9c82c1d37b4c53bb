"""Names that mean more than they say: traversal, escapes, look-alikes, addresses, links."""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import unquote

import pytest

import forge
from forge import NOW, Chain, Field, Raw
from guests.build import c
from moat import MalformedInput, Pattern, Permit, canonicalize
from moat._native import Module
from threats.world import ROOT, WORKER, World

DATA: tuple[forge.Grant, ...] = (("file:///data/*", ("read",), "any"),)
WEB: tuple[forge.Grant, ...] = (("https://*.example.org/**", ("read",), "any"),)
EXTERNAL = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "path-traversal"


def reader(allow: tuple[forge.Grant, ...]) -> Chain:
    """A holder who may read these and is denied nothing by name."""
    return forge.first(ROOT, WORKER, allow=allow, deny=())


ESCAPES = [
    "/data/../etc/passwd",
    "file:/data/a",
    "file:///data/../etc/passwd",
    "file:///data/./a",
    "file:///data/..",
    "file:///data/.",
    "file:///data/../data/a",
    "file:///data//a",
    "file:///data/a/",
    "file:////etc/passwd",
    "file://localhost/data/a",
    "file://data/a",
    "FILE:///data/a",
    "file:///data/%2e%2e/etc/passwd",
    "file:///data/%2E%2E/etc/passwd",
    "file:///data/.%2e/etc/passwd",
    "file:///data/..%2fetc%2fpasswd",
    "file:///data/%2Fetc",
    "file:///data/%252e%252e%252fetc",
    "file:///data/%c0%ae%c0%ae/etc",
    "file:///data/%ef%bc%8e",
    "file:///data/%u002e",
    "file:///data/%61",
    "file:///data/%",
    "file:///data/a%00",
    "file:///data/a\0.txt",
    "file:///data/a%0a",
    "file:///data/a\n",
    "file:///data/a\x7f",
    "file:///data/..\\..\\etc",
    "file:///data/a\\b",
    "file:///data/%5c..%5cetc",
    "file:///data/%5C",
    "file:///data/\uff0e\uff0e",
    "file:///data/\u2024\u2024",
    "file:///data/a\u2215b",
    "file:///data/a\u2044b",
    "file:///data/a\u202egpj",
    "file:///data/a\u200b",
    "file:///data/a\ufeff",
    "file:///data/e\u0301",
    "file:///data/a;b",
    "file:///data/a?b",
    "file:///data/a#b",
    "file:///data/a b",
    "file:///data/*",
    "file:///data/**",
    " file:///data/a",
    "file:///data/a ",
    "file:///C:\\data\\a",
    "\\\\host\\share",
    "data/a",
]
OUTSIDE = [
    "file:///etc/passwd",
    "file:///data",
    "file:///data2/a",
    "file:///database",
    "file:///Data/a",
    "file:///data/a/b",
    "file:///proc/self/root/data/a",
    "file://",
    "files:///data/a",
    "tool://data/a",
]


@pytest.mark.parametrize("resource", ESCAPES, ids=ascii)
def test_another_spelling_of_a_path(world: World, resource: str) -> None:
    """One spelling, or nothing: what is not canonical is refused and never repaired."""
    chain = reader(DATA)
    world.allow(world.ask(chain, action="read", resource="file:///data/a"))
    world.refuse(world.ask(chain, action="read", resource=resource), "malformed")
    with pytest.raises(MalformedInput):
        Pattern("file:///data/*").matches(resource)


@pytest.mark.parametrize("resource", OUTSIDE)
def test_a_path_that_is_not_granted(world: World, resource: str) -> None:
    chain = reader(DATA)
    ask = world.ask(chain, action="read", resource=resource)
    world.refuse(ask, "not_granted", link=0, caveat="resource")


def test_a_path_that_is_not_utf_8(world: World) -> None:
    bad = Raw(b"\x70file:///data/\xff\xfe\xfd")
    forged = {"fields": {Field.RESOURCE: bad}}
    world.refuse(world.ask(reader(DATA), action="read", forged=forged), "malformed")


@pytest.mark.parametrize("pattern", ["file:///data/**/a", "file:///../**", "file://**", "**", "*"])
def test_a_grant_of_such_a_path_is_refused_too(world: World, pattern: str) -> None:
    chain = reader(((pattern, ("read",), "any"),))
    world.refuse(world.ask(chain, action="read", resource="file:///data/a"), "malformed", link=0)


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("file:///data/../etc/passwd", "file:///etc/passwd"),
        ("file:///data/%2e%2e/etc/passwd", "file:///etc/passwd"),
        ("file:///data/./a", "file:///data/a"),
    ],
)
def test_repair_happens_before_the_signature_and_shows_what_is_asked(
    world: World, typed: str, canonical: str
) -> None:
    """``canonicalize`` is the sender's to call; the gate judges and logs what came out."""
    assert canonicalize(typed) == canonical
    chain = reader(DATA)
    decision = world.gate.decide(world.ask(chain, action="read", resource=canonical), now=NOW)
    assert decision.allowed == canonical.startswith("file:///data/")
    assert decision.resource == canonical


HOSTS = [
    "https://A.example.org/x",
    "https://a.example.org./x",
    "https://a.example.org:443/x",
    "https://a.example.org:0443/x",
    "https://user@a.example.org/x",
    "https://a.example.org@evil.net/x",
    "https://evil.net%2f.example.org/x",
    "https://evil.net\\.example.org/x",
    "https://evil.net#.example.org/x",
    "https://evil.net?.example.org/x",
    "https://a..example.org/x",
    "https://.example.org/x",
    "https://*.example.org/x",
    "https://a_b.example.org/x",
    "https://-a.example.org/x",
    "https://ex\u0430mple.org/x",
    "https://a.example\u3002org/x",
    "https://xn--a.example.org/x",
    "https:a.example.org/x",
    "https:///x",
    "https://0x7f.0.0.1/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0177.0.0.1/x",
    "https://127.0.0.1./x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[::ffff:7f00:1]/x",
    "https://[0:0:0:0:0:0:0:1]/x",
    "https://[::1%25lo]/x",
    "https://[::1/x",
]


@pytest.mark.parametrize("resource", HOSTS, ids=ascii)
def test_another_spelling_of_a_host(world: World, resource: str) -> None:
    chain = reader(WEB)
    world.allow(world.ask(chain, action="read", resource="https://a.example.org/x"))
    world.refuse(world.ask(chain, action="read", resource=resource), "malformed")


@pytest.mark.parametrize(
    "resource",
    [
        "https://example.org/x",
        "https://evilexample.org/x",
        "https://a.example.org.evil.net/x",
        "http://a.example.org/x",
        "https://a.example.org:8443/x",
        "wss://a.example.org/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
    ],
)
def test_a_host_that_is_not_granted(world: World, resource: str) -> None:
    ask = world.ask(reader(WEB), action="read", resource=resource)
    world.refuse(ask, "not_granted", link=0, caveat="resource")


def _confined(resource: str) -> bool:
    """Whether a path stays below /data however often somebody decodes it."""
    path, rest = resource.removeprefix("file://"), ""
    while path != rest:
        folded = path.replace("\\", "/")
        if not posixpath.normpath(folded).startswith("/data/") or "\0" in path:
            return False
        path, rest = unquote(path), path
    return True


def test_traversal_strings_of_others_are_refused_or_stay_confined(world: World) -> None:
    """Every line of the external lists, appended to a directory that is granted whole."""
    if not EXTERNAL.is_dir():
        pytest.skip("the external vectors are not beside the project (`../shared/vectors`)")
    lists = [path for path in sorted(EXTERNAL.glob("*.txt")) if path.name != "SOURCE.txt"]
    lines = {line for path in lists for line in path.read_bytes().splitlines()}
    chain = reader((("file:///data/**", ("read",), "any"),))
    texts = sorted(line.decode("utf-8", "replace") for line in lines)
    assert len(texts) > 15_000
    wires = [
        world.ask(chain, action="read", resource=f"file:///data/{text}"[:500], stream=bytes(16),
                  number=n)
        for n, text in enumerate(texts)
    ]  # fmt: skip
    decisions = world.gate.decide_many(wires, now=NOW)
    allowed = {str(d.resource) for d in decisions if d.allowed}
    assert {d.reason for d in decisions} <= {None, "malformed", "too_large"}
    assert all(_confined(resource) for resource in allowed)
    assert len(allowed) < len(texts) / 10


# --- where the path is opened: inside the sandbox ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that may be read, beside one that may not, and links between the two."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (data / "open.txt").write_text("open\n")
    (tmp_path / "private" / "secret.txt").write_text("secret\n")
    (data / "file-link").symlink_to(tmp_path / "private" / "secret.txt")
    (data / "dir-link").symlink_to(tmp_path / "private")
    (data / "up-link").symlink_to("../private/secret.txt")
    (data / "root-link").symlink_to("/")
    (data / "link-link").symlink_to("dir-link")
    (data / "loop").symlink_to("loop")
    (data / "inner-link").symlink_to("open.txt")
    return data


def run(world: World, tree: Path, *argv: str, write: bool = False) -> tuple[int, bytes]:
    """The errno and output of the guest ``files`` with ``tree`` preopened."""
    pattern = (f"file://{tree}/**",)
    chain = forge.first(
        ROOT, WORKER, read=pattern, write=pattern if write else (), fuel=10**9, memory=64 << 20,
        time=10_000, output=1 << 20,
    )  # fmt: skip
    permit: Permit = world.allow(world.ask(chain))
    outcome = Module(c("files")).run(permit, args=["files", *argv])
    assert outcome.status in {"ok", "exit"}, outcome
    return outcome.exit_code or 0, outcome.stdout


def test_a_guest_reads_what_it_may(world: World, tree: Path) -> None:
    assert run(world, tree, "read", f"{tree}/open.txt") == (0, b"open\n")
    assert run(world, tree, "read", f"{tree}/inner-link") == (0, b"open\n")


@pytest.mark.parametrize(
    "path",
    [
        "file-link", "dir-link/secret.txt", "up-link", "root-link/etc/passwd",
        "link-link/secret.txt", "loop", "../private/secret.txt", "sub/../../private/secret.txt",
        "..", "./../private/secret.txt", "/etc/passwd",
    ],
)  # fmt: skip
def test_a_guest_that_leaves_its_directory(world: World, tree: Path, path: str) -> None:
    """Through ``..``, through links of every kind, and by an absolute path."""
    for what in ("read", "list", "raw", "raw-read"):
        name = path if what.startswith("raw") or path.startswith("/") else f"{tree}/{path}"
        code, out = run(world, tree, what, name)
        assert code != 0, (what, path)
        assert b"secret" not in out
        assert b"root:" not in out


def test_a_guest_that_makes_its_own_way_out(world: World, tree: Path) -> None:
    """With the right to write: no symbolic link, no hard link or rename across the border."""
    outside = tree.parent / "private" / "secret.txt"
    for what, source, target in [
        ("symlink", str(outside), f"{tree}/made"),
        ("symlink", "../private", f"{tree}/made"),
        ("link", str(outside), f"{tree}/made"),
        ("link", f"{tree}/../private/secret.txt", f"{tree}/made"),
        ("rename", f"{tree}/open.txt", f"{tree}/../private/moved"),
        ("rename", f"{tree}/open.txt", f"{tree}/dir-link/moved"),
    ]:
        code, _ = run(world, tree, what, source, target, write=True)
        assert code != 0, (what, source, target)
    assert not (tree / "made").exists()
    assert [path.name for path in (tree.parent / "private").iterdir()] == ["secret.txt"]
    assert (tree / "open.txt").read_text() == "open\n"


def test_a_directory_of_the_token_that_is_a_symbolic_link(world: World, tree: Path) -> None:
    """The token names ``data/dir-link``; what lies behind it was never named."""
    from moat import SandboxError

    pattern = (f"file://{tree}/dir-link/**",)
    chain = forge.first(ROOT, WORKER, read=pattern, fuel=10**9, memory=64 << 20, time=10_000)
    permit = world.allow(world.ask(chain))
    with pytest.raises(SandboxError):
        Module(c("files")).run(permit, args=["files", "read", f"{tree}/dir-link/secret.txt"])


def test_a_guest_that_may_only_read_does_not_write(world: World, tree: Path) -> None:
    for what in ("make", "append", "cut", "unlink", "mkdir", "rmdir"):
        code, _ = run(world, tree, what, f"{tree}/open.txt" if what != "mkdir" else f"{tree}/new")
        assert code != 0, what
    assert (tree / "open.txt").read_text() == "open\n"
    assert not (tree / "new").exists()


def test_directories_are_those_of_every_link(world: World, tree: Path) -> None:
    """The meet: a child that reads less gets less, whatever its parent reads."""
    parent = (f"file://{tree.parent}/**",)
    given = forge.first(ROOT, WORKER, read=parent, write=(), fuel=10**9, memory=64 << 20)
    child = given.then(WORKER, read=(f"file://{tree}/**",))
    permit = world.allow(world.ask(child))
    secret = f"{tree.parent}/private/secret.txt"
    outcome = Module(c("files")).run(permit, args=["files", "read", secret])
    assert outcome.exit_code
    assert b"secret" not in outcome.stdout
