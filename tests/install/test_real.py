"""The script itself, with a real virtual environment and a real pip, into a folder and from a wheelhouse."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.install.stage import sources_of

BACKEND = '''\
"""Builds the wheel of this tiny project; pip asks it as it asks hatchling."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from wheel_writer import write_wheel

def build_wheel(directory, config_settings=None, metadata_directory=None):
    program = pathlib.Path(__file__).with_name("program.py").read_text()
    return write_wheel(pathlib.Path(directory), "edge_agent", "1.0.0", {"edge_agent/cli.py": program}, "edge-agent = edge_agent.cli:main")
'''
PROGRAM = '''\
"""config check --config FILE: refuses what contains "wrong"; needs the library of the lock."""
import sys
import a_library

def main():
    text = open(sys.argv[4]).read()
    print("line 1: wrong" if "wrong" in text else "fine")
    sys.exit(2 if "wrong" in text else 0)
'''


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], script: str = "") -> str:
    """A wheel that pip accepts; returns its file name."""
    info = f"{name}-{version}.dist-info"
    everything = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        everything[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    record = "".join(f"{path},{_sum(text)},{len(text.encode())}\n" for path, text in everything.items())
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        for path, text in {**everything, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return wheel


def _sum(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Site:
    """Sources, a wheelhouse and the folder to install into."""

    def __init__(self, folder: Path) -> None:
        self.sources, self.wheels, self.root = folder / "sources", folder / "wheels", folder / "a root"
        sources_of(self.sources, "1.0.0")
        self.wheels.mkdir()
        wheel = self.wheels / write_wheel(self.wheels, "a_library", "2.0", {"a_library.py": ""})
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.sources / "requirements.lock").write_text(f"a-library==2.0 \\\n    --hash=sha256:{found}\n")
        with (self.sources / "pyproject.toml").open("a") as project:
            project.write('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["build"]\n')
        (self.sources / "build").mkdir()
        (self.sources / "build/backend.py").write_text(BACKEND)
        (self.sources / "build/program.py").write_text(PROGRAM)
        own = Path(__file__).read_text()
        writer = own[own.index("def write_wheel") : own.index("class Site")]
        imports = "from __future__ import annotations\nimport base64, hashlib, zipfile\nfrom pathlib import Path\n\n"
        (self.sources / "build/wheel_writer.py").write_text(imports + writer)

    @property
    def current(self) -> Path:
        """The link to the release that is installed."""
        return self.root / "opt/edge-agent/current"

    def run(self, *arguments: object, status: int = 0, script: Path | None = None) -> str:
        """The script as a technician starts it, standing in a folder with a module that must not be taken."""
        trap = self.root.parent / "trap"
        (trap / "scripts/installer").mkdir(parents=True, exist_ok=True)
        (trap / "scripts/installer/__init__.py").touch()
        (trap / "scripts/installer/__main__.py").write_text("raise SystemExit('a module of the current folder')")
        done = subprocess.run(
            [script or self.sources / "scripts/install", "--root", self.root, *map(str, arguments)],
            env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"},
            cwd=trap,
            umask=0o077,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return (done.stdout + done.stderr).replace(str(self.root), "")

    def own_files(self) -> list[Path]:
        """Of the sources; pip compiles the stand-in of the build system where it lies."""
        return sorted(path for path in self.sources.rglob("*") if "build" not in path.parts)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture(scope="module")
def everybodys(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One for all tests of this file: a virtual environment takes seconds."""
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(everybodys: Site) -> Site:
    """Installed, whichever test comes first."""
    if not everybodys.current.is_symlink():
        before = everybodys.own_files()
        assert "installed, not started" in everybodys.run("--wheelhouse", everybodys.wheels)
        assert everybodys.own_files() == before, "something was written beside the sources"
    return everybodys


def test_a_dry_run_makes_not_even_the_folder(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert "link /opt/edge-agent/current" in site.run("--dry-run", "--wheelhouse", site.wheels)
    assert not site.root.exists()


def test_what_it_installed_from_a_wheelhouse_runs(site: Site) -> None:
    program = site.current / "bin/edge-agent"
    # without the caller's PYTHONPATH: it has to find its own libraries
    checked = subprocess.run([program, "config", "check", "--config", __file__], env={}, check=False)
    assert checked.returncode == 2


def test_everybody_may_read_the_release_whatever_the_umask(site: Site) -> None:
    hidden = [p for p in (site.root / "opt").rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o044 != 0o044]
    assert hidden == []
    assert (site.root / "etc/edge-agent/credentials/edge-agent-key").stat().st_mode & 0o777 == 0o600


def test_the_second_time_it_writes_nothing(site: Site) -> None:
    before = {path: path.lstat().st_mtime_ns for path in site.root.rglob("*")}
    site.run("--wheelhouse", site.wheels)
    assert {path: path.lstat().st_mtime_ns for path in site.root.rglob("*")} == before


def test_a_wrong_configuration_is_refused_by_the_release_itself(site: Site) -> None:
    config = site.root / "etc/edge-agent/config.yaml"
    good = config.read_text()
    config.write_text("wrong")
    assert "line 1: wrong" in site.run("--wheelhouse", site.wheels, status=2)
    config.write_text(good)


def test_a_wheel_that_is_not_the_lock_s_is_refused_and_the_release_stays(site: Site) -> None:
    readme, lock = site.sources / "README.md", site.sources / "requirements.lock"
    before, good = readme.read_text(), lock.read_text()
    readme.write_text("newer\n")
    lock.write_text(good.replace("sha256:", "sha256:" + "0" * 8)[: good.rindex("sha256:") + 7 + 64] + "\n")
    said = site.run("--wheelhouse", site.wheels, status=3)
    assert "DO NOT MATCH THE HASHES" in said
    assert "scripts/wheelhouse" in said
    assert site.current.readlink() == Path("releases/1.0.0")
    lock.write_text(good)
    readme.write_text(before)


def test_the_copy_in_the_release_can_only_uninstall_and_leaves_nothing(site: Site) -> None:
    copy = site.current / "scripts/install"
    assert "this copy can only --uninstall" in site.run(script=copy, status=2)
    site.run("--uninstall", script=copy)
    assert [name for name in site.files() if "edge-agent" in name] == []
    assert [path for path in site.root.rglob("*") if path.is_file()] == []


USAGE = [
    (["--keep-data"], "--keep-data without --uninstall"),
    (["--pack-from", "."], "--pack-from without --pack"),
    (["--wheelhouse", "/nowhere"], "cannot use /nowhere"),
    (["--board", "toaster"], "invalid choice"),
    (["--config", "/nowhere.yaml", "--wheelhouse", "."], "cannot read /nowhere.yaml"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE)
def test_a_wrong_command_line_is_told(everybodys: Site, arguments: list[str], said: str) -> None:
    assert said in everybodys.run("--dry-run", *arguments, status=2)


def test_two_at_once_are_one_too_many(everybodys: Site) -> None:
    import fcntl

    everybodys.root.mkdir(exist_ok=True)
    descriptor = os.open(everybodys.root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert "another installation is under way" in everybodys.run("--uninstall", status=3)
    finally:
        os.close(descriptor)


def test_an_old_python_is_refused_with_what_to_install(everybodys: Site, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.12"\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        [everybodys.sources / "scripts/install"],
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "Python 3.10.12" in done.stderr
    assert "python3.11-venv" in done.stderr
