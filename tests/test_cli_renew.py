"""`moat token renew`: the same terms, a later expiry, and nothing brought back to life."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest

import forge
from cli_kit import DEAD, DENIED, ERROR, INVALID, USAGE, Cli, fresh
from moat import AgentId, Grant, Limits, Moat, Token, _forge
from moat.keystore import KeyStore

TERMS = (
    "--allow", "tool://search/** call,read", "--allow", "tool://mail/* send {}",
    "--deny", "tool://search/private/** *", "--fuel", "5M", "--memory", "64MiB", "--time", "2s",
    "--output", "1MiB", "--host", "https://example.org", "--depth", "2",
    "--require", "code stranger,worker 30d 2",
)  # fmt: skip


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with a planner, a worker and a stranger."""
    return fresh(tmp_path, "planner", "worker", "stranger")


@pytest.fixture
def chain(moat: Cli) -> Path:
    """From the root to the planner (an hour), on to the worker (five minutes)."""
    child = moat.state.parent / "child.token"
    moat(
        "token", "attenuate", moat.issue(*TERMS), "--to", "worker", "--fuel", "1M",
        "--deny", "tool://search/web/beta call", "--expires", "5m", "--out", child,
    )  # fmt: skip
    return child


def read(path: Path) -> Token:
    return Token.parse(path.read_text().strip())


def keys(cli: Cli) -> KeyStore:
    return KeyStore(cli.state / "keys")


def old(cli: Cli, *, age: int, life: int, **more: object) -> Path:
    """A token for the planner of ``life`` seconds, signed ``age`` seconds ago."""
    path = cli.state.parent / "old.token"
    made = Token.issue(
        keys(cli).load("root"), holder=AgentId(cli.did("planner")), now=int(time.time()) - age,
        allow=[Grant("tool://x", {"call"})], expires_in=timedelta(seconds=life), **more,
    )  # fmt: skip
    path.write_text(str(made))
    return path


def same_terms(one: Token, other: Token) -> bool:
    """Whether the last links say the same, but for when and their ids."""
    names = (
        "issuer", "holder", "allow", "deny", "limits", "not_before", "depth", "audience",
        "attestations",
    )  # fmt: skip
    a, b = one.links[-1], other.links[-1]
    same = all(getattr(a, name) == getattr(b, name) for name in names)
    return same and one.links[:-1] == other.links[:-1] and a.id != b.id


def test_a_first_link_is_renewed_on_the_same_terms(moat: Cli) -> None:
    path = moat.issue(*TERMS)
    made = moat.json("token", "renew", path, "--expires", "2h")
    assert set(made) == {"token", "id", "holder", "links", "expires", "depth", "out"}
    before, after = read(path), Token.parse(made["token"])
    assert same_terms(before, after)
    assert 3590 < after.expires - before.expires < 3700
    moat.json("token", "verify", made["token"])


def test_a_further_link_is_renewed_below_the_same_parent(moat: Cli, chain: Path) -> None:
    out = chain.with_name("renewed")
    moat("token", "renew", chain, "--expires", "50m", "--out", out)
    before, after = read(chain), read(out)
    assert same_terms(before, after)
    assert before.expires < after.expires <= before.links[0].expires
    assert out.stat().st_mode & 0o777 == 0o600
    moat.json("token", "verify", out)


def test_left_out_it_lives_as_long_as_it_did(moat: Cli) -> None:
    path = old(moat, age=600, life=1200, audience=AgentId(moat.did("stranger")))
    made = Token.parse(moat.json("token", "renew", path)["token"])
    assert same_terms(read(path), made)
    assert abs(made.expires - made.links[0].issued - 1200) <= 1
    assert made.expires - read(path).expires >= 600


def test_an_expired_link_is_renewed(moat: Cli) -> None:
    path = old(moat, age=7200, life=3600)
    moat.error("token", "verify", path, code=DEAD)
    moat.json("token", "verify", moat.json("token", "renew", path)["token"])


def test_it_is_printed_alone_so_that_it_can_be_piped(moat: Cli) -> None:
    text = moat.issue(*TERMS).read_text()
    told = moat("token", "renew", "-", "--expires", "2h", input=text).stdout
    assert told.startswith("moat1.")
    assert len(told.split()) == 1


def test_a_link_does_not_outlive_the_one_above_it(moat: Cli, chain: Path) -> None:
    found = moat.error("token", "renew", chain, "--expires", "2h", code=DENIED)
    assert (found["code"], found["caveat"], found["link"]) == ("widened", "expiry", 0)
    assert "the link above it expires" in found["message"]
    assert "renewed first" in found["next"]


