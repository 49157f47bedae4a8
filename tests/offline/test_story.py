"""The story of a regular customer: confirmed online, answered when the line is cut, confirmed again, then contradicted.

The real agent behind its real socket, the real outbox and the real sandbox, with a network between them that can be
cut. Once with made-up people, so that it is always played; once with the models of the pack ``open`` and real faces.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.api.wire import VerificationBody
from edge_agent.camera import Camera
from edge_agent.camera.replay import ReplayCamera
from edge_agent.client import AgentClient
from edge_agent.config import ModelsSection
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.database import DATABASE_FILE
from edge_agent.outbox.provisional_records import Withheld
from edge_agent.packs.manifest import load_pack
from edge_agent.sandbox.face_matcher import FaceMatcher, open_face_matcher
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import Frame, State
from edge_agent.vision.opening import open_pipeline
from tests.faces import face
from tests.faults.proxy import PASS, FaultProxy, Mode
from tests.offline.people import FaceEyes, PersonCamera, image_of
from tests.terminal import Terminal

PATIENCE_S = 90.0
PORTRAIT = (640, 640)
CONSENT = {"reference": "contract 17", "scopes": ["match", "template"]}


class TrustedClock(SystemClock):
    """The machine's clock, with a time service that vouches for it, and ahead of it by what a test says."""

    ahead_s = 0.0

    def wall(self) -> datetime:
        return super().wall() + timedelta(seconds=self.ahead_s)

    def boottime_s(self) -> float:
        return super().boottime_s() + self.ahead_s

    def synchronised(self) -> bool:
        return True


@dataclass
class Cast:
    """Two people, how to put one before the camera, and who compares them at CypherFace's."""

    matcher: FaceMatcher
    terminal: type[Terminal]
    source: Callable[[str], bytes]
    """The picture that CypherFace knows a person by."""
    step_forward: Callable[[Terminal, str], None]
    threshold: float


# -- made-up people

PEOPLE = {"anna": 1, "berta": 2}


class MadeUpTerminal(Terminal):
    """The camera shows the grey of a person, and the embedder knows it."""

    def __init__(self, *args: Any, **changes: Any) -> None:
        super().__init__(*args, **changes)
        self.people = PersonCamera()
        self.eyes = FaceEyes()

    def _make_camera(self) -> Camera:
        return self.people


def made_up() -> Cast:
    eyes = FaceEyes()

    def embed(picture: bytes) -> Any:
        decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        return None if decoded is None else eyes.embed(Frame(np.asarray(decoded, np.uint8), 0.0, 0), face())

    def step_forward(terminal: Terminal, person: str) -> None:
        assert isinstance(terminal, MadeUpTerminal)
        terminal.people.person = PEOPLE[person]

    return Cast(
        FaceMatcher(embed, 0.6), MadeUpTerminal, lambda person: png(image_of(PEOPLE[person])), step_forward, 0.6
    )


def png(image: Any) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


# -- real people


def real(folder: Path, pictures: dict[str, list[Path]], models_dir: Path) -> Cast:
    scene = folder / "scene.png"
    portraits = {person: [portrait(path) for path in paths] for person, paths in pictures.items()}

    class RealTerminal(Terminal):
        """The pack's own models look at a still that is held before the camera."""

        def _make_camera(self) -> Camera:
            return ReplayCamera(scene, size=PORTRAIT, stale_after_s=60.0)

        def _open_vision(self, models: ModelsSection) -> Any:
            return open_pipeline(load_pack(models.pack), models_dir)

    def step_forward(terminal: Terminal, person: str) -> None:
        del terminal
        part = scene.with_name("next.png")
        part.write_bytes(png(portraits[person][-1]))
        part.replace(scene)

    def source(person: str) -> bytes:
        return png(portraits[person][0])

    step_forward(None, "anna")  # type: ignore[arg-type]
    return Cast(open_face_matcher("open", models_dir), RealTerminal, source, step_forward, 0.45)


