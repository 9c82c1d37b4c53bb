"""The control folder, with an enemy who can put files there: links, pipes, floods, forgeries."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from itertools import count
from pathlib import Path

import pytest

import forge
from forge import NOW, Key
from moat import AgentId, Control, MoatError
from moat._control import LIFE, REGISTRATION, STATEMENT, TAKE, ControlFolder, Watcher
from moat.keystore import KeyStore
from threats.world import GATE, MALLORY, PLANNER, RIVAL, ROOT, WORKER, World, agent


class Place:
    """A control folder and one gate that looks into it when told to."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.path = path
        self.folder = ControlFolder(path)

    def look(self) -> int:
        return self.folder.take(lambda statement, _: self.world.gate.control(statement, now=NOW))

    def drop(self, statement: bytes) -> str:
        return self.folder.drop(statement)

    def put(self, name: str, data: bytes) -> Path:
        self.path.mkdir(mode=0o700, exist_ok=True)
        file = self.path / name
        file.write_bytes(data)
        return file

    def names(self) -> list[str]:
        return sorted(file.name for file in self.path.iterdir())


@pytest.fixture
def place(world: World, tmp_path: Path) -> Place:
    return Place(world, tmp_path / "control")


def name_of(statement: bytes, kind: str = STATEMENT) -> str:
    return hashlib.sha256(statement).hexdigest() + kind


def test_a_statement_is_taken_up_once_and_its_file_goes(place: Place) -> None:
    statement = place.world.control(ROOT, "suspend", PLANNER)
    place.drop(statement)
    place.drop(statement)
    with place.world.growing_by("control"):
        assert place.look() == 1
        assert place.look() == 0
    assert place.names() == []
    place.drop(statement)
    with place.world.growing_by():
        assert place.look() == 0
    assert place.names() == []
    assert place.world.gate.is_suspended(agent(PLANNER))


def test_the_folder_and_its_files_are_the_owners_alone(place: Place) -> None:
    name = place.drop(place.world.control(ROOT, "revoke", PLANNER))
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((place.path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o701, 0o720, 0o777])
def test_a_folder_open_to_others_is_not_read(place: Place, mode: int) -> None:
    place.drop(place.world.control(ROOT, "revoke", PLANNER))
    place.path.chmod(mode)
    with place.world.growing_by(), pytest.raises(MoatError):
        place.look()
    with pytest.raises(MoatError):
        place.drop(place.world.control(ROOT, "revoke", WORKER))


def test_a_folder_that_is_a_link_is_not_read(place: Place, tmp_path: Path) -> None:
    real = tmp_path / "real"
    ControlFolder(real).drop(place.world.control(ROOT, "revoke", PLANNER))
    place.path.symlink_to(real)
    with place.world.growing_by(), pytest.raises((MoatError, OSError)):
        place.look()
    assert len(list(real.iterdir())) == 1


def test_a_link_in_the_place_of_a_statement(place: Place, tmp_path: Path) -> None:
    """Not followed, not even to a good statement; what it points to is left alone."""
    statement = place.world.control(ROOT, "revoke", PLANNER)
    target = tmp_path / "elsewhere"
    target.write_bytes(statement)
    place.put("x", b"")
    (place.path / name_of(statement)).symlink_to(target)
    with place.world.growing_by():
        assert place.look() == 0
    assert target.read_bytes() == statement
    assert place.names() == ["x"]


