"""The flat package names, the wheel that carries them, and the release's number."""

import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "retrieval", "inference", "embedding", "admin")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_resolves_to_this_tree(name: str) -> None:
    """The names are common words: another distribution, or a folder of tests, must not shadow one."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__) == ROOT / name / "__init__.py"
    assert package.__doc__


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_typed(name: str) -> None:
    """PEP 561: without the marker, type checkers treat an installed package as untyped."""
    assert (ROOT / name / "py.typed").exists()


def test_no_folder_of_tests_is_a_package() -> None:
    """`tests/gateway/__init__.py` would shadow the real `gateway`."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_package_is_in_the_wheel_list(project: dict[str, Any]) -> None:
    """A package that is missing there works from the tree and is gone when installed."""
    assert sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(PACKAGES)


def test_the_wheel_carries_packages_migrations_and_licence(tmp_path: Path) -> None:
    """What is installed is what is here: every module, the types marker, the migrations; and nothing of the tests."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    migrations = {f"admin/_migrations/{path.relative_to(ROOT / 'migrations')}" for path in _migrations()}
    assert (modules | migrations | {f"{package}/py.typed" for package in PACKAGES}) - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {top for name in names if not (top := name.partition("/")[0]).endswith(".dist-info")} == set(PACKAGES)


def test_the_changelog_speaks_of_this_version(project: dict[str, Any]) -> None:
    """The top entry and pyproject.toml name the same release; `Unreleased` may stand above it."""
    entries = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [entry for entry in entries if entry != "Unreleased"]
    assert released[0] == project["project"]["version"]
    assert entries.index(released[0]) <= 1


def _migrations() -> list[Path]:
    found = [*(ROOT / "migrations").rglob("*.py")]
    assert found
    return found
