"""The service as systemd reads it: no mistake in it, and as little exposed as it can be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.tree import ROOT

UNIT = ROOT / "systemd" / "edge-agent.service"
DROP_INS = sorted((ROOT / "systemd" / "drop-ins").glob("*.conf"))
MAINTENANCE = ROOT / "systemd" / "edge-agent-maintenance.service"
TIMER = MAINTENANCE.with_suffix(".timer")
PROGRAM = "/opt/edge-agent/current/bin/edge-agent"
EXPOSURE_TENTHS = {UNIT: 16, MAINTENANCE: 5}
"""systemd-analyze security counts in tenths: 1.6 and 0.5."""


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
    text = UNIT.read_text().replace(f"{PROGRAM} run", "/bin/true run")
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


def test_systemd_finds_no_mistake_in_the_maintenance(tmp_path: Path, analyze: str) -> None:
    shutil.copy(TIMER, tmp_path)
    (tmp_path / MAINTENANCE.name).write_text(MAINTENANCE.read_text().replace(PROGRAM, "/bin/true"))
    found = ask(analyze, "verify", tmp_path / TIMER.name, tmp_path / MAINTENANCE.name)
    said = [line for line in found.stderr.splitlines() if UNIT.stem in line]
    assert (found.returncode, said) == (0, []), found.stderr


MAINTENANCE_RUNS = [
    ((0, 0), 0),
    ((1, 0), 1),
    ((0, 1), 1),
    ((3, 1), 3),
    ((0, 3), 3),
]


@pytest.mark.parametrize(("codes", "expected"), MAINTENANCE_RUNS)
def test_the_maintenance_runs_both_checks_and_fails_with_the_worse(
    tmp_path: Path, codes: tuple[int, int], expected: int
) -> None:
    """The shell line of the unit, as systemd would start it, with a program that ends as the table says."""
    audit, outbox = codes
    program = tmp_path / "edge-agent"
    program.write_text(f'#!/bin/sh\necho "$1 $2" >>{tmp_path}/calls\n[ $1 = audit ] && exit {audit}\nexit {outbox}\n')
    program.chmod(0o755)
    line = re.search(r"^ExecStart=/bin/sh -c '(.*?)'$", MAINTENANCE.read_text(), re.MULTILINE | re.DOTALL)
    assert line is not None
    shell = line[1].replace("\\\n", " ").replace("$$", "$").replace(PROGRAM, str(program))
    assert ask("/bin/sh", "-c", shell).returncode == expected
    assert (tmp_path / "calls").read_text() == "audit verify\noutbox verify\n"


@pytest.mark.parametrize("unit", EXPOSURE_TENTHS, ids=lambda unit: unit.stem)
def test_the_exposure_is_as_low_as_promised(analyze: str, unit: Path) -> None:
    found = ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS[unit]}", unit)
    assert found.returncode == 0, found.stdout.splitlines()[-1]


def test_a_wider_unit_would_be_too_exposed(tmp_path: Path, analyze: str) -> None:
    unit = with_drop_in(tmp_path, None)
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=no").replace("ProtectHome=yes", ""))
    assert ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS[UNIT]}", unit).returncode != 0
