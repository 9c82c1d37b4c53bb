"""``Monitor``: rule files for the gate, and callbacks for its alerts.

What a rule means, whether it is fine and what was counted is the native gate's to know
(spec/monitor.md). Here a file becomes rules, and ``alert`` lines of the log become calls.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import tomllib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from moat import _files
from moat._native import AgentId, check_rules
from moat.errors import MalformedInput, MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike
    from typing import Self

QUEUE: Final = 1024
"""Alerts that wait for a slow callback; further ones are dropped and counted."""

_LOGGER: Final = logging.getLogger(__name__)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_SECONDS: Final = (("rate", "window"), ("cost", "window"), ("sequence", "within"))
"""Where a rule has a number of seconds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule that was checked, in its one spelling."""

    name: str
    then: str
    """``alert``, ``throttle`` or ``suspend``."""
    text: str
    """Canonical JSON: what the log holds."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One ``alert`` line of the log: a rule's condition was met, and was not before."""

    entry: int
    """Index of the line."""
    time: int
    """Unix seconds."""
    rule: str
    agent: AgentId
    """Whom it is about: the last holder over the limit whose key is not free."""
    then: str
    """What followed: ``alert``, ``throttle`` or ``suspend``."""
    count: int
    """Decisions or cost with this one; steps of a sequence; 1 for a machine."""
    detail: str
    """The condition, in a sentence."""


class Monitor:
    """What a gate watches, and who hears of it.

    Give it to the gate, which takes ``rules_json`` and hands over new lines of its log to
    ``watch``. ``on_alert`` is called with every ``Alert`` in order, on one thread of its own: a
    slow callback delays no decision, and what it raises is logged and counted in ``failed``.
    Where ``queue`` alerts wait already, a new one is dropped and counted in ``dropped``; it is in
    the log all the same. Safe across threads.
    """

    def __init__(
        self,
        rules: Iterable[Rule | Mapping[str, Any]] = (),
        *,
        on_alert: Callable[[Alert], object] | None = None,
        queue: int = QUEUE,
    ) -> None:
        """Check rules, as ``Rule`` or as a rule file has them; ``MalformedInput`` names the key."""
        self._rules = read(rules)
        self._calls = None if on_alert is None else _Calls(on_alert, queue)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        on_alert: Callable[[Alert], object] | None = None,
        queue: int = QUEUE,
    ) -> Self:
        """Take the rules of a file (``load``)."""
        return cls(load(path), on_alert=on_alert, queue=queue)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in their order."""
        return self._rules

    @property
    def dropped(self) -> int:
        """How many alerts came while the queue was full, or after ``close``."""
        return 0 if self._calls is None else self._calls.dropped

    @property
    def failed(self) -> int:
        """How many calls of ``on_alert`` raised."""
        return 0 if self._calls is None else self._calls.failed

    def rules_json(self) -> bytes:
        """Give the rules as the gate takes them: a JSON array in its one spelling."""
        return _array(rule.text for rule in self._rules)

    def watch(self, lines: Iterable[bytes]) -> None:
        """Take new lines of the log, in order, and call back for each ``alert`` among them.

        It returns at once and raises nothing for what a callback does.
        """
        if self._calls is not None:
            for alert in filter(None, map(parse_alert, lines)):
                self._calls.put(alert)

    def close(self, timeout: float | None = 5.0) -> bool:
        """Let waiting alerts be called back, at most so many seconds; whether all of them were."""
        return self._calls is None or self._calls.close(timeout)


def load(path: str | PathLike[str]) -> tuple[Rule, ...]:
    """Read a rule file: TOML with ``[[rule]]`` tables, or JSON where its name ends in ``.json``.

    Seconds may be written ``"90s"``, ``"5m"``, ``"2h"`` or ``"7d"``. The file must be ours and
    closed to the writing of others (``MoatError``). ``MalformedInput`` names file, rule and key.
    """
    file = Path(path)
    try:
        data = _files.read(file, secret=False)
    except FileNotFoundError as error:
        message = f"there is no rule file `{file}`; write one"
        raise MoatError(message) from error
    try:
        return read(_tables(data, as_json=file.suffix == ".json"))
    except MalformedInput as error:
        message = f"`{file}`: {error}"
        raise MalformedInput(message) from error


def read(rules: Iterable[Rule | Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Check rules; ``MalformedInput`` names rule and key."""
    texts = [rule.text if isinstance(rule, Rule) else _text(rule) for rule in rules]
    checked: list[dict[str, Any]] = json.loads(check_rules(_array(texts)))
    return tuple(Rule(rule["name"], rule["then"], _dump(rule)) for rule in checked)


