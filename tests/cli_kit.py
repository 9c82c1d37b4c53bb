"""What the tests of the command line share: one state folder, and a way to call `moat`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from moat.cli import cli

if TYPE_CHECKING:
    from click.testing import Result

READER = Path(str(files("moat"))) / "_demo" / "reader.wasm"
OK, ERROR, USAGE, DENIED, INVALID, DEAD = range(6)
"""Exit codes (spec/cli.md)."""


@dataclass(frozen=True)
class Cli:
    """`moat` with one state folder and no other environment."""

    state: Path

    def __call__(self, *args: str | Path, code: int = OK, **more: Any) -> Result:
        """Run a command for a person and require its exit code."""
        env = {"MOAT_STATE": str(self.state), "NO_COLOR": None, "COLUMNS": None}
        result = CliRunner(env=env).invoke(cli, [str(arg) for arg in args], **more)
        assert result.exit_code == code, (result.output, result.exc_info)
        return result

    def json(self, *args: str | Path, code: int = OK, **more: Any) -> Any:
        """Run a command with `--json`; its one document, from the stream that it belongs to."""
        result = self(*args, "--json", code=code, **more)
        failed = code != OK and not result.stdout
        text, other = (result.stderr, result.stdout) if failed else (result.stdout, result.stderr)
        assert other == ""
        return json.loads(text)

    def error(self, *args: str | Path, code: int, **more: Any) -> dict[str, Any]:
        """Run a command that fails, for a person and for a machine; what the machine is told."""
        plain = self(*args, code=code, **more)
        assert plain.stderr.startswith(("error: ", "denied: ")), plain.stderr
        document = self.json(*args, code=code, **more)
        assert set(document) == {"error"}
        found: dict[str, Any] = document["error"]
        assert {"code", "message", "next", "exit"} <= set(found)
        assert found["exit"] == code
        assert found["message"].replace("\n", " ")[:40] in plain.stderr.replace("\n", " ")
        return found

    def did(self, name: str) -> str:
        """The did:key of an identity here."""
        return str(self.json("identity", "show", name)["identities"][0]["id"])

    def issue(self, *args: str, to: str = "planner", expires: str = "1h") -> Path:
        """Issue a token into a file of the holder's name."""
        path = self.state.parent / f"{to}.token"
        self("token", "issue", "--to", to, "--expires", expires, "--out", path, *args)
        return path


def fresh(folder: Path, *names: str) -> Cli:
    """Make a state folder with these identities."""
    made = Cli(folder / "state")
    made("init")
    for name in names:
        made("identity", "new", name)
    return made
