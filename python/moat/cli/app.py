"""What every command shares: its state folder, its way to print, its way to fail."""

from __future__ import annotations

import functools
import json
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.text import Text

from moat import AgentId, Moat, Token, _files, _show
from moat._config import Config
from moat._native import keep_apart
from moat.cli import completers, failure
from moat.cli.failure import fail
from moat.errors import MalformedInput
from moat.keystore import KeyStore
from moat.runtime import protected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console

    from moat import Identity, Limits

TOKEN_BYTES = 128 * 1024
"""More than the longest token's text (64 KiB in base64)."""


@dataclass(frozen=True)
class App:
    """One call of one command."""

    state: Path
    json: bool
    gate: str = "main"
    gates: tuple[str, ...] = ()

    # --- the state folder ---

    def require_state(self) -> Path:
        """Give the state folder, or a failure that says how to make one."""
        if not (self.state / "config.json").is_file():
            message = f"there is no state folder at `{self.state}`"
            fail("no_state", message, "run `moat init`, or name it with `--state DIR`")
        return self.state

    def config(self) -> Config:
        """Read who is trusted here."""
        return Config.from_bytes(_files.read(self.require_state() / "config.json", secret=True))

    @property
    def keys(self) -> KeyStore:
        """The agents' keys."""
        return KeyStore(self.require_state() / "keys")

    def keep_keys_from(self, limits: Limits) -> None:
        """Refuse trees that reach keys of this state folder: code that reads one is a root."""
        keep_apart(limits, protected(self.state))

    @contextmanager
    def moat(self) -> Iterator[Moat]:
        """Open the runtime over the state folder, with its gate."""
        with Moat.open(self.require_state(), gate=self.gate, create=False) as moat:
            yield moat

    # --- agents and tokens ---

    def names(self) -> _show.Names:
        """Name the agents and gates that are known here; none where there is no state."""
        known: dict[AgentId, str] = {}
        for folder, prefix in self._stores():
            store = KeyStore(folder)
            for name in store.names():
                with suppress(Exception):  # a key nobody can read has no name to show
                    known[store.public(name)] = prefix + name
        return _show.Names(known)

    def _stores(self) -> Iterator[tuple[Path, str]]:
        for folder in sorted(self.state.glob("gates/*/key")):
            yield folder, "gate "
        yield self.state / "keys", ""

    def agent(self, text: str) -> AgentId:
        """Find an agent by its name here or its did:key."""
        if text.startswith("did:"):
            return AgentId(text)
        return self.keys.public(text)

    def holder(self, token: Token) -> Identity:
        """Load the identity here that holds a token."""
        names = (name for name in self.keys.names() if self.keys.public(name) == token.holder)
        found = next(names, None)
        if found is None:
            message = f"no key here holds this token; its holder is `{token.holder}`"
            fail("wrong_holder", message, status=failure.DENIED)
        return self.keys.load(found)

    # --- asking ---

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask a person before something that cannot be undone; ``--yes`` is the answer."""
        if yes:
            return
        if self.json or not sys.stdin.isatty():
            message = f"nobody can be asked here: {question}"
            fail("not_confirmed", message, "write `--yes` if you mean it")
        if not click.confirm(question, err=True, default=False):
            fail("not_confirmed", "nothing was changed")

    # --- printing ---

    def emit(self, document: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Print the result: one JSON document, or for a person."""
        if self.json:
            click.echo(dumps(document))
        else:
            show(_show.console())


def dumps(document: Mapping[str, Any]) -> str:
    """JSON as every command prints it."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def common(
    *, gate: bool = False, gates: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command ``--json`` and ``--state`` (and ``--gate``), and an ``App`` to start with.

    ``gate`` is for commands that use one gate, ``gates`` for those that speak to several.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(
            *,
            state: Path,
            as_json: bool,
            gate: str = "main",
            **rest: Any,
        ) -> None:
            told = rest.pop("gates") if gates else ()
            command(App(state, as_json, gate, told), **rest)

        options = [
            click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
            click.option(
                "--state",
                type=click.Path(file_okay=False, path_type=Path),
                envvar="MOAT_STATE",
                default=completers.STATE,
                show_default="$MOAT_STATE, else ./moat-state",
                help="State folder.",
            ),
        ]
        if gate:
            options.append(
                click.option(
                    "--gate", default="main", show_default=True, help="Gate's name.",
                    shell_complete=completers.gates,
                )
            )  # fmt: skip
        if gates:
            told = "Which gates; all if left out."
            options.append(
                click.option(
                    "--gate", "gates", multiple=True, metavar="NAME", help=told,
                    shell_complete=completers.gates,
                )
            )  # fmt: skip
        for option in reversed(options):
            run = option(run)
        return run

    return wrap


def read_input(name: str, most: int) -> bytes:
    """Read a whole file, or standard input for ``-``; too large is a failure."""
    if name == "-":
        data = sys.stdin.buffer.read(most + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(most + 1)
    if len(data) > most:
        message = f"`{name}` is larger than {_show.size(most)}"
        fail("too_large", message, "give a smaller file")
    return data


def read_token(text: str) -> Token:
    """Read a token given as its text, a file, or ``-`` for standard input."""
    if text.startswith("moat1."):
        return Token.parse(text)
    try:
        data = read_input(text, TOKEN_BYTES)
    except FileNotFoundError:
        message = f"`{text}` is no file, and no token either"
        fail("no_token", message, "give a file, `-` or text that starts `moat1.`")
    with suppress(UnicodeDecodeError):
        if (found := data.decode().strip()).startswith("moat1."):
            return Token.parse(found)
    try:
        return Token.from_bytes(data)
    except MalformedInput as error:
        message = f"`{text}` holds no token: {error}"
        fail("malformed", message)


def report(error: BaseException, *, as_json: bool) -> NoReturn:
    """Tell a failure on standard error and leave with its exit code."""
    made = failure.of(error)
    if as_json:
        click.echo(dumps(made.to_dict()), err=True)
    else:
        _tell(made, _show.console(stderr=True))
    sys.exit(made.exit)


def _tell(made: failure.CommandError, screen: Console) -> None:
    word = "denied" if made.exit == failure.DENIED or made.facts.get("reason") else "error"
    screen.print(Text.assemble((f"{word}: ", "bold red"), made.message), soft_wrap=True)
    told = {key: made.facts[key] for key in _TOLD if made.facts.get(key) is not None}
    rows = [(key, str(fact)) for key, fact in told.items() if f"`{fact}`" not in made.message]
    if made.next:
        rows.append(("next", made.next))
    if rows:
        screen.print(_show.fields(rows, indent=2))


_TOLD = (
    "reason", "stage", "action", "resource", "link", "caveat", "witness", "entry", "index",
    "limit", "status", "exit_code",
)  # fmt: skip