def portrait(path: Path) -> Any:
    """The face of a picture, as large as at a counter."""
    image = cv2.imread(str(path))
    assert image is not None
    scale = 1000 / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


# -- the play


@contextmanager
def played(folder: Path, cast: Cast, **session: Any) -> Iterator[tuple[Terminal, SandboxServer, FaultProxy]]:
    with SandboxServer(matcher=cast.matcher) as sandbox, FaultProxy(sandbox.port) as proxy:
        terminal = cast.terminal(
            folder, proxy.base_url, sandbox.credentials,
            session={"search_timeout_s": 60.0, "verdict_timeout_s": 60.0, "max_failures": 0, **session},
            cypherface={"timeouts": {"connect_s": 10.0, "request_s": 30.0, "match_s": 30.0}},
            models={"pack": "open"},
            gate={"max_track_gap_s": 60.0, "min_inter_eye_px": 35.0},
            offline={
                "policy": "provisional",
                "face_threshold": {"cosine": cast.threshold, "not_evidence": True},
                "max_amounts": {"EUR": 50},
                "max_answers": 2,
            },
        )  # fmt: skip
        terminal.clock = TrustedClock()
        with terminal:
            yield terminal, sandbox, proxy


def pay(client: AgentClient, user: str, amount: str = "12.50") -> VerificationBody:
    return client.verify(user, amount=amount, currency="EUR", consent=CONSENT, wait_s=PATIENCE_S)


def settled(client: AgentClient, record: VerificationBody) -> VerificationBody:
    deadline = time.monotonic() + PATIENCE_S
    while not (now := client.get(record.id)).final:
        assert time.monotonic() < deadline, f"{now.state} for ever: {now.error}"
        time.sleep(0.02)
    return now


