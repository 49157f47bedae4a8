"""Handlers of a terminal's main job: verifications and their events."""

from __future__ import annotations

import json

from starlette.responses import Response

from edge_agent.agent import Agent
from edge_agent.announcer import ShownHint
from edge_agent.api import wire
from edge_agent.api.answers import answer
from edge_agent.api.calls import Call, idempotency_key, parse, read_body, refuse, seconds, while_connected
from edge_agent.api.ownership import owned, readable
from edge_agent.api.streams import events_of
from edge_agent.outbox.records import Consent, NewVerification, StateConflict, VerificationRecord
from edge_agent.texts import hint_text
from edge_agent.types import WORKING_STATES, ChallengeCode, ChallengeOutcome, State

OUTCOMES = {
    ChallengeCode.FAILED.value: "failed",
    ChallengeCode.CANNOT_TURN.value: "failed",
    ChallengeCode.UNAVAILABLE.value: ChallengeOutcome.UNAVAILABLE.value,
}
"""What the record says of a challenge that was not passed, by the reason of the rejection."""


def verification_body(agent: Agent, record: VerificationRecord, *, replayed: bool = False) -> wire.VerificationBody:
    """The record as the API shows it."""
    return wire.VerificationBody(
        id=record.id,
        state=record.state,
        final=record.final,
        approved=agent.is_approved(record),
        late=record.late,
        contradicted=record.contradicted,
        replayed=replayed,
        user_id=record.user_id,
        reference=record.reference,
        amount=record.amount,
        currency=record.currency,
        hint=_hint_body(agent, record) if record.state is State.SEARCHING else None,
        challenge=_challenge_body(agent, record),
        reasons=list(record.reasons),
        error=wire.ErrorBody(code=record.error_code, detail=record.error_detail) if record.error_code else None,
        similarity=record.verdict.similarity if record.verdict else None,
        attempts=record.attempts,
        created_at=record.created_at,
        captured_at=record.captured_at,
        verdict_at=record.verdict_at,
        updated_at=record.updated_at,
        clock_synchronised=record.clock_synchronised,
        age_s=round(record.age_s, 3),
    )


def _hint_body(agent: Agent, record: VerificationRecord) -> wire.HintBody:
    shown = agent.hint_of(record.id) or ShownHint(None, record.created_at)
    return wire.HintBody(code=shown.code.value if shown.code else None, text=hint_text(shown.code), since=shown.since)


def _challenge_body(agent: Agent, record: VerificationRecord) -> wire.ChallengeBody | None:
    course = agent.challenge_of(record.id) if record.state is State.SEARCHING else None
    if course is not None:
        return wire.ChallengeBody(**course.standing())
    outcome = record.challenge or next((OUTCOMES[reason] for reason in record.reasons if reason in OUTCOMES), None)
    over: dict[str, None] = dict.fromkeys(wire.ChallengeBody.model_fields)
    return None if outcome is None else wire.ChallengeBody.model_validate({**over, "outcome": outcome})


async def create(call: Call) -> Response:
    """Start a verification, or answer with the one this Idempotency-Key started."""
    wait_s = seconds(call.request, "wait", wire.MAX_WAIT_S)
    key = idempotency_key(call.request)
    body = await read_body(call.request, wire.MAX_JSON_BYTES)
    asked = parse(body, wire.VerificationRequest)
    session = call.agent.config.session
    new = NewVerification(
        user_id=asked.user_id,
        caller=call.peer.caller,
        idempotency_key=key,
        body=canonical(asked),
        environment=call.agent.environment(),
        search_timeout_s=asked.search_timeout_s or session.search_timeout_s,
        verdict_timeout_s=session.verdict_timeout_s,
        reference=asked.reference,
        amount=asked.amount,
        currency=asked.currency,
        consent=Consent(asked.consent.reference, tuple(asked.consent.scopes)) if asked.consent else None,
    )
    record, replayed = await call.agent.begin(new)
    if wait_s:
        record = await _settled(call, record.id, wait_s)
    else:
        record = await call.agent.get(record.id)
    headers = {"Location": f"/v1/verifications/{record.id}"}
    return answer(verification_body(call.agent, record, replayed=replayed), 200 if replayed else 201, headers)


def canonical(asked: wire.VerificationRequest) -> bytes:
    """The request's meaning as bytes: two bodies that ask for the same thing are the same request."""
    return json.dumps(asked.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


async def get_verification(call: Call) -> Response:
    """One record; ``?wait=`` holds until it is no longer working."""
    wait_s = seconds(call.request, "wait", wire.MAX_WAIT_S)
    record = await readable(call)
    if wait_s:
        record = await _settled(call, record.id, wait_s)
    return answer(verification_body(call.agent, record))


async def _settled(call: Call, id_: str, wait_s: float) -> VerificationRecord:
    """The record when it is no longer working, or after ``wait_s``. Who hangs up meanwhile changes nothing."""
    return await while_connected(call.request, call.agent.wait(id_, wait_s, lambda r: r.state not in WORKING_STATES))


async def list_verifications(call: Call) -> Response:
    """The newest first, optionally of one state: the caller's own, for an admin all."""
    text = call.request.query_params.get("state")
    try:
        state = State(text) if text is not None else None
    except ValueError as exc:
        raise refuse("invalid_request", f"cannot list: there is no state {text!r}") from exc
    records = await call.agent.list(state=state, caller=None if call.peer.is_admin else call.peer.caller)
    return answer(wire.VerificationList(items=[verification_body(call.agent, r) for r in records]))


async def cancel(call: Call) -> Response:
    """Cancel while searching. Its owner alone may: nobody else knows what the customer was told."""
    record = await owned(call)
    try:
        record = await call.agent.cancel(record.id)
    except StateConflict as exc:
        detail = f"cannot cancel: the verification is {exc.current.state.value}"
        raise refuse("not_cancellable", detail) from exc
    return answer(verification_body(call.agent, record))


async def answer_challenge(call: Call) -> Response:
    """Say that a prompt of the challenge is shown, or that the customer cannot turn. Its owner alone may; again is fine."""
    asked = parse(await read_body(call.request, wire.MAX_JSON_BYTES), wire.ChallengeAnswer)
    record = await owned(call)
    call.agent.answer_challenge(record.id, asked.step)
    return answer(verification_body(call.agent, await call.agent.get(record.id)))


async def withdraw(call: Call) -> Response:
    """Consent withdrawn: everything personal of it is destroyed here; what was not over is ``deleted``."""
    record = await call.agent.withdraw((await readable(call)).id, actor=call.peer.caller)
    return answer(verification_body(call.agent, record))


async def verification_events(call: Call) -> Response:
    """Server-Sent Events of one verification: how it is now, then what happens, until it is final."""
    record = await readable(call)
    return events_of(call, record.id)


async def all_events(call: Call) -> Response:
    """Server-Sent Events of the terminal and of the caller's own verifications; for an admin of everything."""
    return events_of(call, None)
