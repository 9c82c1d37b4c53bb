"""What a component sends goes through the engine of its token, with secrets it never sees."""

from __future__ import annotations

import re
import threading

import pytest

from cast import PLANNER, WORKER
from egress_kit import LOOPBACK, Authority, Server, leave
from guests.build import wat
from moat import Host, Pep, Permit, Sandbox, SandboxOutcome, Secret, SecretProxy
from moat._native import Egress
from moat.secrets import Memory
from secret_kit import HANDLE, canary

GET = 0
# Places in `error-code` of `wasi:http`.
PROHIBITED, REFUSED, CERTIFICATE, DENIED, URI = 4, 6, 13, 15, 19


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(wat("http"))


def engine(authority: Authority, address: str = "127.0.0.1") -> Egress:
    return Egress(anchors=[authority.der], resolver=lambda _: [address])


def fetch(sandbox: Sandbox, permit: Permit, egress: Egress, url: str, **more) -> SandboxOutcome:
    place, path = re.fullmatch(r"https://([^/]*)(.*)", url).groups()
    return sandbox.call(permit, "fetch", [GET, place, path or "/"], egress=egress, **more)


def proxy(pep: Pep, value: str, hosts: list[str], agents=(WORKER.id,)) -> SecretProxy:
    made = SecretProxy({"memory": Memory({"github": value})}, gate=pep.id)
    made.bind(HANDLE, backend="memory", name="github", agents=agents, hosts=hosts)
    return made


def test_a_guest_reaches_what_its_token_names(pep, sandbox, authority, server, base):
    permit = leave(pep, Host(f"{base}/a/**", {"GET"}, LOOPBACK))
    outcome = fetch(sandbox, permit, engine(authority), f"{base}/a/b?c=d").check()
    status, body = outcome.result["ok"]
    assert (status, bytes(body)) == (200, b"/a/b?c=d nothing b''")
    [(method, path, headers, _)] = server.seen
    assert (method, path) == ("GET", "/a/b?c=d")
    assert headers["host"] == f"api.test:{server.port}"


def test_a_guest_reaches_nothing_else(pep, sandbox, authority, server, base):
    egress = engine(authority)
    for url, code in [
        (f"{base}/", DENIED),
        (f"{base}/ab", DENIED),
        (f"https://other.test:{server.port}/a", DENIED),
        ("https://evil.test/a", DENIED),
        (f"{base}/a/../b", URI),
        (f"https://API.test:{server.port}/a", URI),
        (f"https://127.1:{server.port}/a", URI),
    ]:
        permit = leave(pep, Host(f"{base}/a/**", {"GET"}, LOOPBACK))
        assert fetch(sandbox, permit, egress, url).check().result == {"err": code}, url
    permit = leave(pep, Host(f"{base}/a/**", {"POST"}, LOOPBACK))
    assert fetch(sandbox, permit, egress, f"{base}/a").check().result == {"err": DENIED}
    assert server.seen == []


def test_every_link_counts(pep, sandbox, authority, server, base):
    wide, egress = Host(f"https://*.test:{server.port}/**", {"*"}, LOOPBACK), engine(authority)
    narrow = [Host(f"{base}/a", {"GET"}, ["127.0.0.1/32"])]
    permit = leave(pep, wide, narrow=narrow)
    assert fetch(sandbox, permit, egress, f"{base}/a").check().result["ok"][0] == 200
    permit = leave(pep, wide, narrow=narrow)
    assert fetch(sandbox, permit, egress, f"{base}/b").check().result == {"err": DENIED}


def test_a_token_without_hosts_sends_nothing_whatever_engine_is_given(
    pep, sandbox, authority, server, base
):
    outcome = fetch(sandbox, leave(pep), engine(authority), f"{base}/a")
    assert outcome.check().result == {"err": DENIED}
    assert server.seen == []


def test_a_name_that_points_inside_is_not_followed_there(pep, sandbox, authority, server, base):
    for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "64:ff9b::7f00:1"]:
        permit = leave(pep, Host(f"{base}/**", {"GET"}))
        outcome = fetch(sandbox, permit, engine(authority, address), f"{base}/a")
        assert outcome.check().result == {"err": PROHIBITED}, address
    assert server.seen == []


def test_a_certificate_of_an_issuer_that_nobody_named(pep, sandbox, server, base):
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    stranger = Egress(resolver=lambda _: ["127.0.0.1"])
    outcome = fetch(sandbox, permit, stranger, f"{base}/a")
    assert outcome.check().result == {"err": CERTIFICATE}
    assert server.seen == []


