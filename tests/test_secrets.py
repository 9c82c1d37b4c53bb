"""``SecretProxy``: a handle is filled for its agents, at its hosts, while a permit is open."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cast import MALLORY, PLANNER, WORKER
from moat import (
    Host,
    InjectorFailed,
    MalformedInput,
    MoatError,
    Secret,
    SecretProxy,
    UnknownHandle,
)
from moat.secrets import Environment, Memory
from secret_kit import HANDLE, HOST, canary, leave, proxy_of

VALUE = canary()


@pytest.fixture
def proxy(pep):
    return proxy_of(pep, VALUE)


@pytest.fixture
def fill(pep, proxy):
    """Fill once, under a permit of its own; what the injector got."""

    def once(handle=HANDLE, host=HOST, **who):
        got = []
        with leave(pep, **who) as permit:
            proxy.fill(permit, handle, host=host, into=got.append)
        return got

    return once


def refused(use, *args, **kwargs):
    with pytest.raises(UnknownHandle) as caught:
        use(*args, **kwargs)
    return str(caught.value)


def test_the_injector_gets_the_value_and_the_caller_its_result(pep, proxy):
    with leave(pep) as permit:
        length = proxy.fill(permit, HANDLE, host=HOST, into=len)
    assert length == len(VALUE)


def test_an_asynchronous_injector_is_awaited(pep, proxy):
    got = []

    async def into(value):
        await asyncio.sleep(0)
        got.append(value)
        return {"status": 200}

    with leave(pep) as permit:
        answer = asyncio.run(proxy.fill_async(permit, HANDLE, host=HOST, into=into))
    assert (answer, got) == ({"status": 200}, [VALUE])


def test_it_is_filled_as_often_as_needed_while_the_permit_is_open(pep, proxy):
    got = []
    with leave(pep) as permit:
        for _ in range(3):
            proxy.fill(permit, HANDLE, host=HOST, into=got.append)
    assert got == [VALUE] * 3


def test_a_pattern_of_hosts_is_every_one_that_it_matches(pep):
    proxy = proxy_of(pep, VALUE, hosts=["https://*.github.com"])
    for host, fits in ((HOST, True), ("https://github.com", False)):
        with leave(pep, hosts=("https://*",)) as permit:
            if fits:
                assert proxy.fill(permit, HANDLE, host=host, into=bool) is True
            else:
                refused(proxy.fill, permit, HANDLE, host=host, into=pytest.fail)


@pytest.mark.parametrize("terms", [{"agents": []}, {"hosts": []}, {"agents": [PLANNER.id]}])
def test_no_agents_is_nobody_and_no_hosts_is_nowhere(pep, terms):
    proxy = proxy_of(pep, VALUE, **terms)
    with leave(pep) as permit:
        refused(proxy.fill, permit, HANDLE, host=HOST, into=pytest.fail)


def test_the_token_must_name_the_host_too(pep, proxy, fill):
    assert fill() == [VALUE]
    for hosts in ((), ("https://example.com",), (f"{HOST}:8443",)):
        refused(fill, hosts=hosts)


def test_a_path_and_a_method_name_their_host(pep, proxy):
    with leave(pep, hosts=(Host(f"{HOST}/repos/**", {"GET"}),)) as permit:
        assert proxy.fill(permit, HANDLE, host=HOST, into=len) == len(VALUE)


def test_the_token_must_name_the_secret_at_the_host(pep, proxy, fill):
    def key(handle=HANDLE, host=HOST):
        return Secret(handle, host=host, header="authorization")

    assert fill(secrets=(key(),)) == [VALUE]
    assert fill(secrets=(key(host="https://*.github.com"),)) == [VALUE]
    for secrets in ((), (key("secret://other"),), (key(host="https://github.com"),)):
        refused(fill, secrets=secrets)


def test_the_handle_must_be_bound_to_the_host_too(pep, proxy):
    with leave(pep, hosts=("https://*",)) as permit:
        refused(proxy.fill, permit, HANDLE, host="https://example.com", into=pytest.fail)


def test_every_refusal_has_one_text_and_its_own_reason_in_the_owners_log(pep, proxy, caplog):
    """A stranger cannot tell which handles there are; the owner can tell what was wrong."""
    proxy.bind("secret://other", backend="memory", name="lost", agents=[WORKER.id], hosts=[HOST])
    cases = {
        "no such handle": ("secret://none", {}),
        "not bound to this agent": (HANDLE, {"holder": PLANNER}),
        "the token does not name this host": (HANDLE, {"hosts": ()}),
        "the token does not name this secret": (HANDLE, {"secrets": ()}),
        "gave no value: KeyError": ("secret://other", {}),
    }
    texts = set()
    for why, (handle, who) in cases.items():
        caplog.clear()
        with leave(pep, **who) as permit:
            said = refused(proxy.fill, permit, handle, host=HOST, into=pytest.fail)
        texts.add(said.replace(handle, "HANDLE"))
        assert why in caplog.text
        assert handle in caplog.text
    assert len(texts) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_permit_that_is_not_open_fills_nothing(pep, proxy, caplog, when):
    permit = leave(pep)
    if when == "after":
        with permit:
            pass
    refused(proxy.fill, permit, HANDLE, host=HOST, into=pytest.fail)
    assert "not open" in caplog.text


def test_a_rotated_value_is_the_next_one_filled(proxy, fill):
    assert fill() == [VALUE]
    new = canary()
    proxy.rotate(HANDLE, new)
    assert fill() == [new]


def test_a_rotation_meanwhile_does_not_disturb_a_fill(pep, proxy):
    def into(value):
        proxy.rotate(HANDLE, "another value")
        return value == VALUE

    with leave(pep) as permit:
        assert proxy.fill(permit, HANDLE, host=HOST, into=into) is True


def test_a_removed_handle_is_unknown_and_can_be_bound_anew(pep, proxy, fill):
    assert proxy.handles() == (HANDLE,)
    proxy.remove(HANDLE)
    assert proxy.handles() == ()
    refused(fill)
    for use in (lambda: proxy.remove(HANDLE), lambda: proxy.rotate(HANDLE, "x")):
        assert "not bound" in refused(use)
    proxy.bind(HANDLE, backend="memory", name="github", agents=[WORKER.id], hosts=[HOST])
    refused(fill)  # the value went with the handle
    proxy.rotate(HANDLE, VALUE)
    assert fill() == [VALUE]


def test_a_value_behind_two_handles_stays_for_the_other(proxy, fill):
    proxy.bind("secret://two", backend="memory", name="github", agents=[WORKER.id], hosts=[HOST])
    proxy.remove(HANDLE)
    refused(fill)
    assert fill("secret://two") == [VALUE]


@pytest.mark.parametrize(
    "handle", ["github", "secret://", "secret://*", "SECRET://x", "secret://a b", "tool://x", ""]
)
def test_a_handle_has_one_form(proxy, handle):
    with pytest.raises(MalformedInput):
        proxy.bind(handle, backend="memory", name="x", agents=[], hosts=[])


def test_a_binding_is_not_replaced_by_another(proxy):
    with pytest.raises(MoatError, match="remove it first"):
        proxy.bind(HANDLE, backend="memory", name="x", agents=[MALLORY.id], hosts=[HOST])
    with pytest.raises(MoatError, match="no backend `vault`"):
        proxy.bind("secret://x", backend="vault", name="x", agents=[], hosts=[])


@pytest.mark.parametrize(
    "terms",
    [{"agents": ["planner"]}, {"agents": [WORKER]}, {"hosts": HOST}, {"hosts": ["api.github.com"]},
     {"hosts": [f"{HOST}/path"]}],
)  # fmt: skip
def test_a_binding_names_keys_and_hosts(pep, terms):
    with pytest.raises((MalformedInput, TypeError)):
        proxy_of(pep, VALUE, **terms)


def test_a_secret_is_filled_for_a_permit_and_nothing_like_it(proxy):
    class Fake:
        is_open, sender = True, WORKER.id

    with pytest.raises(TypeError, match="`Permit`"):
        proxy.fill(Fake(), HANDLE, host=HOST, into=pytest.fail)


# --- what comes back ---


@pytest.mark.parametrize(
    "result", [None, True, 3, 1.5, "text", b"bytes", ["a", {"b": (1, None)}], {"a": {1, 2}}]
)
def test_plain_data_comes_back_as_it_is(pep, proxy, result):
    with leave(pep) as permit:
        assert proxy.fill(permit, HANDLE, host=HOST, into=lambda _: result) is result


def test_what_refers_to_itself_comes_back_too(pep, proxy):
    loop: list[object] = []
    loop.append(loop)
    with leave(pep) as permit:
        assert proxy.fill(permit, HANDLE, host=HOST, into=lambda _: loop) is loop


def test_an_open_connection_does_not_outlive_the_fill(pep, proxy):
    closed = []

    class Connection:
        def close(self):
            closed.append(self)

    with leave(pep) as permit, pytest.raises(InjectorFailed, match="returned `Connection`") as e:
        proxy.fill(permit, HANDLE, host=HOST, into=lambda _: [Connection()])
    assert len(closed) == 1
    assert e.value.kind is None


def test_what_the_injector_raises_is_named_and_no_more(pep, proxy, audit):
    def into(value):
        raise OSError(value)

    with pytest.raises(InjectorFailed, match="raised `OSError`") as caught, leave(pep) as permit:
        proxy.fill(permit, HANDLE, host=HOST, into=into)
    assert caught.value.kind == "OSError"
    outcome = [entry for entry in audit.entries() if entry["kind"] == "outcome"][-1]
    assert outcome["body"]["detail"] == "InjectorFailed"


# --- backends ---


def test_the_environment_is_taken_so_that_no_child_inherits_it(monkeypatch):
    monkeypatch.setenv("MOAT_SECRET_GITHUB", VALUE)
    monkeypatch.setenv("MOAT_SECRET_EMPTY", "")
    taken = Environment()
    assert taken.get("GITHUB") == VALUE
    assert not [name for name in os.environ if name.startswith("MOAT_SECRET_")]
    code = "import os; print(*os.environ.values())"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert VALUE.encode() not in child.stdout
    for name in ("EMPTY", "PATH"):
        with pytest.raises(LookupError):
            taken.get(name)


def test_the_environment_can_be_read_at_every_fill(pep, monkeypatch):
    proxy = SecretProxy({"env": Environment("APP_", take=False)}, gate=pep.id)
    proxy.bind(HANDLE, backend="env", name="TOKEN", agents=[WORKER.id], hosts=[HOST])
    got = []
    with leave(pep) as permit:
        refused(proxy.fill, permit, HANDLE, host=HOST, into=got.append)
        for value in ("one", "two"):
            monkeypatch.setenv("APP_TOKEN", value)
            proxy.fill(permit, HANDLE, host=HOST, into=got.append)
        monkeypatch.setenv("APP_TOKEN", "")
        refused(proxy.fill, permit, HANDLE, host=HOST, into=got.append)
    assert got == ["one", "two"]
    with pytest.raises(MoatError, match="only reads"):
        proxy.rotate(HANDLE, "three")
    proxy.remove(HANDLE)
    assert os.environ["APP_TOKEN"] == ""


def test_an_environment_without_a_prefix_would_be_everything():
    with pytest.raises(MalformedInput):
        Environment("")


def test_a_value_is_text_with_something_in_it():
    for value in ("", None, b"bytes", 7):
        with pytest.raises(MalformedInput, match="at least one character"):
            Memory({"x": value})


def test_a_value_of_odd_bytes_is_filled_as_it_is(pep, monkeypatch):
    """Bytes that are no UTF-8 are surrogates in Python, and must not end in an error."""
    odd = os.fsdecode(b"odd-\xff-value")
    proxy = proxy_of(pep, odd)
    with leave(pep) as permit:
        assert proxy.fill(permit, HANDLE, host=HOST, into=lambda value: value == odd)
        with pytest.raises(InjectorFailed, match="holds the secret"):
            proxy.fill(permit, HANDLE, host=HOST, into=lambda value: f"<{value}>")


def test_threads_fill_rotate_and_remove_at_once(pep, proxy):
    """Each fill gets one whole value, or the handle is unknown."""
    values = [canary() for _ in range(20)]
    known = {VALUE, *values}

    def work(number):
        if number % 5 == 0:
            proxy.rotate(HANDLE, values[number // 5])
        try:
            return proxy.fill(permit, HANDLE, host=HOST, into=lambda value: value in known)
        except UnknownHandle:
            return "unknown"

    with leave(pep) as permit, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(100)))
        proxy.remove(HANDLE)
        answers.append(work(1))
    assert answers == [True] * 100 + ["unknown"]
