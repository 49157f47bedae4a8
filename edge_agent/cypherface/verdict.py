"""Turning CypherFace's answer to a match into a verdict: one pure function, fail-closed.

Only a JSON boolean ``true`` confirms a person. Stricter than the wire contract asks, on purpose: an answer that
contradicts itself (a verdict field that is not a boolean, two levels that disagree, a repeated key, a media type that
is not JSON) is indeterminate, never positive.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Protocol

from edge_agent.cypherface.wire import is_json_type, levels, parse_object
from edge_agent.types import JsonObject

MATCH_FIELDS = ("match", "faceMatch", "matched")
VERDICT_FIELDS = (*MATCH_FIELDS, "success")

# Words and field names that keep a 200 without a verdict from counting as a match. They can only ever veto.
_VETO_WORD = re.compile(
    r"n[o']t|\bno\b|fail|mis-?match|differ|den(y|ied)|reject|refus|error|invalid|unable|unknown|missing|wrong"
    r"|pending|process|queue|progress|wait|later|expire|forbid|unauth|could|<",
    re.IGNORECASE,
)
_VETO_KEY = re.compile(r"error|fail|reason|exception|warn|match|verified|pending|process", re.IGNORECASE)
_STATUS_KEY = re.compile(r"(status|code)$", re.IGNORECASE)


class VerdictKind(StrEnum):
    """What an answer means."""

    POSITIVE = "positive"
    """CypherFace confirmed the person."""
    NEGATIVE = "negative"
    """CypherFace said it is somebody else."""
    INDETERMINATE = "indeterminate"
    """Neither: never a verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one answer."""

    kind: VerdictKind
    status: int
    """The HTTP status of the answer."""
    similarity: float | None
    """0-100 as reported by the service; None where it reported none that can be used."""
    evidence: str
    """Why, from the known fields alone: safe for logs and the audit record."""

    @property
    def positive(self) -> bool:
        return self.kind is VerdictKind.POSITIVE

    @property
    def decided(self) -> bool:
        return self.kind is not VerdictKind.INDETERMINATE


class VerdictSettings(Protocol):
    """The settings that a verdict depends on (``config.CypherFaceSection`` has them)."""

    @property
    def min_similarity(self) -> float | None: ...
    @property
    def accept_bare_200(self) -> bool: ...


class _Word(Enum):
    YES = auto()
    NO = auto()
    UNCLEAR = auto()
    SILENT = auto()


def judge(status: int, content_type: str | None, body: bytes, settings: VerdictSettings) -> Verdict:
    """Positive, negative or indeterminate; any input is allowed and nothing is raised."""
    if not is_json_type(content_type):
        return _unclear(status, "the answer is not JSON")
    if not body.strip():
        return _confirmed(status, "empty body", {}, settings) if _bare(status, settings) else _no_body(status)
    value = parse_object(body)
    if value is None:
        return _unclear(status, "the body is not a JSON object that can be read")
    return _judge_object(status, value, settings)


def _judge_object(status: int, body: JsonObject, settings: VerdictSettings) -> Verdict:
    evidence = _quote(body)
    words = {word for level in levels(body) if (word := _word(status, level)) is not _Word.SILENT}
    if words == {_Word.NO}:
        return Verdict(VerdictKind.NEGATIVE, status, _similarity(body), f"{status}: {evidence}")
    if words == {_Word.YES}:
        return _confirmed(status, evidence, body, settings)
    if words:
        return _unclear(status, f"{evidence}; contradictory or not boolean")
    if _bare(status, settings) and not _says_anything_else(body):
        return _confirmed(status, f"{evidence}; bare 200", body, settings)
    return _unclear(status, evidence)


def _word(status: int, level: JsonObject) -> _Word:
    """What one level of the object says on its own."""
    ok = 200 <= status < 300
    matches = [level[name] for name in MATCH_FIELDS if name in level]
    if not ok and not 400 <= status < 500:
        return _Word.SILENT
    if any(value is False for value in matches) or (ok and level.get("success") is False):
        return _Word.NO
    if not ok:
        return _Word.UNCLEAR if matches else _Word.SILENT
    if not all(level[name] is True for name in VERDICT_FIELDS if name in level):
        return _Word.UNCLEAR
    return _Word.YES if matches else _Word.SILENT


def _confirmed(status: int, evidence: str, body: JsonObject, settings: VerdictSettings) -> Verdict:
    """Positive, unless a minimum similarity is asked for and not reached."""
    similarity, limit = _similarity(body), settings.min_similarity
    if limit is not None and (similarity is None or similarity < limit):
        return _unclear(status, f"{evidence}; similarity does not reach {limit:g}", similarity)
    return Verdict(VerdictKind.POSITIVE, status, similarity, f"{status}: {evidence}")


def _unclear(status: int, evidence: str, similarity: float | None = None) -> Verdict:
    return Verdict(VerdictKind.INDETERMINATE, status, similarity, f"{status}: {evidence}")


def _no_body(status: int) -> Verdict:
    hint = "; see cypherface.accept_bare_200" if status == 200 else ""
    return _unclear(status, f"empty body{hint}")


def _similarity(body: JsonObject) -> float | None:
    """A number from 0 to 100; None when absent, unusable, or different on the two levels."""
    values = [level["similarity"] for level in levels(body) if "similarity" in level]
    if not values or not all(_is_percentage(value) for value in values) or len(set(values)) != 1:
        return None
    return float(values[0])


def _is_percentage(value: object) -> bool:
    # A boolean is an int in Python; the bounds are compared before any conversion, which could overflow.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _bare(status: int, settings: VerdictSettings) -> bool:
    """The documentation says "returns 200": neither 202 (accepted, not done) nor 204 counts."""
    return settings.accept_bare_200 and status == 200


def _says_anything_else(body: JsonObject) -> bool:
    """True when an object without verdict fields might nevertheless say no: when in doubt, yes."""
    return any(_vetoes(key, value) for key, value in _leaves(body))


def _leaves(body: JsonObject) -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with the last field name above it ("data.name" for nested ones)."""
    pending: list[tuple[str, Any]] = list(body.items())
    while pending:  # a stack instead of recursion: the nesting is the sender's choice
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{key[-40:]}.{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            pending += [(key, item) for item in value]
        else:
            yield key, value


def _vetoes(key: str, value: object) -> bool:
    if key == "similarity":
        return not _is_percentage(value)
    if _STATUS_KEY.search(key):
        return str(value).lower() not in {"ok", "success", "200"}
    if value is False or value is None or _VETO_KEY.search(key):
        return True
    return isinstance(value, str) and _VETO_WORD.search(value) is not None


def _quote(body: JsonObject) -> str:
    """The known fields with their values, where these are harmless; nothing else of the body."""
    parts = [
        f"{prefix}{name}={_harmless(level[name])}"
        for prefix, level in zip(("", "data."), levels(body), strict=False)  # data is often absent
        for name in (*VERDICT_FIELDS, "similarity")
        if name in level
    ]
    return ", ".join(parts) or "no verdict field"


def _harmless(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) < 1_000_000:
        return str(value)
    return f"<{type(value).__name__}>"
