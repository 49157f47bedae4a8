"""What goes over the terminal API when an operator looks after the outbox (v1).

The command line prints the same bodies with ``--json``, whether the daemon answered or the files were read.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from edge_agent.api.wire import ErrorBody
from edge_agent.types import JsonObject, State

MAX_LISTED = 1000


class AttemptErrorBody(BaseModel):
    """Why the last attempt failed."""

    code: str
    detail: str | None
    """The server's message where there was one; null without the key."""
    status: int | None
    """The HTTP status, where there was one."""


class OutboxItem(BaseModel):
    """One verification with what forwarding knows of it. Never the raw user id."""

    id: str
    seq: int
    state: State
    parked: bool
    leased: bool
    attempts: int
    transients: int
    conflicts: int
    next_attempt_in_s: float | None
    """0 = as soon as its turn comes; null when it does not wait."""
    error: AttemptErrorBody | None
    age_s: float
    created_at: datetime
    captured_at: datetime | None
    updated_at: datetime
    clock_synchronised: bool
    bytes: int
    sha256: str | None
    """Of the stored picture."""
    user: str
    """Keyed: the same user gives the same value on this terminal only."""
    caller: str
    base_url: str
    merchant_id: str


class QueueBody(BaseModel):
    """How much waits."""

    waiting: int
    parked: int
    leased: int
    pictures: int
    bytes: int
    oldest_age_s: float | None


class Authenticity(BaseModel):
    """``authenticated`` false: read without the key, so nothing below was authenticated; ``why_not`` says why."""

    authenticated: bool = True
    why_not: ErrorBody | None = None


class OutboxList(Authenticity):
    """What holds a picture, the newest first."""

    queue: QueueBody
    items: list[OutboxItem]
    next_before: int | None
    unreadable: list[str]
    """Ids of this page that did not authenticate."""


class HistoryBody(BaseModel):
    """One audit record."""

    seq: int
    at: str
    event: str
    from_state: str | None
    to_state: str | None
    detail: JsonObject


class OutboxEntry(Authenticity):
    """One verification and all that happened to it."""

    item: OutboxItem
    history: list[HistoryBody]


class ProblemBody(BaseModel):
    """What is wrong where: a verification's id, or a part of the file."""

    where: str
    problem: str


class OutboxCheck(Authenticity):
    """Result of checking every row and picture."""

    ok: bool
    verifications: int
    pictures: int
    states: dict[str, int]
    audit_records: int
    schema_version: int
    problems: list[ProblemBody]


class GapBody(BaseModel):
    """Records that a salvage could not save, bridged by a signed anchor."""

    first: int
    last: int
    at: str


class AuditCheck(Authenticity):
    """Result of walking the audit chain."""

    ok: bool
    records: int
    head: str | None
    """SEQ:MAC of the last record."""
    first_bad: int | None
    problem: str | None
    gaps: list[GapBody] = []


class RetryBody(BaseModel):
    """What a retry changed."""

    hurried: int
    reopened: int
    forwarding: bool
    """True when a running agent was told to try at once."""


class PurgeBody(BaseModel):
    """What a purge destroyed."""

    captures: int
    bytes: int
    traces_left: bool


class RotationBody(BaseModel):
    """What a key rotation did."""

    generation: int
    """Of the key in use."""
    users: int
    """User keys wrapped anew."""
    rows: int
    """Rows sealed anew."""
    left_alone: int
    """What did not authenticate before either."""
    traces_left: bool


class PurposeBody(BaseModel):
    """What is held for one purpose; counts and dates, no content."""

    purpose: str
    """``capture``, ``verdict``, ``audit``, ``lockout``, ``idempotency``, ``aside``; others may be added."""
    what: str
    why: str
    setting: str | None
    """The key of the configuration that bounds it; null where none does."""
    kept_s: float | None
    """How long, in running time; null = while the terminal is in service."""
    items: int
    bytes: int | None
    users: int | None
    """How many users they are of."""
    with_consent: int | None
    """How many came with the reference of a consent."""
    since: datetime | None
    """Of the oldest item."""
    until: datetime | None
    """When the oldest item is destroyed at the latest, if the terminal runs on."""


class PrivacyBody(BaseModel):
    """What the terminal holds of persons."""

    at: datetime
    terminal_id: str
    purposes: list[PurposeBody]


class AdoptionBody(BaseModel):
    """A moved state directory was accepted."""

    adopted: bool = True
