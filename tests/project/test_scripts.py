"""The scripts that people and CI start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.tree import ROOT

# A Python file there is the body of the script of its name, and so is the folder installer.
SCRIPTS = sorted([*(p for p in (ROOT / "scripts").iterdir() if p.is_file() and p.suffix != ".py"), ROOT / ".ci/run"])
LIBRARIES = "idna==3.0 \\\n    --hash=sha256:00\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_posix_shell_that_stops_at_errors_and_can_be_started(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1].startswith("# ")
    assert "set -eu" in lines
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)


class Checkout:
    """A bare project whose Python only notes what it is asked for: bootstrap's decisions without a network."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, root / "calls"
        (root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/bootstrap", root / "scripts")
        for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
            (root / name).write_text(LIBRARIES + name)
        self.python = root / "python"
        self._write_python("exit 0")

    def _write_python(self, pip: str) -> None:
        """Stands in for Python: a new version, a venv that is a copy of itself, and this pip."""
        self.python.write_text(
            f"""#!/bin/sh
case "$*" in
    "-c "*) exit 0 ;;
    *"-m venv"*) echo venv >>"{self.calls}"; rm -rf .venv; mkdir -p .venv/bin; cp "{self.python}" .venv/bin/python ;;
    *"-m pip"*) echo "pip ${{*##* }}" >>"{self.calls}"; {pip} ;;
esac
"""
        )
        self.python.chmod(0o755)

    def break_pip(self) -> None:
        self._write_python("exit 1")

    def mend_pip(self) -> None:
        self._write_python("exit 0")

    def bootstrap(self, *kind: str, status: int = 0) -> list[str]:
        """Run it; what it had done."""
        self.calls.write_text("")
        run = subprocess.run(
            [self.root / "scripts/bootstrap", *kind],
            env={**os.environ, "PYTHON": str(self.python)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == status, run.stderr
        assert run.stdout == ""
        return self.calls.read_text().splitlines()


ANEW_RUN = ["venv", "pip requirements.lock", "pip ."]
ANEW_DEV = ["venv", "pip requirements-dev.lock", "pip ."]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


def test_the_second_time_nothing_is_done(checkout: Checkout) -> None:
    assert checkout.bootstrap() == ANEW_RUN
    assert checkout.bootstrap() == []
    assert checkout.bootstrap("run") == []


def test_development_adds_to_what_is_there_and_serves_both_kinds_from_then_on(checkout: Checkout) -> None:
    checkout.bootstrap("run")
    assert checkout.bootstrap("dev") == ["pip requirements-dev.lock", "pip ."]
    assert checkout.bootstrap("run") == []
    assert checkout.bootstrap("dev") == []


def test_another_lock_is_installed_anew_and_a_development_environment_stays_one(checkout: Checkout) -> None:
    checkout.bootstrap("run")
    (checkout.root / "requirements.lock").write_text(LIBRARIES + "newer")
    assert checkout.bootstrap("run") == ANEW_RUN
    checkout.bootstrap("dev")
    (checkout.root / "requirements-dev.lock").write_text(LIBRARIES + "newer")
    assert checkout.bootstrap("run") == ANEW_DEV


def test_another_pyproject_installs_only_the_package(checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.root / "pyproject.toml").write_text("changed")
    assert checkout.bootstrap() == ["pip ."]


def test_a_failed_or_interrupted_run_starts_anew(checkout: Checkout) -> None:
    checkout.break_pip()
    assert checkout.bootstrap(status=3) == ["venv", "pip requirements.lock"]
    checkout.mend_pip()
    assert checkout.bootstrap() == ANEW_RUN


def test_a_checkout_that_was_moved_starts_anew(checkout: Checkout, tmp_path: Path) -> None:
    checkout.bootstrap("dev")
    moved = Checkout(tmp_path / "elsewhere")
    shutil.copytree(checkout.root / ".venv", moved.root / ".venv")
    assert moved.bootstrap("run") == ANEW_DEV


def test_an_environment_whose_python_is_gone_starts_anew(checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.root / ".venv/bin/python").unlink()
    assert checkout.bootstrap() == ANEW_RUN


def test_an_old_python_is_refused_with_what_to_install(checkout: Checkout) -> None:
    checkout.python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    run = subprocess.run(
        [checkout.root / "scripts/bootstrap"],
        env={**os.environ, "PYTHON": str(checkout.python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 3
    assert "Python 3.11 or newer is needed" in run.stderr
    assert "Python 3.9.2" in run.stderr


def test_an_unknown_kind_is_a_usage_error(checkout: Checkout) -> None:
    assert checkout.bootstrap("prod", status=2) == []
