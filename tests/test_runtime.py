"""``Moat``: one state folder, opened, worked with and opened again."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from cast import HOUR, MALLORY, NOW, SEARCH, clock, identity
from moat import (
    AuditUnavailable,
    Denied,
    MalformedInput,
    Moat,
    MoatError,
    Policy,
    Requirement,
)
from moat._config import Config, read_config


@pytest.fixture
def state(tmp_path):
    with Moat.open(tmp_path / "state", clock=clock) as moat:
        yield moat


def search_token(moat, name="planner", **terms):
    holder = moat.identity(name, create=True)
    return moat.issue(holder=holder.id, allow=[SEARCH], expires_in=HOUR, **terms)


def tree(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if "log/" not in str(path)
    )


def test_a_new_folder_has_a_root_a_gate_and_nothing_open_to_others(state, tmp_path):
    assert tree(tmp_path / "state") == [
        "config.json",
        "gates",
        "gates/main",
        "gates/main/key",
        "gates/main/key/main.pem",
        "gates/main/key/main.pub",
        "gates/main/log",
        "keys",
        "keys/root.pem",
        "keys/root.pub",
    ]
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        if path.suffix != ".pub":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert state.roots == (state.identity("root").id,)
    assert state.id not in state.roots


def test_a_folder_is_opened_again_with_the_same_keys_and_log(tmp_path):
    with Moat.init(tmp_path, clock=clock) as first:
        known = first.id, first.roots
        token = search_token(first)
        first.session("planner", token).request("call", "tool://search/web")
        size = len(first.audit)
    with Moat.open(tmp_path, create=False, clock=clock) as second:
        assert (second.id, second.roots) == known
        assert len(second.audit) >= size
        assert second.session("planner", token).request("call", "tool://search/web").entry >= size


def test_a_replay_is_seen_after_reopening(tmp_path):
    with Moat.open(tmp_path, clock=clock) as first:
        wire = first.session("planner", search_token(first)).seal("call", "tool://search/web")
        first.pep.authorize(wire, now=NOW)
    with Moat.open(tmp_path, clock=clock) as second:
        assert second.pep.decide(wire, now=NOW).reason == "replayed"


def test_a_folder_is_not_made_twice(state, tmp_path):
    with pytest.raises(MoatError, match="is a state folder already"):
        Moat.init(tmp_path / "state")


def test_a_missing_folder_is_not_made_unless_asked(tmp_path):
    with pytest.raises(MoatError, match=r"there is no state folder at .*`moat init`"):
        Moat.open(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_a_folder_cut_short_while_it_was_made_is_made_again(tmp_path):
    with Moat.init(tmp_path, clock=clock) as first:
        root = first.roots
    (tmp_path / "config.json").unlink()
    with Moat.open(tmp_path, clock=clock) as second:
        assert second.roots == root


def test_a_root_may_be_kept_elsewhere(tmp_path):
    root = identity("offline-root")
    with Moat.init(tmp_path, root=root.id, clock=clock) as moat:
        assert moat.roots == (root.id,)
        assert moat.keys.names() == []
        with pytest.raises(MoatError, match="there is no key `root`"):
            search_token(moat)


def test_operators_are_remembered(tmp_path):
    operator = identity("operator")
    Moat.init(tmp_path, operators=[operator.id], clock=clock).close()
    with Moat.open(tmp_path, clock=clock) as moat:
        assert moat.operators == (operator.id,)
        planner = moat.identity("planner", create=True)
        moat.revoke(planner, by=operator)
        assert moat.is_revoked(planner)


def test_what_gates_require_is_remembered_and_part_of_what_is_sealed(tmp_path):
    need = Requirement("tool", [MALLORY.id], max_age=HOUR)
    policy = Policy.requiring([need])
    with Moat.init(tmp_path, policy=policy, clock=clock) as moat:
        assert moat.pep.policy == policy
    assert read_config(tmp_path).policy.attestations == (need,)
    assert json.loads((tmp_path / "config.json").read_text())["policy"] == policy.text
    with Moat.open(tmp_path, clock=clock) as moat:
        session = moat.session("planner", search_token(moat))
        with pytest.raises(Denied) as denied:
            session.request("call", "tool://search/web")
        assert denied.value.reason == "not_attested"


def test_gates_have_their_own_keys_and_logs(state, tmp_path):
    with Moat.open(tmp_path / "state", gate="second", clock=clock) as other:
        assert other.id != state.id
        assert other.roots == state.roots
        wire = state.session("planner", search_token(state)).seal("call", "tool://search/web")
        assert other.pep.decide(wire, now=NOW).reason == "wrong_gate"
        assert state.pep.decide(wire, now=NOW).allowed


def test_a_gate_is_open_once(state, tmp_path):
    with pytest.raises(AuditUnavailable):
        Moat.open(tmp_path / "state", clock=clock)


def test_a_missing_gate_is_not_made_unless_asked(state, tmp_path):
    with pytest.raises(MoatError, match="there is no key `second`"):
        Moat.open(tmp_path / "state", gate="second", create=False)


@pytest.mark.parametrize("gate", ["..", "../main", "", "a/b", ".hidden"])
def test_a_gates_name_cannot_leave_the_folder(state, tmp_path, gate):
    with pytest.raises(MalformedInput, match="is not a name"):
        Moat.open(tmp_path / "state", gate=gate)


def test_a_closed_moat_allows_nothing(tmp_path):
    with Moat.open(tmp_path, clock=clock) as moat:
        session = moat.session("planner", search_token(moat))
    with pytest.raises(Denied) as caught:
        session.request("call", "tool://search/web")
    assert caught.value.reason == "log_unavailable"


def test_trust_is_withdrawn_and_given_back_by_the_root(state):
    session = state.session("planner", search_token(state))
    state.revoke(session.identity)
    with pytest.raises(Denied, match="revoked"):
        session.request("call", "tool://search/web")
    state.restore(session.identity)
    assert session.request("call", "tool://search/web").entry > 0


def test_identities_are_made_only_when_asked(state):
    with pytest.raises(MoatError, match="there is no key `worker`"):
        state.identity("worker")
    assert state.identity("worker", create=True) == state.identity("worker")


def test_threads_share_one(state):
    session = state.session("planner", search_token(state))

    def ask(_n):
        with session.request("call", "tool://search/web") as permit:
            return permit.entry

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(64)))) == 64


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c | {"extra": 1}, id="unknown key"),
        pytest.param(lambda c: c | {"version": 2}, id="unknown version"),
        pytest.param(lambda c: c | {"roots": ["nobody"]}, id="no key"),
        pytest.param(lambda c: c | {"roots": 7}, id="no list"),
        pytest.param(lambda c: {"roots": c["roots"]}, id="missing key"),
        pytest.param(lambda c: [c], id="no object"),
        pytest.param(lambda c: c | {"roots": c["roots"] * 2}, id="repeated root"),
    ],
)
def test_a_configuration_of_another_shape_is_refused(tmp_path, change):
    Moat.init(tmp_path, clock=clock).close()
    file = tmp_path / "config.json"
    text = json.dumps(change(json.loads(file.read_text())), sort_keys=True, separators=(",", ":"))
    file.write_text(text + "\n")
    with pytest.raises(MalformedInput, match="config.json"):
        Moat.open(tmp_path, clock=clock)


@pytest.mark.parametrize("spell", [lambda t: " " + t, lambda t: t.strip(), lambda t: t + "\n"])
def test_a_configuration_has_one_spelling(tmp_path, spell):
    Moat.init(tmp_path, clock=clock).close()
    file = tmp_path / "config.json"
    file.write_text(spell(file.read_text()))
    with pytest.raises(MalformedInput, match="another spelling"):
        read_config(tmp_path)


def test_a_configuration_open_to_others_is_refused(tmp_path):
    Moat.init(tmp_path, clock=clock).close()
    (tmp_path / "config.json").chmod(0o644)
    with pytest.raises(MoatError, match="open to other users"):
        Moat.open(tmp_path, clock=clock)


def test_a_configuration_is_read_without_a_gate(state, tmp_path):
    assert read_config(tmp_path / "state") == Config(roots=state.roots)
    assert MALLORY.id not in read_config(tmp_path / "state").roots
