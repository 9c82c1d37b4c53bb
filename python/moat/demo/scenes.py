"""The scenes of files, tokens, messages and the log. Each does one thing and says how it went."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from moat import (
    AttenuationViolation,
    AuditLog,
    ChainBroken,
    Denial,
    Grant,
    Host,
    Identity,
    Limits,
    Secret,
    Token,
    _forge,
    _show,
)
from moat._tree import tree
from moat.demo.stage import AGENTS, KEY, files_of

if TYPE_CHECKING:
    from moat.demo.stage import Scene, Stage

LOOPBACK = ["127.0.0.1/32"]
"""Where the demo's server is: an address that no token reaches unless it says so."""


def identities(stage: Stage, scene: Scene) -> None:
    """Make the keys."""
    scene.attempted = "root, planner, researcher and worker get an Ed25519 key each"
    scene.expected = "4 keys"
    stage.agents["root"] = stage.moat.identity("root")
    for name in AGENTS:
        stage.agents[name] = stage.moat.identity(name, create=True)
    stage.moat.secrets.bind(
        KEY,
        backend="demo",
        name="notes",
        agents=[stage.agents["worker"].id],
        hosts=[stage.base],
    )
    scene.happened = f"{len({one.id for one in stage.agents.values()})} keys"
    scene.output = [f"{name:10}  {one.id}" for name, one in stage.agents.items()]


def delegation(stage: Stage, scene: Scene) -> None:
    """Pass a token on, three times."""
    scene.attempted = "root lets planner, planner lets researcher, researcher lets worker"
    scene.expected = "3 links, each narrower"
    root, planner, researcher, worker = (stage.agents[name] for name in ("root", *AGENTS))
    notes, desk = tree(stage.notes), tree(stage.notes.parent)
    own = [tree(stage.folder)] if stage.folder != stage.notes else []
    limits = Limits(
        fuel=5_000_000_000, memory=256 << 20, time=timedelta(seconds=30), output=4 << 20,
        read=[desk, *own], hosts=[Host(f"{stage.base}/**", {"GET", "POST"}, LOOPBACK)],
        secrets=[Secret(KEY, host=stage.base, header="authorization")],
    )  # fmt: skip
    first = Token.issue(
        root, holder=planner.id, limits=limits, expires_in=timedelta(hours=8), depth=2,
        allow=[
            Grant("code://*", {"run"}),
            Grant("tool://search/**", {"call", "list"}),
            Grant("tool://mail/outbox", {"send"}),
        ],
    )  # fmt: skip
    second = first.attenuate(
        planner, holder=researcher.id, expires_in=timedelta(hours=1),
        allow=[Grant("code://*", {"run"}), Grant("tool://search/**", {"call"})],
        deny=[Denial("tool://search/private/**", {"*"})],
        limits=limits.replace(fuel=1_000_000_000, read=[notes, *own]),
    )  # fmt: skip
    third = second.attenuate(
        researcher, holder=worker.id, expires_in=timedelta(minutes=15),
        allow=[
            Grant("code://reader", {"run"}),
            Grant("code://caller", {"run"}),
            Grant("tool://search/web", {"call"}),
        ],
        limits=second.limits.replace(
            fuel=200_000_000, memory=16 << 20, time=timedelta(seconds=5), output=1 << 20,
            hosts=[Host(f"{stage.base}/v1/notes/**", {"GET"}, LOOPBACK)],
        ),
    )  # fmt: skip
    third.verify([root.id], gate=stage.gate)
    stage.tokens.update(zip(AGENTS, (first, second, third), strict=True))
    (stage.home / "tokens").mkdir()
    for name, token in stage.tokens.items():
        (stage.home / "tokens" / f"{name}.token").write_text(f"{token}\n")
    scene.happened = f"{len(third.links)} links, each narrower"
    scene.picture = _show.token_tree(third, stage.names, int(time.time()))


def work(stage: Stage, scene: Scene) -> None:
    """Read files with it."""
    files = files_of(stage.folder)
    where = f"{len(files)} files of {stage.short(stage.folder)}"
    scene.attempted = f"worker's code looks for `{stage.word}` in {where}"
    scene.expected = "ok"
    outcome = stage.read(scene, stage.word, *map(str, files))
    scene.happened = outcome.status
    scene.detail = (
        f"{outcome.fuel_used:,} fuel, {_show.size(outcome.memory_peak)}, "
        f"{_show.span(outcome.elapsed.total_seconds())}"
    )
    scene.output = _show.printable(outcome.stdout, stage.folder)


def outside(stage: Stage, scene: Scene) -> None:
    """Open a file outside its trees."""
    scene.attempted = "the same code opens keys/root.pem, the root's secret key, which is there"
    _refused(stage, scene, [str(stage.secret)])


def escape(stage: Stage, scene: Scene) -> None:
    """Open it by a way through its trees."""
    scene.attempted = "it tries notes/../../keys/root.pem, and a symbolic link from notes to it"
    link = stage.notes / "shortcut.txt"
    link.symlink_to(stage.secret)
    try:
        _refused(stage, scene, [f"{stage.notes}/../../keys/root.pem", str(link)])
    finally:
        link.unlink()


