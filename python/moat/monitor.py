"""``Monitor``: rules that watch what agents do, and who is told when one is met.

Counting happens in the gate, atomically with each decision (spec/monitor.md); here are the files
that rules come from and the callbacks that alerts go to.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moat._native import check_rules
from moat.errors import MalformedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike
    from typing import Self

    from moat._native import AgentId

_LOG: Final = logging.getLogger("moat.monitor")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])")

WAITING: Final = 10_000
"""Alerts that wait for a slow callback; more are in the log alone, and counted."""
FILE_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Alert:
    """A rule was met, for the first time since its condition cleared."""

    rule: str
    agent: AgentId
    """Whom it is about; whom it suspended, where ``then`` says so."""
    then: str
    """``alert``, ``throttle`` or ``suspend``."""
    count: int
    detail: str
    entry: int
    """Index of the decision in the log; the alert's own line follows it."""


class Monitor:
    """Rules, and a callback for what they have to tell.

    ``on_alert`` is called on a thread of its own, one alert after the other, after the decision
    is on the disk. It cannot change the answer, and what it raises is logged.
    """

    def __init__(
        self,
        rules: Iterable[Mapping[str, Any]] = (),
        *,
        on_alert: Callable[[Alert], object] | None = None,
    ) -> None:
        """Check the rules (spec/monitor.md); ``MalformedInput`` names the rule and the key."""
        self._json = check_rules(json.dumps(list(rules)).encode())
        self._callback = on_alert
        self._waiting: queue.Queue[Alert | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.missed = 0
        """Alerts that found no room; they are in the log."""

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, on_alert: Callable[[Alert], object] | None = None
    ) -> Self:
        """Read rules from a TOML file of ``[[rule]]`` tables, or a list in a ``.json`` file.

        Spans of time may be written as text: ``"90s"``, ``"15m"``, ``"24h"``, ``"7d"``.
        """
        return cls(read_rules(path), on_alert=on_alert)

    @property
    def rules_json(self) -> bytes:
        """The rules as the gate logs them: canonical JSON."""
        return self._json

    @property
    def rules(self) -> list[dict[str, Any]]:
        """The rules as a list of dictionaries."""
        found: list[dict[str, Any]] = json.loads(self._json)
        return found

    def tell(  # noqa: PLR0917 - one for each part of an alert, as the gate calls it
        self, rule: str, agent: AgentId, then: str, count: int, detail: str, entry: int
    ) -> None:
        """Take an alert from the gate; never waits."""
        if self._callback is None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="moat-monitor", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(Alert(rule, agent, then, count, detail, entry))
        except queue.Full:
            self.missed += 1

    def close(self) -> None:
        """Return when the callback has had every alert so far."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            self._waiting.put(None)
            thread.join()

    def _run(self) -> None:
        while (alert := self._waiting.get()) is not None:
            try:
                if self._callback is not None:
                    self._callback(alert)
            except Exception:  # noqa: BLE001 - whatever it is, the next alert is told
                _LOG.exception("a callback failed at an alert of rule `%s`", alert.rule)


def read_rules(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Read a file of rules; ``MalformedInput`` names the file."""
    with Path(path).open("rb") as file:
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        message = f"`{path}` is larger than {FILE_BYTES} bytes; it is not a file of rules"
        raise MalformedInput(message)
    try:
        found = _rules(data.decode(), json_file=Path(path).suffix == ".json")
    except (ValueError, RecursionError) as error:
        message = f"`{path}` is no file of rules: {error}"
        raise MalformedInput(message) from error
    if not isinstance(found, list) or not all(isinstance(rule, dict) for rule in found):
        message = f"`{path}` is no list of rules; write `[[rule]]` before each"
        raise MalformedInput(message)
    return [_seconds(rule) for rule in found]


def _rules(text: str, *, json_file: bool) -> object:
    found = json.loads(text) if json_file else tomllib.loads(text)
    if not isinstance(found, dict):
        return found
    if unknown := set(found) - {"rule"}:
        message = f"there is `{min(unknown)}` beside the rules"
        raise ValueError(message)
    return found.get("rule", [])


def _seconds(value: Any, key: str = "") -> Any:  # noqa: ANN401 - what a file holds
    """Turn spans of time, where they may stand, into seconds."""
    if isinstance(value, dict):
        return {name: _seconds(part, name) for name, part in value.items()}
    if key in {"window", "within"} and isinstance(value, str):
        found = _SPAN.fullmatch(value)
        if found is None:
            message = f"`{value}` is no span of time; write `90s`, `15m`, `24h` or `7d`"
            raise MalformedInput(message)
        return int(found[1]) * _SECONDS[found[2]]
    return value
