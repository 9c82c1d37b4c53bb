"""What the scenes of the demo share: one state folder, its agents, what they hold, a server."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moat import (
    Decision,
    Identity,
    Message,
    Moat,
    Sandbox,
    SandboxOutcome,
    Session,
    Token,
    _show,
)
from moat._native import Egress
from moat.demo.server import Server
from moat.secrets import Memory

if TYPE_CHECKING:
    from rich.console import RenderableType

    from moat.audit import Anchor

SHIPPED: Final = Path(__file__).parent.parent / "_demo"
AGENTS: Final = ("planner", "researcher", "worker")
FILES: Final = 40
"""Files of a person's own folder that the worker looks into, at most."""
HOST: Final = "notes.example"
"""What the server of the demo is called; its address is loopback."""
KEY: Final = "secret://notes"
"""The handle of the key that the server asks for."""


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


class Stage:
    """What the scenes share: one state folder, its agents and what they hold."""

    def __init__(self, home: Path, anchor: Anchor, folder: Path | None, word: str) -> None:
        """Make the state folder and put the worker's reading on its desk."""
        self.home, self.anchor, self.word = home.resolve(), anchor, word
        self.key = secrets.token_hex(16)
        backends = {"demo": Memory({"notes": self.key})}
        self.moat = Moat.init(self.home, anchor=anchor, secrets=backends)
        self.gate = self.moat.id
        self.notes = self.home / "desk" / "notes"
        shutil.copytree(SHIPPED / "notes", self.notes)
        self.folder = folder or self.notes
        self.secret = self.home / "keys" / "root.pem"
        self.agents: dict[str, Identity] = {}
        self.tokens: dict[str, Token] = {}
        self.denied: int | None = None
        self.server = Server(HOST, self.key)
        self.base = f"https://{HOST}:{self.server.port}"

    @cached_property
    def sandbox(self) -> Sandbox:
        """The worker's code: ``_demo/reader.c``, compiled."""
        return Sandbox(SHIPPED / "reader.wasm")

    @cached_property
    def caller(self) -> Sandbox:
        """The worker's other code, a component: ``_demo/caller.wat``, assembled."""
        return Sandbox(SHIPPED / "caller.wasm")

    @cached_property
    def egress(self) -> Egress:
        """What requests go through: it trusts the demo's server, and finds it on loopback."""
        anchors = [self.server.certificate]
        return Egress(anchors=anchors, resolver=lambda _: ["127.0.0.1"])

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
        """Let go of the server and the gate."""
        self.server.close()
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
            self.agents[sender], gate=self.gate, token=token, policy=self.moat.pep.policy.hash,
            action=action, resource=resource,
        )  # fmt: skip


def files_of(folder: Path) -> list[Path]:
    """Name the files of a folder that the worker looks into."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return found[:FILES]
