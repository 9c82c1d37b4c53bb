"""The scene of code given as text: an agent's own Python, in an interpreter that is a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat import _show, code, tool
from moat.demo.stage import files_of

if TYPE_CHECKING:
    from moat.demo.stage import Scene, Stage

SOURCE = """
found = call_tool("search", word={word!r})
print(len(found), "of the files know the word")
try:
    call_tool("send", text=", ".join(found))
except Exception as error:
    print(error)
"""


def text(stage: Stage, scene: Scene) -> None:
    """Run a text under a key of its own; it calls a tool it may call, and one it may not."""
    searched: list[str] = []
    sent: list[str] = []

    @tool("tool://search/notes")
    def search(word: str) -> list[str]:
        searched.append(word)
        files = files_of(stage.folder)
        return [one.name for one in files if word in one.read_text(errors="replace")]

    @tool("tool://mail/outbox", action="send")
    def send(text: str) -> None:
        sent.append(text)

    scene.attempted = "researcher's own Python, as text, calls `search`, then `send`"
    scene.expected = "1 search made, 0 letters sent"
    session = stage.moat.session(stage.agents["researcher"], stage.tokens["researcher"])
    source = SOURCE.format(word=stage.word)
    ran = code.run(session, source, tools=[search, send], cache=stage.moat.cache)
    scene.entry, scene.reason = ran.permit.entry, ran.sandbox.status
    scene.happened = f"{len(searched)} search made, {len(sent)} letters sent"
    scene.output = _show.printable((ran.stdout + ran.stderr).encode(), stage.home)
