"""A command that reads files, and a typed function that asks a tool of its host."""

import json
import sys
from pathlib import Path

import wit_world
from wit_world import Answer, exports
from wit_world.imports import tools


class WitWorld(wit_world.WitWorld):
    def ask(self, tool: str, arguments: list[tuple[str, int]]) -> Answer:
        """What the host refuses is raised by `dispatch`, and goes on to whoever called."""
        said = str(json.loads(tools.dispatch(tool, json.dumps(dict(arguments))))).split()
        return Answer(tool, len(said), said)


class Run(exports.Run):
    def run(self) -> None:
        for name in sys.argv[1:]:
            try:
                print("read", Path(name).read_text())
            except OSError as error:
                print("refused", error.strerror)
        print(json.dumps({"python": sys.version_info[:2], "platform": sys.platform}))