def _refused(stage: Stage, scene: Scene, paths: list[str]) -> None:
    """Run the reader on files that exist and must not be read: it counts its refusals."""
    scene.expected = f"{len(paths)} of {len(paths)} refused, 0 bytes read"
    there = stage.secret.read_text().startswith("-----BEGIN PRIVATE KEY")
    outcome = stage.read(scene, "KEY", *paths)
    refused, read = outcome.exit_code, len(outcome.stdout)
    scene.happened = f"{refused} of {len(paths)} refused, {read} bytes read"
    scene.reason = outcome.status if there else "the file was not there"
    scene.output = _show.printable(outcome.stderr, stage.home)


def not_granted(stage: Stage, scene: Scene) -> None:
    """Ask for a tool that a link above kept."""
    scene.attempted = "worker asks to send mail, which planner kept to itself"
    scene.expected = "denied: not_granted"
    token = stage.tokens["worker"]
    decision = stage.ask(scene, stage.seal("worker", token, "send", "tool://mail/outbox"))
    stage.denied = decision.entry


def widening(stage: Stage, scene: Scene) -> None:
    """Ask for a wider link."""
    scene.attempted = "researcher asks for a link that may send mail"
    scene.expected = "refused: AttenuationViolation"
    try:
        stage.tokens["researcher"].attenuate(
            stage.agents["researcher"],
            holder=stage.agents["worker"].id,
            allow=[Grant("tool://mail/*", {"send"})],
        )
        scene.happened = "made"
    except AttenuationViolation as error:
        scene.happened = f"refused: {type(error).__name__}"
        scene.reason, scene.detail = error.caveat, str(error)


def forged(stage: Stage, scene: Scene) -> None:
    """Make the wider link by hand."""
    scene.attempted = "researcher signs that link by hand, correctly, and worker uses it"
    scene.expected = "denied: widened"
    token = _forge.widened(
        stage.tokens["researcher"],
        stage.agents["researcher"],
        stage.agents["worker"].id,
        [Grant("tool://mail/*", {"send"})],
    )
    stage.ask(scene, stage.seal("worker", token, "send", "tool://mail/outbox"))


def stolen(stage: Stage, scene: Scene) -> None:
    """Use somebody else's token."""
    scene.attempted = "a stranger has a copy of worker's token and signs with its own key"
    scene.expected = "denied: wrong_holder"
    stage.agents["stranger"] = Identity.generate("stranger")
    token = stage.tokens["worker"]
    stage.ask(scene, stage.seal("stranger", token, "call", "tool://search/web"))


def replay(stage: Stage, scene: Scene) -> None:
    """Send a message twice."""
    scene.attempted = "worker's search is allowed; the same bytes are sent again"
    scene.expected = "allowed, then denied: replayed"
    wire = stage.seal("worker", stage.tokens["worker"], "call", "tool://search/web")
    decision = stage.ask(scene, wire)
    if decision.permit is not None:
        with decision.permit as permit:
            permit.record(b"[]")
    first = scene.happened
    stage.ask(scene, wire)
    scene.happened = f"{first}, then {scene.happened}"


def fuel(stage: Stage, scene: Scene) -> None:
    """Loop."""
    scene.attempted = "worker's code loops for ever"
    scene.expected = "out_of_fuel"
    outcome = stage.read(scene, "--spin")
    scene.happened = scene.reason = outcome.status
    scene.detail = f"{outcome.fuel_used:,} fuel in {_show.span(outcome.elapsed.total_seconds())}"


def revoked(stage: Stage, scene: Scene) -> None:
    """Ask after a revocation two links up."""
    scene.attempted = "root revokes planner, two links up; worker asks for what it always could"
    scene.expected = "denied: revoked"
    stage.moat.revoke(stage.agents["planner"], by=stage.agents["root"])
    token = stage.tokens["worker"]
    stage.ask(scene, stage.seal("worker", token, "call", "tool://search/web"))


def verified(stage: Stage, scene: Scene) -> None:
    """Read the log as a stranger."""
    scene.attempted = "someone with the gate's public key alone reads the whole log"
    stage.moat.close()
    folder = stage.moat.audit.path
    lines = sum(len(part.read_bytes().splitlines()) for part in folder.rglob("*.jsonl"))
    scene.expected = f"{lines} entries hold"
    report = AuditLog.verify(folder, log=stage.gate, anchor=stage.anchor)
    scene.happened = f"{report.entries} entries hold"
    scene.detail = f"tree root {report.root.hex()}"
    scene.output = list(report.unchecked)


def tampered(stage: Stage, scene: Scene) -> None:
    """Read an edited copy of it."""
    target = stage.denied
    scene.attempted = f"in a copy, one byte of entry {target} is changed: who was to get mail"
    scene.expected = f"broken at entry {target}"
    copy = stage.home / "edited-log"
    shutil.copytree(stage.moat.audit.path, copy)
    _forge.edited(copy, target)
    try:
        AuditLog.verify(copy, log=stage.gate, anchor=stage.anchor)
        scene.happened = "it verifies"
    except ChainBroken as error:
        scene.happened = f"broken at entry {error.index}"
        scene.reason, scene.entry, scene.detail = "chain_broken", error.index, str(error)
