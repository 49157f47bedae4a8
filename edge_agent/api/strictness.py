"""What is refused before a handler sees it: a request must not mean something else than its sender thinks.

A misspelt parameter, a body where none is read or a form instead of JSON would otherwise be ignored in silence.
"""

from __future__ import annotations

import difflib
from collections import Counter

from starlette.requests import Request

from edge_agent.api.calls import refuse
from edge_agent.api.operation import JSON, Operation, Payload


def check_request(request: Request, operation: Operation) -> None:
    """Raises InputError: invalid_request, unsupported_media_type or too_large."""
    _check_query(request, operation)
    length = request.headers.get("content-length", "0")
    payload = operation.payload
    if payload is not None and not _does_without(request, payload):
        _check_media_type(request, payload)
        if length.isascii() and length.isdigit() and int(length) > payload.limit_bytes:
            raise too_large(payload.limit_bytes)
    elif length.strip("0") or "transfer-encoding" in request.headers:
        raise refuse("invalid_request", f"cannot use the body: {operation.id} takes none",
                     "Send none: what this call takes is in its query.")  # fmt: skip


def _does_without(request: Request, payload: Payload) -> bool:
    return payload.unless is not None and request.query_params.get(payload.unless[0]) == payload.unless[1]


def too_large(limit_bytes: int) -> Exception:
    """What to raise for a body that is longer."""
    return refuse("too_large", f"cannot read the request: its body is larger than {limit_bytes} bytes")


def _check_query(request: Request, operation: Operation) -> None:
    known = [parameter.name for parameter in operation.query]
    for parameter in operation.query:
        value, allowed = request.query_params.get(parameter.name), parameter.schema.get("enum")
        if allowed is not None and value is not None and value not in allowed:
            raise refuse("invalid_request", f"cannot use {parameter.name}={value!r}: must be {' or '.join(allowed)}")
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            raise refuse("invalid_request", f"cannot use the query parameter {name!r}: there is none of this name here",
                         _suggestion(name, known))  # fmt: skip
        if times > 1:
            raise refuse("invalid_request", f"cannot use the query parameter {name!r}: it is given {times} times")


def _suggestion(name: str, known: list[str]) -> str:
    if not known:
        return "This call takes no query parameters."
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]}?" if near else f"This call takes: {', '.join(known)}."


def _check_media_type(request: Request, payload: Payload) -> None:
    """JSON may come without a Content-Type; what has one must mean it."""
    given = request.headers.get("content-type")
    media_type, _, options = (given or "").partition(";")
    media_type = media_type.strip().lower()
    wanted = f"Send the header Content-Type: {' or '.join(payload.media_types)}."
    if media_type not in payload.media_types and not (given is None and payload.media_types == (JSON,)):
        of = f"of content type {media_type!r}" if media_type else "without a content type"
        raise refuse("unsupported_media_type", f"cannot read a body {of}", wanted)
    charset = options.strip().lower().replace('"', "")
    if (
        payload.model is not None
        and charset.startswith("charset=")
        and charset not in {"charset=utf-8", "charset=utf8"}
    ):
        raise refuse("unsupported_media_type", f"cannot read a body with {charset}", "Send UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise refuse("unsupported_media_type", "cannot read a compressed body", "Send it as it is.")
