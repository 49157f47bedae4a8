"""``demo --challenge``: a head that turns as it is asked to, a flat picture that does the same, and a till that is silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from edge_agent.api.wire import VerificationBody
from edge_agent.client import FROM_THE_START, AgentClient, ApiError
from edge_agent.demo.head import turned_head, turned_picture
from edge_agent.demo.scenarios import Result, enrol
from edge_agent.demo.stage import Stage
from edge_agent.errors import EnvironmentFault
from edge_agent.packs.manifest import load_pack
from edge_agent.types import Frame, Image, JsonObject, Landmarks, State
from edge_agent.vision.opening import open_pipeline

TICK_S: Final = 0.08
PER_TICK_DEG: Final = 2
FAR_DEG: Final = {"head": 18, "picture": 30}
"""Multiples of PER_TICK_DEG."""
SIDES: Final = {"turn_left": 1, "turn_right": -1}
USER: Final = "alice"
SIDE_PX: Final = 640


def setting(slow: float) -> JsonObject:
    """What the stage is given beside the pack: a camera close to the face, for its frames are fewer pixels to judge."""
    liveness = {
        "challenge": "head_turn",
        "step_timeout_s": min(30.0, 5.0 * slow),
        "acknowledge_timeout_s": min(30.0, 3.0 * slow),
        "total_timeout_s": min(120.0, 20.0 * slow),
    }
    return {"camera_size": (SIDE_PX, SIDE_PX), "liveness": liveness}


@dataclass(frozen=True, slots=True)
class Play:
    """Who stands before the camera, whether the till says what it shows, and what must come of it."""

    name: str
    actor: str
    """``head`` or ``picture``."""
    answers: bool
    expected: State
    outcome: str
    reason: str | None = None


PLAYS: Final = (
    Play("a head that turns", "head", True, State.VERIFIED, "head_turn"),
    Play("a flat picture that turns", "picture", True, State.REJECTED, "failed", "challenge_failed"),
    Play("a till that is silent", "head", False, State.REJECTED, "unavailable", "challenge_unavailable"),
)


class Actor:
    """Shows one picture, turned, and turns it on in small steps: a context manager with a thread.

    What it shows is rendered before it begins: the terminal needs the processor.
    """

    def __init__(self, show: Callable[[Image], None], render: Callable[[float], Image], far_deg: int) -> None:
        self._show, self._far_deg = show, far_deg
        self._rendered = {deg: render(deg) for deg in range(-far_deg, far_deg + 1, PER_TICK_DEG)}
        self._at_deg = self._aim_deg = 0
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._act, name="actor")

    def __enter__(self) -> Self:
        self._show(self._rendered[0])
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise EnvironmentFault(f"cannot go on with the demo: {self._error}") from self._error

    def read(self, prompt: str) -> None:
        """What is asked now."""
        self._aim_deg = self._far_deg * SIDES.get(prompt, 0)

    def _act(self) -> None:
        try:
            while not self._over.wait(TICK_S):
                step = max(-PER_TICK_DEG, min(PER_TICK_DEG, self._aim_deg - self._at_deg))
                if step:
                    self._at_deg += step
                    self._show(self._rendered[self._at_deg])
        except Exception as exc:  # the top of a thread: raised where it is joined
            self._error = exc


def play(stage: Stage, portrait: Image, only: Callable[[str], bool]) -> Iterator[Result]:
    """Play what ``only`` accepts, one result each."""
    portrait, landmarks = close_up(portrait, _landmarks_of(portrait, stage))
    renders: dict[str, Callable[[float], Image]] = {
        "head": lambda yaw_deg: turned_head(portrait, landmarks, yaw_deg),
        "picture": lambda yaw_deg: turned_picture(portrait, yaw_deg),
    }
    with AgentClient(stage.socket, timeout_s=30.0 * stage.slow) as client:
        enrol(client, {USER: portrait})
        for each in PLAYS:
            if only(each.name):
                with Actor(stage.show, renders[each.actor], FAR_DEG[each.actor]) as actor:
                    yield _play(stage, client, each, actor)


def _play(stage: Stage, client: AgentClient, each: Play, actor: Actor) -> Result:
    began = time.monotonic()
    started = client.verify(USER, reference=each.name)
    _follow(client, started, each, actor)
    record = client.get(started.id, wait_s=min(600.0, 60.0 * stage.slow))
    outcome = record.challenge.outcome if record.challenge else None
    ok = (record.state, outcome, record.reasons) == (
        each.expected,
        each.outcome,
        [each.reason] if each.reason else [],
    ) and record.approved is (each.expected is State.VERIFIED)
    return Result(each.name, each.expected, record, time.monotonic() - began, ok)


def _follow(client: AgentClient, started: VerificationBody, each: Play, actor: Actor) -> None:
    """A till and its customer, to the end of the verification."""
    for event in client.events(started.id, after=FROM_THE_START):
        if event.kind == "challenge.prompt" and each.answers:
            _acknowledge(client, started.id, event.data["step"])
            actor.read(event.data["prompt"])
        elif event.kind == "challenge.done":
            actor.read("look")


def _acknowledge(client: AgentClient, verification_id: str, step: int) -> None:
    try:
        client.acknowledge(verification_id, step)
    except ApiError as exc:  # another step is asked by now, or none: its own event says so
        if exc.code not in {"challenge_wrong_step", "challenge_not_running"}:
            raise


def close_up(portrait: Image, landmarks: Landmarks) -> tuple[Image, Landmarks]:
    """A square about the face."""
    height, width = portrait.shape[:2]
    x, y = landmarks.mean(axis=0)
    left = int(min(max(x - SIDE_PX / 2, 0), max(width - SIDE_PX, 0)))
    top = int(min(max(y - SIDE_PX / 2, 0), max(height - SIDE_PX, 0)))
    moved: Landmarks = landmarks - np.array([left, top], np.float32)
    return portrait[top : top + SIDE_PX, left : left + SIDE_PX], moved


def _landmarks_of(portrait: Image, stage: Stage) -> Landmarks:
    """Where the face of the portrait is, as the terminal's own detector says."""
    face = open_pipeline(load_pack(stage.pack), stage.models_dir).measure(Frame(portrait, 0.0, 0)).face
    if face is None:
        raise EnvironmentFault("cannot run the demo: there is no face in its picture")
    return face.landmarks
