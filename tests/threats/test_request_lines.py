"""No request without a line in the log, and none after the permit or the trust has ended."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import httpx
import pytest

from cast import LIMITS, PLANNER, ROOT, issue
from egress_kit import LOOPBACK
from guests.build import wat
from moat import AuditLog, Denied, EgressDenied, Host, Sandbox, Session, egress
from moat._native import Egress

if TYPE_CHECKING:
    pass


@pytest.fixture
def permit(pep, base):
    limits = LIMITS.replace(hosts=[Host(f"{base}/a/**", {"GET"}, LOOPBACK)], fuel=10**8)
    return Session(pep, PLANNER, issue(limits=limits)).request("call", "tool://search/web")


@pytest.fixture
def client(permit, authority) -> httpx.Client:
    way = egress.transport(permit, anchors=[authority.der], resolver=lambda _: ["127.0.0.1"])
    return httpx.Client(transport=way)


def lines(audit) -> list[dict]:
    return [entry["body"] for entry in audit.entries() if entry["kind"] == "request"]


def test_what_a_tool_of_the_host_sends_is_a_line(permit, client, audit, base):
    with permit:
        assert client.get(f"{base}/a/b?key=word").text.startswith("/a/b?key=word ")
    query = hashlib.sha256(b"key=word").hexdigest()
    assert lines(audit) == [{
        "decision": permit.entry, "allow": True, "method": "GET", "url": f"{base}/a/b",
        "query": query,
    }]  # fmt: skip


def test_what_a_guest_sends_is_a_line_before_its_outcome(permit, audit, authority, base, server):
    engine = Egress(anchors=[authority.der], resolver=lambda _: ["127.0.0.1"])
    place = base.removeprefix("https://")
    ran = Sandbox(wat("http")).call(permit, "fetch", [0, place, "/a"], egress=engine).check()
    assert ran.result["ok"][0] == 200
    assert [entry["kind"] for entry in audit.entries()][-3:] == ["decision", "request", "outcome"]
    assert lines(audit)[0]["url"] == f"{base}/a"
    assert AuditLog.verify(audit.path, log=audit.id, anchor=None).entries == len(audit)


@pytest.mark.parametrize("asked", ["GET /b", "POST /a"])
def test_what_is_refused_is_a_line_too(permit, client, audit, server, asked):
    method, path = asked.split()
    url = f"https://api.test:{server.port}{path}"
    with permit, pytest.raises(EgressDenied):
        client.request(method, url)
    (line,) = lines(audit)
    assert (line["allow"], line["reason"], line["url"]) == (False, "host_not_allowed", url)
    assert server.seen == []


def test_what_cannot_be_written_down_is_not_sent(permit, client, audit, base, server):
    permit.__enter__()
    audit.close()
    with pytest.raises(EgressDenied, match="log|withdrawn"):
        client.get(f"{base}/a")
    assert server.seen == []


def test_nothing_is_sent_once_trust_is_withdrawn(permit, client, audit, pep, server):
    """The permit is open, and was opened before."""
    with permit:
        pep.revoke(PLANNER.id, by=ROOT)
        with pytest.raises((EgressDenied, Denied)):
            client.get(f"https://api.test:{server.port}/a")
    assert server.seen == []
    assert lines(audit) == []


def test_nothing_is_sent_with_a_permit_that_is_closed(permit, client, audit, base, server):
    with permit:
        pass
    with pytest.raises(Denied):
        client.get(f"{base}/a")
    assert (server.seen, lines(audit)) == ([], [])
