"""Every call of the API, described. routes.py says who handles it; a test compares the two."""

from __future__ import annotations

from edge_agent.api import wire, wire_outbox, wire_status
from edge_agent.api.operation import EVENT_STREAM, JSON, LOOKS, Answer, Link, Operation, Parameter, Payload
from edge_agent.events import EVENT_ID
from edge_agent.types import JsonObject, State

# -- problems that come together --------------------------------------------------------------------------------------

STORE = frozenset({
    "storage_failed", "storage_full", "key_mismatch", "key_unavailable", "state_moved", "environment", "starting",
})  # fmt: skip
"""Whatever keeps the outbox away."""
STARTING = STORE | {"models_missing", "camera_unavailable", "stopping"}
"""Whatever keeps a verification from starting, beside the rules of the session."""
USER = frozenset({"invalid_user_id", "looks_like_card_number"})
BODY = frozenset({"too_large", "unsupported_media_type"})
PICTURE = frozenset({"not_an_image", "picture_truncated", "picture_too_large", "picture_too_small", "picture_refused"})
IDEMPOTENCY = frozenset({"idempotency_key_missing", "idempotency_mismatch", "idempotency_expired"})
RECONFIGURING = frozenset({"environment", "key_unavailable", "stopping"})
"""Whatever keeps another configuration from being run, beside what is wrong with it."""

# -- parameters -------------------------------------------------------------------------------------------------------

WAIT = Parameter(
    "wait",
    {"type": "number", "minimum": 0, "maximum": wire.MAX_WAIT_S, "default": 0},
    "Hold the answer until the verification is in a state that is not working, at most so many seconds.",
)
STATE = Parameter("state", {"type": "string", "enum": [state.value for state in State]}, "Only those in this state.")
LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": wire_outbox.MAX_LISTED, "default": 100},
                  "At most so many.")  # fmt: skip
MATCHES = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": wire.MAX_MATCHES, "default": 20},
                    "At most so many.")  # fmt: skip
FROM = Parameter(
    "from", {"type": "string", "enum": ["body", "camera"], "default": "body"}, "Where the picture is from."
)
ENROLMENT_S = Parameter(
    "search_timeout_s",
    {"type": "number", "anyOf": [{"const": 0}, {"minimum": 1}], "maximum": wire.MAX_ENROLMENT_S, "default": 0},
    "From the camera: how long to film, in seconds; 0 = as configured (`enrolment.search_timeout_s`).",
)
AIM_LIMIT = Parameter(
    "limit_s", {"type": "number", "minimum": 0, "maximum": wire.MAX_AIM_S, "default": wire.AIM_S},
    "It ends by itself after so many seconds; 0 = the default.",
)  # fmt: skip
PICTURES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
BEFORE = Parameter("before", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
                   "`next_before` of the page before.")  # fmt: skip
PARKED = Parameter("parked", {"type": "boolean"}, "Only those that are parked, or only those that are not.")
PARKED_TOO = Parameter("parked", {"type": "boolean", "default": False}, "Queue the parked ones again too.")
WHICH = Parameter("which", {"type": "string", "enum": ["parked", "all"]},
                  "Required, so that nobody does it by mistake.", required=True)  # fmt: skip
HEAD = Parameter("expect_head", {"type": "string", "pattern": "^[1-9][0-9]{0,17}:[0-9a-fA-F]{64}$"},
                 "A head that was noted elsewhere: finds a cut-off end.")  # fmt: skip
KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f"^{wire.IDEMPOTENCY_KEY.pattern}$"},
    "Fresh per payment attempt, the same when repeating it: the same key and body give the same verification for 24 h.",
    required=True,
)
LAST_EVENT = Parameter("Last-Event-ID", {"type": "string", "pattern": f"^({EVENT_ID.pattern})$"},
                       "The last id that was seen; what is remembered since is sent first. 0: all that is remembered.")  # fmt: skip

# -- bodies -----------------------------------------------------------------------------------------------------------

ASKED: JsonObject = {"user_id": "customer-17", "reference": "order 4711", "amount": "12.50", "currency": "EUR",
                     "consent": {"reference": "c-17", "scopes": ["match"]}, "search_timeout_s": 20}  # fmt: skip
