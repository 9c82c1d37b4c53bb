"""A box around a secret's value, and the functions that open it for an injector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from moat.errors import InjectorFailed, MalformedInput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

R = TypeVar("R")


class Boxed:
    """A box around one value: no text, no copy, no pickle."""

    __slots__ = ("_data",)

    def __init__(self, value: object) -> None:
        if not isinstance(value, str) or not value:
            message = "a secret is text of at least one character"
            raise MalformedInput(message)
        # Without `surrogatepass` an odd byte in a variable would raise an error that holds it.
        self._data = bytearray(value.encode("utf-8", "surrogatepass"))

    def reveal(self) -> str:
        """Give the value: a new string, which nobody can wipe."""
        return self._data.decode("utf-8", "surrogatepass")

    def wipe(self) -> None:
        """Overwrite it with zeros."""
        self._data[:] = bytes(len(self._data))

    def is_in(self, part: object) -> bool:
        """Whether it occurs in bytes, in a text or in how a number is written."""
        if not isinstance(part, bytes | bytearray):
            part = str(part).encode("utf-8", "surrogatepass")
        return self._data in part

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:  # copying asks for it too
        message = "a secret is not copied or pickled; fill it in where it is needed"
        raise TypeError(message)


# INVARIANT: no exception passes through the three functions that call a backend or an injector.
# Whatever is raised to the caller is made here, and raised where no frame has a value.


def fetch(get: Callable[[str], str], name: str) -> tuple[Boxed | None, BaseException | None]:
    try:
        return Boxed(get(name)), None
    except BaseException as error:  # noqa: BLE001 (nothing that was raised may go on)
        return None, _stand_in(error)


def inject(secret: Boxed, into: Callable[[str], R]) -> tuple[R | None, BaseException | None]:
    try:
        return _fit(into(secret.reveal()), secret)
    except BaseException as error:  # noqa: BLE001 (as above)
        return None, _stand_in(error, secret)
    finally:
        secret.wipe()


async def inject_async(
    secret: Boxed, into: Callable[[str], Awaitable[R]]
) -> tuple[R | None, BaseException | None]:
    try:
        return _fit(await into(secret.reveal()), secret)
    except BaseException as error:  # noqa: BLE001 (as above)
        return None, _stand_in(error, secret)
    finally:
        secret.wipe()


def _stand_in(error: BaseException, secret: Boxed | None = None) -> BaseException:
    """Make what is raised in the place of an error: of its text, frames and causes, nothing."""
    if isinstance(error, SystemExit):
        code = error.code if type(error) is SystemExit else 1
        return SystemExit(code if code is None or type(code) is int else 1)
    for kind in (KeyboardInterrupt, GeneratorExit):
        if isinstance(error, kind):
            return kind()
    if not isinstance(error, Exception):
        from asyncio import CancelledError  # noqa: PLC0415 - slow to import, and seldom needed

        if isinstance(error, CancelledError):
            return CancelledError()
    name = _name(error, secret)
    message = f"the injector raised `{name}`, whose text may hold the secret; handle it inside"
    return _failed(message, name)


def _fit(result: R, secret: Boxed) -> tuple[R | None, InjectorFailed | None]:
    """Let plain data through in which the value does not occur as it is written."""
    waiting: list[Any] = [result]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind in {list, tuple, set, frozenset, dict}:
            if id(part) not in seen:
                seen.add(id(part))
                waiting += part
                waiting += part.values() if kind is dict else ()
        elif part is None or kind is bool:
            continue
        elif kind not in {int, float, str, bytes, bytearray}:
            if hasattr(part, "close"):  # a connection, or a coroutine that nobody awaited
                part.close()
            message = f"the injector returned `{_name(part, secret)}`, which may hold the secret; "
            return None, _failed(message + "return text, bytes or what JSON can hold")
        elif secret.is_in(part):
            message = "what the injector returned holds the secret; return what the agent may see"
            return None, _failed(message)
    return result, None


def _name(thing: object, secret: Boxed | None) -> str:
    """Name a thing's class, unless somebody made a class that is named by the value."""
    name = type(thing).__name__
    return "object" if secret is not None and secret.is_in(name) else name


def _failed(message: str, kind: str | None = None) -> InjectorFailed:
    failed = InjectorFailed(message)
    failed.kind = kind
    return failed
