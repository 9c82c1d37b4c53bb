"""``moat demo``: all of Moat on real files, told to a person or, as JSON, to a machine.

Every scene says what was attempted, what had to happen and what did; the demo passes when all
of them agree. Everything is done for real: nothing here knows an answer beforehand.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group, RenderableType
from rich.text import Text

from moat import (
    AttenuationViolation,
    AuditLog,
    ChainBroken,
    Decision,
    Denial,
    Grant,
    Identity,
    Limits,
    Message,
    Moat,
    MoatError,
    Policy,
    Sandbox,
    SandboxOutcome,
    Session,
    Token,
    _forge,
    _show,
)
from moat._tree import tree
from moat.audit import DEFAULT_ANCHOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from moat.audit import Anchor

SHIPPED: Final = Path(__file__).parent / "_demo"
AGENTS: Final = ("planner", "researcher", "worker")
FILES: Final = 40
"""Files of a person's own folder that the worker looks into, at most."""
SHOWN: Final = 6
"""Lines of the worker's findings that are shown."""


@dataclass
class Scene:
    """One thing that is attempted, and how it went."""

    name: str
    title: str
    attempted: str = ""
    expected: str = ""
    happened: str = ""
    reason: str | None = None
    entry: int | None = None
    detail: str | None = None
    output: list[str] = field(default_factory=list)
    picture: RenderableType | None = None

    @property
    def ok(self) -> bool:
        """Whether it went as it had to."""
        return self.happened == self.expected

    def to_dict(self) -> dict[str, Any]:
        """Give the scene as JSON (``spec/cli.md``)."""
        names = (
            "name", "title", "attempted", "expected", "happened", "ok", "reason", "entry",
            "detail", "output",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def run(
    *,
    state: str | None = None,
    folder: str | None = None,
    word: str = "token",
    quiet: bool = False,
) -> dict[str, Any]:
    """Play every scene and give the whole story as JSON; tell it too, unless ``quiet``.

    ``state`` is a folder to keep, new or empty; left out, everything is made in a temporary one.
    ``folder`` is a directory of text files to read instead of the ones that come with Moat.
    Raises ``MoatError`` where the state folder is in use.
    """
    screen = None if quiet else _show.console()
    started = time.monotonic()
    with _place(state) as (home, anchor):
        own = Path(folder).resolve() if folder else None
        if own is not None:
            _require_fit(own, home.resolve())
        stage = Stage(home, anchor, own, word)
        _open(screen, stage)
        scenes = []
        for number, (name, title, play) in enumerate(SCENES, 1):
            scene = Scene(name, title)
            try:
                play(stage, scene)
            except (MoatError, OSError) as error:
                scene.happened = f"{type(error).__name__}: {error}"
            scenes.append(scene)
            _tell(screen, number, scene)
        stage.close()
    took = time.monotonic() - started
    _end(screen, scenes, took, stage if state else None)
    return {
        "ok": all(scene.ok for scene in scenes),
        "seconds": round(took, 3),
        "state": state,
        "gate": str(stage.gate),
        "scenes": [scene.to_dict() for scene in scenes],
    }


@contextmanager
def _place(state: str | None) -> Iterator[tuple[Path, Anchor]]:
    """Make a folder to work in and say where its anchor is; a temporary one goes afterwards."""
    if state is not None:
        home = Path(state)
        if home.exists() and any(home.iterdir()):
            message = f"`{home}` is not empty; name a new folder"
            raise MoatError(message)
        yield home, DEFAULT_ANCHOR
        return
    with tempfile.TemporaryDirectory(prefix="moat-demo-") as made:
        root = Path(made).resolve()
        yield root / "state", root / "anchor"


def _require_fit(own: Path, home: Path) -> None:
    """Refuse to let the worker read a folder that holds nothing, or the demo's own keys."""
    if home.is_relative_to(own) or own.is_relative_to(home):
        message = f"`{own}` holds the demo's state folder and its keys; name another folder"
        raise MoatError(message)
    if not _files_of(own):
        message = f"`{own}` holds no files; name a folder of text files"
        raise MoatError(message)


def _files_of(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return found[:FILES]


class Stage:
    """What the scenes share: one state folder, its agents and what they hold."""

    def __init__(self, home: Path, anchor: Anchor, folder: Path | None, word: str) -> None:
        """Make the state folder and put the worker's reading on its desk."""
        self.home, self.anchor, self.word = home.resolve(), anchor, word
        self.moat = Moat.init(self.home, anchor=anchor)
        self.gate = self.moat.id
        self.notes = self.home / "desk" / "notes"
        shutil.copytree(SHIPPED / "notes", self.notes)
        self.folder = folder or self.notes
        self.secret = self.home / "keys" / "root.pem"
        self.agents: dict[str, Identity] = {}
        self.tokens: dict[str, Token] = {}
        self.denied: int | None = None

    @cached_property
    def sandbox(self) -> Sandbox:
        """The worker's code: ``_demo/reader.c``, compiled."""
        return Sandbox(SHIPPED / "reader.wasm")

    @cached_property
    def session(self) -> Session:
        """The worker at work."""
        return self.moat.session(self.agents["worker"], self.tokens["worker"])

    @property
    def names(self) -> _show.Names:
        """Who is who."""
        return _show.Names({one.id: name for name, one in self.agents.items()})

    def short(self, path: Path) -> str:
        """Tell a path, below the state folder if it is there."""
        return str(path.relative_to(self.home) if path.is_relative_to(self.home) else path)

    def close(self) -> None:
        """Let go of the gate."""
        self.moat.close()

    def read(self, scene: Scene, *argv: str) -> SandboxOutcome:
        """Let the worker run its code, by the gate."""
        args = {"argv": list(argv)}
        permit = self.session.request("run", "code://reader", args=args, code=self.sandbox.sha256)
        outcome = self.sandbox.run(permit, args=list(argv))
        scene.entry = permit.entry
        return outcome

    def ask(self, scene: Scene, wire: bytes) -> Decision:
        """Bring a message to the gate and note its answer."""
        decision = self.moat.pep.decide(wire)
        scene.happened = "allowed" if decision.allowed else f"denied: {decision.reason}"
        scene.reason, scene.entry, scene.detail = decision.reason, decision.entry, decision.detail
        for name, one in self.agents.items():
            scene.detail = scene.detail and scene.detail.replace(f"`{one.id}`", name)
        scene.output = decision.explain().splitlines()
        chain = ("root", *AGENTS)
        link = decision.link
        facts = {
            "link": None if link is None else f"{link}, {chain[link]} to {chain[link + 1]}",
            "caveat": decision.caveat,
            "witness": decision.witness,
        }
        scene.picture = _show.fields((key, fact) for key, fact in facts.items() if fact)
        return decision

    def seal(self, sender: str, token: Token, action: str, resource: str) -> bytes:
        """Seal a message as any agent would."""
        return Message.seal(
            self.agents[sender], gate=self.gate, token=token, policy=Policy.CHAIN_ONLY.hash,
            action=action, resource=resource,
        )  # fmt: skip


# --- the scenes ----------------------------------------------------------------------------------


def _identities(stage: Stage, scene: Scene) -> None:
    scene.attempted = "root, planner, researcher and worker get an Ed25519 key each"
    scene.expected = "4 keys"
    stage.agents["root"] = stage.moat.identity("root")
    for name in AGENTS:
        stage.agents[name] = stage.moat.identity(name, create=True)
    scene.happened = f"{len({one.id for one in stage.agents.values()})} keys"
    scene.output = [f"{name:10}  {one.id}" for name, one in stage.agents.items()]


def _delegation(stage: Stage, scene: Scene) -> None:
    scene.attempted = "root lets planner, planner lets researcher, researcher lets worker"
    scene.expected = "3 links, each narrower"
    root, planner, researcher, worker = (stage.agents[name] for name in ("root", *AGENTS))
    notes, desk = tree(stage.notes), tree(stage.notes.parent)
    own = [tree(stage.folder)] if stage.folder != stage.notes else []
    limits = Limits(
        fuel=5_000_000_000, memory=256 << 20, time=timedelta(seconds=30), output=4 << 20,
        read=[desk, *own],
    )  # fmt: skip
    first = Token.issue(
        root, holder=planner.id, limits=limits, expires_in=timedelta(hours=8), depth=2,
        allow=[
            Grant("code://reader", {"run"}),
            Grant("tool://search/**", {"call", "list"}),
            Grant("tool://mail/outbox", {"send"}),
        ],
    )  # fmt: skip
    second = first.attenuate(
        planner, holder=researcher.id, expires_in=timedelta(hours=1),
        allow=[Grant("code://reader", {"run"}), Grant("tool://search/**", {"call"})],
        deny=[Denial("tool://search/private/**", {"*"})],
        limits=limits.replace(fuel=1_000_000_000, read=[notes, *own]),
    )  # fmt: skip
    third = second.attenuate(
        researcher, holder=worker.id, expires_in=timedelta(minutes=15),
        allow=[Grant("code://reader", {"run"}), Grant("tool://search/web", {"call"})],
        limits=second.limits.replace(
            fuel=200_000_000, memory=16 << 20, time=timedelta(seconds=5), output=1 << 20
        ),
    )  # fmt: skip
    third.verify([root.id], gate=stage.gate)
    stage.tokens.update(zip(AGENTS, (first, second, third), strict=True))
    (stage.home / "tokens").mkdir()
    for name, token in stage.tokens.items():
        (stage.home / "tokens" / f"{name}.token").write_text(f"{token}\n")
    scene.happened = f"{len(third.links)} links, each narrower"
    scene.picture = _show.token_tree(third, stage.names, int(time.time()))


def _work(stage: Stage, scene: Scene) -> None:
    files = _files_of(stage.folder)
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


def _outside(stage: Stage, scene: Scene) -> None:
    scene.attempted = "the same code opens keys/root.pem, the root's secret key, which is there"
    _refused(stage, scene, [str(stage.secret)])


def _escape(stage: Stage, scene: Scene) -> None:
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


def _not_granted(stage: Stage, scene: Scene) -> None:
    scene.attempted = "worker asks to send mail, which planner kept to itself"
    scene.expected = "denied: not_granted"
    token = stage.tokens["worker"]
    decision = stage.ask(scene, stage.seal("worker", token, "send", "tool://mail/outbox"))
    stage.denied = decision.entry


def _widening(stage: Stage, scene: Scene) -> None:
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


def _forged(stage: Stage, scene: Scene) -> None:
    scene.attempted = "researcher signs that link by hand, correctly, and worker uses it"
    scene.expected = "denied: widened"
    token = _forge.widened(
        stage.tokens["researcher"],
        stage.agents["researcher"],
        stage.agents["worker"].id,
        [Grant("tool://mail/*", {"send"})],
    )
    stage.ask(scene, stage.seal("worker", token, "send", "tool://mail/outbox"))


def _stolen(stage: Stage, scene: Scene) -> None:
    scene.attempted = "a stranger has a copy of worker's token and signs with its own key"
    scene.expected = "denied: wrong_holder"
    stage.agents["stranger"] = Identity.generate("stranger")
    token = stage.tokens["worker"]
    stage.ask(scene, stage.seal("stranger", token, "call", "tool://search/web"))


def _replay(stage: Stage, scene: Scene) -> None:
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


def _fuel(stage: Stage, scene: Scene) -> None:
    scene.attempted = "worker's code loops for ever"
    scene.expected = "out_of_fuel"
    outcome = stage.read(scene, "--spin")
    scene.happened = scene.reason = outcome.status
    scene.detail = f"{outcome.fuel_used:,} fuel in {_show.span(outcome.elapsed.total_seconds())}"


def _revoked(stage: Stage, scene: Scene) -> None:
    scene.attempted = "root revokes planner, two links up; worker asks for what it always could"
    scene.expected = "denied: revoked"
    stage.moat.revoke(stage.agents["planner"], by=stage.agents["root"])
    token = stage.tokens["worker"]
    stage.ask(scene, stage.seal("worker", token, "call", "tool://search/web"))


def _verified(stage: Stage, scene: Scene) -> None:
    scene.attempted = "someone with the gate's public key alone reads the whole log"
    stage.moat.close()
    folder = stage.moat.audit.path
    lines = sum(len(part.read_bytes().splitlines()) for part in folder.rglob("*.jsonl"))
    scene.expected = f"{lines} entries hold"
    report = AuditLog.verify(folder, log=stage.gate, anchor=stage.anchor)
    scene.happened = f"{report.entries} entries hold"
    scene.detail = f"tree root {report.root.hex()}"
    scene.output = list(report.unchecked)


def _tampered(stage: Stage, scene: Scene) -> None:
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


SCENES: Final[tuple[tuple[str, str, Callable[[Stage, Scene], None]], ...]] = (
    ("identities", "Four agents, four keys", _identities),
    ("delegation", "Three links, each narrower than the last", _delegation),
    ("work", "The worker does its work", _work),
    ("outside", "A file outside its folders", _outside),
    ("escape", "The way out of the folder", _escape),
    ("not_granted", "A tool it was not given", _not_granted),
    ("widening", "Asking for more", _widening),
    ("forged", "Taking more", _forged),
    ("stolen", "A stolen token", _stolen),
    ("replay", "The same message twice", _replay),
    ("fuel", "Code that never ends", _fuel),
    ("revoked", "A revoked ancestor", _revoked),
    ("verified", "The log holds", _verified),
    ("tampered", "One changed byte", _tampered),
)


# --- telling it ----------------------------------------------------------------------------------


def _open(screen: Console | None, stage: Stage) -> None:
    if screen is None:
        return
    screen.print()
    screen.print(Text.assemble(("Moat  ", "bold"), "four agents, one gate, ten attempts to cheat"))
    screen.print(Text.assemble(("gate  ", "dim"), (str(stage.gate), "dim")))


def _tell(screen: Console | None, number: int, scene: Scene) -> None:
    if screen is None:
        return
    screen.print()
    screen.print(Text.assemble((f"{number:>2}  ", "dim"), (scene.title, "bold")))
    mark = ("✓ ", "bold green") if scene.ok else ("✗ ", "bold red")
    said = Text.assemble(mark, (scene.happened, "green" if scene.ok else "red"))
    if scene.entry is not None and "entry" not in scene.happened:
        said.append(f"  entry {scene.entry}", style="dim")
    parts: list[RenderableType] = [Text(scene.attempted), said]
    if not scene.ok:
        parts.append(Text(f"expected {scene.expected}", style="red"))
    if scene.detail:
        parts.append(Text(scene.detail, style="dim"))
    if scene.picture is not None:
        parts.append(scene.picture)
    else:
        parts += [Text(line, style="dim") for line in scene.output[:SHOWN]]
        if len(scene.output) > SHOWN:
            parts.append(Text(f"… {len(scene.output) - SHOWN} more lines", style="dim"))
    screen.print(_show.Indented(Group(*parts), 4))


def _end(screen: Console | None, scenes: list[Scene], took: float, kept: Stage | None) -> None:
    if screen is None:
        return
    good = sum(scene.ok for scene in scenes)
    style = "bold green" if good == len(scenes) else "bold red"
    screen.print()
    screen.print(Text(f"{good} of {len(scenes)} went as they must, in {took:.1f} s", style=style))
    if kept is None:
        screen.print("nothing was kept; `moat demo --state DIR` keeps it", style="dim")
        return
    where = f"--state {kept.home}"
    token = kept.home / "tokens" / "worker.token"
    screen.print("\nGo on with what is here:", style="dim")
    for command in (
        f"moat audit show {where} --denied",
        f"moat audit verify {where}",
        f"moat audit verify --log {kept.home / 'edited-log'} --key {kept.gate}",
        f"moat token inspect {token} {where}",
        f"moat token verify {token} {where}",
        f"moat restore planner {where}",
    ):
        screen.print(f"  {command}", soft_wrap=True)
