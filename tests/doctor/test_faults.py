"""Every fault is named by the right check, and by no other."""

from __future__ import annotations

import errno
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.config import Config
from edge_agent.doctor import examination
from edge_agent.doctor.catalogue import CHECKS
from edge_agent.doctor.examination import run_checks
from edge_agent.doctor.finding import Status
from edge_agent.errors import CameraError, ConfigurationError, ModelError
from tests.doctor.certificates import self_signed
from tests.doctor.patient import API_KEY, KEY, STATUS, TOKEN, USER, Illness, Patient, unit_says
from tests.outbox.fakes import lease, pending

FAIL, WARN = Status.FAIL, Status.WARN
NOT_RUNNING = {"agent.state": WARN}
"""What is said of every patient here whose agent is not running."""
FAULT = {"part": "camera", "code": "camera_unavailable", "detail": "cannot open it", "hint": "look at the cable"}


def setting(**values: Any) -> Illness:
    """Set attributes of the patient, ``camera__level=0.1`` of its camera."""

    def ill(patient: Patient) -> None:
        for name, value in values.items():
            *owners, last = name.split("__")
            target: Any = patient
            for owner in owners:
                target = getattr(target, owner)
            setattr(target, last, value)

    return ill


def file(name: str, content: str) -> Illness:
    return lambda patient: patient.put(patient.folder / name, content)


def program(name: str, says: str) -> Illness:
    return lambda patient: patient.programs.update({name: says})


def certificate(days: float) -> Illness:
    return lambda patient: patient.shows(patient.authority.issue(patient.folder / "shown.pem", days=days))


def another_key(patient: Patient) -> None:
    patient.secret("device.key", "22" * 32)


def no_models(patient: Patient) -> None:
    for model in (patient.folder / "models").iterdir():
        model.unlink()


def parked(patient: Patient) -> None:
    with patient.open_store() as store:
        store.recover()
        first = lease(store)
        store.park(first.record.id, first.lease, code="unknown_user", detail=f"no such user: {USER}", status=404)


def tampered(patient: Patient) -> None:
    with closing(sqlite3.connect(patient.state / "outbox.db")) as database, database:
        database.execute("DROP TRIGGER IF EXISTS audit_is_append_only")
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='audit'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute("UPDATE audit SET at = '1999-01-01T00:00:00+00:00' WHERE seq = 2")


def deep(patient: Patient) -> None:
    with patient.open_store() as store:
        store.recover()
        for number in range(5):
            pending(store, f"user-{number}")
    patient.changes["outbox"] = {
        "max_items": 8,
        "key": {"file": str(patient.folder / "device.key")},
        "reserve_bytes": 0,
    }


def old(patient: Patient) -> None:
    patient.clock.advance(70 * 3600)
    patient.clock.wall_now = datetime.now(UTC)


def degraded(patient: Patient) -> None:
    lost = {"state": "lost", **{name: FAULT[name] for name in ("code", "detail", "hint")}}
    patient.status = {**STATUS, "ready": False, "faults": [FAULT], "camera": lost}


def told(**status: Any) -> Illness:
    return setting(status={**STATUS, **status})


