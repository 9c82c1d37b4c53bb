"""Host-side tools send what the token of an open permit names, and nothing else."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from cast import NOW, PLANNER, WORKER
from egress_kit import LOOPBACK, Authority, leave
from moat import Denied, EgressDenied, Host, Permit, Secret
from moat.egress import Transport, transport
from secret_kit import HANDLE, canary


def through(permit: Permit, authority: Authority, **terms) -> Transport:
    terms = {"anchors": [authority.der], "resolver": lambda _: ["127.0.0.1"]} | terms
    return transport(permit, **terms)


def refused(client: httpx.Client, method: str, url: str, **terms) -> str | None:
    with pytest.raises(EgressDenied) as caught:
        client.request(method, url, **terms)
    return caught.value.reason


def test_a_request_that_the_token_names_is_sent(pep, authority, server, base):
    permit = leave(pep, Host(f"{base}/a/**", {"POST"}, LOOPBACK))
    with permit, httpx.Client(transport=through(permit, authority)) as client:
        response = client.post(f"{base}/a/b?c=d", content=b"hello", headers={"x-a": "1"})
    assert response.status_code == 200
    assert response.text == "/a/b?c=d nothing b'hello'"
    [(method, path, headers, body)] = server.seen
    assert (method, path, body) == ("POST", "/a/b?c=d", b"hello")
    assert headers["host"] == f"api.test:{server.port}"
    assert headers["x-a"] == "1"
    assert headers["accept-encoding"] == "identity"


def test_the_same_from_an_event_loop(pep, authority, base):
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))

    async def main() -> str:
        async with httpx.AsyncClient(transport=through(permit, authority)) as client:
            return (await client.get(f"{base}/a")).text

    with permit:
        assert asyncio.run(main()) == "/a nothing b''"


def test_a_request_that_no_rule_names(pep, authority, server, base):
    permit = leave(pep, Host(f"{base}/a/**", {"GET"}, LOOPBACK))
    with permit, httpx.Client(transport=through(permit, authority)) as client:
        for method, url in [
            ("POST", f"{base}/a"),
            ("GET", f"{base}/"),
            ("GET", f"{base}/ab"),
            ("GET", f"https://api.test/a:{server.port}"),
            ("GET", f"https://other.test:{server.port}/a"),
            ("GET", f"http://api.test:{server.port}/a"),
        ]:
            assert refused(client, method, url) == "host_not_allowed"
        with pytest.raises(EgressDenied) as caught:
            client.get("https://evil.test/a")
        assert caught.value.host == "evil.test"
    assert server.seen == []


def test_a_link_that_was_narrowed_counts(pep, authority, server, base):
    wide = Host(f"https://*.test:{server.port}/**", {"*"}, LOOPBACK)
    permit = leave(pep, wide, narrow=[Host(f"{base}/a", {"GET"}, ["127.0.0.1/32"])])
    with permit, httpx.Client(transport=through(permit, authority)) as client:
        assert client.get(f"{base}/a").status_code == 200
        assert refused(client, "GET", f"{base}/b") == "host_not_allowed"
        assert refused(client, "POST", f"{base}/a") == "host_not_allowed"


def test_a_permit_before_and_after_it_is_open(pep, authority, server, base):
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    with httpx.Client(transport=through(permit, authority)) as client:
        with pytest.raises(Denied):
            client.get(base)
        with permit:
            client.get(base)
        with pytest.raises(Denied):
            client.get(base)
    assert len(server.seen) == 1


def test_a_name_that_points_inside(pep, authority, server):
    permit = leave(pep, Host("https://api.test/**", {"GET"}))
    asked = []

    def inside(name: str) -> list[str]:
        asked.append(name)
        return ["8.8.8.8", "127.0.0.1"]

    with permit, httpx.Client(transport=through(permit, authority, resolver=inside)) as client:
        assert refused(client, "GET", "https://api.test/") == "address_refused"
    assert asked == ["api.test"]
    assert server.seen == []


def test_a_name_that_rebinds_beside_a_rule_with_a_range(pep, authority, server):
    """Asked once for each request; what it says later is checked anew, and by its own rule."""
    inside = Host(f"https://api.test:{server.port}/**", {"GET"}, LOOPBACK)
    outside = Host(f"https://other.test:{server.port}/**", {"GET"})
    permit = leave(pep, inside, outside)
    says = {
        "api.test": iter([["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "169.254.169.254"]]),
        "other.test": iter([["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"]]),
    }
    sent = through(permit, authority, resolver=lambda name: next(says[name]))
    with permit, httpx.Client(transport=sent) as client:
        assert client.get(f"https://api.test:{server.port}/").status_code == 200
        for _ in range(2):
            assert refused(client, "GET", f"https://api.test:{server.port}/") == "address_refused"
        for _ in range(3):
            assert refused(client, "GET", f"https://other.test:{server.port}/") == "address_refused"
    assert len(server.seen) == 1
    assert [list(left) for left in says.values()] == [[], []]


def test_a_redirect_is_a_request_like_any_other(pep, authority, server, base):
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    sent = through(permit, authority)
    with permit, httpx.Client(transport=sent, follow_redirects=True) as client:
        assert client.get(f"{base}/to?{base}/a").text.startswith("/a ")
        assert refused(client, "GET", f"{base}/to?http://127.0.0.1/") == "host_not_allowed"
        assert refused(client, "GET", f"{base}/to?//evil.test/") == "host_not_allowed"


def test_a_certificate_of_an_issuer_that_nobody_named(pep, authority, base, monkeypatch, tmp_path):
    """Also where the environment names it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    with permit, httpx.Client(transport=through(permit, authority, anchors=[])) as client:
        assert refused(client, "GET", base) == "certificate_refused"


