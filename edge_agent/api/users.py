"""Handlers about a person: enrolment, what CypherFace said, destruction."""

from __future__ import annotations

from starlette.responses import Response

from edge_agent.api import keeping, wire
from edge_agent.api.answers import answer
from edge_agent.api.calls import Call, read_body, refuse, seconds, user_id_of, while_connected, whole_number
from edge_agent.api.custody import destroyed_body
from edge_agent.outbox import Store
from edge_agent.outbox.records import VerificationRecord


async def enrol(call: Call) -> Response:
    """Enrol: pre-screen the picture in the body, or the camera's, then upload it as the user's source. Never queued."""
    user_id = user_id_of(call)
    if call.request.query_params.get("from") == "camera":
        await _from_camera(call, user_id)
    else:
        await _from_body(call, user_id)
    return answer(wire.SourceBody(user_id=user_id), 201)


async def _from_body(call: Call, user_id: str) -> None:
    picture = await read_body(call.request, wire.MAX_PICTURE_BYTES)
    await call.agent.enrol(user_id, picture, actor=call.peer.caller)


async def _from_camera(call: Call, user_id: str) -> None:
    timeout_s = seconds(call.request, "search_timeout_s", wire.MAX_ENROLMENT_S)
    if 0 < timeout_s < 1:
        raise refuse("invalid_request", "cannot use search_timeout_s: must be 1-120 seconds")
    await read_body(call.request, 0)
    work = call.agent.enrol_from_camera(user_id, actor=call.peer.caller, search_timeout_s=timeout_s or None)
    await while_connected(call.request, work)


async def matches(call: Call) -> Response:
    """The last verdicts of CypherFace for a user."""
    user_id = user_id_of(call)
    limit = whole_number(call.request, "limit", 20, wire.MAX_MATCHES)
    records = await keeping.run(call.agent, Store.verdicts_of, user_id, limit=limit)
    return answer(wire.MatchList(user_id=user_id, items=[_match_body(record) for record in records]))


def _match_body(record: VerificationRecord) -> wire.MatchBody:
    verdict = record.verdict
    return wire.MatchBody(
        verification_id=record.id,
        state=record.state,
        similarity=verdict.similarity if verdict else None,
        evidence=wire.MatchEvidenceBody(
            answer=verdict.matched_field,
            http_status=verdict.http_status,
            image_name=verdict.image_name,
            image_sha256=verdict.image_sha256,
        )
        if verdict
        else None,
        at=record.verdict_at,
        captured_at=record.captured_at,
        attempts=record.attempts,
        late=record.late,
        contradicted=record.contradicted,
        clock_synchronised=record.clock_synchronised,
    )


async def delete(call: Call) -> Response:
    """Destroy everything local about a user; limits and lock-outs stay."""
    done, filming_ended = await call.agent.delete_user(user_id_of(call), actor=call.peer.caller)
    return answer(destroyed_body(done, filming_ended=filming_ended))