RECORD: JsonObject = {
    "id": "5f1b9a7e77b04c119e1c1f0c2a1f9d10", "state": "verified", "final": True, "approved": True, "late": False,
    "contradicted": False, "replayed": False, "user_id": "customer-17", "reference": "order 4711", "amount": "12.50",
    "currency": "EUR", "hint": None, "challenge": None, "reasons": [], "error": None, "similarity": 99.3, "attempts": 1,
    "created_at": "2026-11-21T10:00:00Z", "captured_at": "2026-11-21T10:00:01Z",
    "verdict_at": "2026-11-21T10:00:02Z", "updated_at": "2026-11-21T10:00:02Z", "clock_synchronised": True,
    "age_s": 2.4,
}  # fmt: skip
CHALLENGED: JsonObject = {
    **RECORD, "state": "searching", "final": False, "approved": False, "similarity": None, "attempts": 0,
    "captured_at": None, "verdict_at": None,
    "hint": {"code": None, "text": "Please hold on.", "since": "2026-11-21T10:00:01Z"},
    "challenge": {"outcome": None, "method": "head_turn", "attempt": 1, "attempts": 2, "step": 2, "prompt": "turn_left",
                  "text": "Please turn your head a little to your left.", "shown": True, "progress": 0.0},
}  # fmt: skip
_ID = "$response.body#/id"
FOLLOWING = (
    Link("getVerification", "id", _ID),
    Link("cancelVerification", "id", _ID),
    Link("withdrawVerification", "id", _ID),
    Link("verificationEvents", "id", _ID),
    Link("showOutboxEntry", "id", _ID),
    Link("exportCapture", "id", _ID),
    Link("retryCapture", "id", _ID),
    Link("purgeCapture", "id", _ID),
)
LOCATION = {"Location": "The verification's own path."}
PRIVATE = {"Cache-Control": "no-store"}
STREAM = Answer(EVENT_STREAM, "Events as they come; comments are heartbeats.", PRIVATE)
TRIAL = Answer(wire.TrialBody, "The trial.")


def _record(text: str) -> Answer:
    return Answer(wire.VerificationBody, text, example=RECORD)


