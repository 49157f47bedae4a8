"""What events carry: the ``data`` of each kind of Server-Sent Event (v1)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from edge_agent.types import State


class EventBody(BaseModel):
    """What every event has."""

    at: datetime
    verification_id: str | None


class StateEvent(EventBody):
    """A verification is in another state, or (first in its own stream) in this one. Act on ``approved`` alone."""

    state: State
    final: bool
    approved: bool = Field(description="as it may be read now, also when the event is an old one")
    late: bool
    contradicted: bool
    reasons: list[str]
    error: str | None


class HintEvent(EventBody):
    """The customer is told something else. The code is stable, the text is English."""

    code: str | None = Field(description="a code of the gate; null = all is well, hold on")
    text: str
    since: datetime = Field(description="when it became the one shown")
    enrolment: bool = Field(description="told to somebody who is being enrolled")


class ChallengeBeginEvent(EventBody):
    """An attempt begins: prompts follow, the first at once."""

    method: Literal["head_turn", "blink"]
    attempt: int = Field(description="from 1")
    attempts: int
    steps: int = Field(description="turns, or blinks, to come")


class ChallengePromptEvent(EventBody):
    """Show this to the customer, then say so: ``POST /v1/verifications/{id}/challenge``. What is done before counts nothing."""

    step: int = Field(description="what to acknowledge; counts on over all attempts of the verification")
    prompt: Literal["look", "turn_left", "turn_right", "blink"] = Field(
        description="the customer's own left and right; the code is stable"
    )
    text: str = Field(description="English")
    attempt: int
    attempts: int
    acknowledge_within_s: float = Field(description="from `at` on; later the challenge is unavailable")
    answer_within_s: float = Field(description="from the acknowledgement on")


class ChallengeProgressEvent(EventBody):
    """How far the customer has come with a step, a few times a second at most."""

    step: int
    progress: float = Field(description="0-1")


class ChallengeDoneEvent(EventBody):
    """Nothing more is asked; the picture is taken as soon as the customer looks at the screen."""

    outcome: Literal["head_turn", "blink", "unavailable"] = Field(description="unavailable: it was let pass without")
    text: str = Field(description="English")


class ChallengeCancelEvent(EventBody):
    """The attempt is over without being passed, or does not count any more. Another begins at once, or ``code`` says why not."""

    attempt: int
    reason: Literal[
        "step_timeout",
        "total_timeout",
        "face_lost",
        "jump",
        "track_changed",
        "not_acknowledged",
        "too_slow",
        "cannot_turn",
    ]
    code: str | None = Field(description="the verification is rejected with this reason; null = go on")


class CameraEvent(EventBody):
    """The camera went away or came back: for a verification or an enrolment, or (neither) for the terminal."""

    state: Literal["unknown", "ok", "lost", "none"]
    step: Literal["none", "reopen", "respawn", "exit"] = Field(description="of its recovery: taken last, or due next")
    failures: int = Field(description="since it was last well; counted for the terminal only")
    code: str | None
    detail: str
    hint: str | None = Field(description="what to try")
    enrolment: bool = Field(description="seen by an enrolment")


class EnrolmentEvent(EventBody):
    """An enrolment from the camera goes on, or is over."""

    state: Literal["searching", "uploading", "ended"]
    code: str | None = Field(description="of ended: null = uploaded, else the problem's code, or cancelled")


class AimEvent(EventBody):
    """An admin who mounts the camera sees the live picture, or no longer."""

    state: Literal["on", "off"]
    reason: Literal["verification", "enrolment", "check", "time", "left", "not_read", "stopping", "failed"] | None = (
        Field(description="of off: who needed the camera, or why else it ended")
    )


class MotionEvent(EventBody):
    """Between sessions something begins to move before a camera that is watched, or nothing has for some seconds."""

    state: Literal["moving", "still"]


class NetworkEvent(EventBody):
    """CypherFace can be used, or not, or forwarding stopped."""

    state: Literal["unknown", "online", "offline", "stopped"]
    code: str | None = Field(description="why forwarding stopped")


class StorageEvent(EventBody):
    """The outbox is open, or missing for a reason."""

    state: Literal["open", "missing"]
    code: str | None


class ConfigurationEvent(EventBody):
    """The configuration file was read again, or a candidate is on trial."""

    state: Literal["reloaded", "refused", "trial", "healthy", "kept", "rolled_back"]
    restart_needed: list[str] = Field(description="keys that wait for a restart")
    problems: list[str] = Field(description="why it was refused")
    trial: str | None = Field(description="the trial's id")
    keys: list[str] = Field(description="what the candidate changes")
    reason: str | None = Field(description="why the trial ended as it did")


class DroppedEvent(EventBody):
    """Events are missing here."""

    count: int | None = Field(description="how many; null = not known")
    reason: Literal["slow_reader", "forgotten", "unknown_id"] = Field(
        description="the reader was too slow; the id is older than what is remembered; the id is of another life"
    )


EVENTS: dict[str, type[EventBody]] = {
    "state": StateEvent,
    "hint": HintEvent,
    "challenge.begin": ChallengeBeginEvent,
    "challenge.prompt": ChallengePromptEvent,
    "challenge.progress": ChallengeProgressEvent,
    "challenge.done": ChallengeDoneEvent,
    "challenge.cancel": ChallengeCancelEvent,
    "camera": CameraEvent,
    "enrolment": EnrolmentEvent,
    "aim": AimEvent,
    "motion": MotionEvent,
    "network": NetworkEvent,
    "storage": StorageEvent,
    "configuration": ConfigurationEvent,
    "dropped": DroppedEvent,
}
"""By kind: the ``event:`` field."""