def test_a_guest_sends_a_handle_and_never_sees_the_value(pep, sandbox, authority, server, base):
    value = canary()
    bound = Secret(HANDLE, host=base, header="authorization")
    everywhere = Host(f"https://*.test:{server.port}/**", {"GET"}, LOOPBACK)
    secrets, egress = proxy(pep, value, [base]), engine(authority)

    def speak(place: str, text: str, secrets: SecretProxy | None = secrets) -> SandboxOutcome:
        permit = leave(pep, everywhere, secrets=[bound])
        args = ["authorization", text.encode(), place]
        return sandbox.call(permit, "speak", args, egress=egress, secrets=secrets)

    here = f"api.test:{server.port}"
    outcome = speak(here, f"Bearer {HANDLE}").check()
    assert server.seen[-1][2]["authorization"] == f"Bearer {value}"
    assert bytes(outcome.result["ok"][1]) == f"/ Bearer {HANDLE} b''".encode()
    assert value not in repr((outcome.result, outcome.stdout, outcome.stderr, outcome))
    sent = len(server.seen)
    assert "err" in speak(f"other.test:{server.port}", f"Bearer {HANDLE}").check().result
    assert "err" in speak(here, "Bearer of-my-own").check().result
    assert "err" in speak(here, f"Bearer {HANDLE}", None).check().result
    assert len(server.seen) == sent
    secrets.rotate(HANDLE, rotated := canary())
    speak(here, f"Bearer {HANDLE}").check()
    assert server.seen[-1][2]["authorization"] == f"Bearer {rotated}"
    secrets.remove(HANDLE)
    assert "err" in speak(here, f"Bearer {HANDLE}").check().result


def test_a_handle_for_another_agent_or_fewer_hosts_is_not_filled(
    pep, sandbox, authority, server, base
):
    rule = Host(f"https://*.test:{server.port}/**", {"GET"}, LOOPBACK)
    wide = Secret(HANDLE, host=f"https://*.test:{server.port}", header="authorization")
    for secrets in (
        proxy(pep, canary(), [f"https://*.test:{server.port}"], agents=[PLANNER.id]),
        proxy(pep, canary(), [base]),
        proxy(pep, canary(), []),
    ):
        permit = leave(pep, rule, secrets=[wide])
        args = ["authorization", HANDLE.encode(), f"api.test:{server.port}"]
        outcome = sandbox.call(
            permit, "speak", args, egress=engine(authority), secrets=secrets
        ).check()
        assert outcome.result == {"err": DENIED}
    assert server.seen == []


def test_a_server_that_does_not_answer_costs_no_more_than_the_runs_time(
    pep, sandbox, authority, tmp_path
):
    waiting = threading.Event()
    slow = Server(authority.serves(tmp_path, "api.test"), lambda _: waiting.wait(30))
    try:
        permit = leave(pep, Host(f"https://api.test:{slow.port}/**", {"GET"}, LOOPBACK))
        outcome = fetch(sandbox, permit, engine(authority), f"https://api.test:{slow.port}/a")
        assert outcome.status == "timed_out"
    finally:
        waiting.set()
        slow.close()


@pytest.mark.parametrize("path", ["/pour", "/drip"])
def test_an_answer_without_end_ends_with_the_run(pep, sandbox, authority, tmp_path, path):
    """The guest reads a piece and goes; the host neither waits for the rest nor keeps it."""
    piece, pause = {"/pour": (1 << 16, 0), "/drip": (1, 0.02)}[path]
    cut, never = threading.Event(), threading.Event()

    def pour(handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not never.wait(pause):
                handler.wfile.write(b"x" * piece)
        except OSError:
            cut.set()

    endless = Server(authority.serves(tmp_path, "api.test"), pour)
    base = f"https://api.test:{endless.port}"
    try:
        permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
        outcome = fetch(sandbox, permit, engine(authority), f"{base}{path}").check()
        assert 0 < len(outcome.result["ok"][1]) <= 1 << 16
        assert cut.wait(30)
    finally:
        never.set()
        endless.close()


def test_a_backend_that_breaks_leaves_no_permit_open_and_tells_no_value(
    pep, sandbox, authority, base
):
    class Broken:
        def reveal(self, permit: Permit) -> list[tuple[str, str]]:
            assert permit.is_open
            raise RuntimeError("no backend")

    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    with pytest.raises(RuntimeError, match="no backend"):
        fetch(sandbox, permit, engine(authority), f"{base}/a", secrets=Broken())
    assert not permit.is_open
    assert permit.outcome is not None
