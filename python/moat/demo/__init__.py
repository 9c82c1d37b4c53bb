"""``moat demo``: all of Moat on real files, told to a person or, as JSON, to a machine.

Every scene says what was attempted, what had to happen and what did; the demo passes when all
of them agree. Everything is done for real: nothing here knows an answer beforehand.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich.console import Console, Group, RenderableType
from rich.text import Text

from moat import MoatError, _show
from moat.audit import DEFAULT_ANCHOR
from moat.demo import network, scenes, script
from moat.demo.stage import Scene, Stage, files_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from moat.audit import Anchor

SHOWN: Final = 6
"""Lines of the worker's findings that are shown."""

Play: TypeAlias = "tuple[str, str, Callable[[Stage, Scene], None]]"

SCENES: Final[tuple[Play, ...]] = (
    ("identities", "Four agents, four keys", scenes.identities),
    ("delegation", "Three links, each narrower than the last", scenes.delegation),
    ("work", "The worker does its work", scenes.work),
    ("outside", "A file outside its folders", scenes.outside),
    ("escape", "The way out of the folder", scenes.escape),
    ("not_granted", "A tool it was not given", scenes.not_granted),
    ("widening", "Asking for more", scenes.widening),
    ("forged", "Taking more", scenes.forged),
    ("stolen", "A stolen token", scenes.stolen),
    ("replay", "The same message twice", scenes.replay),
    ("fuel", "Code that never ends", scenes.fuel),
    ("egress", "The one host it may ask", network.egress),
    ("secret", "A key that it never sees", network.secret),
    ("elsewhere", "Hosts it may not ask", network.elsewhere),
    ("revoked", "A revoked ancestor", scenes.revoked),
    ("verified", "The log holds", scenes.verified),
    ("tampered", "One changed byte", scenes.tampered),
)
CODE: Final[Play] = ("code", "An agent's own Python, as text", script.text)
"""Played before the agent is revoked, if asked for: its interpreter is an extra."""


def run(
    *,
    state: str | None = None,
    folder: str | None = None,
    word: str = "token",
    code: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Play every scene and give the whole story as JSON; tell it too, unless ``quiet``.

    ``state`` is a folder to keep, new or empty; left out, everything is made in a temporary one.
    ``folder`` is a directory of text files to read instead of the ones that come with Moat.
    ``code`` plays an agent's own Python too (extra ``python``); compiling its interpreter takes
    half a minute the first time.
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
        played = []
        program = list(SCENES)
        if code:
            program.insert([name for name, *_ in SCENES].index("revoked"), CODE)
        for number, (name, title, play) in enumerate(program, 1):
            scene = Scene(name, title)
            try:
                play(stage, scene)
            except (MoatError, OSError) as error:
                scene.happened = f"{type(error).__name__}: {error}"
            played.append(scene)
            _tell(screen, number, scene)
        stage.close()
    took = time.monotonic() - started
    _end(screen, played, took, stage if state else None)
    return {
        "ok": all(scene.ok for scene in played),
        "seconds": round(took, 3),
        "state": state,
        "gate": str(stage.gate),
        "scenes": [scene.to_dict() for scene in played],
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
    if not files_of(own):
        message = f"`{own}` holds no files; name a folder of text files"
        raise MoatError(message)


# --- telling it ----------------------------------------------------------------------------------


def _open(screen: Console | None, stage: Stage) -> None:
    if screen is None:
        return
    screen.print()
    screen.print(
        Text.assemble(("Moat  ", "bold"), "four agents, one gate, eleven attempts to cheat")
    )
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
