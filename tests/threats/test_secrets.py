"""A secret's value: looked for everywhere, and asked for by those who are not to have it.

Code in this process that walks its memory (`gc`, `ctypes`, a debugger) is out of scope: it is the
host itself. Everything that shows, keeps or passes on objects in the ordinary way is in scope.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import io
import logging
import os
import pickle
import pprint
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console
from rich.traceback import Traceback

from cast import HOUR, LIMITS, MALLORY, PLANNER, ROOT, SEARCH, WORKER, clock, identity, issue
from moat import (
    AuditLog,
    InjectorFailed,
    MalformedInput,
    Moat,
    Pep,
    Permit,
    Policy,
    SecretProxy,
    Session,
    UnknownHandle,
    secrets,
    tool,
)
from moat.secrets import Environment, Memory
from secret_kit import FILLED, HANDLE, HOST, canary, leave, proxy_of
from threats.injectors import GOES_ON, RAISES, RETURNS, KeepsError, chained
from threats.test_permit import in_a_fork

GATE_B = identity("another-gate")


@pytest.fixture
def value() -> str:
    return canary()


@pytest.fixture
def proxy(pep: Pep, value: str) -> SecretProxy:
    return proxy_of(pep, value)


def refused(proxy: SecretProxy, permit: Permit, handle: str = HANDLE, host: str = HOST) -> None:
    """Nothing is filled in, and the text is the one that every refusal has."""
    with pytest.raises(UnknownHandle, match="for this agent, host and permit"):
        proxy.fill(permit, handle, host=host, into=pytest.fail)


# --- by whom, where and when ---


def test_the_permit_of_an_agent_to_whom_it_is_not_bound(pep: Pep, proxy: SecretProxy) -> None:
    """The one above in the chain, one beside, and one that the bound agent delegated to."""
    for other in (PLANNER, MALLORY):
        with leave(pep, other) as permit:
            refused(proxy, permit)
    limits = LIMITS.replace(hosts=(HOST,), secrets=FILLED)
    first = issue(holder=WORKER.id, limits=limits)
    theirs = first.attenuate(WORKER, holder=MALLORY.id, now=clock())
    with Session(pep, MALLORY, theirs).request("call", "tool://search/web") as permit:
        assert permit.sender == MALLORY.id
        refused(proxy, permit)


LOOK_ALIKES = [
    f"{HOST}.evil", f"{HOST}:8443", "http://api.github.com", "https://api-github.com",
    "https://api.github.co", "https://xapi.github.com", "https://x.api.github.com",
    "https://xn--api-github-9za.com", "https://127.0.0.1", "wss://api.github.com",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOK_ALIKES)
def test_a_host_that_looks_like_the_bound_one(pep: Pep, proxy: SecretProxy, host: str) -> None:
    """Also where the token names it."""
    with leave(pep, hosts=("https://*", "http://*")) as permit:
        try:
            refused(proxy, permit, host=host)
        except MalformedInput:
            assert "xn--" in host


@pytest.mark.parametrize(
    "host",
    ["https://API.github.com", f"{HOST}.", f"{HOST}:443", f"{HOST}/", f"{HOST}/path",
     "https://api.github.com@evil.example", "https://u:p@api.github.com", f"{HOST}#x", f"{HOST}?x",
     "https://\u0430pi.github.com", "https://api.github.com\\@evil", "https://api%2egithub.com",
     " https://api.github.com", "https://api.github.com\n", "https://*", "https://*.github.com",
     "api.github.com", ""],
)  # fmt: skip
def test_a_second_spelling_of_a_host_is_no_host(pep: Pep, proxy: SecretProxy, host: str) -> None:
    with leave(pep, hosts=("https://*",)) as permit, pytest.raises(MalformedInput):
        proxy.fill(permit, HANDLE, host=host, into=pytest.fail)


@pytest.mark.parametrize(
    "handle",
    ["github", "secret://GitHub", "secret://github/", "secret://github ", "secret://*", "",
     "SECRET://github", "secret://github\0", "tool://github", "x" * 100_000],
)  # fmt: skip
def test_a_handle_that_looks_like_the_bound_one(
    pep: Pep, proxy: SecretProxy, handle: str, caplog: pytest.LogCaptureFixture
) -> None:
    with leave(pep) as permit, pytest.raises(UnknownHandle) as caught:
        proxy.fill(permit, handle, host=HOST, into=pytest.fail)
    assert len(str(caught.value)) < 300
    assert len(caplog.messages[-1].splitlines()) == 1


def test_a_handle_that_would_steer_a_terminal_or_forge_a_line(
    pep: Pep, proxy: SecretProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with leave(pep) as permit, pytest.raises(UnknownHandle) as caught:
        proxy.fill(permit, "secret://x\n\x1b[2Jfilled", host=HOST, into=pytest.fail)
    for text in (str(caught.value), *caplog.messages):
        assert text.isprintable()


def test_a_permit_before_and_after_it_is_open(pep: Pep, proxy: SecretProxy) -> None:
    permit = leave(pep)
    refused(proxy, permit)
    with permit:
        assert proxy.fill(permit, HANDLE, host=HOST, into=bool) is True
    refused(proxy, permit)


def test_a_permit_that_dies_while_it_is_open_fills_no_more(tmp_path: Path, value: str) -> None:
    """The gate is closed under it: what has begun may end, and what comes next is decided anew."""
    with AuditLog.open(tmp_path / "log", signer=GATE_B, anchor=None, clock=clock) as audit:
        pep = Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=audit)
        permit, proxy = leave(pep), proxy_of(pep, value)
        permit.__enter__()

        def into(given: str) -> bool:
            permit.__exit__(None, None, None)
            return given == value

        assert proxy.fill(permit, HANDLE, host=HOST, into=into) is True
        refused(proxy, permit)


def test_an_open_permit_in_a_forked_child(pep: Pep, proxy: SecretProxy) -> None:
    def use() -> str:
        refused(proxy, permit)
        return "refused"

    with leave(pep) as permit:
        assert in_a_fork(use) == "refused"
        assert proxy.fill(permit, HANDLE, host=HOST, into=bool) is True


def test_the_permit_of_another_gate(tmp_path: Path, proxy: SecretProxy) -> None:
    """It trusts whom it likes: its yes is nothing to a proxy of this gate."""
    with AuditLog.open(tmp_path / "other", signer=GATE_B, anchor=None, clock=clock) as audit:
        other = Pep(policy=Policy.CHAIN_ONLY, roots=[ROOT.id], audit=audit)
        with leave(other) as permit:
            refused(proxy, permit)


# --- what an injector leaves behind ---


def shown(error: BaseException) -> str:
    """All that can be shown of an error, by us, by the standard library and by rich."""
    told = io.StringIO()
    traceback.print_exception(error, file=told)
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    told.writelines(whole.format())
    screen = Console(file=told, width=200)
    trace = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=10_000
    )
    screen.print(trace)
    about: list[object] = [
        error, error.args, vars(error), error.__cause__, error.__context__,
        getattr(error, "__notes__", None), type(error).__name__,
    ]  # fmt: skip
    return told.getvalue() + repr(about) + str(about)


@contextlib.contextmanager
def everything_written() -> Iterator[io.StringIO]:
    """What is logged at every level and printed, meanwhile."""
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            yield told
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def failure(use: Callable[[], object], kind: type[BaseException]) -> BaseException:
    """What it raises, with its traceback."""
    try:
        use()
    except kind as error:
        return error
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("into", RAISES, ids=lambda into: into.__name__)
def test_what_an_injector_raises_shows_no_value(
    pep: Pep, proxy: SecretProxy, into: Callable[[str], object], value: str
) -> None:
    with everything_written() as told, leave(pep) as permit:
        error = failure(lambda: proxy.fill(permit, HANDLE, host=HOST, into=into), InjectorFailed)
        assert value not in shown(error)
        assert value not in told.getvalue()
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    assert into.__name__ not in frames


@pytest.mark.parametrize("into", GOES_ON, ids=lambda into: into.__name__)
def test_an_interrupt_goes_on_emptied(
    pep: Pep, proxy: SecretProxy, into: Callable[[str], object], value: str
) -> None:
    kind = GOES_ON[into]
    with leave(pep) as permit:
        error = failure(lambda: proxy.fill(permit, HANDLE, host=HOST, into=into), kind)
    assert type(error) is kind
    assert value not in shown(error)


@pytest.mark.parametrize("into", [*RAISES, *GOES_ON], ids=lambda into: into.__name__)
def test_what_an_asynchronous_injector_raises_shows_no_value(
    pep: Pep, proxy: SecretProxy, into: Callable[[str], object], value: str
) -> None:
    async def slowly(given: str) -> object:
        await asyncio.sleep(0)
        return into(given)

    async def main() -> str:
        try:
            await proxy.fill_async(permit, HANDLE, host=HOST, into=slowly)
        except (InjectorFailed, *GOES_ON.values()) as error:  # type: ignore[misc]
            return shown(error)
        pytest.fail("nothing was raised")

    with everything_written() as told, leave(pep) as permit:
        assert value not in asyncio.run(main())
    assert value not in told.getvalue()


@pytest.mark.parametrize("number", range(len(RETURNS)))
def test_a_result_with_the_value_in_it_is_refused(
    pep: Pep, proxy: SecretProxy, number: int, value: str
) -> None:
    with leave(pep) as permit:
        error = failure(
            lambda: proxy.fill(permit, HANDLE, host=HOST, into=RETURNS[number]), InjectorFailed
        )
    assert value not in shown(error)


def test_a_coroutine_that_nobody_awaits_does_not_carry_the_value_away(
    pep: Pep, proxy: SecretProxy, value: str
) -> None:
    async def later(given: str) -> NoReturn:
        pytest.fail(given)

    with leave(pep) as permit:
        error = failure(lambda: proxy.fill(permit, HANDLE, host=HOST, into=later), InjectorFailed)
    assert value not in shown(error)


def test_a_backend_that_fails_shows_no_value(pep: Pep, value: str) -> None:
    class Vault:
        def get(self, name: str) -> str:
            local = value
            raise KeepsError(local)

    class Slow:
        def get(self, name: str) -> str:
            local = value
            raise KeyboardInterrupt(local)

    proxy = SecretProxy({"vault": Vault(), "slow": Slow()}, gate=pep.id)
    with everything_written() as told, leave(pep) as permit:
        for backend, kind in (("vault", UnknownHandle), ("slow", KeyboardInterrupt)):
            handle = f"secret://{backend}"
            bound = {"backend": backend, "name": "x", "agents": [WORKER.id], "hosts": [HOST]}
            proxy.bind(handle, **bound)
            error = failure(partial(proxy.fill, permit, handle, host=HOST, into=len), kind)
            assert value not in shown(error)
    assert "KeepsError" in told.getvalue()
    assert value not in told.getvalue()


# --- what is kept ---


def test_nothing_that_is_kept_shows_copies_or_pickles_a_value(
    pep: Pep, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_SECRET_TOKEN", value)
    memory, taken = Memory({"github": value}), Environment()
    proxy = SecretProxy({"memory": memory, "env": taken}, gate=pep.id)
    proxy.bind(HANDLE, backend="memory", name="github", agents=[WORKER.id], hosts=[HOST])
    boxes = list(vars(memory)["_secrets"].values())
    assert boxes
    kept: list[Any] = [proxy, memory, taken, *boxes, *vars(proxy).values(), *vars(taken).values()]
    for thing in kept:
        texts = [repr(thing), str(thing), format(thing), pprint.pformat(thing)]
        texts += [repr(getattr(thing, "__dict__", None)), repr(dir(thing))]
        assert value not in "".join(texts)
    for thing in (proxy, memory, taken, *boxes):
        for away in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError) as caught:
                away(thing)
            assert value not in repr(caught.value)
    for box in boxes:
        with pytest.raises(TypeError):
            copy.copy(box)


def test_a_value_that_was_dropped_is_zeroed_in_its_box(value: str) -> None:
    memory = Memory({"a": value, "b": value})
    boxes = list(vars(memory)["_secrets"].values())
    memory.set("a", "another")
    memory.remove("b")
    for box in boxes:
        assert set(box.reveal()) == {"\0"}


@pytest.mark.parametrize("into", [len, chained], ids=["well", "badly"])
def test_the_box_made_for_a_fill_is_zeroed_after_it(
    pep: Pep, proxy: SecretProxy, into: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = []
    inject = secrets.inject

    def spy(box: Any, into: Any) -> Any:
        boxes.append(box)
        return inject(box, into)

    monkeypatch.setattr(secrets, "inject", spy)
    with leave(pep) as permit, contextlib.suppress(InjectorFailed):
        proxy.fill(permit, HANDLE, host=HOST, into=into)
    assert [set(box.reveal()) for box in boxes] == [{"\0"}]


def test_a_value_is_nowhere_but_in_the_injector(tmp_path: Path, value: str) -> None:
    """A whole life on a state folder; then every file of it, all output and all errors."""
    memory = Memory({"github": value})
    with everything_written() as told:
        errors, arrived, kinds = whole_life(tmp_path / "state", memory, f"{value}-2")
    assert arrived == [digest(value), digest(f"{value}-2")]
    assert kinds.count("outcome") >= 5
    assert len(errors) == 3
    assert value not in "".join(errors)
    assert value not in told.getvalue()
    assert HANDLE in told.getvalue()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    needle = value.removeprefix("canary-").encode()
    assert not [path for path in files if needle in path.read_bytes() + os.fsencode(path)]


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def whole_life(state: Path, memory: Memory, rotated: str) -> tuple[list[str], list[str], list[str]]:
    """Fill well and badly, rotate and remove; errors as shown, digests of what arrived, lines."""
    arrived: list[str] = []
    acts: dict[str, Callable[[str], object]] = {
        "well": lambda given: arrived.append(digest(given)),
        "raise": chained,
        "return": RETURNS[2],
    }

    @tool("tool://search/web")
    def search(handle: str, how: str) -> object:
        with session.request("call", "tool://search/web") as permit:
            return proxy.fill(permit, handle, host=HOST, into=acts[how])

    with Moat.open(state) as moat:
        worker = moat.identity("worker", create=True)
        limits = LIMITS.replace(hosts=(HOST,), secrets=FILLED)
        token = moat.issue(holder=worker.id, allow=[SEARCH], expires_in=HOUR, limits=limits)
        session = moat.session(worker, token)
        proxy = SecretProxy({"memory": memory}, gate=moat.id)
        proxy.bind(HANDLE, backend="memory", name="github", agents=[worker.id], hosts=[HOST])
        session.call(search, HANDLE, "well")
        errors = fail_thrice(lambda *given: session.call(search, *given))
        proxy.rotate(HANDLE, rotated)
        session.call(search, HANDLE, "well")
        proxy.remove(HANDLE)
        return errors, arrived, [entry["kind"] for entry in moat.audit.entries()]


def fail_thrice(call: Callable[[str, str], object]) -> list[str]:
    errors = []
    for handle, how in ((HANDLE, "raise"), (HANDLE, "return"), ("secret://none", "well")):
        try:
            call(handle, how)
        except (InjectorFailed, UnknownHandle) as error:
            errors.append(shown(error))
            logging.getLogger("app").exception("it failed")
    return errors
