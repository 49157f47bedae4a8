"""The records and enumerations that cross module boundaries.

Conventions used everywhere:

- pixels are uint8, BGR, (height, width, 3); coordinates are (x, y) in frame pixels, origin top left;
- landmarks are float32 (5, 2): the subject's right eye, left eye, nose tip, right and left mouth corner
  (the subject's right is on the left of an unmirrored picture);
- durations carry their unit in the name; monotonic times are seconds of ``time.monotonic()``;
- wall-clock times are aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

Image = NDArray[np.uint8]
"""uint8 (H, W, 3), BGR."""

Landmarks = NDArray[np.float32]
"""float32 (5, 2), (x, y) in frame pixels."""

Embedding = NDArray[np.float32]
"""float32 (D,), L2-normalised."""


class State(StrEnum):
    """Where a verification stands (wire values)."""

    SEARCHING = "searching"
    """No acceptable face yet; carries one hint."""
    CAPTURED = "captured"
    """The best shot is durable."""
    MATCHING = "matching"
    """CypherFace is being asked."""
    PENDING = "pending"
    """Stored; will be forwarded."""
    PROVISIONALLY_VERIFIED = "provisionally_verified"
    """Offline policy said yes; CypherFace has not."""
    VERIFIED = "verified"
    """CypherFace confirmed this very capture."""
    NOT_VERIFIED = "not_verified"
    """CypherFace refused this very capture."""
    REJECTED = "rejected"
    """No qualifying capture before the search time ran out; carries reasons."""
    CANCELLED = "cancelled"
    """Ended by the POS while searching."""
    EXPIRED = "expired"
    """Retention ran out before a verdict."""
    EVICTED = "evicted"
    """Removed by a cap before a verdict."""
    DELETED = "deleted"
    """Consent withdrawn or user destroyed."""
    FAILED = "failed"
    """Ended by an error; carries its code."""


WORKING_STATES = frozenset({State.SEARCHING, State.CAPTURED, State.MATCHING})
OPEN_STATES = frozenset({State.PENDING, State.PROVISIONALLY_VERIFIED})
FINAL_STATES = frozenset(State) - WORKING_STATES - OPEN_STATES


class GateCode(StrEnum):
    """Why a frame does not qualify (wire values; also the hint codes)."""

    NO_FACE = "no_face"
    MULTIPLE_FACES = "multiple_faces"
    TOO_FAR = "too_far"
    TOO_CLOSE = "too_close"
    NOT_CENTERED = "not_centered"
    FACE_CUT_OFF = "face_cut_off"
    TURN_LEFT = "turn_left"
    TURN_RIGHT = "turn_right"
    CHIN_UP = "chin_up"
    CHIN_DOWN = "chin_down"
    LOOK_STRAIGHT = "look_straight"
    TOO_BLURRY = "too_blurry"
    HOLD_STILL = "hold_still"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    UNEVEN_LIGHT = "uneven_light"
    LOW_CONTRAST = "low_contrast"
    EYES_HIDDEN = "eyes_hidden"
    MOUTH_HIDDEN = "mouth_hidden"
    SPOOF_SUSPECTED = "spoof_suspected"
    LIVENESS_INPUT_REJECTED = "liveness_input_rejected"


class ChallengeCode(StrEnum):
    """Why a verification ended without its challenge (wire values; reasons of a rejection, beside the gate's)."""

    FAILED = "challenge_failed"
    """Not done as asked, in the attempts and the time there are."""
    UNAVAILABLE = "challenge_unavailable"
    """Nobody acknowledged that it was shown, or frames come too seldom to judge it."""
    CANNOT_TURN = "cannot_turn"
    """Said for the customer, and nothing else could be asked: another means of payment."""


class ChallengeOutcome(StrEnum):
    """What a capture rests on beside the models (wire values)."""

    HEAD_TURN = "head_turn"
    BLINK = "blink"
    """The weaker one, for who cannot turn."""
    UNAVAILABLE = "unavailable"
    """None: it could not be asked, and the configuration lets that pass."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a camera."""

    image: Image
    captured_at_s: float
    """Monotonic time of capture (arrival, where the source gives no better)."""
    index: int
    """Counts up from 0 within one opened source."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle in frame pixels; may reach outside the frame."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One detected face."""

    box: Box
    landmarks: Landmarks
    score: float
    """Detector confidence, 0-1."""

    @property
    def inter_eye_px(self) -> float:
        """Distance between the eye centres in frame pixels."""
        right, left = self.landmarks[0], self.landmarks[1]
        return float(np.hypot(left[0] - right[0], left[1] - right[1]))


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Head orientation in degrees, 0/0/0 = looking into the camera.

    Positive yaw: the subject turned to its own left. Positive pitch: chin up.
    Positive roll: head tilted towards the subject's own right shoulder (clockwise in the picture is negative).
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class FaceQuality:
    """What was measured of the primary face; every number has its unit in the name.

    ``None`` means not assessed.
    """

    inter_eye_px: float
    face_height_ratio: float
    """Face height / frame height."""
    margin_left_ied: float
    margin_top_ied: float
    margin_right_ied: float
    margin_bottom_ied: float
    """Space between the face box and the frame's edge, in inter-eye distances; negative = outside."""
    pose: HeadPose | None
    sharpness: float | None
    """Sharpness of the aligned face (see vision/quality.py for the definition and the scale)."""
    luminance: float
    """Mean luminance of the face, 0-1."""
    dark_share: float
    """Share of face pixels with luma <= 25, 0-1."""
    bright_share: float
    """Share of face pixels with luma >= 247, 0-1."""
    light_uniformity: float
    """Similarity of left and right illumination, 0-1 (1 = even)."""
    dynamic_range_bits: float
    """Entropy of the face's luma histogram, 0-8 bits."""
    eyes_visible: float | None = None
    mouth_visible: float | None = None
    appearance: NDArray[np.float32] | None = None
    """float32 (N,), zero mean, unit length: a coarse picture of the aligned face; the dot product of two
    is their correlation. Used to notice that the person in a track was swapped. Never leaves the process."""


@dataclass(frozen=True, slots=True)
class LivenessScore:
    """One liveness model's opinion of one face."""

    model: str
    score: float | None
    """Probability that the face is live, 0-1; None when the input was refused."""
    threshold: float
    out_of_bounds: float
    """Share of the model's crop that lies outside the frame, 0-1."""
    bounded: bool = False
    """Whether too large a share makes the crop unusable; False for models that move their crop into the frame."""

    @property
    def passed(self) -> bool:
        return self.score is not None and self.score >= self.threshold


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Everything measured of one frame before liveness."""

    frame_width: int
    frame_height: int
    faces: tuple[Face, ...]
    """Largest first."""
    quality: FaceQuality | None
    """Of the largest face; None when there is none."""
    digest: bytes
    """Equal for equal pictures: notices a camera that repeats its last frame."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """What ``detect`` and ``quality`` took."""
    whole: bool = True
    """False: only the surroundings of the face were looked at; who stands elsewhere is not among ``faces``."""

    @property
    def face(self) -> Face | None:
        return self.faces[0] if self.faces else None


@dataclass(frozen=True, slots=True)
class Check:
    """One gate check: ``passed`` is None where it could not be assessed.

    ``code`` is what is reported when the check fails; two checks may share a code (``too_dark`` looks at the mean
    luminance and at the share of dark pixels), so ``measure`` names the quantity and ``unit`` its unit.
    """

    code: GateCode
    measure: str
    value: float | None
    limit: float | None
    passed: bool | None
    unit: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """The judgement of one frame."""

    frame: Frame
    measurement: Measurement
    checks: tuple[Check, ...]
    """Most severe first."""
    liveness: tuple[LivenessScore, ...]
    """Empty when liveness was not run (an earlier check failed)."""
    quality_score: float
    """0-1; ranks the frames that passed everything."""
    track_id: int = 0
    """Equal for frames of one unbroken track; 0 for a still."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[GateCode, ...]:
        """Codes of the failed checks, most severe first, each once."""
        return tuple(dict.fromkeys(c.code for c in self.checks if c.passed is False))

    @property
    def accepted(self) -> bool:
        """True only when nothing failed and every liveness model called this frame live."""
        return not self.reasons and bool(self.liveness) and all(s.passed for s in self.liveness)


JsonObject = dict[str, Any]
