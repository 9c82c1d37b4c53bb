"""`moat run` of a component that sends requests, to a real HTTPS server, with a secret."""

from __future__ import annotations

import ssl
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli_kit import DENIED, ERROR, Cli, fresh
from egress_kit import Authority, Server, answer
from guests import build
from secret_kit import canary

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLER = Path(str(files("moat"))) / "_demo" / "caller.wasm"
LOOPBACK = "127.0.0.0/8,::1/128"
HANDLE = "secret://key"


def echo(handler: Any) -> None:
    """Say what was asked, and what it was signed with."""
    said = handler.headers.get("authorization", "nothing")
    answer(handler, f"{handler.path} {said}".encode(), x_echo=said)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[Server]:
    made = Server(authority.serves(tmp_path, "localhost"), echo)
    yield made
    made.close()


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    return fresh(tmp_path, "planner", "other")


@pytest.fixture
def issuer(tmp_path: Path, authority: Authority) -> Path:
    """The authority's certificate, behind another one, as PEM."""
    pem = [ssl.DER_cert_to_PEM_cert(one) for one in (Authority().der, authority.der)]
    (tmp_path / "issuers.pem").write_text("".join(pem))
    return tmp_path / "issuers.pem"


def granted(moat: Cli, server: Server, *more: str) -> Path:
    here = f"https://localhost:{server.port}"
    return moat.issue(
        "--allow", "code://caller run", "--standard", "--depth", "1",
        "--host", f"{here}/a/** GET {LOOPBACK}", "--host", f"{here}/b GET {LOOPBACK}",
        "--secret", f"{HANDLE} {here} authorization", *more,
    )  # fmt: skip


def asking(held: Path, server: Server, path: str, *more: str | Path) -> list[str | Path]:
    asked: list[str | Path] = ["run", CALLER, "--token", held, *more]
    for arg in (f"localhost:{server.port}", path):
        asked += ["--arg", arg]
    return asked


def signed(asked: list[str | Path]) -> list[str | Path]:
    return [*asked, "--arg", "authorization", "--arg", f"Bearer {HANDLE}"]


def test_a_host_of_the_token_answers_and_another_is_refused(
    moat: Cli, server: Server, issuer: Path
) -> None:
    held = granted(moat, server)
    assert moat(*asking(held, server, "/a/x", "--ca", issuer)).stdout == "200\n/a/x nothing"
    for path in ("/c", "/b/c"):
        done = moat.json(*asking(held, server, path, "--ca", issuer), code=ERROR)
        assert (done["status"], done["stderr"]) == ("exit", "refused: HTTP-request-denied\n")
    asked = ["run", CALLER, "--token", held, "--ca", issuer]
    done = moat.json(*asked, "--arg", "api.example", "--arg", "/a/x", code=ERROR)
    assert done["stderr"] == "refused: HTTP-request-denied\n"
    assert [path for _, path, *_ in server.seen] == ["/a/x"]


def test_an_option_leaves_one_host_of_the_tokens(moat: Cli, server: Server, issuer: Path) -> None:
    held = granted(moat, server)
    only = ("--allow-host", f"https://localhost:{server.port}/b GET {LOOPBACK}", "--ca", issuer)
    assert moat(*asking(held, server, "/b", *only)).stdout == "200\n/b nothing"
    done = moat.json(*asking(held, server, "/a/x", *only), code=ERROR)
    assert done["stderr"] == "refused: HTTP-request-denied\n"
    wide = ("--allow-host", f"https://localhost:{server.port}/** GET {LOOPBACK}")
    found = moat.error(*asking(held, server, "/a/x", *wide), code=DENIED)
    assert (found["code"], found["caveat"]) == ("widened", "hosts")
    assert [path for _, path, *_ in server.seen] == ["/b"]


def test_a_secret_reaches_the_server_and_is_shown_nowhere(
    moat: Cli, server: Server, issuer: Path
) -> None:
    """With and without a key of the run's own, and not where the option leaves it out."""
    pytest.importorskip("pyrage")
    value, held = canary(), granted(moat, server)
    bound = ("--agent", "planner", "--host", f"https://localhost:{server.port}")
    moat("secret", "set", HANDLE, *bound, input=value)
    asked = signed(asking(held, server, "/a/x", "--ca", issuer))
    for more in ((), ("--secret", HANDLE), ("--fuel", "5M")):
        done = moat(*asked, *more)
        assert done.stdout == f"200\n/a/x Bearer {HANDLE}"
        assert value not in done.output
        assert value not in str(moat.json(*asked, *more))
    heads = [headers["authorization"] for _, _, headers, _ in server.seen]
    assert heads == [f"Bearer {value}"] * 6
    done = moat.json(*asked, "--secret", "none", code=ERROR)
    assert done["stderr"] == "refused: HTTP-request-denied\n"
    assert len(server.seen) == 6
    log = b"".join(file.read_bytes() for file in (moat.state / "gates").rglob("*.jsonl"))
    assert value.encode() not in log


def test_a_secret_of_another_agent_is_not_filled_in(
    moat: Cli, server: Server, issuer: Path
) -> None:
    pytest.importorskip("pyrage")
    bound = ("--agent", "other", "--host", f"https://localhost:{server.port}")
    moat("secret", "set", HANDLE, *bound, input=canary())
    asked = signed(asking(granted(moat, server), server, "/a/x", "--ca", issuer))
    for more in ((), ("--secret", HANDLE)):
        done = moat.json(*asked, *more, code=ERROR)
        assert done["stderr"] == "refused: HTTP-request-denied\n"
    assert server.seen == []


def test_a_certificate_of_an_issuer_that_nobody_named_ends_it(
    moat: Cli, server: Server, tmp_path: Path, authority: Authority
) -> None:
    held = granted(moat, server)
    (tmp_path / "other.pem").write_text(ssl.DER_cert_to_PEM_cert(Authority().der))
    for more in ((), ("--ca", tmp_path / "other.pem")):
        done = moat.json(*asking(held, server, "/a/x", *more), code=ERROR)
        assert done["stderr"] == "refused: TLS-certificate-error\n"
    assert server.seen == []
    (tmp_path / "issuer.der").write_bytes(authority.der)
    done = moat.json(*asking(held, server, "/a/x", "--ca", tmp_path / "issuer.der"))
    assert done["stdout"] == "200\n/a/x nothing"


def test_a_file_of_issuers_that_holds_none_is_refused(
    moat: Cli, server: Server, tmp_path: Path
) -> None:
    held = granted(moat, server)
    for data in (b"", b"nothing", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"):
        (tmp_path / "none.pem").write_bytes(data)
        asked = asking(held, server, "/a/x", "--ca", tmp_path / "none.pem")
        assert moat.error(*asked, code=ERROR)["code"] in {"malformed", "anchor_malformed"}


def test_the_callers_code_is_what_its_source_gives() -> None:
    text = CALLER.with_suffix(".wat").read_text()
    assert build.assemble(text) == CALLER.read_bytes()
