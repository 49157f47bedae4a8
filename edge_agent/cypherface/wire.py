"""Reading CypherFace's answers: pure functions, no I/O.

The field names of the token and of the pre-signed URL are not documented, so every name seen in the wild is accepted,
at the top level or under ``data``. JSON is read strictly: a repeated key, ``NaN`` and ``Infinity`` make it unreadable,
because two readers could then see two different verdicts.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from edge_agent.types import JsonObject

TOKEN_FIELDS = ("accessToken", "access_token", "token")
URL_FIELDS = ("uploadUrl", "uploadURL", "signedUrl", "presignedUrl", "generatedUrl", "url")
"""The plain ``url`` comes last: where both are present it may be the public address of the picture."""

MESSAGE_FIELDS = ("message", "error", "detail", "msg")
MAX_MESSAGE_CHARS = 200
MAX_TOKEN_CHARS = 8192
MAX_RETRY_AFTER_S = 3600.0

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")
# A JWT, a UUID, a merchant id, an API key, a picture's name, a pre-signed query: nothing a person reads has 20
# characters of this kind in a row.
_SECRET = re.compile(r"https?://\S+|[A-Za-z0-9+/_=.%-]{20,}")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")


class Step(StrEnum):
    """What is being asked of the service; the value completes "cannot ..."."""

    ISSUE = "get an access token"
    REFRESH = "refresh the access token"
    SOURCE_URL = "get an upload URL for the source image"
    TARGET_URL = "get an upload URL for the image"
    PUT = "upload the image"
    MATCH = "match the image"
    LOOK = "reach CypherFace"


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete HTTP answer."""

    status: int
    content_type: str | None
    body: bytes = field(repr=False)
    retry_after: str | None = None
    date: str | None = None
    framed: bool = True
    """The answer said where its body ends; without that, an empty body cannot be told from one that was cut off."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_html(self) -> bool:
        """A page for people where JSON was expected: a captive portal, a proxy, a web server without the API."""
        if media_type(self.content_type) in {"text/html", "application/xhtml+xml"}:
            return True
        return self.body.lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))

    def json(self) -> JsonObject | None:
        """The body as a JSON object, whatever its declared type; None when it is not one."""
        return parse_object(self.body)


def media_type(content_type: str | None) -> str:
    """``type/subtype`` in lower case without parameters; empty when not declared."""
    return (content_type or "").split(";")[0].strip().lower()


def is_json_type(content_type: str | None) -> bool:
    """True for a JSON media type, and for an answer that declares none."""
    name = media_type(content_type)
    return name in {"", "application/json", "text/json"} or (name.startswith("application/") and name.endswith("+json"))


def parse_object(body: bytes) -> JsonObject | None:
    """A strictly read JSON object, or None for anything else."""
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):  # ValueError: bad UTF-8, bad JSON, repeated keys, endless integers
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("repeated key")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def levels(body: JsonObject) -> tuple[JsonObject, ...]:
    """The places where CypherFace's fields may stand: the object itself, then ``data`` where it is an object."""
    data = body.get("data")
    return (body, data) if isinstance(data, dict) else (body,)


def find_token(body: JsonObject) -> str | None:
    """The access token, or None where there is none that fits into a header."""
    token = _first(body, TOKEN_FIELDS)
    if token is None or len(token) > MAX_TOKEN_CHARS or not header_safe(token):
        return None
    return token


def find_url(body: JsonObject) -> str | None:
    """The pre-signed URL, or None."""
    return _first(body, URL_FIELDS)


def _first(body: JsonObject, names: Sequence[str]) -> str | None:
    for level in levels(body):
        for name in names:
            value = level.get(name)
            if isinstance(value, str) and value:
                return value
    return None


def header_safe(value: str) -> bool:
    """True for visible ASCII without spaces, which an HTTP header carries unchanged."""
    return _HEADER_SAFE.fullmatch(value) is not None


def seen_keys(body: JsonObject | None) -> str:
    """The names (never the values) of an answer's fields, for an error message."""
    if body is None:
        return "no JSON object"
    names = [_field_name(name) for name in body]
    names += [f"data.{_field_name(name)}" for level in levels(body)[1:] for name in level]
    return ", ".join(names[:20]) or "an empty object"


def _field_name(name: str) -> str:
    """A field's name; one that could be a value (digits, odd characters) is not repeated."""
    return name if _FIELD_NAME.fullmatch(name) else "<other>"


def says_failure(body: JsonObject | None) -> bool:
    """True when the answer itself says ``success: false``."""
    return body is not None and any(level.get("success") is False for level in levels(body))


def server_message(answer: Answer, private: Iterable[str] = ()) -> str | None:
    """The service's own words, cut and cleaned; None for HTML, for nothing and for structured bodies without a text."""
    body = answer.json()
    if body is not None:
        text = _message_of(body)
    elif media_type(answer.content_type) in {"", "text/plain"} and not answer.is_html:
        text = answer.body.decode("utf-8", "replace")
    else:
        text = None
    return (clean(text, private) or None) if text else None


def storage_code(answer: Answer) -> str | None:
    """The error code in an S3-style XML answer, such as SignatureDoesNotMatch; nothing else of it is repeated."""
    found = re.search(rb"<Code>([A-Za-z]{1,40})</Code>", answer.body)
    return found[1].decode("ascii") if found else None


def _message_of(body: JsonObject) -> str | None:
    for name in MESSAGE_FIELDS:
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            return value
    return None


def clean(text: str, private: Iterable[str] = ()) -> str:
    """Foreign text made fit for a log line: one line, no control characters, no secrets, at most 200 characters.

    ``private``: exact values that must not appear (the user id, the token).
    """
    visible = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
    for value in sorted(filter(None, private), key=len, reverse=True):
        visible = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "<private>", visible)
    return " ".join(_SECRET.sub("<removed>", visible).split())[:MAX_MESSAGE_CHARS]


def retry_after_s(answer: Answer, now: datetime | None = None) -> float | None:
    """Seconds to wait by ``Retry-After`` (a number or an HTTP date), 0 to 3600; None where there is none.

    A date is compared with the answer's own ``Date``, so that a terminal whose clock is wrong waits correctly;
    without one, with ``now`` (aware UTC; default: the wall clock).
    """
    value = (answer.retry_after or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value, re.ASCII):
        return min(float(value), MAX_RETRY_AFTER_S)
    until = _http_date(value)
    if until is None:
        return None
    reference = _http_date(answer.date or "") or now or datetime.now(UTC)
    wait_s = (until - reference).total_seconds()
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(wait_s) else None


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def new_image_name(content_type: str = "image/jpeg") -> str:
    """A fresh random name for one attempt: 128 random bits, nothing about the user in it."""
    return f"{secrets.token_hex(16)}.{'png' if content_type == 'image/png' else 'jpg'}"
