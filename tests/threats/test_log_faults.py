"""Disks that fill up, writes that come short, syncs that fail and processes that are killed.

Faults are injected from outside, by ``strace`` at the system calls on the log's file and by a
file system of a few pages. What has to hold after each of them: every answer that was given is
in the log, no effect took place without its entry, and after a failed sync nothing is permitted.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forge
from forge import NOW
from moat._native import verify_log
from threats.victim import Story, Victim
from threats.world import GATE, ROOT, WORKER, agent, open_gate
from tools import need, need_root

CALLS = {"pwrite64": 9, "fdatasync": 10}
"""Calls on the segment in the story below: opening, arming, four decisions and three outcomes;
opening syncs twice."""
SWEEP = range(1, 12)
"""Which of them fails: each one, and one that never comes."""


def wires() -> list[bytes]:
    """Messages on one stream; the second is a denial, so that both kinds are cut."""
    chain = forge.first(ROOT, WORKER)
    resources = ["tool://search/a", "tool://shell", "tool://search/b", "tool://search/c"]
    return [
        forge.message(chain, GATE.public, stream=bytes(16), number=n, resource=resource)
        for n, resource in enumerate(resources)
    ]


def traced(folder: Path, inject: str) -> Victim:
    """A victim whose calls on the log's segment are tampered with."""
    path = folder / "seg" / "000000000000.jsonl"
    tracer = [
        need("strace"), "-f", "-qq", "-o", str(folder.parent / "trace"), "-P", str(path),
        "-e", "trace=write,pwrite64,pwritev,fdatasync,fsync,ftruncate", "-e", f"inject={inject}",
    ]  # fmt: skip
    return Victim(folder, folder.parent / "anchor", tracer)


def tampered(folder: Path) -> int:
    """How many calls were in fact made to fail."""
    return (folder.parent / "trace").read_text().count("(INJECTED")


def decisions(folder: Path) -> list[dict[str, Any]]:
    """Every decision in the log, read without its help."""
    lines = folder.joinpath("seg", "000000000000.jsonl").read_bytes().split(b"\n")[:-1]
    return [entry["body"] for entry in map(json.loads, lines) if entry["kind"] == "decision"]


def held(folder: Path, anchor: Path | None, sent: list[bytes], story: Story) -> None:
    """What must hold whatever happened. The log is opened again, and goes on."""
    gate = open_gate(folder, anchor=anchor, now=NOW + 1)
    logged = {body["number"]: body["allow"] for body in decisions(folder)}
    for at in story.acknowledged:
        assert logged.get(at) is True, "an acknowledged yes was lost"
    for at in story.acted:
        assert at in story.acknowledged, "an effect took place without its entry"
    for at, reason in story.refused.items():
        if reason != "log_unavailable":
            assert logged.get(at) is False, "an acknowledged no was lost"
    for at, wire in enumerate(sent):
        decision = gate.decide(wire, now=NOW + 1)
        if at in logged:
            assert decision.reason == "replayed", "a message was decided twice"
        else:
            assert decision.reason in {None, "not_granted"}
    gate.close()
    verify_log(folder, agent(GATE), anchor=anchor)


def nothing_after(story: Story, *, reason: str = "log_unavailable") -> None:
    """From the first refusal for want of a log on, there is no other answer."""
    answers = {**dict.fromkeys(story.acknowledged, "yes"), **story.refused}
    ordered = [answers[at] for at in sorted(answers)]
    if reason in ordered:
        assert set(ordered[ordered.index(reason) :]) == {reason}


def test_the_same_story_without_a_fault(tmp_path: Path) -> None:
    """The control: under the tracer, with a fault that never comes."""
    folder, sent = tmp_path / "log", wires()
    story = traced(folder, "pwrite64:error=ENOSPC:when=1000").run(sent)
    assert story.code == 0, story.errors
    assert story.acknowledged == story.acted == [0, 2, 3]
    assert story.refused == {1: "not_granted"}
    assert tampered(folder) == 0
    held(folder, tmp_path / "anchor", sent, story)


@pytest.mark.parametrize("when", SWEEP)
@pytest.mark.parametrize(
    "fault",
    [
        "pwrite64:error=ENOSPC",
        "pwrite64:error=EIO",
        "pwrite64:retval=7",
        "fdatasync:error=EIO",
    ],
    ids=["disk full", "write error", "short write", "failed sync"],
)
def test_a_fault_at_every_write_of_an_append(tmp_path: Path, fault: str, when: int) -> None:
    """Where the n-th call fails, that answer and all later ones are refusals."""
    folder, sent = tmp_path / "log", wires()
    story = traced(folder, f"{fault}:when={when}").run(sent)
    assert tampered(folder) == (when <= CALLS[fault.partition(":")[0]])
    if tampered(folder) == 0:
        assert story.acknowledged == [0, 2, 3]
    elif story.opened:
        nothing_after(story)
        assert story.code != 0, "closing a failed log said that all was well"
    held(folder, tmp_path / "anchor", sent, story)


