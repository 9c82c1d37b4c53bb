"""Programs that nobody here wrote do real work under their tokens: a solver, JavaScript, Python."""

from __future__ import annotations

import json
import operator
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from cast import issue
from cli_kit import DENIED, ERROR, Cli, fresh
from guests.wheels import PYTHON, QUICKJS, SOLVER, Program, program
from moat import Grant, Identity, Limits, Sandbox, Session
from moat._tree import tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from moat import Pep, SandboxOutcome

    Value = Callable[[int, int], int]

HERE = Path(__file__).resolve().parent / "guests"
PROBLEMS = HERE / "smt"
SAT, UNSAT = 10, 20
"""How solvers exit."""


class Run(Protocol):
    def __call__(
        self, wanted: Program, *argv: object, stdin: bytes = b"", **limits: Any
    ) -> SandboxOutcome: ...


@pytest.fixture
def run(pep: Pep) -> Run:
    """Run a program with its limits, narrowed or moved, under a token of its own."""

    def go(wanted: Program, *argv: object, stdin: bytes = b"", **limits: Any) -> SandboxOutcome:
        for axis in {"read", "write"} & limits.keys():
            limits[axis] = [tree(place) for place in limits[axis]]
        holder = Identity.generate("guest")
        token = issue(
            holder=holder.id,
            allow=[Grant("code://guest", {"run"})],
            limits=wanted.limits.replace(**limits),
        )
        session, sandbox = Session(pep, holder, token), Sandbox(program(wanted))
        words = [str(word) for word in argv]
        return session.run(sandbox, resource="code://guest", argv=words, stdin=stdin)

    return go


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder of text to read."""
    place = tmp_path.resolve() / "desk"
    place.mkdir()
    place.joinpath("story.txt").write_text("one fish two fish red fish blue fish\n" * 40)
    place.joinpath("poem.txt").write_text("so much depends upon a red wheel barrow " * 9)
    lines = (f"{city},{n}.{n * 7 % 100:02}" for n, city in enumerate(["Oslo", "Rome"] * 40))
    place.joinpath("sales.csv").write_text("city,amount\n" + "\n".join(lines) + "\n")
    return place


# --- the solver ---


def solve(run: Run, text: str, *options: str) -> tuple[bool, dict[str, int]]:
    """Whether a problem has a solution, and the one that was found."""
    outcome = run(SOLVER, "--smt2", *options, stdin=text.encode())
    said = outcome.stdout.decode()
    assert (outcome.status, outcome.stderr) == ("exit", b""), said
    answer, _, model = said.partition("\n")
    assert (answer, outcome.exit_code) in {("sat", SAT), ("unsat", UNSAT)}, said
    found = re.findall(r"\(define-fun (\w+) \(\) \(_ BitVec \d+\) #b([01]+)\)", model)
    return answer == "sat", {name: int(bits, 2) for name, bits in found}


@pytest.mark.parametrize("name", ["average", "memory", "prime", "rotate"])
def test_the_solver_proves_what_is_known_to_be_so(run: Run, name: str) -> None:
    assert solve(run, (PROBLEMS / f"{name}.smt2").read_text()) == (False, {})


def test_the_solver_factors(run: Run) -> None:
    found = solve(run, (PROBLEMS / "factor.smt2").read_text())
    assert found == (True, {"p": 7907, "q": 7919})


def test_the_solver_turns_a_generator_back(run: Run) -> None:
    only = (0xDEADBEEF - 12345) * pow(1103515245, -1, 1 << 32) % (1 << 32)
    assert solve(run, (PROBLEMS / "generator.smt2").read_text()) == (True, {"x": only})


def test_the_solver_finds_the_bug_of_a_binary_search(run: Run) -> None:
    possible, model = solve(run, (PROBLEMS / "midpoint.smt2").read_text())
    assert possible
    assert 0 <= model["low"] <= model["high"] < 1 << 31
    assert model["low"] + model["high"] >= 1 << 31


def test_the_solver_reads_a_problem_from_a_folder_it_is_given_and_no_other(
    run: Run, tmp_path: Path
) -> None:
    place = tmp_path.resolve() / "problems"
    shutil.copytree(PROBLEMS, place)
    outcome = run(SOLVER, place / "prime.smt2", read=[place])
    assert (outcome.exit_code, outcome.stdout) == (UNSAT, b"unsat\n")
    outcome = run(SOLVER, place / "prime.smt2")
    assert (outcome.exit_code, outcome.stdout) == (1, b"")
    assert b"can not read" in outcome.stderr


def test_a_problem_that_is_too_hard_runs_out_of_fuel(run: Run) -> None:
    """Two primes of 32 bits, from their product."""
    number = 2_860_486_313 * 3_267_000_013
    text = (PROBLEMS / "factor.smt2").read_text().replace("bv62615533", f"bv{number}")
    text = text.replace("bv8192", "bv4294967296").replace(" 26)", " 64)")
    outcome = run(SOLVER, "--smt2", stdin=text.encode())
    assert (outcome.status, outcome.fuel_used) == ("out_of_fuel", SOLVER.limits.fuel)


WORDS: dict[str, Value] = {
    "bvadd": operator.add, "bvsub": operator.sub, "bvmul": operator.mul, "bvand": operator.and_,
    "bvor": operator.or_, "bvxor": operator.xor,
    "bvshl": operator.lshift, "bvlshr": operator.rshift,
    "bvudiv": lambda a, b: a // b if b else 63, "bvurem": lambda a, b: a % b if b else a,
}  # fmt: skip
"""On numbers of 6 bits, before the result is cut to 6 (SMT-LIB, FixedSizeBitVectors)."""
TESTS: dict[str, Value] = {
    "=": operator.eq, "bvult": operator.lt, "bvuge": operator.ge, "distinct": operator.ne,
}  # fmt: skip


def term(choose: random.Random, depth: int) -> tuple[str, Value]:
    """A term over x and y, as text and as what it means."""
    if depth == 0 or choose.random() < 0.15:
        number = choose.randrange(64)
        leaves: list[tuple[str, Value]] = [("x", lambda x, y: x), ("y", lambda x, y: y)]
        return choose.choice([*leaves, (f"(_ bv{number} 6)", lambda x, y: number)])
    word = choose.choice(list(WORDS))
    (one, left), (other, right) = term(choose, depth - 1), term(choose, depth - 1)
    return f"({word} {one} {other})", lambda x, y: WORDS[word](left(x, y), right(x, y)) & 63


def claim(choose: random.Random) -> tuple[str, Value]:
    """A comparison of two terms."""
    word = choose.choice(list(TESTS))
    (one, left), (other, right) = term(choose, 3), term(choose, 3)
    return f"({word} {one} {other})", lambda x, y: TESTS[word](left(x, y), right(x, y))


def test_the_solver_agrees_with_trying_everything(run: Run) -> None:
    """Random problems over two numbers of 6 bits, each also decided by all 4,096 pairs."""
    choose, answers = random.Random(7), Counter[bool]()
    for _ in range(40):
        claims = [claim(choose) for _ in range(choose.randrange(1, 6))]
        text = "(set-logic QF_BV) (declare-const x (_ BitVec 6)) (declare-const y (_ BitVec 6))\n"
        text += "".join(f"(assert {said})\n" for said, _ in claims) + "(check-sat)\n"
        pairs = product(range(64), repeat=2)
        right = {(x, y) for x, y in pairs if all(means(x, y) for _, means in claims)}
        possible, model = solve(run, text, "-m")
        assert possible == bool(right), text
        if possible:
            assert (model["x"], model["y"]) in right, text
        answers[possible] += 1
    assert min(answers[True], answers[False]) >= 10, "the problems say little"


# --- JavaScript ---


def test_quickjs_reads_files_and_prints_json(run: Run, desk: Path) -> None:
    shutil.copy(HERE / "scripts" / "count.mjs", desk)
    files = [desk / "poem.txt", desk / "story.txt"]
    outcome = run(QUICKJS, desk / "count.mjs", *files, read=[desk]).check()
    found = {}
    for file in files:
        counts = Counter(file.read_text().split())
        often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
        found[file.name] = {"words": counts.total(), "often": [list(pair) for pair in often]}
    factorial = "265252859812191058636308480000000"
    assert json.loads(outcome.stdout) == {"found": found, "factorial": factorial}


def test_quickjs_gets_its_program_from_its_arguments(run: Run) -> None:
    text = "print(JSON.stringify([6 * 7, 2n ** 70n + '', [3, 1, 2].toSorted(), 'Zürich 東京']))"
    outcome = run(QUICKJS, "-e", text).check()
    assert json.loads(outcome.stdout) == [42, str(2**70), [1, 2, 3], "Zürich 東京"]


def test_quickjs_that_throws_exits_with_1_and_says_why(run: Run) -> None:
    outcome = run(QUICKJS, "-e", "null.property")
    assert (outcome.status, outcome.exit_code) == ("exit", 1)
    assert b"TypeError" in outcome.stderr


# --- Python ---


def test_python_is_the_one_that_was_named(run: Run) -> None:
    said = run(PYTHON, "-c", "import sys; print(sys.platform, *sys.version_info[:2])").check()
    assert said.stdout == b"wasi 3 12\n"


def test_a_script_prints_in_the_sandbox_what_it_prints_outside(run: Run, desk: Path) -> None:
    """Files, CSV, SQLite, hashes, decimals, compression: the host's Python is the oracle."""
    scripts = HERE / "scripts"
    command = [sys.executable, str(scripts / "report.py"), str(desk)]
    outside = subprocess.run(command, check=True, capture_output=True)
    inside = run(PYTHON, scripts / "report.py", desk, read=[desk, scripts]).check()
    assert inside.stdout == outside.stdout
    assert json.loads(inside.stdout)["names"] == ["poem.txt", "sales.csv", "story.txt"]


