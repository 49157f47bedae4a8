"""The operator's operations on an open store, as bodies: the one implementation behind the routes and the files.

Each function takes the store first, so it runs in the store's thread of a daemon or directly.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from edge_agent.api.wire import ErrorBody, UserDestroyedBody
from edge_agent.api.wire_outbox import (
    AttemptErrorBody,
    AuditCheck,
    Authenticity,
    GapBody,
    HistoryBody,
    OutboxCheck,
    OutboxEntry,
    OutboxItem,
    OutboxList,
    PrivacyBody,
    ProblemBody,
    PurgeBody,
    PurposeBody,
    QueueBody,
    RetryBody,
    RotationBody,
)
from edge_agent.errors import AgentError
from edge_agent.outbox.core import QUEUED
from edge_agent.outbox.records import (
    AuditReport,
    Destruction,
    Environment,
    QueueStats,
    RotationReport,
    StoreReport,
    VerificationRecord,
)

if TYPE_CHECKING:
    from edge_agent.outbox import Store
    from edge_agent.outbox.custody import Description, Purged, WaitingList
    from edge_agent.outbox.holdings import Holding
    from edge_agent.outbox.structure import StructureReport

AUTHENTICATED = Authenticity()


def unauthenticated(why: AgentError) -> Authenticity:
    """Says that nothing was authenticated, and why."""
    return Authenticity(authenticated=False, why_not=ErrorBody(code=why.code, detail=why.message))


# -- operations -------------------------------------------------------------------------------------------------------


def waiting(store: Store, *, limit: int, before: int | None, parked: bool | None) -> OutboxList:
    """One page of the queue."""
    page = store.waiting_list(limit=limit, before=before, parked=parked)
    return list_body(page, store.queue(), AUTHENTICATED)


def entry(store: Store, verification_id: str) -> OutboxEntry:
    """One verification with its history. Raises InputError ``not_found``, StorageError ``tampered``."""
    return entry_body(store.describe(verification_id), AUTHENTICATED)


def retry_all(store: Store, environment: Environment, *, actor: str, parked: bool, forwarding: bool) -> RetryBody:
    """``forwarding``: whether the caller tells a running forwarder afterwards."""
    done = store.retry_all(environment, actor=actor, parked=parked)
    return RetryBody(hurried=done.hurried, reopened=done.reopened, forwarding=forwarding)


def retry(store: Store, verification_id: str, *, actor: str, forwarding: bool) -> RetryBody:
    """Raises InputError ``not_found``, StateConflict."""
    done = store.retry(verification_id, actor=actor)
    return RetryBody(hurried=done.hurried, reopened=done.reopened, forwarding=forwarding)


def purge(store: Store, verification_id: str, *, actor: str) -> PurgeBody:
    """Raises InputError ``not_found``, StateConflict."""
    return _purge_body(store.purge(verification_id, actor=actor))


def purge_all(store: Store, *, actor: str, parked_only: bool) -> PurgeBody:
    """Everything with a picture, or what is parked."""
    return _purge_body(store.purge_all(actor=actor, parked_only=parked_only))


def export(store: Store, verification_id: str, *, actor: str) -> bytes:
    """The picture in clear, audited before it is returned."""
    return store.export(verification_id, actor=actor).picture


def not_moved() -> AgentError:
    """There is nothing to adopt."""
    return AgentError("cannot adopt the state directory: it belongs to this machine already", code="not_moved")


def rotate(store: Store, *, actor: str) -> RotationBody:
    """Everything under the new device key. Raises ConfigurationError ``rotation_not_due``."""
    return rotation_body(store.rotate(actor=actor))


# -- bodies -----------------------------------------------------------------------------------------------------------


def list_body(page: WaitingList, queue: QueueStats, authenticity: Authenticity) -> OutboxList:
    """A page of the queue."""
    return OutboxList(
        authenticated=authenticity.authenticated,
        why_not=authenticity.why_not,
        queue=QueueBody(
            waiting=queue.depth,
            parked=queue.parked,
            leased=queue.leased,
            pictures=queue.payload_items,
            bytes=queue.payload_bytes,
            oldest_age_s=_seconds(queue.oldest_age_s),
        ),
        items=[_item(record, page.running_s) for record in page.items],
        next_before=page.next_before,
        unreadable=list(page.unreadable),
    )


def entry_body(found: Description, authenticity: Authenticity) -> OutboxEntry:
    """One verification with its history."""
    return OutboxEntry(
        authenticated=authenticity.authenticated,
        why_not=authenticity.why_not,
        item=_item(found.record, found.running_s),
        history=[
            HistoryBody(
                seq=event.seq,
                at=event.at,
                event=event.event,
                from_state=event.from_state,
                to_state=event.to_state,
                detail=event.detail,
            )
            for event in found.history
        ],
    )


def check_body(structure: StructureReport, found: StoreReport | None, authenticity: Authenticity) -> OutboxCheck:
    """``found`` is what authenticating said; None when nothing could be authenticated."""
    problems = [*structure.problems, *(found.problems.items() if found else ())]
    return OutboxCheck(
        authenticated=authenticity.authenticated,
        why_not=authenticity.why_not,
        ok=not problems,
        verifications=sum(structure.states.values()),
        pictures=structure.pictures,
        states=dict(structure.states),
        audit_records=structure.audit_records,
        schema_version=structure.schema_version,
        problems=[ProblemBody(where=where, problem=what) for where, what in problems],
    )


def audit_body(report: AuditReport, authenticity: Authenticity) -> AuditCheck:
    """The chain's state."""
    return AuditCheck(
        authenticated=authenticity.authenticated,
        why_not=authenticity.why_not,
        ok=report.ok,
        records=report.records,
        head=str(report.head) if report.head else None,
        first_bad=report.first_bad,
        problem=report.problem,
        gaps=[GapBody(first=gap.first, last=gap.last, at=gap.at) for gap in report.gaps],
    )