def provisional_of(client: AgentClient, *, templates: int | None = None) -> dict[str, Any]:
    """Of the status; once there are so many templates: they are kept a moment after the verdict."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found: dict[str, Any] = client.status()["offline"]["provisional"]
        if templates is None or found["templates"] == templates:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def play(folder: Path, cast: Cast) -> None:
    with played(folder, cast) as (terminal, sandbox, proxy), terminal.client() as client:
        sandbox.enrol("anna", cast.source("anna"))
        cast.step_forward(terminal, "anna")
        for kept in (1, 2, 3):
            record = pay(client, "anna")
            assert (record.state, record.approved) == (State.VERIFIED, True)
            assert provisional_of(client, templates=kept)["users"] == 1

        proxy.set(Mode("refuse"))
        first = pay(client, "anna")
        assert (first.state, first.approved, first.final) == (State.PROVISIONALLY_VERIFIED, False, False)
        cast.step_forward(terminal, "berta")
        posed = pay(client, "anna")
        assert (posed.state, posed.reasons) == (State.PENDING, [Withheld.FACE_DIFFERS])
        cast.step_forward(terminal, "anna")
        dear = pay(client, "anna", "50.01")
        assert (dear.state, dear.reasons) == (State.PENDING, [Withheld.AMOUNT_OVER_LIMIT])
        second = pay(client, "anna", "50.00")
        assert second.state is State.PROVISIONALLY_VERIFIED
        third = pay(client, "anna")
        assert (third.state, third.reasons) == (State.PENDING, [Withheld.COUNT_LIMIT])
        status = provisional_of(client)
        assert (status["answers"], status["unconfirmed"], status["measured"]) == (2, 2, False)
        assert status["counts"]["answered"] == 2

        back(proxy, terminal)
        for answered in (first, second):
            done = settled(client, answered)
            assert (done.state, done.late, done.contradicted) == (State.VERIFIED, True, False)
            assert not done.approved
        assert settled(client, posed).state is State.NOT_VERIFIED
        assert [settled(client, pending).state for pending in (dear, third)] == [State.VERIFIED] * 2
        assert provisional_of(client)["blocked"] == 1  # somebody posed as Anna
        assert pay(client, "anna").approved
        status = provisional_of(client)
        assert (status["blocked"], status["answers"], status["offline_s"]) == (0, 0, None)
        contradicted(cast, terminal, sandbox, proxy, client)
    nothing_in_clear(terminal)


def contradicted(
    cast: Cast, terminal: Terminal, sandbox: SandboxServer, proxy: FaultProxy, client: AgentClient
) -> None:
    """CypherFace changes its mind about who Anna is."""
    proxy.set(Mode("refuse"))
    answered = pay(client, "anna")
    assert answered.state is State.PROVISIONALLY_VERIFIED
    sandbox.reset()
    sandbox.enrol("anna", cast.source("berta"))
    back(proxy, terminal)
    done = settled(client, answered)
    assert (done.state, done.contradicted, done.approved) == (State.NOT_VERIFIED, True, False)
    told = [event for event in client.events(answered.id, after="0") if event.kind == "state"]
    assert [event.data["contradicted"] for event in told][-2:] == [False, True]
    status = provisional_of(client, templates=0)
    assert (status["blocked"], status["counts"]["contradicted"]) == (1, 1)
    assert "contradicted" in [entry["event"] for entry in audit(terminal)]
    proxy.set(Mode("refuse"))
    refused = pay(client, "anna")
    assert (refused.state, refused.reasons) == (State.PENDING, [Withheld.BLOCKED])
    assert client.audit_verify().ok


def back(proxy: FaultProxy, terminal: Terminal) -> None:
    """Minutes later the line is back, and somebody says so, as a link that comes up would."""
    assert isinstance(terminal.clock, TrustedClock)
    terminal.clock.ahead_s += 120.0
    proxy.set(PASS)
    assert terminal.agent.forwarder is not None
    terminal._loop.call_soon_threadsafe(terminal.agent.forwarder.resume)


def audit(terminal: Terminal) -> list[sqlite3.Row]:
    connection = sqlite3.connect(terminal.folder / "state" / DATABASE_FILE)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("SELECT * FROM audit ORDER BY seq").fetchall()
    finally:
        connection.close()


def nothing_in_clear(terminal: Terminal) -> None:
    """The agent has ended; neither the user's name nor the reference of the consent is anywhere in its files."""
    for path in (terminal.folder / "state").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"anna" not in content
        assert b"contract 17" not in content


def test_a_regular_customer_of_made_up_people(tmp_path: Path) -> None:
    play(tmp_path, made_up())


@pytest.mark.packs
@pytest.mark.assets
def test_a_regular_customer_of_real_people(tmp_path: Path, assets: Path, open_pack_dir: Path) -> None:
    images = assets / "images"
    pictures = {
        "anna": [images / "id_obama_1.jpg", images / "id_obama_1.jpg"],
        "berta": [images / "id_biden_1.jpg", images / "id_biden_1.jpg"],
    }
    play(tmp_path, real(tmp_path, pictures, open_pack_dir))


def test_the_policy_refuses_to_start_without_a_threshold_and_the_rest_serves(tmp_path: Path) -> None:
    cast = made_up()
    with SandboxServer(matcher=cast.matcher) as sandbox:
        sandbox.enrol("anna", cast.source("anna"))
        terminal = MadeUpTerminal(
            tmp_path, sandbox.base_url, sandbox.credentials,
            session={"search_timeout_s": 60.0, "verdict_timeout_s": 60.0},
            offline={"policy": "provisional", "max_amounts": {"EUR": 50}},
        )  # fmt: skip
        with terminal, terminal.client() as client:
            status = client.status()
            assert [(fault["part"], fault["code"]) for fault in status["faults"]] == [("offline", "no_match_threshold")]
            assert client.ready()  # for all that a verification needs
            assert status["offline"]["provisional"]["threshold"] is None
            assert pay(client, "anna").approved  # CypherFace is asked as ever
            assert client.status()["offline"]["provisional"]["templates"] == 0
