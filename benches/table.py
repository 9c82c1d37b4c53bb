"""The reference table and the budgets: ``python benches/table.py [--json] [--runs N]``.

Runs the Rust benches and ``calls.py`` in turn, a few times, and prints what came out. Ratios to
the raw primitive are taken inside one process, in alternating batches; they decide. Absolute
figures are the least of all rounds and stand beside a named floor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
CARGO: Final = ("cargo", "bench", "--locked", "--quiet")
CORE: Final = (*CARGO, "-p", "moat-core", "--bench", "core")
LOG: Final = (*CARGO, "-p", "moat-log", "--bench", "log")
SANDBOX: Final = (*CARGO, "-p", "moat-sandbox", "--bench", "sandbox")
GUESTS: Final = (sys.executable, str(HERE / "guests.py"))
CALLS: Final = (sys.executable, str(HERE / "calls.py"))

GRANTS: Final = ("own_authority", "shared_authority", "shared_bucket", "globs")
"""How the grants differ: in the authority, in the first segment, behind a wildcard, as globs."""


@dataclass(frozen=True)
class Figure:
    """What all runs together say of one name; nanoseconds for one call."""

    ours: float
    raw: float
    raw_median: float
    ratio: float
    difference: float


@dataclass(frozen=True)
class Operation:
    """A row of the reference table."""

    name: str
    rust_ns: float
    python_ns: float
    raw_ns: float
    ratio: float
    published: str


@dataclass(frozen=True)
class Budget:
    """A row of the budgets; ``met`` is None where the row does not apply."""

    what: str
    found: str
    budget: str
    met: bool | None


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the reference table and the budgets.")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--runs", type=int, default=3, help="runs of each program (default 3)")
    options = parser.parse_args()
    lines = measure(options.runs)
    figures = merge(lines)
    memory = {one["log_bytes"]: one["bytes"] for one in lines if "log_bytes" in one}
    (history,) = [one for one in lines if one["name"] == "history"]
    operations = reference(figures)
    budgets = [*calls(figures), *log(figures, memory), *of_a_gate(figures, history),
               *sandbox(figures), *guests(lines)]  # fmt: skip
    if options.json:
        rows = {"operations": operations, "budgets": budgets}
        document = {name: [asdict(row) for row in all_] for name, all_ in rows.items()}
        document["figures"] = {name: asdict(figure) for name, figure in figures.items()}
        print(json.dumps(document, indent=2))
    else:
        print(text(operations, budgets))


def measure(runs: int) -> list[dict[str, Any]]:
    """All lines of all runs. The log is measured once: it takes longest and varies least; so are
    guests that take long to get ready."""
    lines = []
    for program in (*(CORE, CALLS, SANDBOX) * runs, LOG, GUESTS):
        ran = subprocess.run(program, cwd=HERE.parent, check=True, capture_output=True, text=True)
        lines += [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return lines


def merge(lines: list[dict[str, Any]]) -> dict[str, Figure]:
    runs = defaultdict(list)
    for line in lines:
        if "ratio" in line:
            runs[line["name"]].append(line)
    return {
        name: Figure(
            ours=min(one["ours_ns"] for one in found),
            raw=min(one["raw_ns"] for one in found),
            raw_median=statistics.median(one["raw_median_ns"] for one in found),
            ratio=statistics.median(one["ratio"] for one in found),
            difference=statistics.median(one["difference_ns"] for one in found),
        )
        for name, found in runs.items()
    }


def reference(of: dict[str, Figure]) -> list[Operation]:
    def row(name: str, rust: str, python: str, published: str) -> Operation:
        one = of[rust]
        return Operation(name, one.ours, of[python].ours, one.raw, one.ratio, published)

    return [
        row("token sign", "token_sign", "py_token_sign", "14.4 µs"),
        row("token verify", "token_verify", "py_token_verify", "32.4 µs"),
        row("is_action_allowed", "permits_1", "py_permits_1", "40 ns"),
        row("message create 256 B", "message_create", "py_message_sign", "14.2 µs"),
        row("message verify 256 B", "message_verify", "py_message_verify", "31.5 µs"),
    ]


def calls(of: dict[str, Figure]) -> list[Budget]:
    """Tokens, messages and permission."""
    rows = []
    for name, what, most in (
        ("token_sign", "token sign", 1.15),
        ("message_create", "message create", 1.15),
        ("token_verify", "token verify", 1.10),
        ("message_verify", "message verify, key ready", 1.10),
        ("message_open", "message verify, key from bytes", 1.10),
    ):
        raw = "sign" if most > 1.1 else "verify_strict"
        rows.append(at_most(f"{what}, in Rust", of[name].ratio, most, f"of raw {raw}"))
    # `Message.open` is given a key's bytes, so it is held against that in Rust.
    for name, what, rust in (
        ("py_token_sign", "token sign", "token_sign"),
        ("py_token_verify", "token verify", "token_verify"),
        ("py_message_sign", "message create", "message_create"),
        ("py_message_verify", "message verify", "message_open"),
    ):
        adds = (of[name].ours - of[rust].ours) / 1000
        rows.append(at_most(f"{what}, from Python", adds, 2.0, "µs over Rust"))
    for count, most in ((8, 100), (256, 1000)):
        kinds = [of[f"permits_{count}_{kind}"] for kind in GRANTS]
        best, worst = min(one.ours for one in kinds), max(one.ours for one in kinds)
        floor = f"floor: one hash look-up {time(min(one.raw for one in kinds))}"
        found = f"{time(best)} to {time(worst)} ({floor})"
        what = f"permits, one link of {count} grants, in Rust"
        rows.append(Budget(what, found, f"{time(most)}", worst <= most))
    for kind in ("rates", "mixed"):
        one = of[f"monitor_20_{kind}"]
        found = f"{time(one.ours)} (floor: three hash look-ups {time(one.raw)})"
        what = f"monitor, 20 rules ({kind}), 3 holders, in Rust"
        rows.append(Budget(what, found, "1.5 µs", one.ours <= 1500))
    for kind in ("rates", "mixed"):
        more = of[f"py_authorize_20_{kind}"].difference / 1000
        what = f"authorize, 20 rules ({kind}), 3 holders, from Python"
        rows.append(at_most(what, more, 2.0, "µs over no rules"))
    python = of["py_permits_8"]
    more, noop = python.ours - python.raw, f"beyond dict.get(a, b), {time(python.raw)}"
    found = f"{time(more)} {noop}"
    rows.append(Budget("permits, 8 grants, from Python", found, "150 ns beyond", more <= 150))
    return rows


def log(of: dict[str, Figure], memory: dict[int, int]) -> list[Budget]:
    """The gate and its log."""
    one, eight = of["py_authorize_1"], of["py_authorize_8"]
    line, verify = of["append_300"], of["log_verify"]
    appended = f"{time(line.ours)} (floor: SHA-256 of the line {time(line.raw)})"
    sync = of["py_sync"].difference
    # However many share a sync, each message is verified: no share is below that on all cores.
    cores = os.cpu_count() or 1
    floor = one.raw / cores / of["py_many"].raw_median
    share = f"(floor: raw verify_strict on {cores} cores {floor:.3f}; one sync {time(sync)})"
    what = "per entry, from Python"
    grown = ", ".join(
        f"{bytes_ / 1024:.0f} KiB for {size / 2**20:.0f} MiB" for size, bytes_ in memory.items()
    )
    return [
        at_most("authorize, tmpfs, from Python", one.ratio, 1.5, "of raw verify_strict"),
        at_most("authorize, depth 8", eight.ratio / one.ratio, 1.1, "of depth 1"),
        Budget("log append, 300 B, CPU", appended, "1.5 µs", line.ours <= 1500),
        *(
            Budget(f"{name}, {what}", f"{of[key].ratio:.3f} of alone {share}", f"{most} of alone",
                   of[key].ratio <= most if sync >= 50_000 else None)
            for name, key, most in (
                ("authorize_many(64)", "py_many", 0.1), ("64 threads", "py_threads", 0.2),
            )
        ),
        at_most("log verify", verify.ratio, 3.0, "of raw SHA-256"),
        Budget("log verify, memory beside", grown, "flat", max(memory.values()) < 4 << 20),
    ]  # fmt: skip


def of_a_gate(of: dict[str, Figure], history: dict[str, int]) -> list[Budget]:
    """The log of a gate with many agents, in several segments."""
    entries, checked, opened = history["entries"], of["verify_gate"], of["open_gate"]
    log = f"{entries:,} entries in {history['segments']} segments, {history['of'] >> 20} MiB"
    speed = f"{entries / checked.ours * 1e9:,.0f} entries/s"
    seconds = opened.ours / 1e9
    return [
        Budget("audit verify with a gate's state", f"{checked.ratio:.2f} of raw SHA-256 ({speed})",
               "3.00 of raw SHA-256", checked.ratio <= 3.0),
        Budget("start-up with a gate's state", f"{seconds:.2f} s ({log})", "2 s", seconds <= 2),
    ]  # fmt: skip


def sandbox(of: dict[str, Figure]) -> list[Budget]:
    """Running programs, and finding their compiled code."""
    ours, rust, both = of["py_sandbox"], of["sandbox_run"], of["py_decide_and_run"]
    more = (both.ours - of["py_authorize_1"].ours - ours.ours) / 1000
    cached = of["sandbox_cached"]
    found = f"1/{1 / cached.ratio:.0f} of compiling it ({time(cached.ours)})"
    pooled = f"of the engine's own, pooled, in Rust ({time(rust.raw)})"
    alone = f"{ours.ours / rust.raw:.2f} {pooled}; in Rust without permit and log {rust.ratio:.2f}"
    meters = ", ".join(
        f"{name} {of[f'metering_{name}'].ratio:.2f}" for name in ("fuel", "epoch", "both")
    )
    return [
        Budget("run of an empty program, from Python, its outcome in the log", alone,
               f"1.50 {pooled}", ours.ours <= 1.5 * rust.raw),
        at_most(f"the same ({time(ours.ours)}), beside PyPI wasmtime", ours.ratio, 0.4,
                f"of it ({time(ours.raw)})"),
        at_most("authorize and run", more, 20.0, "µs over both alone"),
        Budget("500 kB of code from the disk", found, "1/40", cached.ratio <= 1 / 40),
        Budget("metering, calls and branches only", f"{meters} of neither", "stated", met=True),
    ]  # fmt: skip


def guests(lines: list[dict[str, Any]]) -> list[Budget]:
    """Code mode, and many guests in a row; a row that needs an extra says so."""
    rows = []
    for one in lines:
        if one["name"] == "row":
            found = f"{one['bytes_more'] / 1024:.0f} KiB more"
            rows.append(Budget("1,000 guests in a row, after as many", found, "flat",
                               one["bytes_more"] < 4 << 20))  # fmt: skip
        elif one["name"].startswith("code_"):
            what = f"code mode, ten lines and a tool, {one['name'].removeprefix('code_')}"
            second, later = one.get("second_ms", 0), one.get("later_ms", 0)
            found = one.get("missing", f"{second:.1f} ms the second time, {later:.1f} ms later")
            met = None if "missing" in one else second <= 10
            rows.append(Budget(what, found, "10 ms", met))
    return rows


def at_most(what: str, found: float, most: float, unit: str) -> Budget:
    return Budget(what, f"{found:.2f} {unit}", f"{most:.2f} {unit}", found <= most)


def time(nanoseconds: float) -> str:
    if nanoseconds < 1000:
        return f"{nanoseconds:.0f} ns"
    return f"{nanoseconds / 1000:.{2 if nanoseconds < 10_000 else 1}f} µs"


def text(operations: list[Operation], budgets: list[Budget]) -> str:
    """Two Markdown tables."""
    heads = ("operation", "in Rust", "from Python", "raw, same run", "ratio", "Apple M2 *")
    rows = [
        (one.name, time(one.rust_ns), time(one.python_ns), time(one.raw_ns), f"{one.ratio:.2f}",
         one.published)
        for one in operations
    ]  # fmt: skip
    verdicts = {True: "met", False: "NOT MET", None: "does not apply"}
    limits = [(one.what, one.found, one.budget, verdicts[one.met]) for one in budgets]
    return "\n".join(
        (
            *grid(heads, rows),
            "",
            "raw: key from bytes, then sign or verify_strict, over a message of the same length;",
            "for is_action_allowed one look-up in a hash map. Ratios: in Rust, median of rounds.",
            "* published by others, measured with plain verify; ours is verify_strict.",
            "",
            *grid(("what", "found", "at most", ""), limits),
        )
    )


def grid(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return [line(heads), line(tuple("-" * width for width in widths)), *map(line, rows)]


if __name__ == "__main__":
    main()
