"""What the terminal holds of persons, by purpose: how much, since when, until when. Never what it says.

Counted on a read-only connection: it works beside a daemon, without the key, on a directory of another machine, and it
is no proof (``outbox verify`` is). To report another purpose: a statement in holdings.sql, a line in ``PURPOSES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edge_agent.outbox.ages import Moment, age_s, from_iso
from edge_agent.outbox.aside import asides
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.database import load_statements
from edge_agent.outbox.records import Limits
from edge_agent.outbox.retention import FAILURE_KEPT_S
from edge_agent.outbox.rows import Row
from edge_agent.outbox.structure import Structure

_STATEMENTS = load_statements("holdings.sql")


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why something is held, and for how long."""

    name: str
    """Also of its statement in holdings.sql."""
    what: str
    why: str
    setting: str | None
    """The key of the configuration that bounds it."""
    kept_s: Callable[[Limits], float | None]
    """Running time; None = while the terminal is in service."""


PURPOSES = (
    Purpose(
        "capture",
        "a face picture that waits for its verdict or is parked, encrypted",
        "to have CypherFace decide whether the person is the user",
        "retention.capture_days",
        lambda limits: limits.max_age_s,
    ),
    Purpose(
        "template",
        "a face template of a capture that CypherFace confirmed, encrypted",
        "to recognise a known customer while the line is down (offline.policy: provisional)",
        "retention.template_days",
        lambda limits: limits.template_age_s,
    ),
    Purpose(
        "verdict",
        "an ended verification: user id, reference, amount, consent, verdict, similarity; encrypted where it is personal",
        "to answer for the payment it was made for, and to show a user's last verdicts",
        "retention.verdict_days",
        lambda limits: limits.verdict_age_s,
    ),
    Purpose(
        "audit",
        "the log of what happened; users as keyed hashes, no pictures, liveness scores",
        "to prove what was done with captures, their destruction included",
        "retention.audit_days",
        lambda limits: limits.audit_age_s,
    ),
    Purpose(
        "lockout",
        "a failed attempt, the user as a keyed hash",
        "to lock out repeated presentation attacks",
        None,
        lambda _: FAILURE_KEPT_S,
    ),
    Purpose(
        "provisional",
        "an answer that was given without CypherFace, or a user who gets none; the user as a keyed hash",
        "to keep the limits of such answers; a block stays until CypherFace confirms the user",
        None,
        lambda _: None,
    ),
    Purpose(
        "idempotency",
        "a keyed hash of a request's key; without a user, and later without its verification",
        "to never verify twice for one request",
        None,
        lambda _: None,
    ),
)
_SINCE_VERSION = {"template": 3, "provisional": 3}
"""Of the schema."""
ASIDE = Purpose(
    "aside",
    "damaged files that were set aside, as they were then, encrypted",
    "to recover captures from them",
    "retention.capture_days",
    lambda limits: limits.max_age_s,
)


@dataclass(frozen=True, slots=True)
class Holding:
    """What is held for one purpose."""

    purpose: Purpose
    kept_s: float | None
    items: int
    bytes: int | None
    users: int | None
    """How many; None where the items are not of single users."""
    with_consent: int | None
    """Items whose request referred to a consent; None where the question makes no sense."""
    since: datetime | None
    """Of the oldest item, wall clock; None without one, or where it is not noted."""
    until: datetime | None
    """When the oldest item has reached its age, if the terminal runs on without a break."""


class Holdings(Structure):
    """The outbox in ``state_dir``, counted. A context manager; raises as ``Structure``."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        super().__init__(state_dir, clock)
        self._state_dir = state_dir

    def holdings(self, limits: Limits) -> tuple[Holding, ...]:
        """Every purpose, those of which nothing is held too."""
        with self._snapshot():
            now, version = self._now(), self._pragma("user_version")
            found = [_holding(purpose, self._counted(purpose, version), limits, now) for purpose in PURPOSES]
        return (*found, self._asides(limits))

    def _counted(self, purpose: Purpose, version: int) -> Row | None:
        """None where the file is from before there was such a thing: it is migrated by the agent, with its key."""
        if version < _SINCE_VERSION.get(purpose.name, 0):
            return None
        row: Row = self._connection.execute(_STATEMENTS[purpose.name]).fetchone()
        return row

    def _asides(self, limits: Limits) -> Holding:
        """Since when is in the name of each; it is destroyed with the next erasure, or at its age."""
        kept = asides(self._state_dir)
        since = datetime.strptime(f"{kept[0].name.split('-')[1]}+0000", "%Y%m%dT%H%M%SZ%z") if kept else None
        kept_s = ASIDE.kept_s(limits)
        until = since + timedelta(seconds=kept_s) if since and kept_s is not None else None
        size = sum(aside.bytes for aside in kept)
        return Holding(ASIDE, kept_s, len(kept), size, None, None, since, until)


def _holding(purpose: Purpose, row: Row | None, limits: Limits, now: Moment) -> Holding:
    kept_s = purpose.kept_s(limits)
    if row is None or not row["items"]:
        return Holding(purpose, kept_s, 0, *_none_of(row), None, None)
    since = from_iso(row["since"]) if row["since"] else None
    until = None if kept_s is None else now.wall + timedelta(seconds=kept_s - _age_s(row, now))
    return Holding(purpose, kept_s, row["items"], row["bytes"], row["users"], row["with_consent"], since, until)


def _none_of(row: Row | None) -> tuple[int | None, int | None, int | None]:
    columns: Mapping[str, Any] = {} if row is None else dict(row)
    return columns.get("bytes"), columns.get("users"), columns.get("with_consent")


def _age_s(row: Row, now: Moment) -> float:
    return age_s(now, running_s=row["running_s"], boot_id=row["boot_id"] or now.instant.boot_id)
