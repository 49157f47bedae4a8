"""The problem catalogue: every error the API can answer, with a stable code (RFC 9457 problem documents)."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.config import InvalidConfiguration
from edge_agent.errors import (
    AgentError,
    CameraError,
    ConfigurationError,
    CypherFaceError,
    EnvironmentFault,
    ModelError,
    SessionRefused,
    StorageError,
    Transient,
)
from edge_agent.types import JsonObject

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of error: its HTTP status, its title and whether the same request can succeed later."""

    code: str
    status: int
    title: str
    retryable: bool
    hint: str


_ALL = (
    Problem("invalid_request", 400, "The request is not valid", False, "Read detail, mend the request."),
    Problem("unauthenticated", 401, "The bearer token is missing or wrong", False,
            "Send Authorization: Bearer TOKEN with the token of api.token."),
    Problem("forbidden", 403, "The caller may not do this", False,
            "Name the caller's user or group in api.roles, or call as root; over TCP send the token of the role."),
    Problem("cross_origin", 403, "A page in a browser may not call this", False,
            "Call from a program: without Origin and Sec-Fetch-Site."),
    Problem("not_found", 404, "There is no such thing", False, "Check the path and the id."),
    Problem("method_not_allowed", 405, "The method is not known here", False, "Read the Allow header."),
    Problem("request_timeout", 408, "The request did not arrive in time", True, "Send it whole, and at once."),
    Problem("busy", 409, "Another verification is searching", True, "Wait for it, or cancel it, then try again."),
    Problem("not_cancellable", 409, "The verification can no longer be cancelled", False, "It has been captured, or is over: look at its state."),
    Problem("state_conflict", 409, "The verification is not in a state that allows this", False, "Look at its state."),
    Problem("challenge_not_running", 409, "No challenge is running for this verification", False,
            "It has not begun, or is over: look at challenge in the record."),
    Problem("challenge_wrong_step", 409, "Another step of the challenge is asked now", False,
            "Show the prompt of the record, and acknowledge its step."),
    Problem("rotation_not_due", 409, "There is no other key to change to", False,
            "Set outbox.previous_key to the old key and outbox.key to the new one."),
    Problem("not_moved", 409, "The state directory belongs to this machine already", False, "There is nothing to do."),
    Problem("config_pending", 409, "Another configuration is on trial", True, "Wait for its end, or roll it back."),
    Problem("config_not_pending", 409, "No configuration is on trial", False, "Apply one first; the last one has ended."),
    Problem("config_watching", 409, "The health of the configuration is still watched", True, "Try again in a second."),
    Problem("restart_needed", 409, "A changed key needs a restart", False, "Apply it with a restart."),
    Problem("restart_unavailable", 409, "Nobody would start the agent again", False, "Restart it yourself."),
    Problem("source_exists", 409, "The user is enrolled already", False,
            "CypherFace keeps the first source picture: have it removed there if it is not this person's."),
    Problem("too_large", 413, "The request body is too large", False, "Send less."),
    Problem("unsupported_media_type", 415, "The content type is not accepted", False, "Send the documented type."),
    Problem("misdirected", 421, "The Host header names another server", False, "Use the address of api.tcp."),
    Problem("invalid_user_id", 422, "The user id is not acceptable", False,
            "1-128 characters of A-Z a-z 0-9 . _ @ : + = -"),
    Problem("looks_like_card_number", 422, "A field looks like a payment card number", False,
            "Never send card numbers: use your own reference."),
    Problem("idempotency_key_missing", 422, "The Idempotency-Key header is missing", False,
            "Send a fresh unique key per payment attempt, and the same one when repeating it."),
    Problem("idempotency_mismatch", 422, "The Idempotency-Key was used with another body", False,
            "Use a fresh key for a new verification."),
    Problem("idempotency_expired", 422, "The Idempotency-Key is older than 24 hours", False, "Use a fresh key."),
    Problem("not_an_image", 422, "The body is not a picture", False, "Send a JPEG or PNG file."),
    Problem("picture_truncated", 422, "The picture is incomplete", False, "Send the whole file."),
    Problem("picture_too_large", 422, "The picture has too many pixels", False, "Scale it down."),
    Problem("picture_too_small", 422, "The picture has too few pixels", False, "Send a larger picture."),
    Problem("picture_refused", 422, "The picture does not qualify for enrolment", False,
            "Read reasons; take another picture."),
    Problem("configuration_refused", 422, "The configuration cannot be used", False, "Read detail and problems."),
    Problem("locked_out", 429, "Too many failed verifications", True, "Wait as Retry-After says."),
    Problem("headers_too_large", 431, "The request has too many or too large headers", False, "Send less."),
    Problem("internal_error", 500, "Something went wrong inside the agent", True, "See the agent's log."),
    Problem("service_refused", 502, "CypherFace refused the request", False, "Read detail."),
    Problem("offline", 503, "CypherFace cannot be reached", True, "Check the network."),
    Problem("camera_unavailable", 503, "The camera is not available", True, "Run: edge-agent doctor"),
    Problem("models_missing", 503, "The model pack is not installed or not intact", True,
            "Run: edge-agent models fetch PACK"),
    Problem("storage_full", 503, "There is no room for another capture", True, "Free space on the state directory."),
    Problem("storage_failed", 503, "The state directory cannot be used", True, "Check the disk and the log."),
    Problem("key_mismatch", 503, "The device key does not fit the stored data", False, "Restore the right key."),
    Problem("key_unavailable", 503, "The device key cannot be read", False, "See outbox.key, and: edge-agent doctor"),
    Problem("environment", 503, "The device or its configuration lacks something", False, "Run: edge-agent doctor"),
    Problem("state_moved", 503, "The stored data comes from another machine", False, "Run: edge-agent adopt"),
    Problem("too_many_connections", 503, "Too many connections are open", True, "Close some, or use them again."),
    Problem("starting", 503, "The agent is still starting", True, "Try again in a second."),
    Problem("stopping", 503, "The agent is stopping", True, "Try again when it runs."),
)  # fmt: skip
CATALOGUE = {problem.code: problem for problem in _ALL}

