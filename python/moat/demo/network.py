"""The scenes of requests: the worker's other code asks hosts, and a key is filled in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat import _show
from moat.demo.stage import HOST, KEY

if TYPE_CHECKING:
    from moat import SandboxOutcome
    from moat.demo.stage import Scene, Stage

NOTE = "/v1/notes/today"
METADATA = "169.254.169.254"
"""Where a cloud keeps the keys of a machine."""


def egress(stage: Stage, scene: Scene) -> None:
    """Ask the host that the token names, with no key."""
    scene.attempted = f"worker's code asks https://{HOST}{NOTE}, a server of the demo's own"
    scene.expected = "401, 1 request seen"
    before = len(stage.server.asked)
    outcome = _call(stage, scene, f"{HOST}:{stage.server.port}", NOTE)
    status, *rest = outcome.stdout.decode().splitlines() or ["nothing"]
    seen = len(stage.server.asked) - before
    scene.happened = f"{status}, {seen} request seen"
    scene.output = rest or _show.printable(outcome.stderr, stage.home)


def secret(stage: Stage, scene: Scene) -> None:
    """Ask again, with the handle of the key that the server asks for."""
    scene.attempted = f"it sends the handle `{KEY}`; the server says back what it was shown"
    scene.expected = "the server saw the key, the code its handle"
    place = f"{HOST}:{stage.server.port}"
    outcome = _call(stage, scene, place, NOTE, "authorization", f"Bearer {KEY}")
    told = outcome.stdout.decode()
    shown = stage.server.asked[-1][1] if stage.server.asked else ""
    if shown != f"Bearer {stage.key}":
        scene.happened = "the server saw no key"
    elif stage.key in told or KEY not in told:
        scene.happened = "the code saw the key"
    else:
        scene.happened = scene.expected
    scene.output = told.splitlines()


def elsewhere(stage: Stage, scene: Scene) -> None:
    """Ask what the token does not name."""
    places = [
        ("attacker.example", "/take"),
        (METADATA, "/latest/meta-data/"),
        (f"{HOST}:{stage.server.port}", "/v1/keys"),
    ]
    asked = [f"https://{place.partition(':')[0]}{path}" for place, path in places]
    scene.attempted = f"it asks {', '.join(asked)}"
    scene.expected = f"{len(places)} of {len(places)} refused, 0 requests seen"
    before = len(stage.server.asked)
    ended = [_call(stage, scene, *place) for place in places]
    refused = [one for one in ended if one.stderr.startswith(b"refused: HTTP-request-denied")]
    seen = len(stage.server.asked) - before
    scene.happened = f"{len(refused)} of {len(places)} refused, {seen} requests seen"
    scene.reason = ended[0].status
    scene.output = [
        f"{place}: {line}"
        for place, one in zip(asked, ended, strict=True)
        for line in _show.printable(one.stderr, stage.home)
    ]


def _call(stage: Stage, scene: Scene, *argv: str) -> SandboxOutcome:
    """Let the worker run its code, by the gate, through the engine that asks the token."""
    code = stage.caller
    permit = stage.session.request(
        "run", "code://caller", args={"argv": list(argv)}, code=code.sha256
    )
    outcome = code.run(permit, args=argv, egress=stage.egress, secrets=stage.moat.secrets)
    scene.entry = permit.entry
    return outcome
