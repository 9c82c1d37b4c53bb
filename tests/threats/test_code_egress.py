"""What code given as text sends goes through the engine, with secrets that it never sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cast import PLANNER, WORKER, issue
from code_kit import ALLOW, LIMITS
from egress_kit import LOOPBACK, Authority
from moat import Host, Secret, SecretProxy, Session, code
from moat._native import Egress
from moat.secrets import Memory
from secret_kit import HANDLE, canary

if TYPE_CHECKING:
    pass


pytestmark = pytest.mark.usefixtures("interpreters")


@pytest.fixture
def egress(authority: Authority) -> Egress:
    return Egress(anchors=[authority.der], resolver=lambda _: ["127.0.0.1"])


def coder(pep, base, **more) -> Session:
    hosts = [Host(f"{base}/a/**", {"GET"}, LOOPBACK)]
    secrets = [Secret(HANDLE, host=base, header="authorization")]
    token = issue(allow=ALLOW, limits=LIMITS.replace(hosts=hosts, secrets=secrets))
    return Session(pep, PLANNER, token, **more)


FETCHES = {
    "python": """
for url in {urls}:
    try:
        print(http_get(url)["body"])
    except OSError as error:
        print("refused")
""",
    "javascript": """
for (const url of {urls}) {{
  try {{ console.log(await (await fetch(url)).text()) }}
  catch (error) {{ console.log("refused") }}
}}
""",
}


@pytest.mark.parametrize("language", code.LANGUAGES)
def test_code_reaches_what_its_token_names_and_nothing_else(pep, server, base, egress, language):
    urls = [f"{base}/a/b", f"{base}/c", f"https://other.test:{server.port}/a/b"]
    source = FETCHES[language].format(urls=urls)
    outcome = code.run(coder(pep, base), source, language=language, egress=egress).check()
    assert outcome.stdout.split("\n") == ["/a/b nothing b''", "refused", "refused", ""]
    assert [path for _, path, *_ in server.seen] == ["/a/b"]


def test_code_sends_a_handle_and_never_sees_the_value(pep, server, base, egress):
    value = canary()
    secrets = SecretProxy({"memory": Memory({"github": value})}, gate=pep.id)
    secrets.bind(HANDLE, backend="memory", name="github", agents=[PLANNER.id], hosts=[base])
    source = f"""
const headers = {{authorization: "Bearer {HANDLE}"}};
const answer = await fetch("{base}/a", {{headers}});
console.log(await answer.text(), answer.headers.get("x-echo"));
"""
    session = coder(pep, base, secrets=secrets)
    outcome = code.run(session, source, language="javascript", egress=egress).check()
    [(_, _, headers, _)] = server.seen
    assert headers["authorization"] == f"Bearer {value}"
    assert outcome.stdout.startswith("/a Bearer ")
    assert value not in outcome.stdout + outcome.stderr


def test_code_of_an_agent_without_the_secret_sends_nothing(pep, server, base, egress):
    value = canary()
    secrets = SecretProxy({"memory": Memory({"github": value})}, gate=pep.id)
    secrets.bind(HANDLE, backend="memory", name="github", agents=[WORKER.id], hosts=[base])
    source = f"""
try {{ await fetch("{base}/a", {{headers: {{authorization: "{HANDLE}"}}}}) }}
catch (error) {{ console.log("refused") }}
"""
    session = coder(pep, base, secrets=secrets)
    outcome = code.run(session, source, language="javascript", egress=egress)
    assert outcome.stdout == "refused\n"
    assert server.seen == []
