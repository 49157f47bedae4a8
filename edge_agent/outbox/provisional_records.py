"""The records of the offline policy ``provisional``: its limits, its templates, and why it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.config import OfflineSection

TEMPLATE_SCOPE = "template"
"""The scope of consent that a template needs, and every comparison with one."""


class Withheld(StrEnum):
    """Why a capture was not answered provisionally (wire values, among a verification's ``reasons``)."""

    UNAVAILABLE = "provisional_unavailable"
    """The policy is off, or the comparison cannot be made: no models, no threshold. Or CypherFace last refused us."""
    NOT_LIVE = "provisional_not_live"
    """Not the first attempt of a capture whose customer still waits."""
    CLOCK_UNTRUSTED = "provisional_clock_untrusted"
    """No time service vouches for the clock, now or when the verification began."""
    NO_CONSENT = "provisional_no_consent"
    """The request came without the consent scope ``template``."""
    BLOCKED = "provisional_blocked"
    """CypherFace said no after a yes, or about this user; until it confirms the user again, in time."""
    AMOUNT_UNKNOWN = "provisional_amount_unknown"
    """No amount, or none in a currency that has a limit."""
    AMOUNT_OVER_LIMIT = "provisional_amount_over_limit"
    OFFLINE_TOO_LONG = "provisional_offline_too_long"
    COUNT_LIMIT = "provisional_count_limit"
    """Too many answers since CypherFace was last heard."""
    USER_LIMIT = "provisional_user_limit"
    """Too many answers for this user in 24 hours."""
    NO_TEMPLATE = "provisional_no_template"
    """CypherFace never confirmed this user with consent, or too long ago, or for another model or service."""
    FACE_DIFFERS = "provisional_face_differs"


@dataclass(frozen=True, slots=True)
class ProvisionalLimits:
    """What bounds the risk; see OfflineSection."""

    max_amounts: Mapping[str, Decimal]
    """By currency."""
    without_amount: bool
    max_answers: int
    max_answers_per_user_day: int
    max_offline_s: float
    max_templates: int

    @classmethod
    def of(cls, offline: OfflineSection) -> ProvisionalLimits | None:
        """As configured; None where the policy is another one."""
        if offline.policy != "provisional":
            return None
        return cls(
            max_amounts=offline.max_amounts,
            without_amount=offline.without_amount,
            max_answers=offline.max_answers,
            max_answers_per_user_day=offline.max_answers_per_user_day,
            max_offline_s=offline.max_offline_s,
            max_templates=offline.max_templates,
        )


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """What is learned from a confirmed capture."""

    embedding: bytes = field(repr=False)
    """float32, little-endian, L2-normalised."""
    model: str
    """The embedder and its version: embeddings of two models are never compared."""
    quality: float
    """0-1."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template to compare with. Biometric data: it never leaves the process."""

    id: str
    embedding: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like the fresh capture is to the most similar template."""

    template_id: str
    cosine: float
    threshold: float
    model: str
    evidence: str
    """What the threshold rests on, for the audit record."""

    @property
    def same_person(self) -> bool:
        """False for a number that is none."""
        return self.cosine >= self.threshold


@dataclass(frozen=True, slots=True)
class Consideration:
    """Whether a capture may be compared, and with what."""

    templates: tuple[Template, ...] = ()
    withheld: Withheld | None = None


@dataclass(frozen=True, slots=True)
class ProvisionalSummary:
    """How the policy stands, without any user."""

    templates: int
    users: int
    """With a template."""
    blocked: int
    """Users without provisional answers."""
    unconfirmed: int
    """Answers that CypherFace has not confirmed yet."""
    answers: int
    """Since CypherFace was last heard."""
    offline_s: float | None
    """Since when it was not, None while it is: a lower bound."""


@dataclass(frozen=True, slots=True)
class VerdictSummary:
    """What is remembered of CypherFace's verdicts, without any user."""

    verified: int
    not_verified: int
    newest_at: datetime | None
