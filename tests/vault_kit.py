"""A real OpenBao server on loopback, for a test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guests.wheels import VAULT, program
from tools import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "root-token-of-the-tests"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Its address; the file `token` in the folder opens it."""
    bao = program(VAULT)
    bao.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [bao, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={TOKEN}",
               f"-dev-listen-address=127.0.0.1:{port}"]  # fmt: skip
    quiet = subprocess.DEVNULL
    address, env = f"http://127.0.0.1:{port}", {"HOME": str(folder), "PATH": os.defpath}
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, env=env) as process:
        try:
            _wait(address, process)
            token = folder / "token"
            token.write_text(TOKEN + "\n")
            token.chmod(0o600)
            yield address
        finally:
            process.kill()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until its engine `secret` answers; a server takes a moment to come up."""
    asked = urllib.request.Request(
        f"{address}/v1/sys/mounts/secret/tune", headers={"X-Vault-Token": TOKEN}
    )
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                json.load(answer)
                return
        except OSError:
            time.sleep(0.05)
    missing("the OpenBao server did not come up")
