"""The command line: ``moat``. Shapes and exit codes are written down in ``spec/cli.md``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

import moat
from moat.cli import (
    agents,
    attest,
    audit,
    backups,
    bench,
    completion,
    demo,
    doctor,
    export,
    failure,
    gates,
    identities,
    imports,
    prune,
    renewal,
    rerun,
    revocation,
    run,
    secrets,
    state,
    tokens,
    watch,
)
from moat.cli.app import report

if TYPE_CHECKING:
    from collections.abc import Sequence


class Root(click.Group):
    """The group of all commands; every exception becomes one message and one exit code."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run one command and leave with its exit code."""
        given = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            extra["standalone_mode"] = False
            code = super().main(given, *rest, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has seen enough. Python would complain once more when it shuts down.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(failure.ERROR)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(failure.USAGE)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(130)
        except (click.ClickException, failure.CommandError, moat.MoatError, OSError) as error:
            report(error, as_json="--json" in given)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    "moat",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 denied, 4 verification failed, "
    "5 expired or revoked.",
)
@click.version_option(moat.__version__, prog_name="moat")
def cli() -> None:
    """Identities, narrowing tokens, a gate with a provable log, and a sandbox.

    New here? `moat demo` shows the whole of it in seconds.
    """


for command in (
    state.init, identities.identity, agents.agent, gates.gate, tokens.token, attest.attest,
    revocation.revoke, revocation.restore, revocation.suspend, revocation.resume,
    backups.backup, secrets.secret, run.run, watch.watch, audit.audit, doctor.doctor, bench.bench,
    completion.completion,
    demo.demo,
):  # fmt: skip
    cli.add_command(command)
identities.identity.add_command(imports.import_)
tokens.token.add_command(renewal.renew)
audit.audit.add_command(export.export)
audit.audit.add_command(prune.prune)
audit.audit.add_command(prune.accept)
audit.audit.add_command(rerun.rerun)


def main() -> None:
    """Run the command line: the console script."""
    cli.main()
