"""What the gates of a state folder require, and those who would have it forgotten."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guests.build import wat
from moat import (
    Attestation,
    Denied,
    GateBusy,
    Grant,
    Identity,
    Limits,
    MalformedInput,
    Moat,
    MoatError,
    Policy,
    Requirement,
    Sandbox,
    runtime,
)
from threats.saved import Place

REVIEWER = Identity.generate("reviewer")
NEED = Requirement("code", [REVIEWER.id], max_age=timedelta(days=30))
STRICT = Policy.requiring([NEED])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder whose gate requires that somebody has reviewed what runs."""
    made = Place(tmp_path)
    assert Moat.change_policy(made.state, STRICT, clock=made.clock) == ("main",)
    return made


def policies(moat: Moat) -> list[str]:
    """The policy of each line that says what is enforced."""
    return [line["body"]["policy"] for line in moat.audit.entries() if line["kind"] == "rules"]


def drop_from_config(place: Place) -> None:
    """Whoever can write the configuration takes the requirement out of it."""
    file = place.state / "config.json"
    facts = json.loads(file.read_bytes())
    assert facts.pop("policy") == STRICT.text
    file.write_bytes(json.dumps(facts, separators=(",", ":"), sort_keys=True).encode() + b"\n")


def run(moat: Moat, place: Place, sandbox: Sandbox) -> Any:
    token = moat.issue(
        holder=place.agent.id, allow=[Grant("code://empty", {"run"})],
        limits=Limits.standard(), expires_in=timedelta(hours=1),
    )  # fmt: skip
    return moat.session(place.agent, token).run(sandbox, resource="code://empty")


def test_code_that_nobody_vouched_for_under_a_token_that_does_not_ask(place: Place) -> None:
    sandbox = Sandbox(wat("empty"))
    with place.open() as moat:
        with pytest.raises(Denied) as denied:
            run(moat, place, sandbox)
        assert (denied.value.reason, denied.value.link) == ("not_attested", None)
        moat.pep.attest(Attestation.sign([REVIEWER], "code", sandbox.sha256, now=place.now))
        run(moat, place, sandbox).check()


def test_every_gate_of_the_folder_requires_it_a_later_one_too(place: Place) -> None:
    for gate in ("main", "second"):
        with place.open(gate=gate, create=True) as moat:
            assert (moat.pep.policy, policies(moat)[-1]) == (STRICT, STRICT.text)
    assert Moat.change_policy(place.state, Policy.CHAIN_ONLY, clock=place.clock) == (
        "main", "second",
    )  # fmt: skip
    for gate in ("main", "second"):
        with place.open(gate=gate) as moat:
            assert (moat.pep.policy, policies(moat)[-1]) == (Policy.CHAIN_ONLY, "chain-only")


def test_a_configuration_without_the_requirement_is_seen_in_the_log(place: Place) -> None:
    with place.open() as moat:
        assert policies(moat) == ["chain-only", STRICT.text]
    drop_from_config(place)
    with place.open() as moat:
        assert policies(moat) == ["chain-only", STRICT.text, "chain-only"]
        last = list(moat.audit.entries())[-1]
        permit = moat.pep.authorize(place.ask())
        assert last["kind"] == "rules"
        assert permit.entry > last["i"], "what was weakened is a line before it counts"


def test_a_message_that_was_sealed_for_the_former_policy(place: Place) -> None:
    old = place.ask()  # for the chain alone
    assert place.reason(old) == "policy_mismatch"
    with place.open() as moat:
        new = moat.session(place.agent, place.token).seal("call", "tool://search/web")
    drop_from_config(place)
    assert place.reason(new) == "policy_mismatch"


def test_a_requirement_in_another_spelling_opens_no_gate(place: Place) -> None:
    file = place.state / "config.json"
    good = file.read_text()
    for bad in (
        good.replace("require code", "require  code"), good.replace("2592000s", "02592000s"),
        good.replace("chain-only", "chain-only "), good.replace('"policy"', '"Policy"'),
        good.replace("require code", "prefer code"), good.replace(" 1 did", " 0 did"),
        good.replace('"roots"', '"policy":"chain-only","roots"'),
        json.dumps(json.loads(good) | {"policy": "chain-only"}, separators=(",", ":")) + "\n",
        json.dumps(json.loads(good) | {"policy": None}, separators=(",", ":")) + "\n",
    ):  # fmt: skip
        assert bad != good
        file.write_text(bad)
        with pytest.raises(MalformedInput, match="config.json"):
            place.open()
    file.write_text(good)
    place.open().close()


def test_nothing_changes_while_a_process_has_one_of_the_gates(place: Place) -> None:
    place.open(gate="second", create=True).close()
    before = (place.state / "config.json").read_bytes()
    with place.open(gate="second") as moat:
        with pytest.raises(GateBusy):
            Moat.change_policy(place.state, Policy.CHAIN_ONLY, clock=place.clock)
        assert policies(moat) == [STRICT.text]
    assert (place.state / "config.json").read_bytes() == before
    with place.open() as moat:
        assert policies(moat)[-1] == STRICT.text


def test_a_change_that_is_cut_short_counts_from_the_next_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration is written, and no gate has armed itself yet."""
    place, real, calls = Place(tmp_path), runtime._pep, 0

    def once(*parts: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return real(*parts)

    monkeypatch.setattr(runtime, "_pep", once)
    with pytest.raises(KeyboardInterrupt):
        Moat.change_policy(place.state, STRICT, clock=place.clock)
    monkeypatch.undo()
    with place.open() as moat:
        assert (moat.pep.policy, policies(moat)) == (STRICT, ["chain-only", STRICT.text])


def test_a_backup_from_before_the_requirement_says_that_it_is_gone(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.back_up()
    Moat.change_policy(place.state, STRICT, clock=place.clock)
    done = place.restore()
    assert (done.required_no_more, done.trusted_again) == ((NEED,), ())
    with place.open() as moat:
        assert (moat.pep.policy, policies(moat)[-1]) == (Policy.CHAIN_ONLY, "chain-only")


def test_a_backup_with_the_requirement_brings_it_back(place: Place) -> None:
    place.back_up()
    drop_from_config(place)
    assert place.restore().required_no_more == ()
    place.now += 61
    with place.open() as moat:
        assert (moat.pep.policy, policies(moat)[-1]) == (STRICT, STRICT.text)
    assert place.reason(place.ask()) == "policy_mismatch"


def test_a_new_key_of_the_gate_keeps_the_requirement(place: Place) -> None:
    Moat.rotate_gate(place.state, clock=place.clock)
    with place.open() as moat:
        with pytest.raises(Denied, match="by the gate's policy"):
            run(moat, place, Sandbox(wat("empty")))
        assert policies(moat) == [], "the former log's last rules are inherited, unchanged"


def test_what_is_no_state_folder_gets_no_policy(tmp_path: Path) -> None:
    with pytest.raises(MoatError, match="no state folder"):
        Moat.change_policy(tmp_path, STRICT)
    assert not any(tmp_path.iterdir())
