"""The live picture of the daemon: who gets it, what it costs, and that everybody else at the camera comes first."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from edge_agent import aiming
from edge_agent.client import AgentClient, ApiError
from edge_agent.errors import ModelError
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import JsonObject
from tests.api.calls import raw
from tests.api.test_camera import until
from tests.api.test_sockets import ADMIN, over_tcp
from tests.faces import measurement
from tests.terminal import Terminal, terminal
from tests.test_settings import _audited


class Reader:
    """Reads the live picture in a thread of its own, until it ends or ``leave``."""

    def __init__(self, t: Terminal, limit_s: float = 60.0) -> None:
        self._t, self._limit_s = t, limit_s
        self.looks: list[JsonObject] = []
        self.ended: str | None = None
        self._leave = threading.Event()
        self._some = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._some.wait(20), "no look came"

    def _read(self) -> None:
        with self._t.client() as client:
            for line in client.aim(self._limit_s):
                if "ended" in line:
                    self.ended = line["ended"]
                else:
                    self.looks.append(line)
                self._some.set()
                if self._leave.is_set():
                    return

    def leave(self) -> None:
        self._leave.set()
        self.join()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "it goes on"


@pytest.fixture
def reader(running: Terminal) -> Iterator[Reader]:
    found = Reader(running)
    yield found
    found.leave()


def told(t: Terminal) -> list[tuple[str, str | None]]:
    return [(e.data["state"], e.data["reason"]) for e in list(t.agent.bus._kept) if e.kind == "aim"]


def test_a_verification_has_the_camera_at_once_and_the_live_picture_says_why_it_ended(
    running: Terminal, client: AgentClient, reader: Reader
) -> None:
    assert client.status()["aiming"]
    assert running.agent.describe().startswith("the live picture is on (aim); ready")
    assert client.verify("alice", wait_s=10).approved
    reader.join()
    assert reader.ended == "verification"
    assert running.camera.opened == 2, "one for the live picture, one for the verification"
    assert not running.camera.is_open
    assert told(running) == [("on", None), ("off", "verification")]
    assert not client.status()["aiming"]


def test_a_look_has_the_picture_the_checks_and_the_hint_and_nothing_of_it_is_stored(
    running: Terminal, client: AgentClient, reader: Reader, tmp_path: Path
) -> None:
    running.eyes.sees = measurement(luminance=0.1)
    until(lambda: (reader.looks[-1]["hint"] or {}).get("code") == "too_dark", "the hint does not come")
    look = reader.looks[-1]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(look["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert (picture.shape, look["size"]) == ((540, 960, 3), [1280, 720])
    assert look["judged"]["reasons"] == ["too_dark"]
    assert look["judged"]["box"] == [540.0, 260.0, 740.0, 520.0]
    assert look["fps"] > 0
    assert look["scene_sharpness"] is not None
    running.eyes.sees = measurement()
    until(lambda: bool(reader.looks[-1]["judged"]["accepted"]), "it never qualifies")
    reader.leave()
    until(lambda: not running.camera.is_open, "the camera stays open")
    jpegs = [base64.b64decode(look["jpeg"])[:600] for look in reader.looks if look["jpeg"]]
    for file in (tmp_path / "state").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not any(jpeg in content for jpeg in jpegs), file
    assert client.outbox_list().queue.pictures == 0
    entries = running.run(running.agent.keeper.run(_audited))
    assert ("aimed", {"actor": f"uid:{os.geteuid()}"}) in entries, (
        "that somebody was filmed, and who asked, is on record"
    )


def test_it_does_not_begin_while_somebody_is_filmed_or_aims(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(())
    started = client.verify("alice", search_timeout_s=30)
    with pytest.raises(ApiError, match="a verification is searching") as refused:
        next(client.aim(60))
    assert refused.value.code == "busy"
    client.cancel(started.id)
    first = Reader(running)
    with pytest.raises(ApiError, match="has the live picture already"):
        next(client.aim(60))
    first.leave()
    until(lambda: not client.status()["aiming"], "it goes on without a reader")
    assert told(running)[-1] == ("off", "left")


@pytest.mark.parametrize("why", ["enrolment", "check", "stopping", "time", "not_read", "failed"])
def test_whatever_else_ends_it_closes_the_camera_and_is_told(
    running: Terminal, client: AgentClient, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    agent = running.agent
    if why == "not_read":
        monkeypatch.setattr(aiming, "NOT_READ_S", 0.05)
        aim = running.run(agent.aimer.begin(60, actor="uid:0"))
    else:
        aim = None
        reader = Reader(running, limit_s=1.0 if why == "time" else 60.0)
    if why == "enrolment":
        client.enrol_from_camera("carol", search_timeout_s=10)
    if why == "check":
        assert running.run(agent.try_camera()) is None
    if why == "stopping":
        running._loop.call_soon_threadsafe(running._stop.set)
    if why == "failed":
        running.eyes.error = ValueError("not one of ours")
    if aim is None:
        reader.join()
        assert reader.ended == why
    until(lambda: not agent.aimer.on and not running.camera.is_open, "the camera stays open")
    assert told(running) == [("on", None), ("off", why)]


@pytest.mark.parametrize("moment", ["before its first step", "twice at once"])
def test_it_closes_the_camera_whenever_it_is_ended(running: Terminal, moment: str) -> None:
    async def begin_and_end() -> None:
        aimer = running.agent.aimer
        aim = await aimer.begin(60, actor="uid:0")
        if moment == "twice at once":
            await anext(aim.looks())
            running._loop.create_task(aimer.end("verification"))
        await aimer.end("stopping")
        assert aim.over

    running.run(begin_and_end())
    assert (running.camera.opened, running.camera.is_open) == (1, False)


def test_a_camera_or_models_that_fail_are_shown_and_come_back(
    running: Terminal, client: AgentClient, reader: Reader
) -> None:
    running.camera.broken = "camera_unavailable"
    until(lambda: reader.looks[-1]["problem"] is not None, "nobody sees it")
    assert reader.looks[-1]["problem"]["code"] == "camera_unavailable"
    assert reader.looks[-1]["jpeg"] is None
    running.camera.broken = None
    until(lambda: reader.looks[-1]["judged"] is not None, "it does not come back")
    running.eyes.error = ModelError("cannot run it", code="inference_failed")
    until(lambda: reader.looks[-1]["judged"] is None, "the judgement of before is shown")
    assert (reader.looks[-1]["problem"]["code"], bool(reader.looks[-1]["jpeg"])) == ("inference_failed", True)


def test_without_models_there_are_pictures_alone_and_without_a_camera_a_refusal(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    t = Terminal(tmp_path, sandbox.base_url, sandbox.credentials)
    t.vision_error = ModelError("cannot find the pack", hint="edge-agent models fetch open")
    with t:
        reader = Reader(t)
        reader.leave()
        assert reader.looks[0]["jpeg"]
        assert reader.looks[0]["problem"] == {
            "code": "models_missing", "detail": "cannot find the pack", "hint": "edge-agent models fetch open"
        }  # fmt: skip
        until(lambda: not t.agent.aimer.on, "it goes on")
        t.camera.cannot_open = True
        with t.client() as client, pytest.raises(ApiError, match="unplugged") as refused:
            next(client.aim(60))
        assert refused.value.code == "camera_unavailable"


def test_no_picture_leaves_to_a_pos_nor_over_tcp(tmp_path: Path, sandbox: SandboxServer) -> None:
    api: dict[str, Any] = over_tcp(tmp_path)
    with terminal(tmp_path, sandbox, api=api) as t, httpx.Client(base_url=f"http://{api['tcp']}", timeout=20) as http:
        pos = http.post("/v1/aim", headers={"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"})
        admin = http.post("/v1/aim", headers={"Authorization": f"Bearer {ADMIN}"})
        with raw(t) as own:
            wrong = own.post("/v1/aim", params={"limit_s": "3601"})
        assert [(a.status_code, a.json()["code"]) for a in (pos, admin, wrong)] == [
            (403, "forbidden"), (403, "forbidden"), (400, "invalid_request"),
        ]  # fmt: skip
        assert "does not have the role admin" in pos.json()["detail"]
        assert "over TCP" in admin.json()["detail"]
        assert t.camera.opened == 0
        assert "aiming" in json.dumps(http.get("/v1/status", headers={"Authorization": f"Bearer {ADMIN}"}).json())
