"""``import moat`` works, or says what is in its way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moat
from moat import _clash

PACKAGE = Path(moat.__file__).parent


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder to import from, with our modules but not the native one."""
    (tmp_path / "moat").mkdir()
    for name in ("__init__.py", "_clash.py", "errors.py"):
        shutil.copy(PACKAGE / name, tmp_path / "moat")
    return tmp_path


@pytest.fixture
def whole(site: Path) -> Path:
    """The same with the native module."""
    (native,) = PACKAGE.glob("_native*.so")
    (site / "moat" / native.name).symlink_to(native)
    return site


def install_foreign(site: Path) -> None:
    """Put another project's files into the same package, as an installer does."""
    (site / "moat" / "util").mkdir()
    (site / "moat" / "util" / "__init__.py").touch()
    info = site / "moat_util-7.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moat-util\nVersion: 7.1\n")
    (info / "RECORD").write_text("moat/util/__init__.py,,\nmoat_util-7.1.dist-info/RECORD,,\n")


def import_from(site: Path) -> subprocess.CompletedProcess[str]:
    code = "import moat; print(moat.__path__[0])"
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(site)},
    )


def test_a_whole_package_is_imported(whole):
    assert import_from(whole).stdout.strip() == str(whole / "moat")


def test_a_missing_native_module_says_how_to_build_it(site):
    done = import_from(site)
    assert done.returncode == 1
    assert "ImportError: cannot load `moat._native`; run `pip install .`" in done.stderr


def test_files_of_another_project_in_our_package_are_named(whole):
    install_foreign(whole)
    done = import_from(whole)
    assert done.returncode == 1
    assert "another project installs a package `moat` here: `moat-util 7.1`" in done.stderr
    assert "uninstall it, then install this one again" in done.stderr


def test_another_project_is_named_when_the_native_module_is_missing(site):
    install_foreign(site)
    assert "`moat-util 7.1`" in import_from(site).stderr


def test_a_directory_that_no_distribution_owns_is_no_clash(whole):
    (whole / "moat" / "scratch").mkdir()
    assert import_from(whole).returncode == 0


def test_every_directory_of_ours_is_known_as_ours():
    """Another one would make each import ask all installed distributions."""
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} <= _clash._OURS
