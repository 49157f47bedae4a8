"""The six scenarios of the demo, and how each is judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from edge_agent.api.wire import VerificationBody
from edge_agent.camera.replay import ReplayCamera
from edge_agent.client import AgentClient
from edge_agent.config import GateSection
from edge_agent.demo.pictures import DISTORTIONS
from edge_agent.demo.stage import CAMERA_SIZE, Stage
from edge_agent.packs.manifest import load_pack
from edge_agent.screening import Screener
from edge_agent.types import Frame, Image, JsonObject, State
from edge_agent.vision.annotate import annotate, encode_jpeg
from edge_agent.vision.opening import open_pipeline

FRAMES_LOOKED_AT = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who stands before the camera, how, whom the POS asks for, and what must come of it."""

    name: str
    person: str
    user_id: str
    distortion: str
    expected: State
    reason: str | None = None
    cut: bool = False
    """The network is cut before it begins."""


SCENARIOS = (
    Scenario("the right person", "alice", "alice", "none", State.VERIFIED),
    Scenario("another person", "bob", "alice", "none", State.NOT_VERIFIED),
    Scenario("out of focus", "alice", "alice", "blurred", State.REJECTED, reason="too_blurry"),
    Scenario("too dark", "bob", "bob", "dark", State.REJECTED, reason="too_dark"),
    Scenario("the network is cut", "bob", "bob", "none", State.PENDING, cut=True),
)
RECONNECTED = "the network is back"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one scenario."""

    scenario: str
    expected: State
    record: VerificationBody
    seconds: float
    ok: bool

    def as_json(self) -> JsonObject:
        """The contract of ``edge-agent demo --json``."""
        return {
            "scenario": self.scenario,
            "expected": self.expected.value,
            "state": self.record.state.value,
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "approved": self.record.approved,
            "reasons": self.record.reasons,
            "similarity": self.record.similarity,
            "challenge": self.record.challenge.outcome if self.record.challenge else None,
        }


def play(stage: Stage, people: dict[str, Image], only: Callable[[str], bool]) -> Iterator[Result]:
    """Enrol both people, then play the scenarios whose name ``only`` accepts, one result each."""
    with AgentClient(stage.socket, timeout_s=30.0 * stage.slow) as client:
        enrol(client, people)
        for scenario in SCENARIOS:
            if only(scenario.name):
                yield from _play_one(stage, client, scenario, people)


def enrol(client: AgentClient, people: dict[str, Image]) -> None:
    """Each with the very picture that is shown."""
    for user_id, image in people.items():
        client.enrol(user_id, _png(image), "image/png")


def _play_one(stage: Stage, client: AgentClient, scenario: Scenario, people: dict[str, Image]) -> Iterator[Result]:
    stage.show(DISTORTIONS[scenario.distortion](people[scenario.person]))
    if scenario.cut:
        stage.stop_sandbox()
    began = time.monotonic()
    record = client.verify(scenario.user_id, reference=scenario.name, wait_s=min(600.0, 60.0 * stage.slow))
    ok = (
        record.state is scenario.expected
        and record.approved is (scenario.expected is State.VERIFIED)
        and (scenario.reason is None or scenario.reason in record.reasons)
    )
    yield Result(scenario.name, scenario.expected, record, time.monotonic() - began, ok)
    if scenario.cut:
        yield _reconnect(stage, client, record)


def _reconnect(stage: Stage, client: AgentClient, pending: VerificationBody) -> Result:
    """The same capture, forwarded as soon as the service answers again: verified, but too late to be approved."""
    began = time.monotonic()
    stage.start_sandbox()
    deadline = began + 60.0 * stage.slow
    record = client.get(pending.id)
    while not record.final and time.monotonic() < deadline:
        time.sleep(0.1)
        record = client.get(pending.id)
    ok = record.state is State.VERIFIED and record.late and not record.approved
    return Result(RECONNECTED, State.VERIFIED, record, time.monotonic() - began, ok)


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def annotate_all(folder: Path, people: dict[str, Image], *, pack: str, models_dir: Path) -> list[Path]:
    """For people to look at: per scenario the best of a few frames of the same scene, with its checks."""
    pipeline = open_pipeline(load_pack(pack), models_dir)
    written = []
    for number, scenario in enumerate(SCENARIOS, 1):
        picture = DISTORTIONS[scenario.distortion](people[scenario.person])
        screener = Screener(pipeline, GateSection())
        seen = [screener.still(frame) for frame in _frames(folder, picture)]
        best = max(seen, key=lambda a: (a.accepted, a.quality_score))
        path = folder / f"{number}-{scenario.name.replace(' ', '-')}.jpg"
        path.write_bytes(encode_jpeg(annotate(best)))
        written.append(path)
    return written


def _frames(folder: Path, picture: Image) -> Iterator[Frame]:
    """A few frames of the picture as the replay camera shows it."""
    scene = folder / ".scene.png"
    scene.write_bytes(_png(picture))
    try:
        with ReplayCamera(scene, size=CAMERA_SIZE, pace="fast") as camera:
            for _ in range(FRAMES_LOOKED_AT):
                yield camera.read(1.0)
    finally:
        scene.unlink()