@pytest.mark.parametrize("when", SWEEP)
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_kill_9_at_every_write_of_an_append(tmp_path: Path, call: str, when: int) -> None:
    """Killed as the n-th call begins: before the write, or between write and sync."""
    folder, sent = tmp_path / "log", wires()
    story = traced(folder, f"{call}:signal=KILL:when={when}").run(sent)
    assert (story.code == -signal.SIGKILL) == (when <= CALLS[call]), story.errors
    held(folder, tmp_path / "anchor", sent, story)


def test_a_failed_sync_denies_for_the_life_of_the_process(tmp_path: Path) -> None:
    """One failure, then a disk that works: still no permit until the log is opened anew."""
    folder, sent = tmp_path / "log", wires()
    story = traced(folder, "fdatasync:error=EIO:when=5").run(sent)
    assert tampered(folder) == 1
    assert story.refused
    assert story.acknowledged == story.acted == [0]
    assert story.refused == dict.fromkeys((1, 2, 3), "log_unavailable")
    held(folder, tmp_path / "anchor", sent, story)


@pytest.mark.parametrize("call", ["write", "fsync", "renameat"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_checkpoint_and_anchor_that_cannot_be_written(
    tmp_path: Path, call: str, error: str
) -> None:
    """The log's own promise stands on its lines; what cannot be signed is not claimed."""
    folder, sent = tmp_path / "log", wires()
    anchor = tmp_path / "anchors" / "anchor"
    story = Victim(folder, anchor).run(sent[:1])
    assert story.code == 0, story.errors
    tracer = [
        need("strace"), "-f", "-qq", "-o", str(tmp_path / "trace"),
        "-P", str(folder), "-P", str(anchor.parent),
        "-P", str(folder / "checkpoint.new"), "-P", str(anchor) + ".new",
        "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1+",
    ]  # fmt: skip
    story = Victim(folder, anchor, tracer).run(sent[1:])
    moved = Story(
        story.code, [
            {k: v + 1 if k in {"allowed", "acted", "refused"} else v for k, v in said.items()}
            for said in story.said
        ], story.errors,
    )  # fmt: skip
    held(folder, anchor, sent, moved)


# --- a disk of a few pages ---


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 pages."""
    need_root()
    where = tmp_path / "disk"
    where.mkdir()
    mount = [need("mount"), "-t", "tmpfs", "-o", "size=128k,mode=0700", "moat", str(where)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield where
    subprocess.run([need("umount"), "-l", str(where)], check=True)


def test_a_disk_that_is_full(tiny: Path, tmp_path: Path) -> None:
    """Answers until there is no room, then refusals alone; with room again, all is there."""
    chain = forge.first(ROOT, WORKER)
    sent = [forge.message(chain, GATE.public, stream=bytes(16), number=n) for n in range(400)]
    folder, anchor = tiny / "log", tmp_path / "anchor"
    gate = open_gate(folder, anchor=anchor)
    decided = [gate.decide(wire, now=NOW) for wire in sent]
    reasons = [decision.reason for decision in decided]
    full = reasons.index("log_unavailable")
    assert reasons == [None] * full + ["log_unavailable"] * (len(sent) - full)
    assert all((d.permit is None) == (d.reason is not None) for d in decided)
    subprocess.run(
        [need("mount"), "-o", "remount,size=4m", str(tiny)], check=True, capture_output=True
    )
    assert gate.decide(sent[-1], now=NOW).reason == "log_unavailable"
    del gate, decided
    gate = open_gate(folder, anchor=anchor)
    assert {body["number"] for body in decisions(folder)} >= set(range(full))
    for wire in sent[:full]:
        assert gate.decide(wire, now=NOW).reason == "replayed"
    assert gate.decide(sent[-1], now=NOW).allowed
    gate.close()
    verify_log(folder, agent(GATE), anchor=anchor)


def test_a_disk_that_is_full_before_the_first_line(tiny: Path) -> None:
    filler = tiny / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        pass
    with pytest.raises(Exception, match=r".") as failed:
        open_gate(tiny / "log")
    assert type(failed.value).__module__ == "moat.errors"
    filler.unlink()
    gate = open_gate(tiny / "log")
    assert gate.decide(forge.message(forge.first(ROOT, WORKER), GATE.public), now=NOW).allowed
    gate.close()
