"""Writes the vectors of signed objects and monitors from the pages in spec/, without Moat's code.

``python spec/vectors/generate.py`` writes them; with ``--check`` it only says whether they are as
it would write them. The same cases come out on every machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

import cases  # noqa: E402
import control_cases  # noqa: E402
import forge  # noqa: E402
import message_cases  # noqa: E402
import monitor_cases  # noqa: E402
import registration_cases  # noqa: E402
import token_cases  # noqa: E402
import widened_cases  # noqa: E402

PAGES = {
    "token": ("spec/token.md", lambda: (*token_cases.cases(), *widened_cases.cases())),
    "message": ("spec/message.md", message_cases.cases),
    "control": ("spec/message.md", control_cases.cases),
    "registration": ("spec/registry.md", registration_cases.cases),
}


def document(kind: str) -> dict[str, Any]:
    """One file: who is who, and its cases."""
    page, made = PAGES[kind]
    keys = {
        key.name: {"seed": key.seed.hex(), "public": key.public.hex(), "did": key.did}
        for key in cases.KEYS
    }
    return {
        "page": page,
        "gate": cases.GATE.name,
        "roots": [cases.ROOT.name],
        "operators": [cases.OPERATOR.name],
        "policy": forge.CHAIN_ONLY.hex(),
        "keys": keys,
        "cases": list(made()),
    }


def text(kind: str) -> str:
    """The file as it is written."""
    if kind == "monitor":
        return monitor_cases.text()
    return json.dumps(document(kind), indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str]) -> int:
    """Writes or checks every file."""
    stale = 0
    for kind in (*PAGES, "monitor"):
        path = HERE / f"{kind}.json"
        new = text(kind)
        if arguments == ["--check"]:
            stale += not path.exists() or path.read_text(encoding="utf-8") != new
        else:
            path.write_text(new, encoding="utf-8")
    if stale:
        sys.stderr.write("the vectors are stale: run `python spec/vectors/generate.py`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
