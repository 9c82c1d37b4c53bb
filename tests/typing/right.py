"""Right use, as a type checker sees it. Read by a test, never run."""

from datetime import timedelta

from typing_extensions import assert_type

import moat
from moat import (
    AgentId,
    AuditLog,
    Checkpoint,
    Decision,
    Grant,
    Host,
    Identity,
    InclusionProof,
    Limits,
    Message,
    Moat,
    Pep,
    Permit,
    Policy,
    Sandbox,
    SandboxOutcome,
    Secret,
    Session,
    Token,
    tool,
)


@tool("tool://search/web")
def search(q: str, *, limit: int = 10) -> list[str]:
    return [q] * limit


@tool("tool://search/deep", action="read")
async def dig(q: str) -> bytes:
    return q.encode()


def values(root: Identity, worker: AgentId) -> None:
    token = Token.issue(
        root, holder=worker, allow=[Grant("tool://x", {"call"})], expires_in=timedelta(hours=1)
    )
    assert_type(token.attenuate(root, holder=worker, limits=Limits.standard()), Token)
    assert_type(token.permits("call", "tool://x", {"deep": [1, {"a": None}]}), bool)
    assert_type(token.id, bytes)
    wire = Message.seal(
        root, gate=worker, token=token, policy=Policy.CHAIN_ONLY.hash, action="a", resource="b"
    )
    assert_type(wire, bytes)
    key = Secret("secret://key", host="https://a", header="authorization")
    limits = Limits(hosts=["https://a", Host("https://b/**", {"GET"}, ["::1/128"])], secrets=[key])
    assert_type(limits.hosts, tuple[Host, ...])
    assert_type(limits.secrets, tuple[Secret, ...])
    assert_type(moat.__version__, str)
    assert_type(moat.REASONS["not_granted"], str)


def gate(log: AuditLog, root: AgentId, wire: bytes) -> None:
    pep = Pep(policy=Policy.CHAIN_ONLY, roots=[root], audit=log)
    decision = pep.decide(wire)
    assert_type(decision, Decision)
    if decision.permit is not None:
        assert_type(decision.permit, Permit)
        assert_type(Sandbox(b"").run(decision.permit), SandboxOutcome)
    assert_type(log.prove(0), InclusionProof)
    assert_type(log.checkpoint(), Checkpoint)


async def work(state: Moat, session: Session) -> None:
    assert_type(session.call(search, "moat", limit=3), list[str])
    assert_type(await session.call_async(dig, q="moat"), bytes)
    assert_type(session.delegate(state.id, depth=0, limits=Limits()), Token)
    with session.request("call", "tool://x") as permit:
        permit.record(b"")
