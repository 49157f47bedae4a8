"""The service as systemd reads it: no mistake in it, and as little exposed as it can be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from edge_agent.camera.child import environment
from tests.camera.gst import needs_gstreamer
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
def test_the_maintenance_runs_all_of_it_and_fails_with_the_worst(
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
    assert (tmp_path / "calls").read_text() == "audit verify\noutbox verify\nprivacy sweep\n"


def test_the_capture_programs_find_their_places_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a capture process is passed of the unit's environment, and that the service may write there."""
    unit = UNIT.read_text()
    for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE):
        for setting in line.split():
            monkeypatch.setenv(*setting.split("=", 1))
    folder = Path(environment()["GST_REGISTRY"]).parent
    assert f"RuntimeDirectory={folder.name}\n" in unit
    assert folder.parent == Path("/run")


UNDER_THE_UNIT = """
import ctypes, sys
names = sys.argv[1:]
seccomp, prctl = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None).prctl
seccomp.seccomp_init.restype = ctypes.c_void_p
otherwise_eperm, allow = 0x00050001, 0x7FFF0000
rules = ctypes.c_void_p(seccomp.seccomp_init(otherwise_eperm))
for number in (seccomp.seccomp_syscall_resolve_name(name.encode()) for name in names):
    number >= 0 and seccomp.seccomp_rule_add(rules, allow, number, 0)
prctl(65, 1, 0, 0, 0)  # no executable memory, where the kernel can (6.3)
assert prctl(38, 1, 0, 0, 0) == 0 and seccomp.seccomp_load(rules) == 0
"""
"""No new privileges, no executable memory, and the system calls named on the command line, for what follows."""

CAPTURE = """
import subprocess
from edge_agent.camera.gstreamer import GstreamerCamera
subprocess.run(["/usr/bin/python3", "-I", "-c", "import json, mmap, threading"], check=True)
with GstreamerCamera("videotestsrc is-live=true", size=(64, 48)) as camera:
    print(camera.read(5).image.shape)
"""


def allowed_calls(analyze: str) -> set[str]:
    """What the unit's SystemCallFilter= leaves."""

    def calls(group: str) -> set[str]:
        lines = [line.strip() for line in ask(analyze, "syscall-filter", group).stdout.splitlines()[1:]]
        named = [line for line in lines if line and not line.startswith("#")]
        return {call for name in named for call in (calls(name) if name.startswith("@") else {name})}

    wanted, unwanted = re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert unwanted.startswith("~")
    return set().union(*map(calls, wanted.split())) - set().union(*map(calls, unwanted[1:].split()))


@needs_gstreamer
@pytest.mark.skipif(find_library("seccomp") is None, reason="libseccomp is not installed")
def test_capture_processes_work_under_the_filter_of_system_calls_and_without_a_home(
    tmp_path: Path, analyze: str
) -> None:
    found = subprocess.run(
        [sys.executable, "-c", UNDER_THE_UNIT + CAPTURE, *sorted(allowed_calls(analyze))],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": "/nonexistent",
            "GST_REGISTRY": str(tmp_path / "registry.bin"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "(48, 64, 3)\n"), found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["registry.bin"]


@pytest.mark.parametrize("unit", EXPOSURE_TENTHS, ids=lambda unit: unit.stem)
def test_the_exposure_is_as_low_as_promised(analyze: str, unit: Path) -> None:
    found = ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS[unit]}", unit)
    assert found.returncode == 0, found.stdout.splitlines()[-1]


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda f: f.stem)
def test_a_boards_devices_expose_no_more(tmp_path: Path, analyze: str, drop_in: Path) -> None:
    unit = with_drop_in(tmp_path, drop_in)
    found = ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS[UNIT]}", unit)
    assert found.returncode == 0, found.stdout.splitlines()[-1]


def test_a_wider_unit_would_be_too_exposed(tmp_path: Path, analyze: str) -> None:
    unit = with_drop_in(tmp_path, None)
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=no").replace("ProtectHome=yes", ""))
    assert ask(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS[UNIT]}", unit).returncode != 0
