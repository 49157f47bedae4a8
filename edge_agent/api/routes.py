"""The terminal API (v1): every route on one screen, and its handler.

Until roles are configured the Unix socket admits root and the daemon's own user, with every role.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.api import outbox_routes, problems, wire
from edge_agent.api.peer import STATE_KEY, Peer
from edge_agent.config import InvalidConfiguration
from edge_agent.enrolment import PictureRefused
from edge_agent.errors import (
    AgentError,
    CaptureRefused,
    ConfigurationError,
    CypherFaceError,
    InputError,
    SessionRefused,
    Transient,
    report,
)
from edge_agent.events import stream
from edge_agent.outbox.records import Consent, NewVerification, StateConflict, VerificationRecord
from edge_agent.settings import Settings, Terms
from edge_agent.texts import hint_text
from edge_agent.trial import Trial
from edge_agent.types import WORKING_STATES, GateCode, JsonObject, State

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
EVENT_ID = re.compile(r"[0-9]{1,18}")

AnyBody = TypeVar("AnyBody", bound=BaseModel)
Role = Literal["any", "pos", "enrol", "admin"]
Handler = Callable[["Call"], Awaitable[Response]]


class Entry(NamedTuple):
    """One line of the route table."""

    method: str
    path: str
    role: Role
    handler: Handler


class Call(NamedTuple):
    """One admitted request."""

    request: Request
    agent: Agent
    peer: Peer
    settings: Settings


def route_table() -> tuple[Entry, ...]:
    """Method, path, who may call, handler."""
    return (
        Entry("POST", "/v1/verifications", "pos", create),
        Entry("GET", "/v1/verifications", "pos", list_verifications),
        Entry("GET", "/v1/verifications/{id}", "pos", get_verification),
        Entry("DELETE", "/v1/verifications/{id}", "pos", cancel),
        Entry("GET", "/v1/verifications/{id}/events", "pos", verification_events),
        Entry("GET", "/v1/events", "pos", all_events),
        Entry("PUT", "/v1/users/{user_id}/source", "enrol", enrol),
        Entry("GET", "/v1/outbox", "admin", outbox_routes.list_outbox),
        Entry("DELETE", "/v1/outbox", "admin", outbox_routes.purge_all),
        Entry("POST", "/v1/outbox/verify", "admin", outbox_routes.verify),
        Entry("POST", "/v1/outbox/retry", "admin", outbox_routes.retry_all),
        Entry("GET", "/v1/outbox/{id}", "admin", outbox_routes.show),
        Entry("DELETE", "/v1/outbox/{id}", "admin", outbox_routes.purge),
        Entry("POST", "/v1/outbox/{id}/retry", "admin", outbox_routes.retry),
        Entry("POST", "/v1/outbox/{id}/export", "admin", outbox_routes.export),
        Entry("POST", "/v1/audit/verify", "admin", outbox_routes.verify_audit),
        Entry("POST", "/v1/key/rotate", "admin", outbox_routes.rotate_key),
        Entry("POST", "/v1/adopt", "admin", outbox_routes.adopt),
        Entry("POST", "/v1/reload", "admin", reload),
        Entry("POST", "/v1/config/apply", "admin", apply_config),
        Entry("GET", "/v1/config/trial", "admin", config_trial),
        Entry("POST", "/v1/config/confirm", "admin", confirm_config),
        Entry("POST", "/v1/config/revert", "admin", revert_config),
        Entry("GET", "/v1/health", "any", health),
        Entry("GET", "/v1/ready", "any", ready),
        Entry("GET", "/v1/status", "any", status),
    )


def application(agent: Agent, settings: Settings) -> Starlette:
    """The ASGI application over ``agent`` and its configuration."""
    by_path: dict[str, dict[str, Entry]] = {}
    for entry in route_table():
        by_path.setdefault(entry.path, {})[entry.method] = entry
    routes = [
        Route(path, _endpoint(agent, settings, entries), methods=list(entries)) for path, entries in by_path.items()
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_problem})


def _endpoint(
    agent: Agent, settings: Settings, entries: Mapping[str, Entry]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        peer = request.state._state.get(STATE_KEY)  # noqa: SLF001 - the protocol puts it there, see api/peer.py
        if not isinstance(peer, Peer) or not peer.admitted():
            return _problem("forbidden", "cannot answer: this caller is not admitted")
        method = "GET" if request.method == "HEAD" else request.method
        try:
            return await entries[method].handler(Call(request, agent, peer, settings))
        except ClientDisconnect:
            return Response(status_code=499)
        except AgentError as exc:
            return problem_of(exc)
        except Exception as exc:  # the top of a request: its errors are problem documents too
            report(log, exc, f"cannot answer {method} {entries[method].path}")
            return _problem("internal_error", "cannot answer: something unexpected happened")

    return endpoint


# -- problems ---------------------------------------------------------------------------------------------------------


def problem_of(error: AgentError) -> Response:
    """The problem document of any error of ours."""
    problem = problems.of_error(error)
    if isinstance(error, CypherFaceError) and error.code not in problems.CATALOGUE:
        offline = isinstance(error, Transient)
        problem = problems.CATALOGUE["offline" if offline else "service_refused"]
    if isinstance(error, InvalidConfiguration):
        problem = problems.CATALOGUE["configuration_refused"]
    body = problems.document(error, problem)
    if isinstance(error, PictureRefused):
        body["reasons"] = [reason.value for reason in error.reasons]
    if isinstance(error, InvalidConfiguration):
        body["problems"] = [asdict(found) for found in error.problems]
    if isinstance(error, CaptureRefused) and error.server_message:
        body["server_message"] = error.server_message
    headers = {}
    if isinstance(error, SessionRefused) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return JSONResponse(body, problem.status, headers, problems.MEDIA_TYPE)


def _problem(code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    problem = problems.CATALOGUE[code]
    body = problems.document(AgentError(detail, code=code), problem)
    return JSONResponse(body, problem.status, dict(headers or {}), problems.MEDIA_TYPE)


async def _http_problem(request: Request, exc: Exception) -> Response:
    """What the router itself refuses: unknown paths and methods."""
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return _problem("method_not_allowed", f"cannot {request.method} {request.url.path}", exc.headers)
    return _problem("not_found", f"cannot find {request.url.path}")


def _refuse(code: str, detail: str, hint: str | None = None) -> InputError:
    return InputError(detail, code=code, hint=hint)


# -- reading requests -------------------------------------------------------------------------------------------------


async def _body(request: Request, limit: int) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > limit:
            raise _refuse("too_large", f"cannot read the request: its body is larger than {limit} bytes")
    return bytes(chunks)


def _parse_request(body: bytes) -> wire.VerificationRequest:
    return _parse(body, wire.VerificationRequest)


def _parse(body: bytes, kind: type[AnyBody]) -> AnyBody:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise _refuse("invalid_request", "cannot read the request: the body is not JSON") from exc
    try:
        return kind.model_validate(value)
    except ValidationError as exc:
        raise _invalid(exc) from exc


def _invalid(exc: ValidationError) -> InputError:
    """One error for all wrong fields; a field with a code of its own gives its code to the whole."""
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    named = [e["type"] for e in errors if e["type"] in problems.CATALOGUE]
    code = "invalid_user_id" if any(e["loc"][:1] == ("user_id",) for e in errors) else "invalid_request"
    listing = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in errors)
    return _refuse(named[0] if named else code, f"cannot accept the request: {listing}")


def _user_id(call: Call) -> str:
    try:
        return TypeAdapter[str](wire.UserId).validate_python(call.request.path_params["user_id"])
    except ValidationError as exc:
        raise _invalid_user_id(exc) from exc


def _invalid_user_id(exc: ValidationError) -> InputError:
    error = exc.errors(include_url=False, include_input=False)[0]
    code = error["type"] if error["type"] in problems.CATALOGUE else "invalid_user_id"
    return _refuse(code, f"cannot accept the user id: {error['msg']}")


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not wire.IDEMPOTENCY_KEY.fullmatch(key):
        raise _refuse(
            "idempotency_key_missing",
            "cannot start a verification: the Idempotency-Key header is missing or not 1-255 printable characters",
        )
    return key


def _seconds(request: Request, name: str, limit_s: float) -> float:
    text = request.query_params.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= limit_s:
        raise _refuse("invalid_request", f"cannot use {name}={text!r}: must be 0-{limit_s:g} seconds")
    return value


# -- writing answers --------------------------------------------------------------------------------------------------


def _json(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), status, dict(headers or {}), "application/json")


def verification_body(agent: Agent, record: VerificationRecord, *, replayed: bool = False) -> wire.VerificationBody:
    """The record as the API shows it."""
    hint = agent.hint_of(record.id) if record.state is State.SEARCHING else None
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
        hint=_hint_body(hint) if record.state is State.SEARCHING else None,
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


def _hint_body(code: GateCode | None) -> wire.HintBody:
    return wire.HintBody(code=code.value if code else None, text=hint_text(code))


# -- handlers ---------------------------------------------------------------------------------------------------------


async def create(call: Call) -> Response:
    """Start a verification, or answer with the one this Idempotency-Key started."""
    wait_s = _seconds(call.request, "wait", wire.MAX_WAIT_S)
    key = _idempotency_key(call.request)
    body = await _body(call.request, wire.MAX_JSON_BYTES)
    asked = _parse_request(body)
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
        await call.agent.wait(record.id, wait_s, lambda r: r.state not in WORKING_STATES)
    record = await call.agent.get(record.id)
    headers = {"Location": f"/v1/verifications/{record.id}"}
    return _json(verification_body(call.agent, record, replayed=replayed), 200 if replayed else 201, headers)


def canonical(asked: wire.VerificationRequest) -> bytes:
    """The request's meaning as bytes: two bodies that ask for the same thing are the same request."""
    return json.dumps(asked.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


async def get_verification(call: Call) -> Response:
    """One record; ``?wait=`` holds until it is no longer working."""
    wait_s = _seconds(call.request, "wait", wire.MAX_WAIT_S)
    id_ = call.request.path_params["id"]
    if wait_s:
        await call.agent.wait(id_, wait_s, lambda r: r.state not in WORKING_STATES)
    return _json(verification_body(call.agent, await call.agent.get(id_)))


async def list_verifications(call: Call) -> Response:
    """The newest first, optionally of one state."""
    text = call.request.query_params.get("state")
    try:
        state = State(text) if text is not None else None
    except ValueError as exc:
        raise _refuse("invalid_request", f"cannot list: there is no state {text!r}") from exc
    records = await call.agent.list(state=state)
    return _json(wire.VerificationList(items=[verification_body(call.agent, r) for r in records]))


async def cancel(call: Call) -> Response:
    """Cancel while searching."""
    try:
        record = await call.agent.cancel(call.request.path_params["id"])
    except StateConflict as exc:
        detail = f"cannot cancel: the verification is {exc.current.state.value}"
        raise _refuse("not_cancellable", detail) from exc
    return _json(verification_body(call.agent, record))


async def verification_events(call: Call) -> Response:
    """Server-Sent Events of one verification."""
    record = await call.agent.get(call.request.path_params["id"])
    return _events(call, record.id)


async def all_events(call: Call) -> Response:
    """Server-Sent Events of everything."""
    return _events(call, None)


def _events(call: Call, verification_id: str | None) -> Response:
    text = call.request.headers.get("last-event-id")
    if text is not None and not EVENT_ID.fullmatch(text):
        raise _refuse("invalid_request", "cannot resume: Last-Event-ID is not a number of ours")

    async def body() -> Any:
        after = int(text) if text is not None else None
        with call.agent.bus.subscribe(verification_id, after=after) as reader:
            async for chunk in stream(reader, heartbeat_s=HEARTBEAT_S, boottime_s=call.agent.clock.boottime_s):
                yield chunk

    return StreamingResponse(body(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def enrol(call: Call) -> Response:
    """Enrol: pre-screen the picture in the body, then upload it as the user's source. Never queued."""
    user_id = _user_id(call)
    media_type = call.request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in {"image/jpeg", "image/png", "image/webp", "image/bmp"}:
        raise _refuse("unsupported_media_type", f"cannot enrol with content type {media_type or 'none'!r}",
                      "send image/jpeg or image/png")  # fmt: skip
    picture = await _body(call.request, wire.MAX_PICTURE_BYTES)
    await call.agent.enrol(user_id, picture)
    return _json(wire.SourceBody(user_id=user_id), 201)


async def reload(call: Call) -> Response:
    """Read the configuration file again; an open trial ends. 422 when the old one goes on."""
    done = await call.settings.reload()
    if done.problems:
        raise ConfigurationError("cannot take it, the old one goes on: " + "; ".join(done.problems),
                                 code="configuration_refused")  # fmt: skip
    return _json(wire.ReloadBody(at=done.at, restart_needed=list(call.settings.restart_needed)))


async def apply_config(call: Call) -> Response:
    """Run a candidate on trial; see docs/configuration.md."""
    asked = _parse(await _body(call.request, wire.MAX_CONFIG_BYTES), wire.ApplyRequest)
    terms = Terms(asked.watch_s, asked.confirm_within_s, asked.restart)
    return _json(_trial_body(call, await call.settings.try_out(asked.text, terms)), 202)


async def config_trial(call: Call) -> Response:
    """The last trial, open or not."""
    trial = call.settings.trial
    if trial is None:
        raise _refuse("not_found", "cannot find a trial: no configuration was applied yet")
    return _json(_trial_body(call, trial))


async def confirm_config(call: Call) -> Response:
    """The candidate, to be put in place by the caller, who then reloads."""
    trial = await call.settings.confirm()
    return _json(_trial_body(call, trial).model_copy(update={"text": trial.text}))


async def revert_config(call: Call) -> Response:
    """Go back to the file at once."""
    return _json(_trial_body(call, await call.settings.revert("it was called off")))


def _trial_body(call: Call, trial: Trial) -> wire.TrialBody:
    return wire.TrialBody(
        id=trial.id,
        phase=trial.phase.value,
        reason=trial.reason,
        digest=trial.digest,
        restart=trial.restart,
        confirm_within_s=trial.confirm_within_s,
        left_s=call.settings.left_s,
        changes=[wire.ChangeBody(key=c.key, old=c.old, new=c.new) for c in trial.changes],
    )


def _configuration_json(settings: Settings) -> JsonObject:
    last, trial = settings.last, settings.trial
    return {
        "file": str(settings.file) if settings.file else None,
        "last_reload": {"at": last.at.isoformat(), "ok": not last.problems, "problems": list(last.problems)}
        if last
        else None,
        "reloads": dict(settings.reloads),
        "restart_needed": list(settings.restart_needed),
        "trial": {"phase": trial.phase.value, "reason": trial.reason, "left_s": settings.left_s} if trial else None,
    }


async def health(call: Call) -> Response:
    """The process lives and its loop turns."""
    del call
    return JSONResponse({"status": "ok"})


async def ready(call: Call) -> Response:
    """200 when a verification could start, else 503 with what is missing."""
    agent = call.agent
    missing = {part: error.code for part, error in agent.faults.items()}
    return JSONResponse({"ready": agent.ready, "missing": missing}, 200 if agent.ready else 503)


async def status(call: Call) -> Response:
    """How the agent is doing: parts, queue, network, frames."""
    agent = call.agent
    forwarder = agent.forwarder_status
    body: JsonObject = {
        "version": __version__,
        "terminal_id": agent.config.terminal_id,
        "started_at": agent.started_at.isoformat(),
        "uptime_s": round((datetime.now(UTC) - agent.started_at).total_seconds(), 1),
        "started": agent.started,
        "ready": agent.ready,
        "searching": agent.searching,
        "faults": [
            {"part": part, "code": error.code, "detail": error.message, "hint": error.hint}
            for part, error in agent.faults.items()
        ],
        "configuration": _configuration_json(call.settings),
        "pack": agent.config.models.pack,
        "frames": dict(agent.frames),
        "first_frame_after_s": agent.first_frame_after_s,
        "network": {
            "state": forwarder.network if forwarder else "unknown",
            "stopped_code": forwarder.stopped_code if forwarder else None,
            "last_error": forwarder.last_error if forwarder else None,
            "last_success_at": (
                forwarder.last_success_at.isoformat() if forwarder and forwarder.last_success_at else None
            ),
        },
    }
    try:
        body["queue"] = await agent.queue()
        body["storage"] = await agent.storage()
    except AgentError as exc:
        body["queue"] = body["storage"] = {"error": exc.code}
    return JSONResponse(body)
