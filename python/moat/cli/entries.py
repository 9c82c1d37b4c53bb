"""Lines of a log for the command line: read, chosen by filters, told in one line each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

import click
from rich.text import Text

from moat import REASONS, _show
from moat.cli import completers, failure
from moat.cli.failure import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from moat.cli.app import App

CLIPPED: Final = 160
"""Characters that a person is shown of a body with no picture of its own."""


class Filters(TypedDict):
    """Which entries are asked for; what is left out asks for all."""

    kind: str | None
    agent: str | None
    denied: bool
    reason: str | None


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``Filters``."""
    options = [
        click.option(
            "--kind", shell_complete=completers.kinds, help="Only this kind: decision, outcome …",
        ),
        click.option(
            "--agent", metavar="NAME|DID", shell_complete=completers.agents,
            help="Only entries that name this agent.",
        ),
        click.option("--denied", is_flag=True, help="Only denials."),
        click.option(
            "--reason", type=click.Choice(sorted(REASONS)), metavar="REASON",
            help="Only denials for this reason.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


class Choice:
    """What filters ask for, as one question."""

    def __init__(self, app: App, wanted: Filters) -> None:
        """Look the agent up once."""
        self.wanted = wanted
        self.agent = None if wanted["agent"] is None else str(app.agent(wanted["agent"]))

    def __call__(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is asked for."""
        wanted, body = self.wanted, entry["body"]
        return (
            wanted["kind"] in {None, entry["kind"]}
            and (not wanted["denied"] or body.get("allow") is False)
            and (wanted["reason"] is None or body.get("reason") == wanted["reason"])
            and (self.agent is None or self.agent in strings(body))
        )

    def __str__(self) -> str:
        """Say it as it was asked, for a heading; empty where all is asked for."""
        told = [f"{key} {value}" for key, value in self.wanted.items() if isinstance(value, str)]
        return _show.clean(", ".join(["denied"] * self.wanted["denied"] + told))


def read(line: bytes) -> dict[str, Any]:
    """Parse a line; what has no index, time, kind and body is not one."""
    try:
        entry = json.loads(line)
        if isinstance(entry["body"], dict) and isinstance(entry["kind"], str):
            entry["i"], entry["t"] = int(entry["i"]), int(entry["t"])
            return cast("dict[str, Any]", entry)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _unreadable() from error
    raise _unreadable()


def _unreadable() -> CommandError:
    message, then = "a line of the log does not read", "run `moat audit verify` to see where"
    return CommandError("chain_broken", message, then, failure.INVALID)


def strings(value: object) -> Iterator[str]:
    """Give every text in a body, keys left out."""
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from strings(inner)
        case list():
            for inner in value:
                yield from strings(inner)


# --- one line for a person -----------------------------------------------------------------------


def row(entry: Mapping[str, Any], names: Mapping[str, str], gate: str | None = None) -> Text:
    """Tell an entry in one line; a gate's name comes first where there are several."""
    place = "" if gate is None else f"{gate}  "
    place += f"{entry['i']:>5}  {_show.moment(entry['t'])}  "
    told = Text.assemble((place, "dim"), f"{_show.clean(entry['kind']):9} ")
    return told.append_text(said(entry, names))


def said(entry: Mapping[str, Any], names: Mapping[str, str]) -> Text:
    """Tell what an entry says. Nothing in it can steer a terminal."""
    body = entry["body"]
    if (own := _SAYS.get(entry["kind"])) is not None:
        return own(body, names)

    def the(key: str) -> str:
        return _show.clean(str(body.get(key)))

    def who(key: str) -> str:
        return name(body.get(key), names)

    told = Text()
    match entry["kind"]:
        case "outcome":
            fuel = body.get("fuel")
            told.append(f"of {the('decision')}: {the('status')}")
            told.append(f", {_show.fuel(fuel)} fuel" if isinstance(fuel, int) else "", "dim")
        case "control":
            told.append(f"{the('verb')} {the('target')} ", "yellow")
            told.append(f"{who('id')} by {who('signer')}")
        case "link":
            told.append(_show.clean(_show.short(str(body.get("id")))), "dim")
        case "alert":
            told.append(f"{the('rule')}: {who('agent')}", "bold yellow")
            told.append(f", {the('count')} times" if "count" in body else "")
            told.append(f" → {the('then')}" if "then" in body else "", "bold yellow")
        case "agent":
            told.append("replaced " if "previous" in body else "registered ", "yellow")
            told.append(f"{the('role')} {the('name')}  ")
            told.append(_show.clean(_show.short(str(body.get("key")))), "dim")
        case "summary" if isinstance(body.get("counts"), dict):
            counts = ", ".join(f"{count} {reason}" for reason, count in body["counts"].items())
            told.append(_show.clean(f"refused without a line: {counts}"), "red")
        case _:
            told.append(clip(body), "dim")
    return told


def _attested(body: Mapping[str, Any], names: Mapping[str, str]) -> Text:
    signers = ", ".join(name(signer, names) for signer in strings(body.get("signers")))
    told = Text(_show.clean(f"{body.get('subject')} "), "yellow")
    return told.append(_show.clean(f"by {signers}: {body.get('predicate')}"))


def _decided(body: Mapping[str, Any], names: Mapping[str, str]) -> Text:
    asked = _show.clean(f"{body.get('action')} {body.get('resource')}")
    told = Text(f"{name(body.get('holder'), names)}  {asked}")
    if body.get("allow") is True:
        return Text("allowed  ", "green").append_text(told)
    place = f" at link {body['link']}" if "link" in body else ""
    told.append(_show.clean(f"  {body.get('reason')}{place}"), "red")
    return Text("denied   ", "bold red").append_text(told)


def _requested(body: Mapping[str, Any], names: Mapping[str, str]) -> Text:
    del names
    told = Text(f"of {_show.clean(str(body.get('decision')))}: ")
    told.append(_show.clean(f"{body.get('method')} {body.get('url', 'a url nobody can read')}"))
    refused = "" if body.get("allow") is True else f" {_show.clean(str(body.get('reason')))}"
    return told.append(refused, "bold red")


_SAYS: Final = {"attested": _attested, "decision": _decided, "request": _requested}
"""What has a picture of its own."""


def name(did: object, names: Mapping[str, str]) -> str:
    """Give an agent's name here, or the ends of its key."""
    return _show.clean(names.get(str(did)) or _show.short(str(did)))


def clip(body: object) -> str:
    """Give the beginning of a body as JSON: a part of a snapshot has 48 KiB."""
    text = json.dumps(body, ensure_ascii=False)
    return _show.clean(text if len(text) <= CLIPPED else text[: CLIPPED - 1] + "…")


def known(app: App) -> dict[str, str]:
    """Names of agents and gates known here, by did:key."""
    return {str(key): name for key, name in app.names().known.items()}
