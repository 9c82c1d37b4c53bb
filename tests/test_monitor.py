"""Rule files become rules in one spelling; alerts reach a callback and never the gate."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from cast import WORKER
from moat import MalformedInput, MoatError
from moat._native import check_rules
from moat.monitor import Alert, Monitor, Rule, load, parse_alert, seconds

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "rules.toml"
RULE = {"name": "mail", "rate": {"limit": 5, "window": 60}, "then": "throttle"}
TEXT = '{"name":"mail","rate":{"limit":5,"window":60},"then":"throttle"}'


@pytest.fixture
def file(tmp_path):
    """Write a rule file of a kind and give its path."""

    def write(text, suffix=".toml"):
        path = tmp_path / f"rules{suffix}"
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


def line(entry=0, *, kind="alert", **more):
    """A line of a log, as the gate writes it; the MAC does not matter here."""
    body = {
        "rule": "mail", "agent": str(WORKER.id), "then": "throttle", "count": 6, "detail": "…",
    } | more  # fmt: skip
    head = {"i": entry, "t": 1_800_000_000, "prev": "0" * 64, "kind": kind, "body": body}
    return json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()


class Ear:
    """A callback that can be made to wait or to raise."""

    def __init__(self):
        self.heard = []
        self.called = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.error = None

    def __call__(self, alert):
        self.called.set()
        assert self.go_on.wait(30)
        self.heard.append(alert.entry)
        if self.error:
            raise self.error


@pytest.fixture
def ear():
    return Ear()


def test_a_rule_file_is_read_with_every_condition_and_its_times():
    rules = {rule.name: json.loads(rule.text) for rule in load(EXAMPLE)}
    assert list(rules) == ["mail", "probing", "fuel", "orders", "leak", "ticket"]
    assert rules["mail"] == {
        "name": "mail",
        "match": {"actions": ["call"], "resource": "tool://mail/**"},
        "rate": {"limit": 5, "window": 60},
        "then": "throttle",
    }
    assert rules["probing"]["rate"]["window"] == 300
    assert rules["fuel"]["cost"]["window"] == 86_400
    assert rules["leak"]["sequence"]["within"] == 600
    assert len(rules["ticket"]["machine"]["transitions"]) == 4


def test_what_the_gate_takes_is_one_json_array_in_one_spelling():
    loaded = Monitor.load(EXAMPLE)
    spelt = loaded.rules_json()
    assert check_rules(spelt) == spelt
    assert Monitor(loaded.rules).rules_json() == spelt
    shuffled = [dict(reversed(json.loads(rule.text).items())) for rule in loaded.rules]
    assert Monitor(shuffled).rules_json() == spelt
    assert Monitor().rules_json() == b"[]"


def test_a_rule_is_a_value():
    one, other = Monitor([RULE]).rules[0], Monitor([RULE]).rules[0]
    assert one == other == Rule("mail", "throttle", TEXT)
    assert len({one, other}) == 1
    with pytest.raises(AttributeError):
        one.name = "x"


def test_json_is_read_as_an_array_or_with_the_key_of_toml(file):
    for text in (f"[{TEXT}]", f'{{"rule":[{TEXT}]}}', f"[ {TEXT} ]\n"):
        assert load(file(text, ".json")) == (Rule("mail", "throttle", TEXT),)


@pytest.mark.parametrize(
    ("text", "number"), [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1s", 1)]
)
def test_times_have_a_unit(text, number):
    assert seconds(text) == number


@pytest.mark.parametrize(
    "text", ["", "60", "0s", "05m", "1.5h", "-1s", "1 m", "1w", "m", "1M", "1s\n", "٣s", "1m30s"]
)
def test_other_times_are_refused_with_file_rule_and_key(file, text):
    with pytest.raises(MalformedInput, match="is no time"):
        seconds(text)
    rule = json.dumps({**RULE, "rate": {"limit": 5, "window": text}})
    with pytest.raises(MalformedInput, match=r"rules.json`: rule `mail`: `rate.window`: "):
        load(file(f"[{rule}]", ".json"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no `[[rule]]`"),
        ("rule = []", "no `[[rule]]`"),
        ("rule = 5", "no `[[rule]]`"),
        ("[[rules]]\nname = 'x'", "drop `rules`"),
        ("[[rule]]\nname = ", "does not read"),
        ("[[rule]]\nname = 'x'\nname = 'y'", "does not read"),
        ("rule = [5]", "not `int`"),
        ("[[rule]]\nname = 'x'\nthen = 2020-01-01", "rule `x`: "),
        ("[[rule]]\nname = 'x'\nrate = { limit = nan, window = 1 }", "rule `x`: "),
    ],
)
def test_a_toml_file_that_is_wrong_is_named(file, text, found):
    path = file(text)
    with pytest.raises(MalformedInput) as refused:
        load(path)
    assert str(refused.value).startswith(f"`{path}`: ")
    assert found in str(refused.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "no `[[rule]]`"),
        ("{}", "no `[[rule]]`"),
        ("5", "a table with the key `rule`"),
        ('"rule"', "a table with the key `rule`"),
        ('{"rule":[],"x":1}', "drop `x`"),
        ("[{]", "does not read"),
        pytest.param("[" * 60_000, "does not read", id="deep"),
        pytest.param(f"[{'9' * 5_000}]", "does not read", id="a huge number"),
        ('[{"name":"x","name":"y"}]', "`name` is there twice"),
        ('[{"rate":{"limit":NaN}}]', "`NaN` is no number"),
    ],
)
def test_a_json_file_that_is_wrong_is_named(file, text, found):
    path = file(text, ".json")
    with pytest.raises(MalformedInput) as refused:
        load(path)
    assert str(refused.value).startswith(f"`{path}`: ")
    assert found in str(refused.value)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"rate": {"limit": 5, "window": 0}}, "rate.window"),
        ({"rate": {"limit": True, "window": 60}}, "boolean"),
        ({"rate": {"limit": 5.0, "window": 60}}, "floating point"),
        ({"rate": {"limit": 5, "window": 60, "burst": 1}}, "burst"),
        ({"cost": {"limit": 5}}, "exactly one"),
        ({"match": {"resource": "tool://a/../b"}}, "match.resource"),
        ({"match": {"verdict": "denied"}}, "then"),
        ({"then": "kill"}, "kill"),
    ],
)
def test_what_the_gate_would_not_take_is_refused_with_file_rule_and_key(file, more, key):
    path = file(json.dumps([RULE | more]), ".json")
    with pytest.raises(MalformedInput) as refused:
        load(path)
    assert str(refused.value).startswith(f"`{path}`: rule `mail`: ")
    assert key in str(refused.value)
    with pytest.raises(MalformedInput, match="rule `mail`: "):
        Monitor([RULE | more])


def test_a_file_that_others_can_write_is_not_believed(file):
    path = file(f"[{TEXT}]", ".json")
    path.chmod(0o666)
    with pytest.raises(MoatError, match="rules.json"):
        load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MoatError, match=r"nothing.toml`; write one"):
        load(tmp_path / "nothing.toml")


def test_an_alert_line_is_read_and_others_are_not():
    alert = parse_alert(line(7, detail='says "kind"'))
    assert alert == Alert(
        7, 1_800_000_000, "mail", WORKER.id, "throttle", 6, 'says "kind"'
    )  # fmt: skip
    assert parse_alert(line(kind="decision")) is None
    assert parse_alert(line(kind="decision", also={"a": 1, "kind": "alert", "b": 2})) is None


def test_alerts_are_called_back_in_order_and_other_lines_are_not(ear):
    monitor = Monitor([RULE], on_alert=ear)
    monitor.watch([line(1), line(2, kind="decision"), line(3)])
    monitor.watch([line(4)])
    assert monitor.close()
    assert ear.heard == [1, 3, 4]
    assert (monitor.failed, monitor.dropped) == (0, 0)


def test_the_callback_runs_on_a_thread_of_its_own():
    seen = []
    monitor = Monitor([RULE], on_alert=lambda _: seen.append(threading.current_thread()))
    monitor.watch([line(1), line(2)])
    assert monitor.close()
    assert len(set(seen)) == 1
    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon


def test_a_callback_that_raises_is_logged_and_counted(ear, caplog):
    ear.error = RuntimeError("no network")
    monitor = Monitor([RULE], on_alert=ear)
    monitor.watch([line(1), line(2)])
    assert monitor.close()
    assert ear.heard == [1, 2], "the next one is called all the same"
    assert monitor.failed == 2
    assert "no network" in caplog.text


def test_a_slow_callback_delays_nobody_and_what_does_not_fit_is_counted(ear, caplog):
    ear.go_on.clear()
    monitor = Monitor([RULE], on_alert=ear, queue=2)
    monitor.watch([line(0)])
    assert ear.called.wait(30), "the first one is out of the queue"
    monitor.watch([line(n) for n in range(1, 6)])
    assert monitor.dropped == 3
    assert "too slow" in caplog.text
    assert not monitor.close(timeout=0)
    ear.go_on.set()
    assert monitor.close()
    assert ear.heard == [0, 1, 2]


def test_after_close_alerts_are_dropped_and_counted(ear):
    monitor = Monitor([RULE], on_alert=ear)
    assert monitor.close()
    monitor.watch([line(1)])
    assert (ear.heard, monitor.dropped) == ([], 1)


def test_a_callback_may_close_the_monitor():
    monitor = Monitor([RULE], on_alert=lambda _: closed.append(monitor.close()))
    closed = []
    monitor.watch([line(1)])
    assert monitor.close()
    assert closed == [False], "it cannot wait for itself"


def test_without_a_callback_lines_are_not_even_read():
    monitor = Monitor([RULE])
    monitor.watch([b"not json", line(1)])
    assert monitor.close()
    assert (monitor.failed, monitor.dropped) == (0, 0)
