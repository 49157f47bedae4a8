"""The service as systemd reads it: no mistake in it, and as little exposed as it can be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.tree import ROOT

UNIT = ROOT / "systemd" / "edge-agent.service"
DROP_INS = sorted((ROOT / "systemd" / "drop-ins").glob("*.conf"))
EXPOSURE_TENTHS = 16
"""systemd-analyze security counts in tenths: 1.6."""


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    return found


def ask(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def with_drop_in(folder: Path, drop_in: Path | None) -> Path:
    """The unit with a program that is there, in a folder of its own."""
    text = UNIT.read_text().replace("/opt/edge-agent/current/bin/edge-agent run", "/bin/true run")
    unit = folder / UNIT.name
    unit.write_text(text)
    if drop_in is not None:
        extra = folder / f"{UNIT.name}.d"
        extra.mkdir()
        shutil.copy(drop_in, extra)
    return unit


@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda f: f.stem if f else "plain")
def test_systemd_finds_no_mistake(tmp_path: Path, analyze: str, drop_in: Path | None) -> None:
    found = ask(analyze, "verify", with_drop_in(tmp_path, drop_in))
    said = [line for line in found.stderr.splitlines() if UNIT.stem in line]
    assert (found.returncode, said) == (0, []), found.stderr


def test_a_mistake_would_be_found(tmp_path: Path, analyze: str) -> None:
    unit = with_drop_in(tmp_path, None)
    unit.write_text(unit.read_text() + "\n[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in ask(analyze, "verify", unit).stderr


def test_the_exposure_is_at_most_1_6(analyze: str) -> None:
    found = ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", UNIT)
    assert found.returncode == 0, found.stdout.splitlines()[-1]


def test_a_wider_unit_would_be_too_exposed(tmp_path: Path, analyze: str) -> None:
    unit = with_drop_in(tmp_path, None)
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=no").replace("ProtectHome=yes", ""))
    assert ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", unit).returncode != 0
