"""HTTP answers as our errors: three tables by status, for the API, the token calls and the storage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edge_agent.cypherface.wire import Answer, Step, retry_after_s, server_message, storage_code
from edge_agent.errors import (
    CaptureRefused,
    CypherFaceError,
    SequenceConflict,
    ServiceMisconfigured,
    Transient,
    Unauthenticated,
)


class Row(NamedTuple):
    """One line of a table of errors."""

    error: type[CypherFaceError]
    code: str
    hint: str | None = None


_PATHS = "check cypherface.base_url and cypherface.match_path"
_KEY = "check cypherface.merchant_id and the API key; both belong to one environment"
_PORTAL = "a captive portal or proxy answers instead of CypherFace: check the terminal's network"

API_ROWS: dict[int, Row] = {
    400: Row(CaptureRefused, "bad_request"),
    401: Row(Unauthenticated, "unauthenticated", _KEY),
    402: Row(Transient, "upstream_error"),
    403: Row(CaptureRefused, "forbidden", "the merchant may lack the right to this user or to this call"),
    404: Row(CaptureRefused, "unknown_user", "enrol the user first"),
    405: Row(ServiceMisconfigured, "service_misconfigured", _PATHS),
    406: Row(ServiceMisconfigured, "service_misconfigured", _PATHS),
    408: Row(Transient, "timeout"),
    409: Row(SequenceConflict, "conflict"),
    422: Row(SequenceConflict, "out_of_order"),
    425: Row(Transient, "server_error"),
    429: Row(Transient, "rate_limited"),
}
_API_OTHER = Row(SequenceConflict, "unexpected_status")

# No token means that nothing can be forwarded; it is never the fault of one capture, so nothing here parks one.
TOKEN_ROWS: dict[int, Row] = {
    400: Row(Unauthenticated, "unauthenticated", _KEY),
    401: Row(Unauthenticated, "unauthenticated", _KEY),
    402: Row(Transient, "upstream_error"),
    403: Row(Unauthenticated, "unauthenticated", _KEY),
    408: Row(Transient, "timeout"),
    425: Row(Transient, "server_error"),
    429: Row(Transient, "rate_limited"),
}
_TOKEN_OTHER = Row(ServiceMisconfigured, "service_misconfigured", _PATHS)

_STALE = Row(SequenceConflict, "upload_url_stale", "if it repeats: check the clock of the storage and the content type")
STORAGE_ROWS: dict[int, Row] = {
    401: _STALE,
    403: _STALE,
    404: Row(ServiceMisconfigured, "service_misconfigured", "the storage does not know the upload URL's place"),
    405: Row(ServiceMisconfigured, "service_misconfigured", "the storage does not take uploads there"),
    408: Row(Transient, "timeout"),
    413: Row(CaptureRefused, "too_large", "lower capture.max_side_px or capture.jpeg_quality"),
    425: Row(Transient, "server_error"),
    429: Row(Transient, "rate_limited"),
}
_STORAGE_OTHER = Row(SequenceConflict, "upload_refused")

_SERVER_ERROR = Row(Transient, "server_error")
_CAPTIVE_PORTAL = Row(Transient, "captive_portal", _PORTAL)
_WRONG_PATH = Row(ServiceMisconfigured, "service_misconfigured", _PATHS)
_SOURCE_EXISTS = Row(CaptureRefused, "source_exists", "CypherFace does not replace an enrolled source image: "
                     "have it removed there if it is not this person's")  # fmt: skip

_API_ROW_OF_STEP = {
    (Step.SOURCE_URL, 409): _SOURCE_EXISTS,
    (Step.SOURCE_URL, 422): _SOURCE_EXISTS,
}


def error_for(step: Step, answer: Answer, private: Iterable[str] = ()) -> CypherFaceError:
    """The error that an answer other than success means. ``private``: values that its message must not repeat."""
    row = _row(step, answer)
    said = None if row is _CAPTIVE_PORTAL else _said(step, answer, private)
    return _error(row, step, f"it answered {answer.status}", answer, said)


def unusable(step: Step, answer: Answer, row: Row, why: str, private: Iterable[str] = ()) -> CypherFaceError:
    """The error for a success (2xx) whose body cannot be used; a page of HTML is a captive portal, whatever ``row``."""
    if answer.is_html:
        return _error(_CAPTIVE_PORTAL, step, f"it answered {answer.status} with HTML", answer, None)
    return _error(row, step, why, answer, _said(step, answer, private))


def _said(step: Step, answer: Answer, private: Iterable[str]) -> str | None:
    return storage_code(answer) if step is Step.PUT else server_message(answer, private)


def _error(row: Row, step: Step, why: str, answer: Answer, said: str | None) -> CypherFaceError:
    server = "the storage" if step is Step.PUT else "CypherFace"
    return row.error(
        f"cannot {step} ({server}): {why}{f': {said}' if said else ''}",
        code=row.code,
        hint=row.hint,
        status=answer.status,
        server_message=said,
        retry_after_s=retry_after_s(answer),
        # A gateway in front of the storage may give up on a picture that still lands.
        outcome_unknown=step is Step.PUT and (answer.ok or answer.status >= 500 or answer.status == 408),
    )


def _row(step: Step, answer: Answer) -> Row:
    status = answer.status
    if status < 400:
        return _CAPTIVE_PORTAL  # redirects are never followed
    if status >= 500:
        return _SERVER_ERROR
    if step is Step.PUT:
        return STORAGE_ROWS.get(status, _STORAGE_OTHER)
    if step in {Step.ISSUE, Step.REFRESH}:
        row = TOKEN_ROWS.get(status, _TOKEN_OTHER)
    else:
        row = _API_ROW_OF_STEP.get((step, status)) or API_ROWS.get(status, _API_OTHER)
    if status == 404 and answer.json() is None:
        return _WRONG_PATH
    page_instead_of_api = answer.is_html and status not in {401, 404, 405, 406}
    return _CAPTIVE_PORTAL if page_instead_of_api else row
