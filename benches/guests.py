"""Guests that take long to get ready: one JSON object a line, read by `benches/table.py`.

`code`: a script of ten lines with one call of a tool, from the second run on (`moat.code`), the
median of a few processes; the interpreter is compiled before, and the log lies in memory. `row`:
what a thousand guests in a row add to the memory of the process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Final, cast

from moat import CodeCache, Grant, Limits, Moat, code, tool
from moat._bench import EMPTY, NOW, gated, in_memory
from moat._native import Module

PROCESSES: Final = 5
RUNS: Final = 10
"""Runs of a script in one process."""
LIMITS: Final = Limits(fuel=10**10, memory=256 << 20, time=timedelta(seconds=60), output=1 << 20)
SCRIPTS: Final[dict[code.Language, str]] = {
    "python": """
words = {"one": 1, "two": 2}
total = 0
for word, number in words.items():
    total += number
print("total", total)
print("sum", call_tool("add", a=total, b=4))
print(sorted(words))
squares = [n * n for n in range(4)]
even = [n for n in squares if n % 2 == 0]
print(squares, even)
""",
    "javascript": """
const words = {one: 1, two: 2};
let total = 0;
for (const number of Object.values(words)) {
  total += number;
}
console.log("total", total);
console.log("sum", call_tool("add", {a: total, b: 4}));
console.log(Object.keys(words).sort().join(" "));
const squares = [0, 1, 2, 3].map(n => n * n);
console.log(squares.join(" "));
""",
}
"""Ten lines each, one of them a call."""


@tool("tool://sums/add")
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def main() -> None:
    if len(sys.argv) > 1:
        language, folder = sys.argv[1:]
        runs(cast("code.Language", language), Path(folder))
        return
    in_a_row()
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=in_memory()) as folder:
        for language in SCRIPTS:
            scripts(language, Path(folder, language))


def scripts(language: code.Language, folder: Path) -> None:
    """Time one script in processes of their own, the interpreter being compiled."""
    name = f"code_{language}"
    try:
        metadata.distribution(code.LANGUAGES[language][0])
    except metadata.PackageNotFoundError:
        print(json.dumps({"name": name, "missing": f"needs `moat[{language}]`"}))
        return
    code.interpreter(language, cache=opened(folder))
    argv = [sys.executable, __file__, language, str(folder)]
    taken = [
        json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
        for _ in range(PROCESSES)
    ]
    second = statistics.median(one[1] for one in taken)
    later = statistics.median(ms for one in taken for ms in one[2:])
    print(json.dumps({"name": name, "second_ms": second, "later_ms": later}))


def opened(folder: Path) -> CodeCache:
    return CodeCache.open(folder / "code", key=folder / "key")


def runs(language: code.Language, folder: Path) -> None:
    """Print what each of some runs in a row took, in milliseconds."""
    cache = opened(folder)
    with tempfile.TemporaryDirectory(dir=folder) as state, Moat.init(state, anchor=None) as moat:
        holder = moat.identity("coder", create=True)
        allow = [Grant("code://*", {"run"}), Grant("tool://sums/add", {"call"})]
        token = moat.issue(
            holder=holder.id, allow=allow, limits=LIMITS, depth=1, expires_in=timedelta(hours=1)
        )
        session = moat.session(holder, token)
        taken = []
        for _ in range(RUNS):
            began = time.perf_counter()
            done = code.run(session, SCRIPTS[language], language=language, tools=[add], cache=cache)
            taken.append((time.perf_counter() - began) * 1e3)
            assert "sum 7" in done.check().stdout
    print(json.dumps(taken))


def in_a_row() -> None:
    """Run a thousand guests that do nothing, each with its permit and its line, after as many."""
    with gated(in_memory(), 1, read=()) as (gate, messages):
        module = Module(EMPTY)

        def run(times: int) -> None:
            for wire in messages(times):
                module.run(gate.authorize(wire, now=NOW)).check()

        run(1000)
        before = resident()
        run(1000)
        print(json.dumps({"name": "row", "bytes_more": resident() - before}))


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