def test_a_parent_that_has_expired_is_renewed_first(moat: Cli) -> None:
    parent = read(old(moat, age=7200, life=3600, depth=1))
    child = parent.attenuate(
        keys(moat).load("planner"), holder=AgentId(moat.did("worker")), now=parent.links[0].issued
    )
    found = moat.error("token", "renew", str(child), "--expires", "1m", code=DEAD)
    assert (found["code"], found["link"]) == ("expired", 0)
    assert "renewed first" in found["next"]


def test_what_would_end_earlier_is_no_renewal(moat: Cli) -> None:
    path = moat.issue(*TERMS)
    for expires in ("0s", "10m", "59m"):
        found = moat.error("token", "renew", path, "--expires", expires, code=ERROR)
        assert found["code"] == "not_later"
    moat.error("token", "renew", path, "--expires", "soon", code=USAGE)


@pytest.mark.parametrize("target", ["root", "planner", "worker", "first", "last"])
def test_a_renewal_does_not_escape_a_revocation(moat: Cli, chain: Path, target: str) -> None:
    links = {"first": read(chain).links[0].id.hex(), "last": read(chain).links[1].id.hex()}
    moat("revoke", links.get(target, target))
    found = moat.error("token", "renew", chain, "--expires", "50m", code=DEAD)
    assert found["code"] == "revoked"
    assert "moat restore" in found["next"]
    if target != "root":
        moat("restore", links.get(target, target))
        moat.json("token", "renew", chain, "--expires", "50m")


def test_where_no_gate_can_be_asked_it_is_refused_unless_told(moat: Cli, chain: Path) -> None:
    asked = "token", "renew", chain, "--expires", "50m"
    with Moat.open(moat.state, create=False):
        found = moat.error(*asked, code=ERROR)
        assert found["code"] == "log_unavailable"
        assert "--unchecked" in found["next"]
        assert same_terms(read(chain), Token.parse(moat.json(*asked, "--unchecked")["token"]))


def test_unchecked_does_not_excuse_a_revocation_that_is_known(moat: Cli, chain: Path) -> None:
    moat("revoke", "worker")
    moat.error("token", "renew", chain, "--expires", "50m", "--unchecked", code=DEAD)


def test_only_the_issuer_renews(moat: Cli, chain: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    found = fresh(tmp_path / "elsewhere", "planner").error("token", "renew", chain, code=DENIED)
    assert found["code"] == "wrong_issuer"
    assert moat.did("planner") in found["message"]


@pytest.mark.parametrize("place", [-1, 0])
def test_terms_that_the_issuer_never_signed_do_not_become_true(
    moat: Cli, chain: Path, tmp_path: Path, place: int
) -> None:
    """A stranger writes a link in the issuer's name and asks for its renewal."""
    links = [bytes(link) for link in read(chain).links]
    payload = forge.cbor2.loads(forge.parts(links[place])[2])
    payload[-65537] = [["tool://*/**", ["*"], "any"]]
    links[place] = forge.rebuilt(links[place], payload=forge.cbor(payload))
    if place == 0:
        links = links[:1]
    (tmp_path / "forged").write_bytes(forge.cbor(links))
    found = moat.error("token", "renew", tmp_path / "forged", "--expires", "50m", code=INVALID)
    assert found["code"] == "bad_signature"


def test_a_link_that_was_widened_by_hand_is_not_renewed(moat: Cli, tmp_path: Path) -> None:
    worker = AgentId(moat.did("worker"))
    wide = [Grant("tool://shell", {"call"})]
    parent = read(moat.issue(*TERMS))
    made = _forge.widened(parent, keys(moat).load("planner"), worker, wide)
    (tmp_path / "wide").write_bytes(bytes(made))
    found = moat.error("token", "renew", tmp_path / "wide", code=INVALID)
    assert found["code"] == "widened"


def test_no_token_is_renewed_that_gives_code_the_keys(moat: Cli) -> None:
    trees = Limits(read=[f"file://{moat.state.resolve()}/**"])
    path = old(moat, age=10, life=100, limits=trees)
    assert moat.error("token", "renew", path, code=ERROR)["code"] == "keys_exposed"


def test_a_broken_log_gives_no_leave(moat: Cli, chain: Path) -> None:
    part = next((moat.state / "gates" / "main" / "log").rglob("*.jsonl"))
    moat("revoke", "planner")
    part.write_bytes(part.read_bytes().replace(b'"revoke"', b'"revoKe"'))
    for more in ([], ["--unchecked"]):
        moat.error("token", "renew", chain, "--expires", "50m", *more, code=INVALID)
    shutil.rmtree(part.parent)
    moat.error("token", "renew", chain, "--expires", "50m", "--unchecked", code=INVALID)
