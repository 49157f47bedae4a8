"""What ``edge-agent status`` says of each part, in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from edge_agent.api.wire_status import (
    CameraBody,
    ConfigurationBody,
    NetworkBody,
    QueueStatusBody,
    StatusBody,
    UnavailableBody,
)
from edge_agent.cli.tables import local, status_lines

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
CAMERA = CameraBody(state="unknown", step="none", failures=0, code=None, detail="", hint=None, steps_taken={})
NETWORK = NetworkBody(state="unknown", stopped_code=None, last_error=None, last_success_at=None)
QUEUE = QueueStatusBody(depth=0, parked=0, bytes=0, oldest_age_s=None, states=None)
BODY = StatusBody(
    version="1", terminal_id="t", simulator=False, started_at=NOW, uptime_s=125.0, started=True, ready=True, searching=False, aiming=False,
    faults=[], configuration=ConfigurationBody(file=None, last_reload=None, reloads=None, restart_needed=[], trial=None),
    pack="open", frames={}, first_frame_after_s=None, camera=CAMERA, network=NETWORK, queue=QUEUE,
    storage=UnavailableBody(error="x"), access=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ({}, "running 2m05s, waiting for a request; models: open"),
        ({"searching": True}, "running 2m05s, searching; models: open"),
        ({"aiming": True}, "running 2m05s, waiting for a request, and an admin sees the live picture (aim); models: open"),
        ({}, "camera: not tried yet: a verification tries it"),
        ({"camera": CAMERA.model_copy(update={"state": "ok", "detail": "replay of a.png"})}, "camera: ok: replay of a.png"),
        ({"camera": CAMERA.model_copy(update={"state": "none", "detail": "camera.source is none"})},
         "camera: none: camera.source is none"),
        ({"camera": CAMERA.model_copy(update={"state": "lost", "step": "respawn", "failures": 4, "detail": "cannot open it"})},
         "camera: lost (failed tries: 4, step: respawn): cannot open it"),
        ({}, "network: not known yet: the first capture tells"),
        ({"network": NETWORK.model_copy(update={"state": "online", "last_error": "old", "last_success_at": NOW})},
         f"network: online; last success {local(NOW)}"),
        ({"network": NETWORK.model_copy(update={"state": "offline", "last_error": "connect: refused"})},
         "network: offline: connect: refused"),
        ({"network": NETWORK.model_copy(update={"state": "stopped", "stopped_code": "forbidden", "last_error": "x"})},
         "network: stopped: forbidden"),
        ({}, "queue: 0 waiting, 0 parked, 0 bytes"),
        ({"queue": QueueStatusBody(depth=2, parked=1, bytes=113_400, oldest_age_s=12000.0, states=None)},
         "queue: 2 waiting, 1 parked, 113.4 kB, the oldest 3h20m old"),
        ({"queue": UnavailableBody(error="key_mismatch")}, "queue: cannot be read: key_mismatch"),
    ],
)  # fmt: skip
def test_each_part_is_told_in_words(part: dict[str, object], line: str) -> None:
    assert f"  {line}" in list(status_lines(BODY.model_copy(update=part)))


def test_who_reads_that_forwarding_stopped_is_told_what_to_do() -> None:
    stopped = NETWORK.model_copy(update={"state": "stopped", "stopped_code": "forbidden"})
    advice = "    try: edge-agent doctor; once that is mended: edge-agent outbox retry"
    assert [advice in list(status_lines(BODY.model_copy(update={"network": n}))) for n in (stopped, NETWORK)] == [
        True, False,
    ]  # fmt: skip