def test_a_value_goes_where_the_token_binds_it_and_does_not_come_back(pep, authority, server, base):
    value = canary()
    bound = Secret(HANDLE, host=base, header="authorization")
    everywhere = Host(f"https://*.test:{server.port}/**", {"GET"}, LOOPBACK)
    permit = leave(pep, everywhere, secrets=[bound])
    secrets = {HANDLE: value}
    sent = through(permit, authority, secrets=secrets)
    asked = {"authorization": f"Bearer {HANDLE}"}
    with permit, httpx.Client(transport=sent) as client:
        response = client.get(f"{base}/a", headers=asked)
        assert server.seen[-1][2]["authorization"] == f"Bearer {value}"
        assert response.headers["x-echo"] == f"Bearer {HANDLE}"
        assert response.text == f"/a Bearer {HANDLE} b''"
        assert value not in repr((response, response.headers, response.request.headers, sent))

        other = f"https://other.test:{server.port}/"
        assert refused(client, "GET", other, headers=asked) == "secret_not_bound"
        assert refused(client, "GET", base, headers={"x-a": HANDLE}) == "secret_not_bound"
        assert refused(client, "GET", f"{base}/?{HANDLE}") == "secret_not_bound"
        mine = {"authorization": "Bearer of-my-own"}
        assert refused(client, "GET", base, headers=mine) == "header_refused"
        # What is rotated or taken away counts for the next request.
        secrets[HANDLE] = canary()
        client.get(base, headers=asked)
        assert server.seen[-1][2]["authorization"] == f"Bearer {secrets[HANDLE]}"
        del secrets[HANDLE]
        assert refused(client, "GET", base, headers=asked) == "secret_not_bound"


def test_headers_that_are_not_a_tools_to_set(pep, authority, server, base):
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    with permit, httpx.Client(transport=through(permit, authority)) as client:
        for name in ("host", "proxy-authorization", "cookie", "te", "x-http-method-override"):
            assert refused(client, "GET", base, headers={name: "evil.test"}) == "header_refused"
    assert server.seen == []


def test_what_fails_on_the_way_is_an_error_of_httpx(pep, authority, base):
    permit = leave(pep, Host("https://*/**", {"GET"}, LOOPBACK))
    nowhere = through(permit, authority, resolver=lambda _: [])
    with permit, httpx.Client(transport=nowhere) as client, pytest.raises(httpx.ConnectError):
        client.get(base)


def test_a_revoked_agent_sends_nothing_more(pep, authority, base):
    permit = leave(pep, Host(f"{base}/**", {"GET"}, LOOPBACK))
    with permit, httpx.Client(transport=through(permit, authority)) as client:
        assert client.get(base).status_code == 200
        pep.revoke(WORKER.id, by=PLANNER, now=NOW)
        assert refused(client, "GET", base) is None
