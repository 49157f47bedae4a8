"""What goes over the terminal API: request and response bodies (v1), and the checks on their fields."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from edge_agent.types import JsonObject, State

USER_ID = re.compile(r"[A-Za-z0-9._@:+=-]{1,128}")
MAX_JSON_BYTES = 16 * 1024
MAX_PICTURE_BYTES = 16 * 1024 * 1024
MAX_WAIT_S = 600.0
MAX_ENROLMENT_S = 120.0
MAX_AIM_S = 3600.0
AIM_S = 600.0
MAX_MATCHES = 100
MAX_CONFIG_BYTES = 256 * 1024
AMOUNT = re.compile(r"(0|[1-9][0-9]{0,13})(\.[0-9]{1,4})?")
MAX_AMOUNT_NUMBER = 99_999_999_999
"""As a JSON number: with 4 decimals these are 15 digits, which a double holds exactly. Larger ones are sent as text."""
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

_DIGIT_RUN = re.compile(r"\d(?:[ -]?\d){12,18}")
_CARD_SHAPE = re.compile(r"(?<!\d)(?=(\d{13,19}|\d{4}([ -])\d{4}\2\d{4}\2\d{1,7}|\d{4}([ -])\d{6}\3\d{4,5})(?!\d))")
"""Numbers as they are printed on cards, also where other digits stand beside them (an expiry date, a security code)."""


def looks_like_card_number(text: str) -> bool:
    """True where ``text`` holds 13-19 digits, spaces or dashes between allowed, that pass the Luhn check."""
    runs = [run.group() for run in _DIGIT_RUN.finditer(text)] + [shape.group(1) for shape in _CARD_SHAPE.finditer(text)]
    return any(_luhn(re.sub(r"[ -]", "", run)) for run in runs)


def _luhn(digits: str) -> bool:
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def no_card_number(text: str) -> str:
    if looks_like_card_number(text):
        raise PydanticCustomError("looks_like_card_number", "looks like a payment card number")
    return text


def check_user_id(text: str) -> str:
    if not USER_ID.fullmatch(text) or text in {".", ".."}:
        raise PydanticCustomError("invalid_user_id", "must be 1-128 characters of A-Z a-z 0-9 . _ @ : + = -")
    return no_card_number(text)


def check_amount(value: object) -> Decimal:
    """Text or a number that means exactly one amount: a float of more digits would be another one than was written."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_AMOUNT_NUMBER:
        value = repr(value + 0)  # -0.0 + 0 is 0.0
    if not isinstance(value, str) or not AMOUNT.fullmatch(value):
        raise PydanticCustomError("amount", "must be like 12.50: at most 14 digits, then at most 4 after the point")
    return Decimal(value)


