"""``moat token renew``."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from moat import Token, _show
from moat.cli import failure
from moat.cli.app import App, common, read_token
from moat.cli.failure import fail
from moat.cli.tokens import deliver
from moat.cli.units import Duration
from moat.errors import AuditUnavailable, MoatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moat import Identity, Link


@click.command()
@click.argument("text", metavar="TOKEN")
@click.option("--expires", type=Duration(), help="Lifetime from now; as long as it had.")
@click.option("--unchecked", is_flag=True, help="Also where no gate can say what is revoked.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@common(gate=True)
def renew(
    app: App, *, text: str, expires: timedelta | None, unchecked: bool, out: Path | None
) -> None:
    """Sign the last link of TOKEN anew, on the same terms, to expire later.

    The key that signed that link must be kept here. The link above it bounds the time; one that
    has expired or is revoked is renewed first.
    """
    held, now = read_token(text), int(time.time())
    last = held.links[-1]
    signer = _issuer(app, last)
    _require_authentic(held)
    until = now + int((expires or timedelta(seconds=last.expires - last.issued)).total_seconds())
    if until <= last.expires:
        message = f"it would expire {_show.moment(until)}, and the token lives on after that"
        fail("not_later", message, "ask for a longer life with `--expires TIME`")
    if held.links[:-1]:
        _require_room(held.links[-2], until, now)
    _require_standing(app, held, unchecked=unchecked)
    app.keep_keys_from(last.limits)
    deliver(app, _signed_anew(held, signer, timedelta(seconds=until - now), now), out)


def _signed_anew(held: Token, signer: Identity, expires_in: timedelta, now: int) -> Token:
    """Sign what the last link says once more; ``attenuate`` compares it with its parent again."""
    last, above = held.links[-1], held.links[:-1]
    sign = partial(_token(above).attenuate if above else Token.issue, signer)
    return sign(
        holder=last.holder,
        allow=last.allow,
        deny=last.deny,
        limits=last.limits,
        expires_in=expires_in,
        not_before=last.not_before,
        depth=last.depth,
        audience=last.audience,
        attestations=last.attestations,
        now=now,
    )


def _issuer(app: App, last: Link) -> Identity:
    names = (name for name in app.keys.names() if app.keys.public(name) == last.issuer)
    found = next(names, None)
    if found is None:
        message = f"no key here signed the last link; its issuer is `{last.issuer}`"
        then = "renew it where that key is kept"
        fail("wrong_issuer", message, then, failure.DENIED)
    return app.keys.load(found)


def _require_authentic(held: Token) -> None:
    """Refuse terms that the issuer never signed: a renewal would make them true.

    An expired token may be renewed, so the signatures are looked at as of its last second.
    """
    audience = next((link.audience for link in held.links if link.audience), None)
    try:
        held.verify([held.root], gate=audience, now=held.expires - 1)
    except MoatError as error:
        raise failure.verification(error) from error


def _require_room(parent: Link, until: int, now: int) -> None:
    """Refuse a parent that is dead, or dies earlier."""
    then = (
        "have the link above it renewed first, by its issuer; then `moat token attenuate` that "
        "token as its holder"
    )
    if parent.expires <= now:
        message = f"the link above it expired {_show.moment(parent.expires)}"
        fail("expired", message, then, failure.DEAD, {"link": parent.index})
    if parent.expires < until:
        message = (
            f"the link above it expires {_show.moment(parent.expires)}, before the "
            f"{_show.moment(until)} that is asked for"
        )
        then = f"ask for at most `--expires {parent.expires - now}s`, or {then}"
        facts = {"caveat": "expiry", "link": parent.index}
        fail("widened", message, then, failure.DENIED, facts)


def _require_standing(app: App, held: Token, *, unchecked: bool) -> None:
    """Refuse a chain with anything revoked in it: a renewed link has a new id."""
    try:
        with app.moat() as moat:
            moat.audit.gate.check_withdrawn(held)
    except AuditUnavailable as error:
        if not unchecked:
            _unknown(error)
    except MoatError as error:
        raise failure.verification(error) from error


def _unknown(error: AuditUnavailable) -> NoReturn:
    message = f"whether the token is revoked is not known: {error}"
    then = "stop the process that has the gate, or say `--unchecked` if nothing was revoked"
    fail("log_unavailable", message, then)


def _token(links: Sequence[Link]) -> Token:
    """Make a token of some links: a CBOR array of byte strings (spec/token.md)."""
    data = bytes([0x80 | len(links)])
    for link in map(bytes, links):
        size = len(link)
        head = b"\x58" + bytes([size]) if size < 1 << 8 else b"\x59" + size.to_bytes(2, "big")
        data += head + link
    return Token.from_bytes(data)
