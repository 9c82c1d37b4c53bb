"""Old backups put back to make a gate forget, and crashes on the way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from moat import (
    AgentId,
    GateBusy,
    Identity,
    MoatError,
    RolledBack,
    _files,
    _restore,
)
from moat.audit import anchor_path
from threats.saved import NOW, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- to forget what was used ---------------------------------------------------------------------


def test_a_message_used_after_the_backup_is_not_fresh_after_the_restore(place: Place) -> None:
    place.back_up()
    used = place.ask()
    place.use(used)
    done = place.restore()
    assert place.reason(used) == "stale"
    assert place.kinds().count("restored") == 1
    assert done.before is not None
    place.now += 61
    assert place.reason(used) == "stale"
    assert place.reason(place.ask()) is None


def test_also_where_there_is_no_anchor_and_no_old_folder(place: Place) -> None:
    """On a new machine nothing says that there was more. It is logged all the same."""
    place.back_up()
    used = place.ask()
    place.use(used)
    anchor_path(place.gate).unlink()
    shutil.rmtree(place.state)
    place.restore(replace=False)
    assert place.kinds().count("restored") == 1
    assert place.reason(used) == "stale"


def test_also_where_nothing_that_is_signed_was_lost(place: Place) -> None:
    """The last lines before a crash may have reached no anchor, so an equal one proves nothing."""
    place.back_up()
    place.restore()
    assert place.kinds().count("restored") == 1


def test_a_clock_that_was_set_back_restores_nothing(place: Place) -> None:
    place.back_up()
    place.now += 200
    used = place.ask()
    place.use(used)
    before = place.picture()
    place.now -= 100
    with pytest.raises(MoatError, match="set the clock right first"):
        place.restore()
    assert place.picture() == before
    place.now += 70  # behind by less than clocks may differ
    place.restore()
    for later in (0, 30, 60, 100):
        place.now = NOW + 200 + later
        assert place.reason(used) == "stale"


def test_the_anchor_remembers_when_even_where_the_folder_is_gone(place: Place) -> None:
    place.back_up()
    shutil.rmtree(place.state)
    os.utime(anchor_path(place.gate), (NOW + 1000, NOW + 1000))
    with pytest.raises(MoatError, match="set the clock right first"):
        place.restore(replace=False)
    assert not place.state.exists()


def test_restored_twice(place: Place) -> None:
    place.back_up()
    first = place.ask()
    place.use(first)
    place.restore()
    place.now += 61
    second = place.ask()
    place.use(second)
    place.restore()
    assert place.reason(first) == place.reason(second) == "stale"
    place.now += 61
    assert place.reason(first) == place.reason(second) == "stale"
    assert place.reason(place.ask()) is None


# --- to lift what was withdrawn, and to take back names ------------------------------------------


def test_an_old_backup_does_not_lift_a_revocation(place: Place) -> None:
    place.back_up()
    other = Identity.generate("other")
    with place.open() as moat:
        for target in (place.agent.id, other.id):
            moat.revoke(target)
        moat.restore(other.id)
        moat.suspend(other.id)
    done = place.restore()
    assert done.gates[0].carried.statements == 4
    assert done.gates[0].carried.lost == []
    with place.open() as moat:
        assert moat.is_revoked(place.agent)
        assert not moat.is_revoked(other)
        assert moat.is_suspended(other)
    place.now += 61
    assert place.reason(place.ask()) == "revoked"


def test_a_revocation_that_cannot_be_taken_up_again_is_signed_anew_or_told(place: Place) -> None:
    """It stands on a link that the backup has never seen."""
    child = Identity.generate("child")
    for keep_root in (True, False):
        place.file = place.folder / f"backup {keep_root}"
        if not keep_root:
            (place.state / "keys" / "root.pem").unlink()
        place.back_up()
        token = place.token.attenuate(place.agent, holder=child.id, now=place.now)
        place.use(place.ask(token, child))
        with place.open() as moat:
            moat.revoke(child.id, by=place.agent)
        (gate,) = place.restore().gates
        with place.open() as moat:
            assert moat.is_revoked(child.id) == keep_root
        told = [(one.verb, one.target) for one in gate.carried.lost]
        assert told == ([] if keep_root else [("revoke", str(child.id))])
        assert gate.carried.signed == keep_root
        child = Identity.generate("another")
        place.now += 61


def test_a_delegators_resume_does_not_lift_what_a_rule_suspended(place: Place) -> None:
    """Of all words that stand on an agent it lifted its own alone; so does the restored log."""
    rule = '[[rule]]\nname = "pause"\ncost = { limit = 2 }\nthen = "suspend"\n'
    (place.state / "rules.toml").write_text(rule)
    helper = Identity.generate("helper")
    there = place.token.attenuate(place.agent, holder=helper.id, now=place.now, depth=1)
    place.use(place.ask(there.attenuate(helper, holder=place.agent.id, now=place.now)))
    place.back_up()
    with place.open() as moat:
        reasons = [moat.pep.decide(place.ask()).reason for _ in range(3)]
        assert reasons == [None, "throttled", "suspended"]
        moat.suspend(place.agent.id, by=helper)
        moat.resume(place.agent.id, by=helper)
        assert moat.is_suspended(place.agent)
    (gate,) = place.restore().gates
    assert (gate.carried.statements, gate.carried.signed) == (2, 1)
    with place.open() as moat:
        assert moat.is_suspended(place.agent)


def test_an_old_log_that_was_altered_can_withdraw_and_lift_nothing(place: Place) -> None:
    place.back_up()
    with place.open() as moat:
        moat.revoke(place.agent.id)
        moat.restore(place.agent.id)
    log = place.state / "gates" / "main" / "log"
    (segment,) = log.glob("seg/*")
    segment.write_bytes(segment.read_bytes().replace(b'"open"', b'"opem"'))
    (gate,) = place.restore().gates
    assert gate.carried.unread
    assert gate.replaced is None
    with place.open() as moat:
        assert moat.is_revoked(place.agent)


def test_a_log_that_went_another_way_withdraws_what_it_withdrew(place: Place) -> None:
    """A newer backup put in the place of what an older one became."""
    old, lifted, late = place.folder / "old", Identity.generate("a"), Identity.generate("b")
    place.back_up()
    place.file.rename(old)
    with place.open() as moat:
        moat.revoke(lifted.id)
        moat.restore(lifted.id)
    place.use(place.ask())
    place.back_up()
    newer = place.file
    place.file = old
    place.restore()
    place.now += 61
    with place.open() as moat:
        moat.revoke(late.id)
    place.file = newer
    (gate,) = place.restore().gates
    assert gate.carried.lost == []
    with place.open() as moat:
        assert moat.is_revoked(late.id)
        assert not moat.is_revoked(lifted.id)


def test_a_statement_that_waits_for_the_gate_is_not_lost(place: Place) -> None:
    from moat import Control
    from moat._control import ControlFolder

    place.back_up()
    with place.open() as moat:
        root = moat.identity("root")
    statement = Control.sign(root, "revoke", place.agent.id, gate=place.gate, now=place.now)
    ControlFolder(place.state / "control").drop(statement)
    place.restore()
    with place.open() as moat:
        assert moat.is_revoked(place.agent)


def test_an_old_backup_does_not_roll_back_a_registration(place: Place) -> None:
    with place.open() as moat:
        moat.register("agent", "clerk")
    place.back_up()
    new = Identity.generate("clerk")
    with place.open() as moat:
        moat.registry.rotate("clerk", new, previous=place.agent, now=place.now)
    place.restore()
    with place.open() as moat:
        assert moat.registry.current("clerk") == new.id


def test_roots_that_come_back_with_a_backup_are_told(place: Place) -> None:
    place.back_up()
    config = place.state / "config.json"
    facts = json.loads(config.read_bytes())
    (root,) = facts["roots"]
    facts["roots"] = [str(Identity.generate("new").id)]
    config.write_bytes(json.dumps(facts, separators=(",", ":"), sort_keys=True).encode() + b"\n")
    assert place.restore().trusted_again == (AgentId(root),)


# --- at the wrong time ---------------------------------------------------------------------------


def test_a_gate_that_runs_is_not_replaced(place: Place) -> None:
    place.back_up()
    with place.open() as moat:
        with pytest.raises(GateBusy):
            place.restore()
        moat.pep.authorize(place.ask())


def test_a_crash_leaves_the_old_folder_or_the_new_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step that changes something on the disk, in both ways of changing places."""
    place.back_up()
    place.use(place.ask())
    steps = [
        (_restore, "extract"), (_restore, "carry"), (_restore, "_mark"), (_restore, "unopened"),
        (_restore, "_swap"), (_files, "exchange"), (_files, "sync_dir"), (Path, "rename"),
        (_restore.AuditLog, "verify"),
    ]  # fmt: skip
    old = place.picture()
    for owner, name in steps:
        good = getattr(owner, name)
        for count in range(1, 40):
            left = [count]

            def crash(*args, good=good, left=left, **more):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                return good(*args, **more)

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, crash)
                try:
                    place.restore()
                except KeyboardInterrupt:
                    pass
                else:
                    _undo(place, old)
                    break
            _whole(place, old)
        assert count > 1, f"{name} was never called"


