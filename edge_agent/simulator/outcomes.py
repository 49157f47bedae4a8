"""The outcomes that can be chosen: one grammar, ``KIND`` or ``KIND:DETAIL``, for user ids and for the header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge_agent.errors import (
    AgentError,
    CameraError,
    EnvironmentFault,
    InputError,
    ModelError,
    SessionRefused,
    StorageError,
)
from edge_agent.types import GateCode

HEADER = "x-simulate"
LOCKED_FOR_S = 180.0


class Kind(StrEnum):
    """The first word of an outcome."""

    VERIFIED = "verified"
    NOT_VERIFIED = "not_verified"
    REJECTED = "rejected"
    CHALLENGE = "challenge"
    PENDING = "pending"
    PROVISIONAL = "provisional"
    SLOW = "slow"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What shall happen to one request."""

    kind: Kind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.detail}" if self.detail else self.kind.value


@dataclass(frozen=True, slots=True)
class Rule:
    """The details that a kind takes, and what happens."""

    details: tuple[str, ...]
    """"" among them: it also goes without."""
    happens: str


_VERDICTS = (Kind.VERIFIED.value, Kind.NOT_VERIFIED.value)
CHALLENGES = ("passed", "failed", "unavailable")
OF_CAMERA = ("camera_unavailable", "camera_frozen", "frame_loop")
OF_MODELS = ("inference_failed",)
OF_SERVICE = {"unknown_user": 404, "forbidden": 403, "bad_request": 400}
"""Permanent errors of CypherFace, and the HTTP status that it gives for them."""
_REFUSALS: dict[str, type[AgentError]] = {
    "camera_unavailable": CameraError,
    "models_missing": ModelError,
    "storage_full": StorageError,
    "storage_failed": StorageError,
    "key_mismatch": StorageError,
    "starting": EnvironmentFault,
    "offline": SessionRefused,
    "stopping": SessionRefused,
    "busy": SessionRefused,
    "locked_out": SessionRefused,
}

RULES: dict[Kind, Rule] = {
    Kind.VERIFIED: Rule(("",), "hints, capture, then CypherFace says yes"),
    Kind.NOT_VERIFIED: Rule(("",), "hints, capture, then CypherFace says no"),
    Kind.REJECTED: Rule(tuple(GateCode), "this hint until the search time is over: `rejected` with this reason"),
    Kind.CHALLENGE: Rule(
        CHALLENGES,
        "hints, then a challenge whose prompts must be acknowledged: the customer does what is asked, and CypherFace says yes; "
        "or does nothing, `rejected` with `challenge_failed`; or the camera is too slow for it, `challenge_unavailable`",
    ),
    Kind.PENDING: Rule(
        ("", *_VERDICTS),
        "CypherFace is out of order: `pending` at the verdict deadline, for ever; with a detail it recovers a little "
        "later and gives that verdict, `late`",
    ),
    Kind.PROVISIONAL: Rule(
        ("", *_VERDICTS),
        "no connection, and the user was confirmed before: `provisionally_verified`; the line comes back a little later, "
        "or with another outcome, and that verdict (`verified`) comes `late`, a `not_verified` as `contradicted`",
    ),
    Kind.SLOW: Rule(
        ("", *_VERDICTS), "CypherFace answers after the verdict deadline: `pending`, then (`verified`) `late`"
    ),
    Kind.FAILED: Rule(
        (*OF_CAMERA, *OF_MODELS, *OF_SERVICE),
        "hints, then `failed` with this code: the camera, the models or CypherFace gives up",
    ),
    Kind.REFUSED: Rule(tuple(_REFUSALS), "the request is refused with this problem; the idempotency key is unused"),
}


def find(user_id: str) -> Outcome | None:
    """The outcome that a user id names: all of it, or what is before an ``@``. None for any other user id.

    Raises InputError for one that begins with a kind and goes on wrongly: a typing mistake must not verify.
    """
    name = user_id.partition("@")[0]
    return parse(name) if name.partition(":")[0] in set(Kind) else None


def parse(text: str) -> Outcome:
    """Raises InputError ``invalid_request`` with what is allowed."""
    kind, _, detail = text.strip().partition(":")
    if kind not in set(Kind):
        raise _unknown(text, f"it begins with one of {', '.join(Kind)}")
    details = RULES[Kind(kind)].details
    if detail not in details or text.strip().endswith(":"):
        named = ", ".join(filter(None, details))
        raise _unknown(text, f"after {kind}: comes one of {named}" if named else f"{kind} has no detail")
    return Outcome(Kind(kind), str(detail))


def _unknown(text: str, hint: str) -> InputError:
    return InputError(f"cannot simulate {text[:80]!r}: there is no such outcome", code="invalid_request", hint=hint)


def refusal(code: str) -> AgentError:
    """What to raise for ``refused:code``: the error that the real agent has for it."""
    error = _REFUSALS[code]
    if error is SessionRefused:
        wait_s = LOCKED_FOR_S if code == "locked_out" else None
        return SessionRefused("cannot start: this is simulated", code=code, retry_after_s=wait_s)
    return error("cannot start: this is simulated", code=code)


def table() -> str:
    """The outcomes as a table for people (Markdown)."""
    lines = ["| outcome | `CODE` or `VERDICT` is one of | what happens |", "|---|---|---|"]
    for kind, rule in RULES.items():
        details = ", ".join(f"`{detail}`" for detail in rule.details if detail)
        slot = "VERDICT" if _VERDICTS[0] in rule.details else "CODE"
        forms = [f"`{kind}`"] * ("" in rule.details) + [f"`{kind}:{slot}`"] * bool(details)
        lines.append(f"| {', '.join(forms)} | {details} | {rule.happens} |")
    return "\n".join(lines)
