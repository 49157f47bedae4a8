"""Locks, declared dependencies and what is installed agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.project.tree import ROOT, project_files

pytestmark = pytest.mark.arm
LOCKS = sorted(ROOT.glob("requirements*.lock"))
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)((?: ; [^\\]*)?) \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path) -> dict[str, set[str]]:
    """Name -> versions with their markers. A universal lock may hold several versions for different markers."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := PIN.match(line):
            found.setdefault(normal(match[1]), set()).add(match[2] + match[3])
    return found


def requirement_names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\s<>=!~\[;]", requirement)[0]) for requirement in requirements}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_exactly_one_opencv_is_installed_and_it_is_the_headless_one() -> None:
    installed = {normal(d.name) for d in importlib.metadata.distributions()}
    assert {name for name in installed if name.startswith("opencv")} == {"opencv-python-headless"}


def test_there_are_a_lock_for_terminals_one_for_development_and_one_for_npm() -> None:
    assert [lock.name for lock in LOCKS] == ["requirements-dev.lock", "requirements-node.lock", "requirements.lock"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(lock: Path) -> None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not PIN.match(line) and not HASH.match(line)]
    assert strange == []
    bare = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if PIN.match(line) and not HASH.match(following)
    ]
    assert bare == []
    assert pins(lock)


def test_a_terminal_and_development_run_the_same_versions() -> None:
    development = pins(ROOT / "requirements-dev.lock")
    assert {n: v for n, v in pins(ROOT / "requirements.lock").items() if development.get(n) != v} == {}


def test_the_locks_hold_every_declared_dependency_and_the_build_tools() -> None:
    project = pyproject()["project"]
    declared = requirement_names(project["dependencies"])
    extras = set().union(*(requirement_names(extra) for extra in project["optional-dependencies"].values()))
    assert declared | {"hatchling", "editables"} <= set(pins(ROOT / "requirements.lock"))
    assert declared | extras <= set(pins(ROOT / "requirements-dev.lock"))


def test_a_terminal_gets_none_of_the_extras() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    unwanted = set().union(*(requirement_names(extra) for extra in extras.values())) - {"hatchling", "editables"}
    assert unwanted & set(pins(ROOT / "requirements.lock")) == set()


def test_every_run_time_dependency_has_its_reason_and_every_reason_its_dependency() -> None:
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z][a-z0-9-]*) \| ([^|]+) \|", page, re.MULTILINE))
    rows.pop("package", None)
    assert set(rows) == requirement_names(pyproject()["project"]["dependencies"])
    assert [name for name, reason in rows.items() if len(reason.split()) < 5] == []


def test_what_is_installed_is_what_the_development_lock_says() -> None:
    locked = pins(ROOT / "requirements-dev.lock")
    wrong = {
        d.name: d.version
        for d in importlib.metadata.distributions()
        if normal(d.name) in locked and d.version not in {v.split(" ; ")[0] for v in locked[normal(d.name)]}
    }
    assert wrong == {}


def test_no_file_names_the_host_of_a_package_registry() -> None:
    # put together here, so that this file does not name one either
    hosts = [
        ".".join(parts).encode()
        for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))
    ]
    naming = [
        str(file.relative_to(ROOT))
        for file in project_files()
        if any(host in file.read_bytes().lower() for host in hosts)
    ]
    assert naming == []