ILLNESSES: dict[str, tuple[Illness, dict[str, Status]]] = {
    # the camera
    "no camera": (setting(camera__error=CameraError("cannot find a camera")), {"camera.open": FAIL}),
    "a camera that goes away": (setting(camera__fails_after=2), {"camera.open": FAIL}),
    "a frozen camera": (setting(camera__frozen=True), {"camera.frozen": FAIL}),
    "a slow camera": (setting(camera__fps=8.0), {"camera.frame_rate": WARN}),
    "a very slow camera": (setting(camera__fps=3.0), {"camera.frame_rate": FAIL}),
    "a small camera": (setting(camera__delivers=(160, 120)), {"camera.resolution": WARN}),
    "a dark scene": (setting(camera__level=0.15), {"camera.exposure": WARN}),
    "a covered lens": (setting(camera__level=0.02), {"camera.exposure": FAIL}),
    "an unfocused lens": (setting(camera__blur_px=60), {"camera.sharpness": FAIL}),
    # the models
    "a wrong model hash": (lambda p: next((p.folder / "models").iterdir()).write_bytes(b"X" * 1000), {"models.files": FAIL}),
    "no models": (no_models, {"models.files": FAIL}),
    "a pack that there is not": (setting(changes={"models": {"pack": "nope"}}), {"models.files": FAIL}),
    "a pack that needs a licence": (lambda p: p.pack.update(commercial_use="licence_needed"), {"models.licence": WARN}),
    "a provider that is not here": (
        setting(models_error=ModelError("cannot run on cuda", code="provider_unavailable")),
        {"models.provider": FAIL},
    ),
    "models that cannot be run": (setting(models_error=ModelError("cannot", code="inference_failed")), {"models.speed": FAIL}),
    # configuration and credentials
    "a secret that others can read": (lambda p: p.secret("api.key", API_KEY, 0o644), {"credentials.api_key": FAIL}),
    "no device key": (lambda p: (p.folder / "device.key").unlink(), {"credentials.device_key": FAIL}),
    "a device key that is none": (lambda p: p.secret("device.key", "secret"), {"credentials.device_key": FAIL}),
    "the wrong device key": (another_key, {"credentials.device_key": FAIL}),
    # disk and board
    "a full disk": (setting(free_bytes=1 << 20), {"disk.space": FAIL}),
    "a nearly full disk": (setting(free_bytes=100 << 20), {"disk.space": WARN}),
    "a slow disk": (setting(write=250.0), {"disk.write": WARN}),
    "a read-only disk": (setting(write=OSError(errno.EROFS, "Read-only file system")), {"disk.write": FAIL}),
    "a worn disk": (file("sys/devices/mmc/block/mmcblk0/device/life_time", "0x0b 0x02"), {"disk.wear": FAIL}),
    "a disk with errors": (file("sys/fs/ext4/mmcblk0/errors_count", "3"), {"disk.errors": FAIL}),
    "too little memory": (file("proc/meminfo", "MemAvailable:  60000 kB\n"), {"memory.available": FAIL}),
    "a hot board": (file("sys/class/thermal/thermal_zone0/temp", "88500"), {"temperature.board": FAIL}),
    "a weak supply": (program("vcgencmd", "throttled=0x1\n"), {"power.undervoltage": FAIL}),
    "a weak supply at times": (program("vcgencmd", "throttled=0x10000\n"), {"power.undervoltage": WARN}),
    "a throttled processor": (program("vcgencmd", "throttled=0x4\n"), {"power.throttling": WARN}),
    # the clock
    "a clock that nobody keeps": (setting(clock__sync=False), {"clock.synchronised": WARN}),
    "the same, by systemd's word": (setting(time_service="b false"), {"clock.synchronised": WARN}),
    "a skewed clock": (setting(service_ahead=timedelta(minutes=10)), {"clock.skew": FAIL}),
    # the network
    "dead DNS": (setting(dead_names=True, changes={"cypherface": {"base_url": "https://localhost.invalid/"}}),
                 {"network.dns": FAIL, "upload.hosts": FAIL}),
    "an expired certificate": (certificate(days=-3), {"network.tls_expiry": FAIL, "upload.hosts": FAIL}),
    "a certificate that ends soon": (certificate(days=5), {"network.tls_expiry": WARN}),
    "a self-signed certificate": (lambda p: p.shows(self_signed(p.folder / "own.pem")),
                                  {"network.tls": FAIL, "upload.hosts": FAIL}),
    "no route": (setting(service_down=httpx.ConnectError("unreachable")), {"api.reach": FAIL}),
    "a server that speaks no TLS": (lambda p: p.shows(None), {"network.tls": FAIL, "upload.hosts": FAIL}),
    "a certificate bundle that is none": (
        setting(changes={"cypherface": {"ca_bundle": "/nonexistent.pem"}}), {"network.tls": FAIL}),
    "a service in trouble": (setting(service_status=503), {"api.reach": WARN}),
    "a slow line": (setting(service_takes_s=2.0), {"api.latency": WARN}),
    "a rejected API key": (setting(token_status=401), {"api.token": FAIL}),
    "an upload host that is not there": (
        setting(changes={"cypherface": {"upload_hosts": ["127.0.0.1:9"]}}), {"upload.hosts": FAIL}),
    # the queue
    "a deep queue": (deep, {"queue.depth": WARN}),
    "an old queue": (old, {"queue.age": FAIL}),
    "a parked capture": (parked, {"queue.parked": WARN}),
    "a tampered audit log": (tampered, {"audit.chain": FAIL}),
    # the service
    "a unit that failed": (program("systemctl", unit_says(ActiveState="failed", Result="exit-code")), {"systemd.unit": FAIL}),
    "a unit that is not enabled": (program("systemctl", unit_says(UnitFileState="disabled")), {"systemd.unit": WARN}),
    "restart after restart": (program("systemctl", unit_says(NRestarts="7")), {"systemd.restarts": FAIL}),
    "a loosened unit": (program("systemctl", unit_says(ProtectSystem="no")), {"systemd.hardening": WARN}),
    # what a running agent says
    "a degraded agent": (degraded, {"agent.state": FAIL, "camera.open": FAIL}),
    "the simulator": (told(simulator=True), {"agent.state": WARN}),
    "stopped forwarding": (told(network={"state": "stopped", "stopped_code": "forbidden"}), {"queue.forwarding": FAIL}),
    "an offline agent": (told(network={"state": "offline", "stopped_code": None}), {"queue.forwarding": WARN}),
    "a restart that is needed": (told(configuration={"restart_needed": ["state_dir"]}), {"config.file": WARN}),
    "a reload that was refused": (
        told(configuration={"restart_needed": [], "last_reload": {"problems": ["line 3: unknown key"]}}), {"config.file": WARN}),
    "a configuration on trial": (
        told(configuration={"restart_needed": [], "trial": {"left_s": 20.0}}), {"config.file": WARN}),
    "an agent without room": (told(storage={"takes_captures": False, "problem": None}), {"disk.space": FAIL}),
    "an agent with another key": (told(faults=[{**FAULT, "part": "store", "code": "key_mismatch"}]),
                                  {"credentials.device_key": FAIL}),
    "an agent that still starts": (
        told(ready=False, started=False, faults=[{**FAULT, "part": "store", "code": "starting"}]), {"agent.state": WARN}),
    "a moved state directory": (told(faults=[{**FAULT, "part": "store", "code": "state_moved"}]), {"queue.open": FAIL}),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLNESSES)