# -- the calls --------------------------------------------------------------------------------------------------------

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/verifications"): Operation(
        "startVerification",
        "verifications",
        {
            201: Answer(wire.VerificationBody, "Started.", LOCATION, RECORD, FOLLOWING),
            200: Answer(wire.VerificationBody, "The one that this Idempotency-Key started (`replayed`).", LOCATION,
                        {**RECORD, "replayed": True}, FOLLOWING),
        },
        STARTING | USER | BODY | IDEMPOTENCY | {"busy", "locked_out", "offline"},
        query=(WAIT,),
        headers=(KEY,),
        payload=Payload(wire.VerificationRequest, (JSON,), wire.MAX_JSON_BYTES, ASKED),
    ),
    ("GET", "/v1/verifications"): Operation(
        "listVerifications",
        "verifications",
        {200: Answer(wire.VerificationList, "At most 100.", example={"items": [RECORD]})},
        STORE,
        query=(STATE,),
    ),
    ("GET", "/v1/verifications/{id}"): Operation(
        "getVerification", "verifications", {200: _record("The record.")}, STORE | {"not_found"}, query=(WAIT,)
    ),
    ("DELETE", "/v1/verifications/{id}"): Operation(
        "cancelVerification", "verifications", {200: _record("Cancelled.")}, STORE | {"not_found", "not_cancellable"}
    ),
    ("POST", "/v1/verifications/{id}/challenge"): Operation(
        "answerChallenge",
        "verifications",
        {200: Answer(wire.VerificationBody, "Taken; the record as it is now.", example=CHALLENGED)},
        STORE | BODY | {"not_found", "challenge_not_running", "challenge_wrong_step"},
        payload=Payload(wire.ChallengeAnswer, (JSON,), wire.MAX_JSON_BYTES, {"step": 2, "shown": True}),
    ),
    ("POST", "/v1/verifications/{id}/withdraw"): Operation(
        "withdrawVerification", "verifications", {200: _record("As it is now.")}, STORE | {"not_found"}
    ),
    ("GET", "/v1/verifications/{id}/events"): Operation(
        "verificationEvents", "events", {200: STREAM}, STORE | {"not_found"}, headers=(LAST_EVENT,)
    ),
    ("GET", "/v1/events"): Operation("allEvents", "events", {200: STREAM}, frozenset(), headers=(LAST_EVENT,)),
    ("PUT", "/v1/users/{user_id}/source"): Operation(
        "enrolUser",
        "users",
        {201: Answer(wire.SourceBody, "Uploaded.")},
        STARTING | USER | BODY | PICTURE | {"busy", "state_conflict", "source_exists", "service_refused", "offline"},
        query=(FROM, ENROLMENT_S),
        payload=Payload(None, PICTURES, wire.MAX_PICTURE_BYTES, unless=("from", "camera")),
    ),
    ("GET", "/v1/users/{user_id}/matches"): Operation(
        "listMatches",
        "users",
        {200: Answer(wire.MatchList, "The newest verdict first.")},
        STORE | USER,
        query=(MATCHES,),
    ),
    ("DELETE", "/v1/users/{user_id}"): Operation(
        "destroyUser", "users", {200: Answer(wire.UserDestroyedBody, "What was destroyed.")}, STORE | USER
    ),
    ("GET", "/v1/privacy"): Operation(
        "privacyReport", "outbox", {200: Answer(wire_outbox.PrivacyBody, "Counts and dates, no content.")}, STORE
    ),
    ("GET", "/v1/outbox"): Operation(
        "listOutbox",
        "outbox",
        {200: Answer(wire_outbox.OutboxList, "One page.")},
        STORE,
        query=(LIMIT, BEFORE, PARKED),
    ),
    ("DELETE", "/v1/outbox"): Operation(
        "purgeOutbox", "outbox", {200: Answer(wire_outbox.PurgeBody, "Destroyed.")}, STORE, query=(WHICH,)
    ),
    ("POST", "/v1/outbox/verify"): Operation(
        "verifyOutbox", "outbox", {200: Answer(wire_outbox.OutboxCheck, "What was found; see `ok`.")}, STORE
    ),
    ("POST", "/v1/outbox/retry"): Operation(
        "retryOutbox", "outbox", {200: Answer(wire_outbox.RetryBody, "What changed.")}, STORE, query=(PARKED_TOO,)
    ),
    ("GET", "/v1/outbox/{id}"): Operation(
        "showOutboxEntry", "outbox", {200: Answer(wire_outbox.OutboxEntry, "The entry.")}, STORE | {"not_found"}
    ),
    ("DELETE", "/v1/outbox/{id}"): Operation(
        "purgeCapture",
        "outbox",
        {200: Answer(wire_outbox.PurgeBody, "Destroyed.")},
        STORE | {"not_found", "state_conflict"},
    ),
    ("POST", "/v1/outbox/{id}/retry"): Operation(
        "retryCapture",
        "outbox",
        {200: Answer(wire_outbox.RetryBody, "What changed.")},
        STORE | {"not_found", "state_conflict"},
    ),
    ("POST", "/v1/outbox/{id}/export"): Operation(
        "exportCapture",
        "outbox",
        {200: Answer("image/jpeg", "The picture: biometric data.", PRIVATE)},
        STORE | {"not_found"},
    ),
    ("POST", "/v1/audit/verify"): Operation(
        "verifyAudit",
        "outbox",
        {200: Answer(wire_outbox.AuditCheck, "What was found; see `ok`.")},
        STORE,
        query=(HEAD,),
    ),
    ("POST", "/v1/key/rotate"): Operation(
        "rotateKey", "outbox", {200: Answer(wire_outbox.RotationBody, "Rotated.")}, STORE | {"rotation_not_due"}
    ),
    ("POST", "/v1/adopt"): Operation(
        "adoptState", "outbox", {200: Answer(wire_outbox.AdoptionBody, "Accepted.")}, STORE | {"not_moved"}
    ),
    ("POST", "/v1/aim"): Operation(
        "aim",
        "condition",
        {200: Answer(LOOKS, "Looks as they come, one JSON object a line.", PRIVATE)},
        frozenset({"busy", "stopping", "camera_unavailable"}),
        query=(AIM_LIMIT,),
    ),
    ("POST", "/v1/reload"): Operation(
        "reloadConfiguration", "configuration", {200: Answer(wire.ReloadBody, "Taken.")},
        RECONFIGURING | {"configuration_refused"},
    ),
    ("POST", "/v1/config/apply"): Operation(
        "applyConfiguration",
        "configuration",
        {202: Answer(wire.TrialBody, "On trial.")},
        RECONFIGURING | BODY | {"configuration_refused", "config_pending", "restart_needed", "restart_unavailable", "busy"},
        payload=Payload(wire.ApplyRequest, (JSON,), wire.MAX_CONFIG_BYTES, {"text": "terminal_id: pos-0001\n"}),
    ),
    ("GET", "/v1/config/trial"): Operation("getTrial", "configuration", {200: TRIAL}, frozenset({"not_found"})),
    ("POST", "/v1/config/confirm"): Operation(
        "confirmConfiguration",
        "configuration",
        {200: Answer(wire.TrialBody, "The candidate is in `text`.")},
        frozenset({"config_not_pending", "config_watching", "environment"}),
    ),
    ("POST", "/v1/config/revert"): Operation(
        "revertConfiguration", "configuration", {200: TRIAL}, RECONFIGURING | {"config_not_pending"}
    ),
    ("GET", "/v1/health"): Operation(
        "health", "condition", {200: Answer(wire_status.HealthBody, "It lives.")}, frozenset()
    ),
    ("GET", "/v1/ready"): Operation(
        "ready",
        "condition",
        {
            200: Answer(wire_status.ReadyBody, "A verification could start.", example={"ready": True, "missing": {}}),
            503: Answer(wire_status.ReadyBody, "Something is missing.",
                        example={"ready": False, "missing": {"models": "models_missing"}}),
        },
        frozenset(),
    ),
    ("GET", "/v1/status"): Operation(
        "status", "condition", {200: Answer(wire_status.StatusBody, "How it is.")}, frozenset()
    ),
    ("GET", "/v1/openapi.json"): Operation(
        "openapi", "condition", {200: Answer(JSON, "OpenAPI 3.1.")}, frozenset()
    ),
    ("GET", "/metrics"): Operation(
        "metrics", "condition", {200: Answer("text/plain", "Text format 0.0.4, UTF-8.", PRIVATE)}, frozenset()
    ),
}  # fmt: skip
