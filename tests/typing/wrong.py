"""Wrong use. Each line names the errors that a type checker must give. Never run."""

from datetime import timedelta

from moat import (
    AgentId,
    AuditLog,
    Decision,
    Grant,
    Host,
    Identity,
    Limits,
    Message,
    Permit,
    Pep,
    Policy,
    Sandbox,
    Secret,
    Session,
    Token,
    tool,
)


@tool("tool://search/web")
def search(q: str) -> str:
    return q


@tool("tool://search/web")
async def dig(q: str) -> str:
    return q


def values(root: Identity, worker: AgentId, token: Token) -> None:
    Token.issue(root, holder=worker, allow=[Grant("tool://x", {"call"})])  # error: call-arg
    Token.issue(root, holder=root, allow=[], expires_in=timedelta(1))  # error: arg-type
    Grant("tool://x", {"call"}, args=["a"])  # error: arg-type
    Limits(fuel=1.5)  # error: arg-type
    Limits(time=3)  # error: arg-type
    Limits(secrets=["secret://key"])  # error: list-item
    Host("https://a/**")  # error: call-arg
    Host("https://a/**", {"GET"}, 8)  # error: arg-type
    Secret("secret://key", "https://a", "x")  # error: call-arg
    token.limits.fuel = 7  # error: misc
    root.verify(b"", b"")  # error: attr-defined
    Message(b"")  # error: call-arg
    Message.seal(root, gate=worker, token=token, action="a", resource="b")  # error: call-arg


def gate(log: AuditLog, root: AgentId, decision: Decision, permit: Permit) -> None:
    Pep(roots=[root], audit=log)  # error: call-arg
    Pep(policy="chain-only", roots=[root], audit=log)  # error: arg-type
    decision.permit.entry  # error: union-attr
    Sandbox("search.wasm").run(decision.permit)  # error: arg-type
    Sandbox("search.wasm").run(decision)  # error: arg-type
    decision.permit = permit  # error: misc


async def work(session: Session) -> None:
    session.call(search)  # error: call-arg
    session.call(search, q=1)  # error: arg-type
    session.call(search.function, q="a")  # error: arg-type
    session.delegate(session.identity.id, fuel=1)  # error: call-arg
    session.call_async(dig, q="a")  # error: unused-coroutine
    await session.call_async(search, q="a")  # error: arg-type