def test_pipes_sockets_and_folders_are_not_waited_for(place: Place) -> None:
    place.put("x", b"")
    os.mkfifo(place.path / ("a" * 64 + STATEMENT))
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(place.path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/{'b' * 64}{STATEMENT}"[-107:])
        os.close(here)
    (place.path / ("c" * 64 + STATEMENT)).mkdir()
    good = place.drop(place.world.control(ROOT, "revoke", PLANNER))
    with place.world.growing_by("control"):
        assert place.look() == 1
        assert place.look() == 0
    assert good not in place.names()
    assert place.world.gate.is_revoked(agent(PLANNER))


def test_a_huge_file_is_not_read(place: Place) -> None:
    name = "d" * 64 + STATEMENT
    with place.put(name, b"").open("r+b") as file:
        file.truncate(1 << 40)
    with place.world.growing_by():
        assert place.look() == 0
    assert place.names() == []


def test_a_name_that_is_not_the_digest_of_its_bytes(place: Place) -> None:
    statement = place.world.control(ROOT, "revoke", PLANNER)
    place.put("e" * 64 + STATEMENT, statement)
    place.put(name_of(statement).upper(), statement)
    with place.world.growing_by():
        assert place.look() == 0
    assert not place.world.gate.is_revoked(agent(PLANNER))


def test_a_thousand_forged_files_do_not_keep_a_good_one_out(place: Place) -> None:
    """Each look takes a bounded number, removes what is refused, and comes to the good one."""
    for n in range(4 * TAKE):
        junk = n.to_bytes(4, "big") * 50
        place.put(name_of(junk), junk)
    for n in range(2_000):
        place.put(f"noise{n}", b"")
    place.drop(place.world.control(ROOT, "revoke", PLANNER))
    with place.world.growing_by("control"):
        looks = [place.look() for _ in range(6)]
    assert sum(looks) == 1
    answers = [name for name in place.names() if name.endswith(".refused")]
    assert len(answers) <= 256, "answers are bounded"
    assert not [name for name in place.names() if name.endswith(STATEMENT)]


@pytest.mark.parametrize("signer", [MALLORY, WORKER, GATE], ids=lambda key: key.name)
def test_a_statement_by_someone_without_standing(place: Place, signer: Key) -> None:
    """Whoever can write a file cannot thereby say anything: the signature counts."""
    place.world.allow(place.world.ask())
    name = place.drop(place.world.control(signer, "revoke", PLANNER))
    with place.world.growing_by():
        assert place.look() == 0
    answer = place.folder.refusal(name)
    assert answer is not None
    assert answer["reason"] == "no_standing"
    assert place.folder.refusal(name) is None
    assert place.names() == []


def test_a_forged_statement_and_a_stale_one(place: Place) -> None:
    forged = forge.control(ROOT, "revoke", WORKER, GATE.public, sign=MALLORY.sign)
    stale = place.world.control(ROOT, "revoke", WORKER, now=NOW - 4_000)
    for statement, reason in ((forged, "bad_signature"), (stale, "stale")):
        name = place.drop(statement)
        with place.world.growing_by():
            assert place.look() == 0
        answer = place.folder.refusal(name)
        assert answer is not None
        assert answer["reason"] == reason


def test_a_replayed_statement_does_not_come_back(place: Place) -> None:
    """Kept by an enemy and dropped again after the suspension was lifted."""
    suspend = place.world.control(ROOT, "suspend", PLANNER)
    place.drop(suspend)
    place.look()
    place.drop(place.world.control(ROOT, "resume", PLANNER))
    place.look()
    place.drop(suspend)
    with place.world.growing_by():
        assert place.look() == 0
    assert not place.world.gate.is_suspended(agent(PLANNER))


def test_a_statement_for_another_gate_waits_for_it(place: Place) -> None:
    other = forge.control(ROOT, "revoke", PLANNER, RIVAL.public)
    name = place.drop(other)
    with place.world.growing_by():
        assert [place.look() for _ in range(3)] == [0, 0, 0]
    assert place.names() == [name]
    assert not place.world.gate.is_revoked(agent(PLANNER))


def test_what_nobody_takes_up_goes_when_it_cannot_count_any_more(place: Place) -> None:
    name = place.drop(forge.control(ROOT, "revoke", PLANNER, RIVAL.public))
    old = (place.path / name).stat().st_mtime - LIFE - 10
    os.utime(place.path / name, (old, old))
    place.look()
    assert place.names() == []


def test_a_crash_between_the_entry_and_the_removal(place: Place) -> None:
    """The file is still there when the gate comes back: it counts no second time."""
    statement = place.world.control(ROOT, "suspend", PLANNER)
    name = place.drop(statement)
    place.world.gate.control(statement, now=NOW)
    place.world.restart()
    with place.world.growing_by():
        assert place.look() == 0
    assert name not in place.names()
    assert place.folder.refusal(name) is None, "a repeated statement is no refusal"


def test_a_gate_whose_log_is_gone_leaves_the_statement(place: Place) -> None:
    name = place.drop(place.world.control(ROOT, "revoke", PLANNER))
    place.world.gate.close()
    with pytest.raises(MoatError):
        place.look()
    assert place.names() == [name]


def test_a_gate_in_trouble_of_its_own_loses_no_revocation(place: Place) -> None:
    """Its clock is behind the log for a while: the statement waits until it is not."""
    world, late = place.world, NOW + 3_000
    world.allow(world.ask(forge.first(ROOT, RIVAL), now=late), now=late)
    name = place.drop(world.control(ROOT, "revoke", PLANNER, now=late - 50))
    with world.growing_by():
        assert place.folder.take(lambda said, _: world.gate.control(said, now=late - 70)) == 0
    assert place.names() == [name]
    assert place.folder.refusal(name) is None
    assert place.folder.take(lambda said, _: world.gate.control(said, now=late)) == 1
    assert world.gate.is_revoked(agent(PLANNER))


def test_a_fault_inside_the_gate_does_not_end_the_watch(place: Place) -> None:
    """What the native gate raises then is no ``Exception``; the next look hears the revocation."""
    place.drop(place.world.control(ROOT, "revoke", WORKER))
    looks, heard = count(), threading.Event()

    class Fault(BaseException):
        pass

    def accept(statement: bytes, _: str) -> int:
        if next(looks) == 0:
            raise Fault
        entry = place.world.gate.control(statement, now=NOW)
        heard.set()
        return entry

    watcher = Watcher(place.folder, accept)
    assert heard.wait(60)
    watcher.stop()
    assert place.world.gate.is_revoked(agent(WORKER))


def test_a_registration_dropped_as_a_control_statement(place: Place) -> None:
    """The two kinds are not mixed up, whatever the file is called."""
    statement = place.world.control(ROOT, "revoke", PLANNER)
    place.folder.drop(statement, REGISTRATION)

    def accept(data: bytes, kind: str) -> int:
        assert kind == REGISTRATION
        return place.world.gate.register(data, now=NOW)

    with place.world.growing_by():
        assert place.folder.take(accept) == 0
    assert not place.world.gate.is_revoked(agent(PLANNER))


def test_another_process_reaches_a_running_gate(tmp_path: Path) -> None:
    """Dropped by one process and taken up by the watching thread of another."""
    script = textwrap.dedent("""
        import json, sys
        from moat import Moat
        moat = Moat.open(sys.argv[1])
        worker = moat.identity("worker", create=True)
        print(json.dumps([str(moat.id), str(worker.id)]), flush=True)
        sys.stdin.readline()
        print(json.dumps(moat.is_suspended(worker)), flush=True)
        moat.close()
    """)
    state = tmp_path / "state"
    command = [sys.executable, "-c", script, str(state)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as running:
        gate, worker = json.loads(running.stdout.readline())
        root = KeyStore(state / "keys").load("root")
        statement = Control.sign(root, "suspend", AgentId(worker), gate=AgentId(gate))
        name = ControlFolder(state / "control").drop(statement)
        deadline = time.monotonic() + 30
        while (state / "control" / name).exists():
            assert time.monotonic() < deadline
            os.sched_yield()
        running.stdin.write("\n")
        running.stdin.flush()
        assert json.loads(running.stdout.readline()) is True
        assert running.wait(30) == 0
