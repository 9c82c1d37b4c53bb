"""What `moat audit export` writes: JSON Lines, or a table of decisions."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from moat import _show
from moat.cli.entries import strings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from moat.cli.failure import CommandError

    Put = Callable[[bytes], object]


class Format(Protocol):
    """Writes entries in one form."""

    def __init__(
        self, put: Put, names: Mapping[str, str] | None, problem: CommandError | None
    ) -> None:
        """Take where bytes go, names to be added, and what is wrong with the log."""

    def write(self, line: bytes, entry: Mapping[str, Any]) -> bool:
        """Write an entry; false where this form has no place for it."""


class Jsonl:
    """Each line as in the log: who has all of them can verify them again.

    With names, a last key ``names`` maps the agents of the body that are known here. Where the
    log does not hold, the first line is ``{"unverified": error}``.
    """

    def __init__(
        self, put: Put, names: Mapping[str, str] | None, problem: CommandError | None
    ) -> None:
        """Say first what is wrong with the log."""
        self._put, self._names = put, names
        if problem is not None:
            put(_json({"unverified": problem.to_dict()["error"]}) + b"\n")

    def write(self, line: bytes, entry: Mapping[str, Any]) -> bool:
        """Write any entry."""
        if self._names is not None:
            found = sorted({one for one in strings(entry["body"]) if one in self._names})
            named = {one: self._names[one] for one in found}
            line = line[:-1] + b',"names":' + _json(named) + b"}"
        self._put(line + b"\n")
        return True


COLUMNS: Final = (
    "allow", "stage", "reason", "detail", "link", "caveat", "witness", "holder", "action",
    "resource", "recipient", "status", "fuel", "result", "token", "message", "args", "payload",
    "code", "policy", "stream", "number", "expires", "causes", "labels",
)  # fmt: skip
"""Columns that are fields of a body; the others come before them."""


class Csv:
    """A table (RFC 4180, UTF-8) with a row for each decision and each outcome.

    ``decision`` is the same in both, ``verified`` says in each row whether the log held. A cell
    that a spreadsheet would take for a formula begins with an apostrophe.
    """

    def __init__(
        self, put: Put, names: Mapping[str, str] | None, problem: CommandError | None
    ) -> None:
        """Write the heading."""
        self._put, self._names = put, names or {}
        self._verified = "no" if problem else "yes"
        self._row(["verified", "entry", "time", "kind", "decision", "name", *COLUMNS])

    def write(self, line: bytes, entry: Mapping[str, Any]) -> bool:  # noqa: ARG002 (a Format)
        """Write a decision or an outcome."""
        kind, body = entry["kind"], entry["body"]
        if kind not in {"decision", "outcome"}:
            return False
        decision = entry["i"] if kind == "decision" else body.get("decision")
        name = self._names.get(str(body.get("holder")))
        head = [self._verified, entry["i"], _show.moment(entry["t"]), kind, decision, name]
        self._row([*head, *(body.get(column) for column in COLUMNS)])
        return True

    def _row(self, values: list[object]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerow([cell(value) for value in values])
        self._put(text.getvalue().encode("utf-8", "backslashreplace"))


_FORMULA: Final = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")
"""How a cell begins that a spreadsheet may run; the last four are the signs in full width."""


def cell(value: object) -> str:
    """Give the text of a cell; what would be a formula gets an apostrophe in front of it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | dict():
            text = json.dumps(value, ensure_ascii=False)
        case _:
            text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


FORMATS: Final[Mapping[str, type[Format]]] = {"jsonl": Jsonl, "csv": Csv}
"""Every form, by its name."""
