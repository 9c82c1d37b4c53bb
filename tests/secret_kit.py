"""What the tests of secrets share: a value to look for, and permits with a host."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from cast import LIMITS, NOW, PLANNER, WORKER, issue
from moat import Permit, Secret, SecretProxy, Session
from moat.secrets import Memory

if TYPE_CHECKING:
    from moat import Pep

HANDLE = "secret://github"
HOST = "https://api.github.com"


def canary() -> str:
    """A value that occurs nowhere else."""
    return "canary-" + secrets.token_hex(16)


def proxy_of(pep: Pep, value: str, **terms: Any) -> SecretProxy:
    """A proxy with one value in memory, bound to the worker at one host."""
    proxy = SecretProxy({"memory": Memory({"github": value})}, gate=pep.id)
    bound = {"backend": "memory", "name": "github", "agents": [WORKER.id], "hosts": [HOST]}
    proxy.bind(HANDLE, **(bound | terms))
    return proxy


FILLED = tuple(
    Secret(f"secret://{name}", host=host, header="authorization")
    for name in ("github", "other", "two", "vault", "slow")
    for host in (HOST, "https://*.github.com", "https://*.example")
)
"""What a token has filled in, unless a test says otherwise."""


def leave(
    pep: Pep,
    holder: Any = WORKER,
    hosts: tuple[str, ...] = (HOST,),
    secrets: tuple[Secret, ...] = FILLED,
) -> Permit:
    """A permit for a call, from a token that names hosts and that the planner delegated."""
    limits = LIMITS.replace(hosts=hosts, secrets=secrets)
    token = issue(limits=limits)
    if holder is not PLANNER:
        token = token.attenuate(PLANNER, holder=holder.id, now=NOW)
    return Session(pep, holder, token).request("call", "tool://search/web")
