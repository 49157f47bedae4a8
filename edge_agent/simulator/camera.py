"""A camera that plays one verification: what the customer does until the picture is good, or never is."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.camera import Camera
from edge_agent.camera.guard import CameraFrozen, FrameLoop
from edge_agent.errors import CameraError
from edge_agent.simulator import card
from edge_agent.simulator.customer import Customer
from edge_agent.simulator.eyes import BROKEN, GOOD_VIEW, Scene, SceneFrame
from edge_agent.simulator.outcomes import OF_MODELS, Kind, Outcome
from edge_agent.types import Frame, GateCode

FPS, MAX_FPS = 15.0, 60.0
STEP_S, STEP_FRAMES = 1.0, 4
"""Each hint of the opening lasts so long, and for so many frames: on a busy machine, too, it is noticed."""
SLOW_FPS = 4.0
"""Too few to judge a challenge by."""
OPENING = (GateCode.NO_FACE, GateCode.TOO_FAR, GateCode.HOLD_STILL)
NONCE_BYTES = 4
FAULTS: dict[str, type[CameraError]] = {fault.code: fault for fault in (CameraError, CameraFrozen, FrameLoop)}


@dataclass(frozen=True, slots=True)
class Script:
    """The opening, then one thing for ever."""

    opening: tuple[GateCode, ...]
    then: Scene | type[CameraError]
    """How the camera fails."""


def script_of(outcome: Outcome) -> Script:
    if outcome.kind is Kind.REJECTED:  # nothing else, so that the reason is the chosen one
        return Script((), Scene(GateCode(outcome.detail)))
    if outcome.kind is Kind.FAILED and outcome.detail in FAULTS:
        return Script(OPENING, FAULTS[outcome.detail])
    if outcome.kind is Kind.FAILED and outcome.detail in OF_MODELS:
        return Script(OPENING, BROKEN)
    return Script(OPENING, GOOD_VIEW)


class ScriptedCamera(Camera):
    """Plays one script after the other. ``speed``: how much faster than life."""

    def __init__(
        self,
        outcome: Outcome,
        speed: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._step_s = STEP_S / speed
        self._fps = min(MAX_FPS, FPS * max(1.0, speed))
        self._clock, self._sleep = clock, sleep
        self._indices = itertools.count()
        self.play(outcome)

    def play(self, outcome: Outcome) -> None:
        """From the beginning, for the next verification; the camera is closed."""
        self._script = script_of(outcome)
        slow = outcome == Outcome(Kind.CHALLENGE, "unavailable")
        self._good_fps = min(self._fps, SLOW_FPS) if slow else self._fps
        self._customer = Customer(willing=outcome == Outcome(Kind.CHALLENGE, "passed"))
        self._image = card.paint(f"{outcome}#{secrets.token_hex(NONCE_BYTES)}")
        self._step, self._shown = 0, 0
        self._step_began_s = self._clock()

    @property
    def description(self) -> str:
        return "the simulator's camera"

    @property
    def size(self) -> tuple[int, int]:
        return card.SIZE

    def ask(self, prompt: str) -> None:
        """The customer can read this prompt now."""
        self._customer.ask(prompt, self._clock())

    def open(self) -> None:
        """Raises CameraError once the script says that the camera fails."""
        if isinstance(fault := self._scene(), type):
            raise fault("cannot open the camera: this is simulated")

    def read(self, timeout_s: float) -> Frame:
        scene = self._scene()
        fps = self._good_fps if scene is GOOD_VIEW else self._fps
        self._sleep(min(timeout_s, 1.0 / fps))
        if isinstance(scene, type):
            raise scene("cannot read from the camera: this is simulated")
        self._shown += 1
        return SceneFrame(self._image, self._clock(), next(self._indices), scene, self._customer.next(self._clock()))

    def close(self) -> None:
        """There is nothing to free."""

    def _scene(self) -> Scene | type[CameraError]:
        opening = self._script.opening
        if self._step >= len(opening):
            return self._script.then
        if self._shown >= STEP_FRAMES and self._clock() - self._step_began_s >= self._step_s:
            self._step, self._shown, self._step_began_s = self._step + 1, 0, self._clock()
            return self._scene()
        return Scene(opening[self._step])
