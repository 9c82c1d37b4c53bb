"""``moat attest``: sign for code, a skill or a tool, verify what others signed, tell gates."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from moat import Attestation, Requirement, _files, _show
from moat._control import ATTESTATION
from moat.attest import BUNDLE_BYTES, KINDS, Kind, Measured, from_sigstore, measure, pack
from moat.cli import completers, failure
from moat.cli.app import App, common, read_input
from moat.cli.failure import fail
from moat.cli.speak import say
from moat.cli.units import MANIFEST, Duration
from moat.errors import InvalidSignature, MoatError, NotAttested

if TYPE_CHECKING:
    from rich.console import Console

    from moat import Identity

ENVELOPE_BYTES: Final = 32 * 1024
"""An envelope has no more (spec/attest.md)."""

_path = click.argument("path", type=click.Path(exists=True, path_type=Path))
_kind = click.option(
    "--kind", type=click.Choice(KINDS),
    help="What PATH is; left out: a folder is a skill, .json a tool, else code.",
)  # fmt: skip
_signers = click.option(
    "--signer", "signers", multiple=True, required=True, metavar="NAME|DID",
    shell_complete=completers.agents, help="Whose signature may count. Repeatable.",
)  # fmt: skip


@click.group()
def attest() -> None:
    """Vouch for code, skills and tools; verify what others vouch for; tell gates of it.

    An attestation is an in-toto statement in a DSSE envelope. A token may require some
    (`moat token issue --require`), and then a gate lets nothing else run.
    """


@attest.command()
@_path
@_kind
@click.option(
    "--by", multiple=True, required=True, metavar="NAME", shell_complete=completers.agents,
    help="Whose key signs. Repeatable.",
)  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@click.option(
    "--from-sigstore", "bundle", metavar="BUNDLE", shell_complete=completers.files,
    help="Only if this Sigstore bundle (a file or `-`) verifies, without the network.",
)  # fmt: skip
@click.option("--identity", metavar="ID", help="Who must have signed the bundle, exactly.")
@click.option("--issuer", metavar="URL", help="Who says that it was them, exactly.")
@click.option(
    "--trusted-root", type=click.Path(dir_okay=False, path_type=Path),
    help="A trusted_root.json; left out: that of the package `sigstore`.",
)  # fmt: skip
@common()
def sign(
    app: App,
    *,
    path: Path,
    kind: Kind | None,
    by: tuple[str, ...],
    out: Path | None,
    **sigstore: Any,
) -> None:
    """Vouch for PATH with keys kept here: a .wasm file, a skill's folder, a tool's description.

    The statement names SHA-256 digests and the present second; without --out it is printed.
    """
    _check(**sigstore)
    measured = _measure(path, kind)
    signers = [app.keys.load(name) for name in by]
    if sigstore["bundle"] is None:
        made = measured.sign(*signers)
    else:
        made = _relayed(measured, signers, **sigstore)
    if out is not None:
        _files.write(out.absolute(), bytes(made) + b"\n", secret=False, overwrite=True)
    document = _document(app, measured, made) | {
        "envelope": bytes(made).decode(),
        "out": None if out is None else str(out.resolve()),
    }

    def show(screen: Console) -> None:
        if out is None:
            click.echo(bytes(made).decode())
            return
        screen.print(f"signed for {measured.kind} {measured.digest.hex()}", soft_wrap=True)
        screen.print(_show.fields([("by", ", ".join(by)), ("written to", str(out))], indent=2))

    app.emit(document, show)


@attest.command()
@_path
@click.argument("envelopes", nargs=-1, required=True, shell_complete=completers.files)
@_kind
@_signers
@click.option("--threshold", type=int, default=1, show_default=True, help="How many of them.")
@click.option(
    "--max-age", type=Duration(), default=timedelta(days=365), show_default="365d",
    help="Older ones do not count.",
)  # fmt: skip
@click.option("--predicate", default=MANIFEST, show_default=True, help="Predicate type.")
@common()
def verify(
    app: App,
    *,
    path: Path,
    envelopes: tuple[str, ...],
    kind: Kind | None,
    signers: tuple[str, ...],
    **asked: Any,
) -> None:
    """Verify that enough signers vouch for PATH, as a gate would, in ENVELOPES (files or `-`).

    PATH is measured anew. Exit code 4 means that it is not vouched for.
    """
    measured = _measure(path, kind)
    requirement = Requirement(
        measured.kind, [app.agent(one) for one in signers], max_age=asked["max_age"],
        threshold=asked["threshold"], predicate=asked["predicate"],
    )  # fmt: skip
    given = [read_input(name, ENVELOPE_BYTES) for name in envelopes]
    try:
        found = _verified(given, requirement)
        statements = requirement.check(measured.digest, found)
    except MoatError as error:
        raise failure.verification(error) from error
    document = {
        "valid": True,
        "kind": measured.kind,
        "digest": measured.digest.hex(),
        "required": str(requirement),
        "statements": [statement.hex() for statement in statements],
        "attestations": [_document(app, measured, one) for one in found],
    }

    def show(screen: Console) -> None:
        screen.print(f"✓ {measured.kind} {measured.digest.hex()}", style="green", soft_wrap=True)
        rows = [
            (_show.moment(one.issued), ", ".join(map(app.names(), one.signers))) for one in found
        ]
        screen.print(_show.fields(rows, indent=2))

    app.emit(document, show)


@attest.command()
@click.argument("envelope", shell_complete=completers.files)
@_signers
@common(gates=True)
def add(app: App, *, envelope: str, signers: tuple[str, ...]) -> None:
    """Tell gates of ENVELOPE (a file or `-`), as far as these signers have signed it.

    A gate that another process runs hears of it within a second; this waits until it has.
    """
    keys = [app.agent(one) for one in signers]
    try:
        made = Attestation.verify(read_input(envelope, ENVELOPE_BYTES), keys)
    except MoatError as error:
        raise failure.verification(error) from error
    packed = pack(bytes(made), keys)
    answers = say(app, lambda _: packed, ATTESTATION)
    document = {"statement": made.statement.hex(), "gates": answers}

    def show(screen: Console) -> None:
        screen.print(f"taken up: {made.kind} {made.subjects[0].hex()}", soft_wrap=True)
        rows = [(f"gate {one['name']}", f"entry {one['entry']}") for one in answers]
        screen.print(_show.fields(rows, indent=2))

    app.emit(document, show)


def _verified(envelopes: list[bytes], requirement: Requirement) -> list[Attestation]:
    """Give those that one of the signers has signed; where none is, the first one's refusal."""
    found, refused = [], None
    for envelope in envelopes:
        try:
            found.append(Attestation.verify(envelope, requirement.signers))
        except InvalidSignature as error:
            refused = refused or error
    if not found and refused is not None:
        raise refused
    return found