ALIASES = {
    "camera_frozen": "camera_unavailable",
    "frame_loop": "camera_unavailable",
    "secret_missing": "key_unavailable",
    "secret_exposed": "key_unavailable",
    "key_invalid": "key_unavailable",
    "pack_unknown": "models_missing",
    "pack_invalid": "models_missing",
    "invalid_input": "invalid_request",
}
"""Finer codes of ours, and the documented one a POS sees for them."""

OF_CLASS: tuple[tuple[type[AgentError], str], ...] = (
    (CameraError, "camera_unavailable"),
    (ModelError, "models_missing"),
    (StorageError, "storage_failed"),
    (EnvironmentFault, "environment"),
    (InvalidConfiguration, "configuration_refused"),
    (ConfigurationError, "environment"),
    (Transient, "offline"),
    (CypherFaceError, "service_refused"),
)
"""Every other fault of the device or of the service: it is never an internal error. The first that fits counts."""


OF_CALLERS = frozenset({"unauthenticated", "forbidden", "not_found"})
"""Said of our callers: CypherFace refusing *us* in the same words is another matter."""


def of_error(error: AgentError) -> Problem:
    """The documented problem for an error; what is not documented is an internal error."""
    code = ALIASES.get(error.code, error.code)
    if code not in CATALOGUE or (isinstance(error, CypherFaceError) and code in OF_CALLERS):
        code = next((code for kind, code in OF_CLASS if isinstance(error, kind)), "internal_error")
    return CATALOGUE[code]


def document(error: AgentError, problem: Problem) -> JsonObject:
    """The problem document for ``error``."""
    body: JsonObject = {
        "type": f"urn:edge-agent:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "detail": error.message,
        "hint": error.hint or problem.hint,
        "retryable": problem.retryable,
    }
    if isinstance(error, SessionRefused) and error.retry_after_s is not None:
        body["retry_after_s"] = error.retry_after_s
    if isinstance(error, SessionRefused) and error.active_id is not None:
        body["active_id"] = error.active_id
    return body


def example(problem: Problem) -> JsonObject:
    """What the problem looks like, with its title for a detail."""
    return document(AgentError(f"cannot do it: {problem.title[0].lower()}{problem.title[1:]}"), problem)
