"""Beside a whole terminal that runs: the agent, its socket, its outbox and the sandbox are real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from edge_agent.doctor.examination import run_checks, to_json
from edge_agent.doctor.finding import Finding, Status
from edge_agent.doctor.sources import Sources
from edge_agent.outbox.clock import SystemClock
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.doctor.patient import Patient
from tests.terminal import Terminal, terminal

MEASURED = {"camera.frame_rate", "camera.resolution", "camera.exposure", "camera.sharpness", "camera.frozen"}


@pytest.fixture
def running(patient: Patient) -> Iterator[Terminal]:
    """It was used: ``alice`` was verified."""
    folder = patient.folder / "terminal"
    folder.mkdir()
    patient.config_file()
    models = {"pack": str(patient.folder / "pack.yaml"), "dir": str(patient.folder / "models")}
    with SandboxServer() as sandbox:
        sandbox.enrol("alice", SOURCE)
        with terminal(
            folder, sandbox, models=models, session={"search_timeout_s": 60.0, "verdict_timeout_s": 60.0}
        ) as t:
            with t.client() as client:
                assert client.verify("alice", wait_s=60.0).approved
            yield t


def examine(patient: Patient, running: Terminal) -> dict[str, Finding]:
    """What is made up of the machine stays so; the agent and the way to the service are real."""
    sources = replace(
        patient.sources(),
        clock=SystemClock(lambda: True),
        kernel_tells=lambda: False,
        ask_time_service=_kept,
        transport=None,
        client=Sources().client,
    )
    return {finding.id: finding for finding in run_checks(running.file, socket=running.socket, sources=sources)}


async def _kept() -> str:
    return "b true"


def test_with_everything_up_all_pass_or_say_why_they_are_unknown(patient: Patient, running: Terminal) -> None:
    opened = running.camera.opened
    found = examine(patient, running)
    rest = {id_: finding for id_, finding in found.items() if finding.status is not Status.PASS}
    assert {finding.status for finding in rest.values()} == {Status.UNKNOWN}, rest
    assert set(rest) == MEASURED | {"network.tls", "network.tls_expiry"}
    assert all(finding.detail for finding in rest.values())
    assert "alice" not in json.dumps(to_json(tuple(found.values())))
    assert running.camera.opened == opened, "the camera was taken from the agent"


def test_a_file_that_was_broken_under_a_running_agent_is_named_and_the_agent_still_asked(
    patient: Patient, running: Terminal
) -> None:
    running.file.write_text(yaml.safe_dump({**yaml.safe_load(running.file.read_text()), "terminal_id": "x y"}))
    found = examine(patient, running)
    assert {id_ for id_, finding in found.items() if finding.status is Status.FAIL} == {"config.file"}
    asked = ("agent.state", "credentials.device_key", "queue.open", "queue.forwarding", "audit.chain")
    assert {found[id_].status for id_ in asked} == {Status.PASS}