def _check(
    bundle: str | None, identity: str | None, issuer: str | None, trusted_root: Path | None
) -> None:
    """Take a bundle with who signed it, or neither."""
    if bundle is None and (identity, issuer, trusted_root) != (None, None, None):
        message = "`--identity`, `--issuer` and `--trusted-root` are about a bundle; there is none"
        fail("usage", message, "name it with `--from-sigstore`", failure.USAGE)
    if bundle is not None and not (identity and issuer):
        message = "a bundle says nothing unless it is known who must have signed it"
        fail("usage", message, "name `--identity` and `--issuer`", failure.USAGE)


def _relayed(
    measured: Measured,
    signers: list[Identity],
    *,
    bundle: str,
    identity: str,
    issuer: str,
    trusted_root: Path | None,
) -> Attestation:
    """Vouch for it because a bundle shows that somebody else did."""
    try:
        return from_sigstore(
            read_input(bundle, BUNDLE_BYTES), measured, identity=identity, issuer=issuer,
            signers=signers, trust_root=trusted_root,
        )  # fmt: skip
    except (InvalidSignature, NotAttested) as error:
        refused = failure.verification(error)
        refused.next = "give the bundle of this very file, and who signed it, as its issuer says"
        raise refused from error


def _measure(path: Path, kind: Kind | None) -> Measured:
    if kind is None:
        kind = "skill" if path.is_dir() else "tool" if path.suffix == ".json" else "code"
    if path.is_dir() != (kind == "skill"):
        message = f"`{path}` is {'a folder' if path.is_dir() else 'a file'}, not what `{kind}` is"
        fail("usage", message, "a skill is a folder, code and tools are files", failure.USAGE)
    return measure(kind, path)


def _document(app: App, measured: Measured, made: Attestation) -> dict[str, Any]:
    names = app.names()
    return {
        "kind": made.kind,
        "digest": measured.digest.hex(),
        "predicate": made.predicate,
        "issued": made.issued,
        "statement": made.statement.hex(),
        "signers": [_show.agent(one, names) for one in made.signers],
    }
