"""The reference model of the monitor does what spec/monitor.md says, in plain cases."""

from __future__ import annotations

from reference.monitor import Monitor, Request


def asks(monitor: Monitor, time: int, *names: str, resource: str = "tool://x", allowed=True):
    """Holders in capitals last, and so does the first."""
    holders = [(name, at == 0 or name.isupper()) for at, name in enumerate(names)]
    request = Request(time, holders, "call", resource)
    answer = monitor.decide(request, time, allowed=allowed)
    return answer.code, answer.alerts


def rate(limit: int, window: int, then: str, **more):
    return {"name": "r", **more, "rate": {"limit": limit, "window": window}, "then": then}


def test_a_rate_is_exact_up_to_fifteen_seconds():
    monitor = Monitor([rate(2, 10, "throttle")])
    codes = [asks(monitor, time, "a")[0] for time in (0, 1, 2, 9, 10, 10, 11)]
    assert codes == ["ok", "ok", "throttled", "throttled", "ok", "throttled", "ok"]


def test_a_longer_window_refuses_less_than_a_bucket_early_and_never_late():
    """Buckets of 60 s have 4 s: what came at 3 counts while second 3 is in the window."""
    monitor = Monitor([rate(1, 60, "throttle")])
    assert asks(monitor, 0, "a")[0] == "ok"
    assert [asks(monitor, time, "a")[0] for time in (60, 62, 63)] == ["throttled"] * 2 + ["ok"]
    assert [asks(monitor, time, "a")[0] for time in (122, 123)] == ["throttled", "ok"]


def test_an_alert_comes_once_until_it_was_quiet_for_a_window():
    monitor = Monitor([rate(1, 10, "alert")])
    alerts = [asks(monitor, time, "a") for time in (0, 1, 2, 3, 13, 14)]
    assert alerts == [("ok", a) for a in ([], [("r", "a")], [], [], [], [("r", "a")])]


def test_the_last_holder_that_lasts_is_blamed():
    monitor = Monitor([rate(1, 60, "suspend")])
    assert asks(monitor, 0, "A", "B", "c") == ("ok", [])
    assert asks(monitor, 0, "A", "B", "d") == ("throttled", [("r", "B")])
    assert asks(monitor, 0, "A", "e") == ("throttled", [("r", "A")])
    assert asks(monitor, 0, "Z", "e") == ("ok", [])


def test_what_is_refused_is_a_denied_request_to_other_rules():
    noise = rate(1, 60, "alert", match={"verdict": "denied"}) | {"name": "noise"}
    monitor = Monitor([rate(1, 60, "throttle"), noise])
    found = [asks(monitor, 0, "a") for _ in range(3)]
    assert found == [("ok", []), ("throttled", [("r", "a")]), ("throttled", [("noise", "a")])]


def test_fuel_counts_when_the_outcome_comes():
    monitor = Monitor([{"name": "f", "cost": {"limit": 10, "of": "fuel"}, "then": "throttle"}])
    assert asks(monitor, 0, "a", "b")[0] == "ok"
    assert asks(monitor, 1, "a", "b")[0] == "ok"
    monitor.outcome(0, 10, 2)
    assert asks(monitor, 3, "a", "b")[0] == "throttled"
    monitor.forget("a")
    assert asks(monitor, 4, "a")[0] == "throttled", "it lasts"
    monitor.reset("a")
    assert asks(monitor, 5, "a")[0] == "ok"


def test_a_sequence_is_refused_at_its_last_step():
    steps = [{"resource": "tool://x"}, {"resource": "tool://y"}]
    rule = {"name": "s", "sequence": {"steps": steps, "within": 5}, "then": "throttle"}
    monitor = Monitor([rule])
    assert asks(monitor, 0, "a")[0] == "ok"
    assert asks(monitor, 5, "b", "a", resource="tool://y")[0] == "out_of_order"
    assert asks(monitor, 6, "a", resource="tool://y")[0] == "ok"
    assert asks(monitor, 6, "a", allowed=False)[0] == "ok"
    assert asks(monitor, 7, "a", resource="tool://y")[0] == "ok", "the first step was denied"


def test_a_machine_knows_what_may_follow():
    ways = [
        {"from": "x", "to": "y", "match": {"resource": "tool://x"}},
        {"from": "y", "to": "x", "match": {"resource": "tool://y"}},
    ]
    rule = {"name": "m", "machine": {"initial": "x", "transitions": ways}, "then": "throttle"}
    monitor = Monitor([rule])
    resources = ("tool://y", "tool://x", "tool://x", "tool://y", "tool://y")
    codes = [asks(monitor, 0, "a", resource=resource)[0] for resource in resources]
    assert codes == ["out_of_order", "ok", "out_of_order", "ok", "out_of_order"]


def test_what_remembers_nothing_has_no_row():
    monitor = Monitor([rate(5, 60, "alert")])
    asks(monitor, 0, "a", "b")
    assert set(monitor.rows) == {"a", "b"}
    monitor.advance(62)
    assert set(monitor.rows) == {"a", "b"}
    monitor.advance(63)
    assert monitor.rows == {}