def privacy_body(at: datetime, terminal_id: str, found: Iterable[Holding]) -> PrivacyBody:
    """What is held of persons."""
    return PrivacyBody(at=at, terminal_id=terminal_id, purposes=[_purpose_body(holding) for holding in found])


def _purpose_body(found: Holding) -> PurposeBody:
    return PurposeBody(
        purpose=found.purpose.name,
        what=found.purpose.what,
        why=found.purpose.why,
        setting=found.purpose.setting,
        kept_s=found.kept_s,
        items=found.items,
        bytes=found.bytes,
        users=found.users,
        with_consent=found.with_consent,
        since=found.since,
        until=found.until,
    )


def destroyed_body(done: Destruction, *, filming_ended: bool) -> UserDestroyedBody:
    """What the destruction of a user destroyed."""
    return UserDestroyedBody(
        verifications=done.records,
        captures=done.captures,
        filming_ended=filming_ended,
        audit_seq=done.audit_seq,
        traces_left=done.traces_left,
    )


def _item(record: VerificationRecord, running_s: float) -> OutboxItem:
    waits = record.state in QUEUED and record.lease is None
    return OutboxItem(
        id=record.id,
        seq=record.seq,
        state=record.state,
        parked=record.parked,
        leased=record.lease is not None,
        attempts=record.attempts,
        transients=record.transients,
        conflicts=record.conflicts,
        next_attempt_in_s=_seconds(max(0.0, record.next_attempt_running_s - running_s)) if waits else None,
        error=_attempt_error(record),
        age_s=round(record.age_s, 3),
        created_at=record.created_at,
        captured_at=record.captured_at,
        updated_at=record.updated_at,
        clock_synchronised=record.clock_synchronised,
        bytes=record.image_bytes,
        sha256=record.image_sha256,
        user=record.user_hmac,
        caller=record.caller,
        base_url=record.environment.base_url,
        merchant_id=record.environment.merchant_id,
    )


def _attempt_error(record: VerificationRecord) -> AttemptErrorBody | None:
    if record.error_code is None:
        return None
    return AttemptErrorBody(code=record.error_code, detail=record.error_detail, status=record.error_status)


def rotation_body(report: RotationReport) -> RotationBody:
    """What a rotation did."""
    return RotationBody(
        generation=report.generation,
        users=report.users,
        rows=report.rows,
        left_alone=report.left_alone,
        traces_left=report.traces_left,
    )


def _purge_body(purged: Purged) -> PurgeBody:
    return PurgeBody(captures=purged.captures, bytes=purged.bytes, traces_left=purged.traces_left)


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