def test_a_script_writes_where_it_may(run: Run, desk: Path) -> None:
    (out := desk.parent / "out").mkdir()
    text = (
        "import pathlib, sys; desk, out = map(pathlib.Path, sys.argv[1:])\n"
        "(out / 'sub').mkdir()\n"
        "for file in desk.iterdir(): (out / 'sub' / file.name).write_text(file.read_text().upper())"
    )
    run(PYTHON, "-c", text, desk, out, read=[desk, out], write=[out]).check()
    made = {file.name: file.read_text() for file in (out / "sub").iterdir()}
    assert made == {file.name: file.read_text().upper() for file in desk.iterdir()}


def test_a_script_reads_its_input_and_its_exit_code_is_told(run: Run) -> None:
    text = "import sys; data = sys.stdin.read(); print(len(data)); sys.exit(len(data) % 256)"
    outcome = run(PYTHON, "-c", text, stdin=b"x" * 300_000)
    assert (outcome.stdout, outcome.exit_code) == (b"300000\n", 300_000 % 256)


def test_the_standard_limits_are_enough_for_a_small_script(run: Run, desk: Path) -> None:
    find = "re.findall('f[a-z]+', open(sys.argv[1]).read())"
    text = f"import json, re, sys; print(json.dumps({find}))"
    standard = Limits.standard()
    axes = {name: getattr(standard, name) for name in ("fuel", "memory", "time", "output")}
    outcome = run(PYTHON, "-c", text, desk / "story.txt", read=[desk], **axes).check()
    assert json.loads(outcome.stdout) == ["fish"] * 160
    assert outcome.fuel_used < standard.fuel * 0.9
    assert outcome.memory_peak < standard.memory // 16


