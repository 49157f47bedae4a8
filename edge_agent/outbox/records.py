"""The frozen records that go into and come out of the outbox.

Times of a record: ``created_at`` & co. are wall clock, for people; ``BootInstant`` for deadlines; ``*_running_s``
are seconds of the running clock (see ages.py), on which leases, back-off and ages are counted across reboots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from edge_agent.errors import AgentError, InputError
from edge_agent.outbox.provisional_records import ProvisionalLimits
from edge_agent.types import FINAL_STATES, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge_agent.config import Config
    from edge_agent.outbox.clock import BootInstant

_DAY_S = 86_400.0
_HEAD = re.compile(r"([1-9][0-9]{0,17}):([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps and rules of the outbox; ``Store.limits`` may be replaced on reload."""

    max_items: int = 5000
    max_bytes: int = 1 << 30
    """Bytes of stored pictures."""
    max_age_s: float = 259_200.0
    """Purpose capture: how long a picture waits for its verdict."""
    template_age_s: float = 30 * _DAY_S
    verdict_age_s: float = 30 * _DAY_S
    """From its end on: what an ended verification says of a person."""
    audit_age_s: float = 365 * _DAY_S
    reserve_bytes: int = 32 << 20
    """Bytes set aside on the disk (see space.py), so that the queue can always drain; 4 MB are the least that does."""
    upload_quarantine_s: float = 60.0
    """After a PUT of unknown outcome no other capture of that user is forwarded for this long."""
    max_failures: int = 5
    """Failures within ``failure_window_s`` that lock the terminal or the user out; 0 = never."""
    failure_window_s: float = 180.0
    match_ttl_s: float = 30 * _DAY_S
    """Verdicts of older verifications are not shown any more."""
    max_matches: int = 20
    """Verdicts shown per user."""
    provisional: ProvisionalLimits | None = None
    """None: no face template is kept and nothing is answered without CypherFace."""

    @classmethod
    def of(cls, config: Config) -> Limits:
        """As configured."""
        keep = config.retention
        waits_s = config.outbox.max_age_s
        return cls(
            max_items=config.outbox.max_items,
            max_bytes=config.outbox.max_bytes,
            max_age_s=waits_s if keep.capture_days is None else min(waits_s, keep.capture_days * _DAY_S),
            template_age_s=keep.template_days * _DAY_S,
            verdict_age_s=keep.verdict_days * _DAY_S,
            audit_age_s=keep.audit_days * _DAY_S,
            reserve_bytes=config.outbox.reserve_bytes,
            upload_quarantine_s=config.cypherface.upload_quarantine_s,
            max_failures=config.session.max_failures,
            match_ttl_s=config.offline.match_ttl_s,
            max_matches=config.offline.max_matches,
            provisional=ProvisionalLimits.of(config.offline),
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """Which CypherFace a capture is made for: it is never sent to another one."""

    base_url: str
    merchant_id: str


@dataclass(frozen=True, slots=True)
class Consent:
    """The consent the POS refers to."""

    reference: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewVerification:
    """What ``create`` stores. ``body`` is the request as received: it tells a replay from a mismatch."""

    user_id: str = field(repr=False)
    caller: str
    """Who asks: the scope of the idempotency key, and the owner of the record."""
    idempotency_key: str = field(repr=False)
    body: bytes = field(repr=False)
    environment: Environment
    search_timeout_s: float
    verdict_timeout_s: float
    reference: str | None = field(default=None, repr=False)
    amount: Decimal | None = field(default=None, repr=False)
    currency: str | None = None
    consent: Consent | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to forward one capture; results are committed only by its holder."""

    token: str
    """Random per lease."""
    instance_id: str
    """The daemon instance; leases of another instance are void."""
    until_running_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """CypherFace's answer for the picture uploaded as ``image_name``."""

    positive: bool
    http_status: int
    image_name: str
    image_sha256: str
    """Hex, of the bytes uploaded: must be those of the stored capture."""
    matched_field: str | None = None
    """Which field of the answer decided; None for an accepted bare 200."""
    similarity: float | None = None
    """0-100 as reported, None when not reported."""


@dataclass(frozen=True, slots=True)
class VerificationRecord:
    """One verification as the outbox knows it."""

    id: str
    seq: int
    """Order of creation: the only order there is."""
    state: State
    user_id: str | None = field(repr=False)
    """None once erased. Never log it: ``user_hmac`` is for that."""
    user_hmac: str
    """64 hex digits, keyed: the same user gives the same value on this terminal only."""
    caller: str
    environment: Environment
    created_at: datetime
    clock_synchronised: bool
    """Whether ``created_at`` could be trusted."""
    created: BootInstant
    created_running_s: float
    age_s: float
    """A lower bound, at the time of loading."""
    search_timeout_s: float
    verdict_timeout_s: float
    updated_at: datetime
    audit_seq: int
    """The last audit record about this verification."""
    reference: str | None = field(default=None, repr=False)
    amount: Decimal | None = field(default=None, repr=False)
    currency: str | None = None
    consent: Consent | None = field(default=None, repr=False)
    challenge: str | None = None
    """What the capture rests on beside the models (types.ChallengeOutcome); None where nothing was asked for."""
    captured_at: datetime | None = None
    deadline: BootInstant | None = None
    """``verdict_timeout_s`` after the capture: a later verdict is late."""
    image_sha256: str | None = None
    """Hex, of the stored picture."""
    image_bytes: int = 0
    """Size of the stored picture; 0 when none is stored."""
    reasons: tuple[str, ...] = ()
    """Gate codes of a rejection."""
    error_code: str | None = None
    error_detail: str | None = field(default=None, repr=False)
    """For people; may hold the server's message."""
    error_status: int | None = None
    """The HTTP status of the last error."""
    parked: bool = False
    """``failed``, but the picture is kept until retention ends: ``reopen`` queues it again."""
    verdict: Verdict | None = None
    verdict_at: datetime | None = None
    verdict_instant: BootInstant | None = None
    late: bool = False
    contradicted: bool = False
    """A provisional yes that CypherFace did not confirm."""
    erased: bool = False
    """Everything personal of this record is destroyed."""
    attempts: int = 0
    """Leases taken so far."""
    transients: int = 0
    """Network or server failures in a row."""
    conflicts: int = 0
    """Answers that were out of step or meant nothing, in all."""
    next_attempt_running_s: float = 0.0
    lease: Lease | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Leased:
    """A capture to forward now."""

    record: VerificationRecord
    lease: Lease


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What waits. ``payload_*`` include parked captures."""

    depth: int
    """Captures to be forwarded."""
    parked: int
    leased: int
    payload_items: int
    payload_bytes: int
    oldest_age_s: float | None


@dataclass(frozen=True, slots=True)
class Lockout:
    """No new verification for ``retry_after_s``."""

    scope: str
    """``terminal`` or ``user``."""
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """What ``recover`` did."""

    interrupted: tuple[str, ...] = ()
    """searching -> failed/interrupted."""
    resumed: tuple[str, ...] = ()
    """captured, matching -> pending."""
    leases_voided: int = 0
    erasures_finished: int = 0
    rotation_finished: bool = False
    """A rotation of the device key that was interrupted is done now."""


@dataclass(frozen=True, slots=True)
class Destruction:
    """The record of a destroyed user."""

    user_hmac: str
    captures: int
    """Stored pictures destroyed."""
    records: int
    """Verifications stripped of everything personal."""
    audit_seq: int
    traces_left: bool
    """True when a reader kept old pages in the write-ahead log; ``tick`` tries again."""


@dataclass(frozen=True, slots=True)
class RotationReport:
    """What a rotation of the device key did, since this process began or resumed it."""

    generation: int
    """Of the key in use."""
    users: int
    """User keys wrapped anew."""
    rows: int
    """Rows sealed anew."""
    left_alone: int
    """What did not authenticate before either."""
    traces_left: bool
    """True when a reader kept old pages in the write-ahead log; ``tick`` tries again."""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the audit chain; kept elsewhere, it makes truncation detectable."""

    seq: int
    mac: str
    """64 hex digits."""

    def __str__(self) -> str:
        return f"{self.seq}:{self.mac}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """``SEQ:MAC`` as printed. Raises InputError."""
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"cannot use {text!r} as the head of the audit log",
                code="invalid_request",
                hint="SEQ:MAC as audit verify prints it: a number, a colon and 64 hex digits",
            )
        return cls(int(found[1]), found[2].lower())


@dataclass(frozen=True, slots=True)
class AuditGap:
    """Records that a salvage could not save; a signed anchor vouches for the two ends."""

    first: int
    last: int
    at: str
    """When the salvage was, ISO 8601."""

    @property
    def missing(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Result of ``verify_audit``."""

    ok: bool
    records: int
    head: AuditHead | None
    first_bad: int | None = None
    """Sequence number of the first record that is changed, missing or out of order."""
    problem: str | None = None
    gaps: tuple[AuditGap, ...] = ()
    """Where records were lost to damage; they do not make the report bad."""


@dataclass(frozen=True, slots=True)
class TableCount:
    """Rows of one table through a salvage."""

    kept: int
    lost: int
    """Known to have been there: what was lost together with every trace of it is not counted."""


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What ``salvage`` saved of a damaged outbox."""

    aside: Path
    """Where the damaged files are now."""
    tables: Mapping[str, TableCount]
    captures_kept: int
    """Pictures saved byte for byte."""
    captures_lost: tuple[str, ...]
    """Ids of verifications whose picture, or whose row with a picture that may have waited, is gone."""
    states_lost: tuple[str, ...] = ()
    """Ids whose row is older than the audit log knows: they are ``failed``, their true end is in the log."""
    audit_gaps: tuple[AuditGap, ...] = ()
    """New gaps in the audit chain, each with an anchor."""
    keys_from: str = "database"
    """``database`` or ``side file``."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """Result of ``verify``: every row and every picture was authenticated."""

    verifications: int
    payloads: int
    problems: Mapping[str, str] = field(default_factory=dict)
    """Verification id (or table:key) -> what is wrong."""
    next_after: int | None = None
    """Where the next part begins, while the check is not at its end."""

    @property
    def ok(self) -> bool:
        return not self.problems


class StateConflict(AgentError):
    """The verification is not in a state that allows this; ``current`` is what it is."""

    code = "state_conflict"

    def __init__(self, message: str, current: VerificationRecord, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.current = current


class LeaseLost(StateConflict):
    """The lease expired, was voided, or the capture is gone: the result must be thrown away."""

    code = "lease_lost"


def approved(record: VerificationRecord, now: BootInstant, result_valid_s: float) -> bool:
    """The one thing a POS may act on.

    True only if ``verified`` was committed before the session's deadline and is younger than ``result_valid_s``,
    nothing contradicts or erased it, and all three instants are of this very boot (otherwise nobody knows how
    much time went by).
    """
    if record.state is not State.VERIFIED or record.late or record.contradicted or record.erased:
        return False
    if record.deadline is None or record.verdict_instant is None:
        return False
    to_deadline = record.deadline.seconds_since(record.verdict_instant)
    since_verdict = now.seconds_since(record.verdict_instant)
    if to_deadline is None or since_verdict is None:
        return False
    return to_deadline >= 0 and 0 <= since_verdict < result_valid_s
