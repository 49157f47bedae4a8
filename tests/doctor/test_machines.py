"""What different machines tell, and that what they do not tell is ``unknown`` with its reason."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.doctor import models
from edge_agent.doctor.finding import Finding, Status
from edge_agent.doctor.redaction import REDACTED, redacted
from edge_agent.doctor.setup import borrow_credentials
from edge_agent.doctor.systemd import HARDENING, UNIT
from edge_agent.errors import CameraError
from edge_agent.packs.verify import FileReport, FileState
from tests.doctor.patient import API_KEY, STATUS, Patient
from tests.project.tree import ROOT

PASS, WARN, FAIL, UNKNOWN = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN


def no_vcgencmd(patient: Patient) -> None:
    del patient.programs["vcgencmd"]


def with_files(**files: str) -> Callable[[Patient], None]:
    """Files below /sys, ``a__b`` for a/b, on a machine without vcgencmd."""

    def prepare(patient: Patient) -> None:
        no_vcgencmd(patient)
        for name, content in files.items():
            patient.put(patient.sys / name.replace("__", "/"), content)

    return prepare


MACHINES: dict[str, tuple[Callable[[Patient], object], dict[str, Status]]] = {
    "a PC": (no_vcgencmd, {"power.undervoltage": UNKNOWN, "power.throttling": UNKNOWN}),
    "vcgencmd that may not ask": (
        lambda p: p.programs.update(vcgencmd="VCHI initialization failed\n"), {"power.undervoltage": UNKNOWN}),
    "a Pi by its driver": (
        with_files(class__hwmon__hwmon2__name="rpi_volt", class__hwmon__hwmon2__in0_lcrit_alarm="0"),
        {"power.undervoltage": PASS}),
    "a Pi whose driver saw it": (
        with_files(class__hwmon__hwmon2__name="rpi_volt", class__hwmon__hwmon2__in0_lcrit_alarm="1"),
        {"power.undervoltage": WARN}),
    "another driver's alarm": (
        with_files(class__hwmon__hwmon2__name="nct6775", class__hwmon__hwmon2__in0_lcrit_alarm="1"),
        {"power.undervoltage": UNKNOWN}),
    "a Jetson": (with_files(class__hwmon__hwmon2__oc1_event_cnt="0"), {"power.undervoltage": PASS}),
    "a Jetson at its limit": (with_files(class__hwmon__hwmon2__oc3_event_cnt="2"), {"power.undervoltage": WARN}),
    "a processor at full speed": (
        with_files(class__thermal__cooling_device0__type="cpufreq-cpu0", class__thermal__cooling_device0__cur_state="0"),
        {"power.throttling": PASS}),
    "a processor that is cooled": (
        with_files(class__thermal__cooling_device0__type="cpufreq-cpu0", class__thermal__cooling_device0__cur_state="4"),
        {"power.throttling": WARN}),
    "a fan that turns": (
        with_files(class__thermal__cooling_device0__type="pwm-fan", class__thermal__cooling_device0__cur_state="4"),
        {"power.throttling": UNKNOWN}),
    "a sensor that is off": (
        lambda p: p.put(p.sys / "class/thermal/thermal_zone0/temp", "-273000"), {"temperature.board": UNKNOWN}),
    "the hottest of two": (
        lambda p: p.put(p.sys / "class/thermal/thermal_zone1/temp", "79000"), {"temperature.board": WARN}),
    "an old kernel": (lambda p: p.put(p.proc / "meminfo", "MemFree: 3 kB\n"), {"memory.available": UNKNOWN}),
    "an SD card": (lambda p: shutil.rmtree(p.disk / "device"), {"disk.wear": UNKNOWN}),
    "an eMMC that warns": (lambda p: p.put(p.disk / "device/pre_eol_info", "0x02"), {"disk.wear": WARN}),
    "a disk without a name": (lambda p: shutil.rmtree(p.sys / "dev"), {"disk.wear": UNKNOWN, "disk.errors": UNKNOWN}),
    "no systemd": (lambda p: p.programs.pop("systemctl"), {"systemd.unit": UNKNOWN, "systemd.hardening": UNKNOWN}),
    "a systemd that is not running": (lambda p: p.programs.update(systemctl=""), {"systemd.unit": UNKNOWN}),
    "no such unit": (lambda p: p.programs.update(systemctl="LoadState=not-found\n"), {"systemd.unit": UNKNOWN}),
    "a masked unit": (lambda p: p.programs.update(systemctl="LoadState=masked\n"), {"systemd.unit": FAIL}),
    "a time service that is asked": (lambda p: setattr(p, "time_service", "b true"), {"clock.synchronised": PASS}),
    "a service that does not say what time it is": (
        lambda p: setattr(p, "dateless", True), {"api.reach": PASS, "clock.skew": UNKNOWN}),
    "no time service to ask": (
        lambda p: setattr(p, "time_service", "Failed to connect to bus"), {"clock.synchronised": UNKNOWN}),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_is_read_as_it_tells(patient: Patient, name: str) -> None:
    prepare, expected = MACHINES[name]
    prepare(patient)
    found = patient.examine(*expected)
    assert {id_: finding.status for id_, finding in found.items()} == expected
    assert all(finding.detail for finding in found.values())


def test_a_terminal_without_camera_network_and_models_has_each_named(patient: Patient) -> None:
    patient.camera.error = CameraError("cannot find a camera: no /dev/video* is there")
    patient.dead_names = True
    patient.changes["cypherface"] = {"base_url": "https://cypherface.invalid/"}
    patient.changes["models"] = {"dir": str(patient.folder / "nothing")}
    found = patient.examine("camera", "models", "network", "upload")
    failed = {id_ for id_, finding in found.items() if finding.status is FAIL}
    assert failed == {"camera.open", "models.files", "network.dns", "upload.hosts"}


@pytest.mark.parametrize(
    ("number", "agent_runs", "status"),
    [(errno.EACCES, True, PASS), (errno.EACCES, False, UNKNOWN), (errno.EIO, True, FAIL)],
)
def test_models_that_this_user_may_not_read_are_the_agents_word_and_those_that_nobody_can_a_fault(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, number: int, agent_runs: bool, status: Status
) -> None:
    unreadable = (FileReport("live.onnx", Path("live.onnx"), FileState.UNREADABLE, os.strerror(number)),)
    monkeypatch.setattr(models, "verify_pack", lambda *_: unreadable)
    patient.status = STATUS if agent_runs else None
    assert patient.examine("models.files")["models.files"].status is status


def test_what_the_unit_is_compared_with_is_the_unit_that_is_delivered() -> None:
    unit = (ROOT / "systemd" / UNIT).read_text()
    assert {name: re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE) for name in HARDENING} == {
        name: [value] for name, value in HARDENING.items()
    }
    for drop_in in (ROOT / "systemd/drop-ins").glob("*.conf"):
        assert [name for name in HARDENING if re.search(rf"^{name}=", drop_in.read_text(), re.MULTILINE)] == []


def test_root_outside_the_unit_reads_what_systemd_passes_to_it(tmp_path: Path) -> None:
    running, stopped = tmp_path / "run", tmp_path / "etc"
    stopped.mkdir()
    environment: dict[str, str] = {}
    assert borrow_credentials(environment, (running, stopped)) == stopped
    assert environment == {"CREDENTIALS_DIRECTORY": str(stopped)}
    running.mkdir()
    assert borrow_credentials(environment, (running, stopped)) is None, "one that is set stays"
    assert borrow_credentials({}, (running, stopped)) == running
    assert borrow_credentials({}, ()) is None


@pytest.mark.parametrize(
    "said",
    [
        f"the server said: no merchant has {API_KEY}",
        "rtspsrc location=rtsp://admin:hunter2secret@10.0.0.7/stream does not open",
        "authorization: eyJhbGciOiJub25lIn0.eyJpYXQiOjF9.c2lnbmF0dXJl was refused",
    ],
)
def test_nothing_secret_leaves_whoever_wrote_the_sentence(said: str) -> None:
    told = redacted(Finding("camera.open", FAIL, said, value=said, limit=said, mend=said), (API_KEY,))
    for text in (told.detail, told.value, told.limit, told.mend):
        assert isinstance(text, str)
        assert REDACTED in text
        assert not re.search(r"hunter2secret|admin|c0ffee|eyJ", text)