@pytest.mark.parametrize("wanted", [SOLVER, QUICKJS, PYTHON], ids=["solver", "quickjs", "python"])
def test_each_says_its_version_far_below_its_limits(run: Run, wanted: Program) -> None:
    """What `guests/wheels.py` says about starting them."""
    outcome = run(wanted, "--help" if wanted is QUICKJS else "--version")
    assert re.search(rb"\d+\.\d+", outcome.stdout)
    assert outcome.fuel_used < wanted.limits.fuel / 10
    assert outcome.memory_peak < wanted.limits.memory / 4


# --- `moat run` ---


@pytest.fixture
def moat(tmp_path: Path) -> Cli:
    """A state folder with one agent."""
    return fresh(tmp_path.resolve(), "planner")


def held(cli: Cli, wanted: Program, *more: str | Path) -> Path:
    """A token for a program under everyday limits."""
    grant = f"code://{program(wanted).stem} run"
    return cli.issue("--allow", grant, "--standard", *map(str, more))


def test_moat_run_solves(moat: Cli) -> None:
    asked = ["run", program(SOLVER), "--token", held(moat, SOLVER), "--arg", "--smt2"]
    done = moat.json(*asked, "--stdin", PROBLEMS / "factor.smt2", code=ERROR)
    assert (done["status"], done["exit_code"]) == ("exit", SAT)
    assert f"#b{7907:026b}" in done["stdout"]
    told = moat(*asked, "--stdin", PROBLEMS / "prime.smt2", code=ERROR)
    assert told.stdout == "unsat\n"


def test_moat_run_runs_a_script_of_python_on_a_folder(moat: Cli, desk: Path) -> None:
    scripts = HERE / "scripts"
    token = held(moat, PYTHON, "--read", desk, "--read", scripts, "--fuel", "2G")
    asked = ["run", program(PYTHON), "--token", token, "--arg", scripts / "report.py"]
    found = json.loads(moat(*asked, "--arg", desk).stdout)
    assert found["names"] == ["poem.txt", "sales.csv", "story.txt"]
    refused = moat.json(*asked, "--arg", desk.parent, code=ERROR)
    assert (refused["status"], refused["exit_code"], refused["stdout"]) == ("exit", 1, "")
    outcome = moat.json("audit", "show", "--last", "1")["entries"][0]
    assert outcome["kind"] == "outcome"
    assert outcome["body"]["status"] == "exit"


def test_moat_run_runs_javascript(moat: Cli) -> None:
    asked = ["run", program(QUICKJS), "--token", held(moat, QUICKJS), "--arg", "-e", "--arg"]
    assert moat(*asked, "print(2 ** 10)").stdout == "1024\n"
    assert moat.json(*asked, "for (;;);", code=ERROR)["status"] == "out_of_fuel"


def test_moat_run_runs_no_other_program_under_the_same_token(moat: Cli) -> None:
    token = held(moat, QUICKJS)
    found = moat.error("run", program(SOLVER), "--token", token, code=DENIED)
    assert found["code"] == "not_granted"
