"""Handlers about a person: enrolment."""

from __future__ import annotations

from starlette.responses import Response

from edge_agent.api import wire
from edge_agent.api.answers import answer
from edge_agent.api.calls import Call, read_body, refuse, user_id_of


async def enrol(call: Call) -> Response:
    """Enrol: pre-screen the picture in the body, then upload it as the user's source. Never queued."""
    user_id = user_id_of(call)
    media_type = call.request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in {"image/jpeg", "image/png", "image/webp", "image/bmp"}:
        raise refuse("unsupported_media_type", f"cannot enrol with content type {media_type or 'none'!r}",
                      "send image/jpeg or image/png")  # fmt: skip
    picture = await read_body(call.request, wire.MAX_PICTURE_BYTES)
    await call.agent.enrol(user_id, picture)
    return answer(wire.SourceBody(user_id=user_id), 201)