def parse_alert(line: bytes) -> Alert | None:
    """Read one line of the log; None where it is of another kind."""
    if b',"kind":"alert",' not in line:
        return None
    entry = json.loads(line)
    if entry["kind"] != "alert":
        return None
    body = entry["body"]
    return Alert(
        entry=entry["i"],
        time=entry["t"],
        rule=body["rule"],
        agent=AgentId(body["agent"]),
        then=body["then"],
        count=body["count"],
        detail=body["detail"],
    )


class _Calls:
    """A bounded queue and the one thread that empties it, which starts with the first alert."""

    def __init__(self, call: Callable[[Alert], object], most: int) -> None:
        self._call = call
        self._most = most
        self._waiting: deque[Alert] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.dropped = 0
        self.failed = 0

    def put(self, alert: Alert) -> None:
        with self._changed:
            if self._closed or len(self._waiting) >= self._most:
                self.dropped += 1
                _LOGGER.warning("alert `%s` dropped: its callback is too slow", alert.rule)
                return
            self._waiting.append(alert)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="moat-alerts", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout: float | None) -> bool:
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        # A callback may close what called it; it cannot wait for itself.
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        while (alert := self._next()) is not None:
            try:
                self._call(alert)
            except Exception:
                self.failed += 1
                _LOGGER.exception("the callback for alert `%s` raised", alert.rule)

    def _next(self) -> Alert | None:
        """The next alert; None when it is closed and all were called back."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None


def _tables(data: bytes, *, as_json: bool) -> list[Any]:
    """The rules of a file, as its language gives them."""
    try:
        text = data.decode()
        document: Any = _json(text) if as_json else tomllib.loads(text)
    except MalformedInput:
        raise
    except (ValueError, RecursionError) as error:
        message = f"it does not read: {error}"
        raise MalformedInput(message) from error
    if as_json and isinstance(document, list):
        document = {"rule": document}
    if not isinstance(document, dict):
        message = "it is a table with the key `rule`, or a list of rules"
        raise MalformedInput(message)
    for key in document.keys() - {"rule"}:
        message = f"it has `[[rule]]` tables and nothing else; drop `{key}`"
        raise MalformedInput(message)
    rules = document.get("rule")
    if not isinstance(rules, list) or not rules:
        message = "it has no `[[rule]]`; write one, or load no file"
        raise MalformedInput(message)
    return rules


def _json(text: str) -> Any:  # noqa: ANN401 - whatever the file says
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            message = f"the key `{twice}` is there twice; drop one"
            raise MalformedInput(message)
        return found

    def never(word: str) -> NoReturn:
        message = f"`{word}` is no number of JSON"
        raise MalformedInput(message)

    return json.loads(text, object_pairs_hook=once, parse_constant=never)


def _text(rule: Mapping[str, Any]) -> str:
    """The JSON of a rule, its seconds as numbers."""
    if not isinstance(rule, Mapping):
        message = f"a rule is a table of keys, not `{type(rule).__name__}`"
        raise MalformedInput(message)
    plain = dict(rule)
    name = plain.get("name")
    for part, key in _SECONDS:
        terms = plain.get(part)
        if isinstance(terms, Mapping) and isinstance(terms.get(key), str):
            try:
                plain[part] = {**terms, key: seconds(terms[key])}
            except MalformedInput as error:
                message = f"rule `{name}`: `{part}.{key}`: {error}"
                raise MalformedInput(message) from error
    try:
        return _dump(plain)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"rule `{name}`: {str(error).lower()}; write text, integers, lists and tables"
        raise MalformedInput(message) from error


def seconds(text: str) -> int:
    """Read ``90s``, ``5m``, ``2h`` or ``7d`` as a number of seconds."""
    if found := _DURATION.fullmatch(text):
        return int(found[1]) * _UNITS[found[2]]
    message = f"`{text}` is no time; write a number of seconds, or `90s`, `5m`, `2h`, `7d`"
    raise MalformedInput(message)


def _array(texts: Iterable[str]) -> bytes:
    return f"[{','.join(texts)}]".encode()


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