def test_a_fault_is_named_by_its_check_and_by_no_other(patient: Patient, name: str) -> None:
    ill, expected = ILLNESSES[name]
    ill(patient)
    found = patient.examine()
    named = {id_: finding.status for id_, finding in found.items() if finding.status in {FAIL, WARN}}
    assert named == expected | (NOT_RUNNING if patient.status is None else {}), named
    assert [id_ for id_ in named if not found[id_].mend] == []
    assert [id_ for id_, finding in found.items() if not finding.detail.strip()] == []
    assert [secret for secret in (KEY, API_KEY, TOKEN, USER) if secret in str(found)] == []


def test_a_healthy_terminal_passes_everything_but_that_no_agent_runs(patient: Patient) -> None:
    found = patient.examine()
    others = {id_: finding for id_, finding in found.items() if finding.status is not Status.PASS}
    assert {id_: finding.status for id_, finding in others.items()} == {
        "agent.state": WARN,
        "queue.forwarding": Status.UNKNOWN,
    }


def test_every_check_has_a_fault_that_it_names() -> None:
    assert {id_ for _, expected in ILLNESSES.values() for id_ in expected} == set(CHECKS)


def test_a_broken_configuration_is_named_and_what_needs_none_is_checked(patient: Patient) -> None:
    patient.broken_config = "cypherface: {base_url: http://example.org/}\nstate_dirr: /x\n"
    found = patient.examine()
    assert found["config.file"].status is FAIL
    assert "config check" in (found["config.file"].mend or "")
    assert {found[id_].status for id_ in ("memory.available", "temperature.board", "systemd.unit")} == {Status.PASS}
    assert all(found[id_].status is Status.UNKNOWN for id_ in ("camera.open", "api.token", "queue.depth", "disk.space"))


def test_a_configuration_that_the_agent_refused_is_to_be_mended_before_it_is_read_again(patient: Patient) -> None:
    ILLNESSES["a reload that was refused"][0](patient)
    mend = patient.examine("agent", "config")["config.file"].mend
    assert re.fullmatch(r"mend that in /.*config\.yaml, then: sudo systemctl reload edge-agent", mend or "")


@pytest.mark.parametrize(("listens", "status"), [(True, FAIL), (None, Status.UNKNOWN)])
def test_the_camera_of_an_agent_that_does_not_answer_is_left_alone(
    patient: Patient, listens: bool | None, status: Status
) -> None:
    patient.listens = listens
    found = patient.examine("agent", "camera")
    assert found["agent.state"].status is status
    assert {finding.status for id_, finding in found.items() if id_.startswith("camera.")} == {Status.UNKNOWN}
    assert patient.camera.opened == 0


def test_a_customer_who_is_being_filmed_comes_before_the_measurement_of_the_models(patient: Patient) -> None:
    patient.status = {**STATUS, "searching": True}
    found = patient.examine("models.speed")
    assert found["models.speed"].status is Status.UNKNOWN
    assert "filmed" in found["models.speed"].detail


def test_a_missing_configuration_fails_and_one_that_others_may_not_read_is_unknown(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> Config:
        raise ConfigurationError(f"cannot read the configuration {path}") from PermissionError(errno.EACCES)

    missing = run_checks(patient.folder / "none.yaml", only=["config"], sources=patient.sources())
    monkeypatch.setattr(examination, "load", refused)
    hidden = run_checks(patient.folder / "config.yaml", only=["config"], sources=patient.sources())
    assert [found.status for found in (*missing, *hidden)] == [FAIL, Status.UNKNOWN]


def test_only_what_was_asked_for_is_checked(patient: Patient) -> None:
    found = patient.examine("temperature", "clock.skew")
    assert list(found) == ["temperature.board", "clock.skew"]