def test_without_an_exchange_of_directories_the_same_holds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "exchange", lambda *_: False)
    test_a_crash_leaves_the_old_folder_or_the_new_one(place, monkeypatch)


def _whole(place: Place, old: dict[str, bytes]) -> None:
    """The old folder is as it was, or the new one is there and the old one kept beside it."""
    now = place.picture()
    if {name: now.get(name) for name in old} == old:
        _undo(place, old)
        return
    (kept,) = place.folder.glob("state.before-*")
    for name, data in old.items():
        if name.startswith("state/"):
            assert (kept / name.removeprefix("state/")).read_bytes() == data, name
    assert b'"restored"' in next(place.state.glob("gates/main/log/seg/*")).read_bytes()
    _undo(place, old)


def _undo(place: Place, old: dict[str, bytes]) -> None:
    """Put everything back for the next try; nothing hidden was left."""
    assert not [path for path in place.folder.iterdir() if path.name.startswith(".moat-")]
    for kept in place.folder.glob("state*"):
        shutil.rmtree(kept)
    for name, data in old.items():
        target = anchor_path(place.gate) if name == "anchor" else place.folder / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for parent in target.relative_to(place.folder).parents if name != "anchor" else ():
            if str(parent) != ".":
                (place.folder / parent).chmod(0o700)
        target.write_bytes(data)
        target.chmod(0o600)


def test_a_restore_that_ended_before_the_anchor_stays_shut_until_it_is_accepted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.back_up()
    used = place.ask()
    place.use(used)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_restore._Work, "settle", crash)
        with pytest.raises(KeyboardInterrupt):
            place.restore()
    with pytest.raises(RolledBack):
        place.open()
    place.open(accept_restored=True).close()
    assert place.reason(used) == "stale"