USER_ID_SCHEMA: JsonObject = {
    "type": "string",
    "pattern": rf"^(?!\.{{1,2}}$){USER_ID.pattern}$",
    "examples": ["customer-17"],
}
AMOUNT_SCHEMA: JsonObject = {
    "anyOf": [
        {"type": "string", "pattern": f"^{AMOUNT.pattern}$", "examples": ["12.50"]},
        {"type": "number", "minimum": 0, "maximum": MAX_AMOUNT_NUMBER, "multipleOf": 0.0001},
    ]
}
UserId = Annotated[str, AfterValidator(check_user_id), WithJsonSchema(USER_ID_SCHEMA)]
Amount = Annotated[Decimal, BeforeValidator(check_amount), WithJsonSchema(AMOUNT_SCHEMA)]
Printable = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Reference = Annotated[Printable, AfterValidator(no_card_number)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConsentBody(Body):
    """The customer's consent, as the POS keeps it."""

    reference: Reference
    scopes: list[Literal["match", "template"]] = Field(default=["match"], max_length=2)


class VerificationRequest(Body):
    """``POST /v1/verifications``."""

    user_id: UserId
    reference: Reference | None = None
    amount: Amount | None = None
    currency: str | None = Field(None, pattern=r"^[A-Z]{3}$", description="ISO 4217")
    consent: ConsentBody | None = None
    search_timeout_s: float | None = Field(None, ge=1, le=600)


def _whole(value: object) -> object:
    """In JSON 2.0 is the whole number 2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_ABSENT: JsonObject = {"type": "null"}
ONE_OF_THE_ANSWERS: JsonObject = {
    "oneOf": [
        {
            "required": ["step", "shown"],
            "properties": {"step": {"type": "integer"}, "shown": {"const": True}, "cannot_turn": _ABSENT},
        },
        {
            "required": ["cannot_turn"],
            "properties": {"cannot_turn": {"const": True}, "step": _ABSENT, "shown": _ABSENT},
        },
    ]
}


class ChallengeAnswer(Body):
    """``POST /v1/verifications/{id}/challenge``: ``{step, shown: true}`` or ``{cannot_turn: true}``."""

    model_config = ConfigDict(json_schema_extra=ONE_OF_THE_ANSWERS)

    step: Annotated[int, Field(ge=1, le=10_000), BeforeValidator(_whole)] | None = Field(
        None, description="of the prompt that is on the screen now"
    )
    shown: Literal[True] | None = None
    cannot_turn: Literal[True] | None = Field(
        None, description="the customer cannot turn the head, as the customer or the cashier says"
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        shown = self.step is not None and self.shown is True
        half = (self.step is None) != (self.shown is None)
        if half or shown == (self.cannot_turn is True):
            raise ValueError("give step and shown: true, or cannot_turn: true")
        return self


class ChallengeBody(BaseModel):
    """Where the challenge stands: its present prompt while one is shown, its outcome once it is over."""

    outcome: Literal["head_turn", "blink", "unavailable", "failed"] | None
    """What was passed: ``head_turn``, or ``blink``, which proves less. ``unavailable``: it could not be asked."""
    method: Literal["head_turn", "blink"] | None
    """What is asked for."""
    attempt: int | None
    """From 1; 0: it begins with the first picture that qualifies."""
    attempts: int | None
    step: int | None
    """To acknowledge. Null, with all that follows: nothing is asked now."""
    prompt: Literal["look", "turn_left", "turn_right", "blink"] | None
    text: str | None
    shown: bool | None
    """It was acknowledged."""
    progress: float | None


class HintBody(BaseModel):
    """What the customer is told; the code is stable, the text is English."""

    code: str | None
    text: str
    since: datetime
    """When it became the one shown."""


class ErrorBody(BaseModel):
    """Why a verification failed."""

    code: str
    detail: str | None


class VerificationBody(BaseModel):
    """One verification. A POS that reads nothing but ``approved`` is safe."""

    id: str
    state: State
    final: bool
    approved: bool
    late: bool
    contradicted: bool
    replayed: bool
    user_id: str | None
    reference: str | None
    amount: Decimal | None
    currency: str | None
    hint: HintBody | None
    challenge: ChallengeBody | None
    """Null where none is asked for, and where it was over before the challenge was."""
    reasons: list[str]
    error: ErrorBody | None
    similarity: float | None
    attempts: int
    created_at: datetime
    captured_at: datetime | None
    verdict_at: datetime | None
    updated_at: datetime
    clock_synchronised: bool
    age_s: float


class VerificationList(BaseModel):
    items: list[VerificationBody]


class SourceBody(BaseModel):
    """Answer to an enrolment."""

    user_id: str
    status: Literal["uploaded"] = "uploaded"


class MatchEvidenceBody(BaseModel):
    """What a verdict rests on."""

    answer: str | None
    """What of CypherFace's answer decided, such as ``200: match=true, similarity=99.5``."""
    http_status: int
    image_name: str
    """Under which the capture was uploaded."""
    image_sha256: str
    """Of the capture that was judged; the picture itself is destroyed."""


class MatchBody(BaseModel):
    """One verdict of CypherFace."""

    verification_id: str
    state: State
    """``verified`` or ``not_verified``."""
    similarity: float | None
    """0-100, where it was reported."""
    evidence: MatchEvidenceBody | None
    at: datetime | None
    captured_at: datetime | None
    attempts: int
    late: bool
    contradicted: bool
    clock_synchronised: bool
    """Whether this terminal's clock could be trusted."""


class MatchList(BaseModel):
    """``GET /v1/users/{user_id}/matches``: the newest verdict first."""

    user_id: str
    items: list[MatchBody]


class UserDestroyedBody(BaseModel):
    """What ``DELETE /v1/users/{user_id}`` destroyed; all zero where nothing was there."""

    verifications: int
    """Stripped of everything personal."""
    captures: int
    """Stored pictures."""
    filming_ended: bool
    """The user stood before the camera."""
    audit_seq: int
    """Of the record of the destruction."""
    traces_left: bool
    """True while a reader keeps old pages in the write-ahead log; tried again every minute."""


class ApplyRequest(Body):
    """``POST /v1/config/apply``."""

    text: str = Field(description="the candidate, as it would be in the file")
    watch_s: float = Field(20.0, ge=0, le=600, description="seconds of health check")
    confirm_within_s: float | None = Field(
        None, ge=1, le=86_400, description="seconds for a person to confirm; null = the caller does, within 30 s"
    )
    restart: bool = Field(False, description="restart the agent where a changed key needs it")


class ChangeBody(BaseModel):
    """One key that differs; secrets are references."""

    key: str
    old: Any
    new: Any


class TrialBody(BaseModel):
    """A configuration on trial."""

    id: str
    phase: Literal["restarting", "watching", "healthy", "confirmed", "kept", "rolled_back"]
    reason: str | None
    digest: str
    """SHA-256 of the candidate's text."""
    restart: bool
    confirm_within_s: float | None
    left_s: float | None
    """Seconds to the deadline of this phase."""
    changes: list[ChangeBody]
    text: str | None = None
    """The candidate: only where it is to be put in place."""


class ReloadBody(BaseModel):
    """The configuration file, read again."""

    at: datetime
    restart_needed: list[str]
