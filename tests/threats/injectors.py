"""Injectors that do with a secret what they should not: raise it, return it, carry it away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import pytest


class KeepsError(Exception):
    """An error that keeps what it was given in every place that an error has."""

    def __init__(self, value: str) -> None:
        super().__init__(value, [value], {"key": value})
        self.value = value
        self.add_note(f"note: {value}")

    def __str__(self) -> str:
        return f"failed with {self.value}"


def plain(value: str) -> NoReturn:
    raise KeepsError(value)


def chained(value: str) -> NoReturn:
    try:
        plain(value)
    except KeepsError as error:
        raise RuntimeError(f"because of {value}") from error


def in_context(value: str) -> NoReturn:
    try:
        plain(value)
    except KeepsError:
        raise KeyError(value)  # noqa: B904 (the context is the point)


def grouped(value: str) -> NoReturn:
    raise ExceptionGroup(value, [KeepsError(value), ExceptionGroup("inner", [ValueError(value)])])


def base_grouped(value: str) -> NoReturn:
    raise BaseExceptionGroup(value, [KeyboardInterrupt(value)])


def deep(value: str) -> NoReturn:
    def down(left: int) -> NoReturn:
        local = f"{value}-{left}"
        if left:
            down(left - 1)
        raise OSError(5, value, local)

    down(20)


def endless(value: str) -> NoReturn:
    endless(value)


def named(value: str) -> NoReturn:
    raise type(f"E{value}", (Exception,), {})


def undecodable(value: str) -> NoReturn:
    (value + "\udcff").encode()
    pytest.fail("it was encoded")


def unknown_base(value: str) -> NoReturn:
    raise type("Strange", (BaseException,), {})(value)


def lying(value: str) -> NoReturn:
    class Liar(SystemExit):
        @property
        def code(self) -> Any:
            raise KeepsError(value)

    raise Liar(value)


def interrupted(value: str) -> NoReturn:
    raise KeyboardInterrupt(value)


def leaving(value: str) -> NoReturn:
    raise SystemExit(value)


def cancelled(value: str) -> NoReturn:
    raise asyncio.CancelledError(value)


def closing(value: str) -> NoReturn:
    raise GeneratorExit(value)


RAISES = [plain, chained, in_context, grouped, base_grouped, deep, endless, named, undecodable,
          unknown_base]  # fmt: skip
GOES_ON = {interrupted: KeyboardInterrupt, leaving: SystemExit, lying: SystemExit,
           cancelled: asyncio.CancelledError, closing: GeneratorExit}  # fmt: skip
RETURNS: list[Callable[[str], object]] = [
    lambda value: value,
    lambda value: f"Authorization: Bearer {value}\r\n",
    lambda value: {"headers": [{"authorization": ("Bearer", value.encode())}]},
    lambda value: {value: 1},
    lambda value: frozenset([bytearray(value, "ascii")]),
    lambda value: [[[[f"a{value}b"]]]],
    type("Text", (str,), {}),
    KeepsError,
    lambda value: lambda: value,
    lambda value: iter([value]),
    lambda value: type(f"T{value}", (), {})(),
]
