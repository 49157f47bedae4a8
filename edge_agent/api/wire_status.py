"""What goes over the terminal API about the agent's own condition (v1)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class HealthBody(BaseModel):
    """The process lives and its loop turns."""

    status: Literal["ok"] = "ok"


class ReadyBody(BaseModel):
    """Whether a verification could start."""

    ready: bool
    missing: dict[str, str]
    """Problem code by part."""


class FaultBody(BaseModel):
    """One part that is missing."""

    part: str
    code: str
    detail: str
    hint: str | None


class LastReloadBody(BaseModel):
    """The last time that the configuration file was read again."""

    at: datetime
    ok: bool
    problems: list[str]


class OpenTrialBody(BaseModel):
    """The last configuration on trial, in short."""

    phase: str
    reason: str | None
    left_s: float | None


class ConfigurationBody(BaseModel):
    """Where the configuration is from, and what became of changes to it; all but ``restart_needed`` for an admin only."""

    file: str | None = None
    last_reload: LastReloadBody | None = None
    reloads: dict[str, int] | None = None
    """How many ``succeeded`` and ``failed``."""
    restart_needed: list[str]
    trial: OpenTrialBody | None = None


class NetworkBody(BaseModel):
    """How forwarding to CypherFace goes."""

    state: Literal["unknown", "online", "offline", "stopped"]
    stopped_code: str | None
    last_error: str | None
    """For an admin only: it may name a user."""
    last_success_at: datetime | None


class QueueStatusBody(BaseModel):
    """How much waits, and how many verifications are in which state."""

    depth: int
    parked: int
    bytes: int
    oldest_age_s: float | None
    states: dict[str, int] | None
    """For an admin only."""


class SalvagedBody(BaseModel):
    """What a salvage since the start saved and lost."""

    kept: int
    lost: list[str]


class StorageBody(BaseModel):
    """Whether the outbox has room; for an admin also what happened to it since the start."""

    takes_captures: bool
    problem: str | None
    free_bytes: int | None = None
    reserve_bytes: int | None = None
    rotation: str | None = None
    audit_head: str | None = None
    """SEQ:MAC."""
    reopened: int | None = None
    salvaged: SalvagedBody | None = None


class UnavailableBody(BaseModel):
    """The outbox cannot say: the code of what is wrong."""

    error: str


class CameraBody(BaseModel):
    """The terminal's camera and its recovery."""

    state: Literal["unknown", "ok", "lost", "none"]
    step: Literal["none", "reopen", "respawn", "exit"]
    """Taken last, or due next while it is lost."""
    failures: int
    """Since it was last well."""
    code: str | None
    detail: str
    hint: str | None
    steps_taken: dict[str, int]
    watched: bool = False
    """It is open although nobody is filmed (camera.between_sessions)."""
    still_s: float | None = None
    """While it is watched: for how long nothing has moved before it, 0 = something moves."""


class AccessBody(BaseModel):
    """Who was refused since the start, by problem code, and for which roles there are tokens."""

    refused: dict[str, int]
    tokens: list[str]


class MatchCacheBody(BaseModel):
    """What is remembered of CypherFace's verdicts: for people, nothing is decided by it."""

    verified: int
    not_verified: int
    newest_at: datetime | None
    ttl_s: float
    per_user: int
    """The most that are shown."""


class ProvisionalBody(BaseModel):
    """How the policy ``provisional`` stands."""

    threshold: float | None
    """Cosine; null where there is none that counts: nothing is answered then."""
    evidence: str | None
    """What the threshold rests on."""
    measured: bool
    """False: the threshold is nobody's measurement (``not_evidence``)."""
    templates: int
    users: int
    """With a template."""
    blocked: int
    """Users who get no answer until CypherFace confirms them in time."""
    unconfirmed: int
    """Answers that CypherFace has not confirmed yet."""
    answers: int
    """Since it was last heard."""
    offline_s: float | None
    """For how long it has not been heard; null while it is."""
    counts: dict[str, int]
    """Since the start: answered, confirmed, contradicted, templates, and withheld by reason."""


class OfflineBody(BaseModel):
    """What is done and remembered without CypherFace."""

    policy: Literal["deny", "queue", "provisional"]
    matches: MatchCacheBody
    provisional: ProvisionalBody | None
    """Null where the policy is another one."""


class StatusBody(BaseModel):
    """Everything about the agent's condition."""

    version: str
    terminal_id: str
    simulator: bool
    """Nobody is verified here: see docs/simulator.md."""
    started_at: datetime
    uptime_s: float
    started: bool
    """Everything that could be brought up was."""
    ready: bool
    searching: bool
    aiming: bool = Field(default=False, description="an admin sees the live picture; a verification ends it")
    faults: list[FaultBody]
    configuration: ConfigurationBody
    pack: str
    frames: dict[str, int]
    """How many were ``accepted`` and ``refused``."""
    first_frame_after_s: float | None
    camera: CameraBody
    network: NetworkBody
    queue: QueueStatusBody | UnavailableBody
    storage: StorageBody | UnavailableBody
    offline: OfflineBody | UnavailableBody | None = None
    """For an admin only."""
    access: AccessBody | None
    """For an admin only."""
