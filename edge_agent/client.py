"""A simple, synchronous, typed client of the terminal API; the command line is built on it.

Two kinds of errors: ApiError (the agent answered, with a problem document) and EnvironmentFault ``agent_unreachable``
(nobody knows what came of the request). After the latter every GET, and ``verify`` with the same idempotency key, may
be repeated; ``patience_s`` has the client do so by itself.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from edge_agent.api.wire import MatchList, UserDestroyedBody, VerificationBody
from edge_agent.api.wire_events import EVENTS, EventBody
from edge_agent.api.wire_outbox import (
    AdoptionBody,
    AuditCheck,
    OutboxCheck,
    OutboxEntry,
    OutboxList,
    PrivacyBody,
    PurgeBody,
    RetryBody,
    RotationBody,
)
from edge_agent.errors import AgentError, EnvironmentFault, InputError
from edge_agent.types import JsonObject

CHECK_S = 1800.0
"""What reads or changes the whole outbox may take this much longer: a Pi with a full card."""
PAUSE_S = 0.2
"""Between two tries to reach an agent that does not answer."""
EVENTS_S = 60.0
"""A stream that says nothing for so long, not even a heartbeat, is dead."""
RESTARTING = {"starting", "stopping"}
"""Problems that a little patience solves."""
FROM_THE_START = "0"
"""The id to resume events after for everything that the agent remembers."""

CAMERA_S = 60.0
"""Opening a camera takes half a minute at most, and models may have to be loaded."""
ERASE_S = 300.0
"""Erasing rewrites files: so much longer on a slow card."""
UPLOAD_S = 120.0
"""Two calls of CypherFace and an upload."""


class ApiError(AgentError):
    """The agent answered with a problem document."""

    exit_code = 1

    def __init__(self, problem: JsonObject, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(
            str(problem.get("detail") or problem.get("title") or f"the agent answered {status}"),
            code=str(problem.get("code", "unknown")),
            hint=problem.get("hint"),
            retryable=bool(problem.get("retryable", False)),
        )
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s
        if status == 503:
            self.exit_code = EnvironmentFault.exit_code


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One Server-Sent Event."""

    id: str | None
    """What to resume after."""
    kind: str
    data: JsonObject

    @property
    def body(self) -> EventBody | None:
        """``data`` as what api/wire_events.py says of this kind; None for a kind of a newer agent."""
        model = EVENTS.get(self.kind)
        return model.model_validate(self.data) if model is not None else None


class AgentClient:
    """Talks to the daemon behind ``socket``, or ``over_tcp``. A context manager; not thread-safe."""

    def __init__(
        self,
        socket: Path | None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 0.0,
        http: httpx.Client | None = None,
    ) -> None:
        """``socket`` None: ``http`` leads to the agent, see ``over_tcp``.

        ``patience_s``: how long to go on trying to reach an agent that does not answer (it may be restarting). Only
        what is safe to repeat is tried again.
        """
        self._socket = socket
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._http = http or httpx.Client(
            # no TLS on a Unix socket: reading the certificate authorities would cost 40 ms a command
            transport=httpx.HTTPTransport(uds=str(socket), verify=False),
            base_url="http://edge-agent",
            timeout=timeout_s,
        )

    @classmethod
    def over_tcp(cls, address: str, token: str, *, timeout_s: float = 30.0, patience_s: float = 0.0) -> Self:
        """Talk to ``address``, the value of ``api.tcp`` such as ``127.0.0.1:8470``, with a bearer token.

        Raises InputError for an address that is not loopback: the token would cross a network in clear.
        """
        if not _is_loopback(address):
            raise InputError(f"cannot call {address}: the API is on a loopback address such as 127.0.0.1:8470")
        http = httpx.Client(
            transport=httpx.HTTPTransport(verify=False),  # neither TLS nor a proxy of the environment
            base_url=f"http://{address}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
        )
        return cls(None, timeout_s=timeout_s, patience_s=patience_s, http=http)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def verify(
        self, user_id: str, *, idempotency_key: str | None = None, wait_s: float = 0.0, **fields: Any
    ) -> VerificationBody:
        """Start a verification; ``fields`` are those of ``POST /v1/verifications``.

        With ``wait_s`` the answer comes when there is one, or after that time. Keep the key of a payment: called again
        with it, after an error or a crash, this gives the same verification. Raises ApiError.
        """
        body = {"user_id": user_id, **{name: value for name, value in fields.items() if value is not None}}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        answer = self._call("POST", "/v1/verifications", params=_wait(wait_s), json=body, headers=headers, slow=wait_s)
        return VerificationBody.model_validate_json(answer.content)

    def get(self, verification_id: str, *, wait_s: float = 0.0) -> VerificationBody:
        """The record, at once or when it is no longer working."""
        answer = self._call("GET", f"/v1/verifications/{_segment(verification_id)}", params=_wait(wait_s), slow=wait_s)
        return VerificationBody.model_validate_json(answer.content)

    def cancel(self, verification_id: str) -> VerificationBody:
        """Cancel while searching."""
        return VerificationBody.model_validate_json(
            self._call("DELETE", f"/v1/verifications/{_segment(verification_id)}").content
        )

    def acknowledge(self, verification_id: str, step: int) -> VerificationBody:
        """The challenge's prompt of this step is on the screen. Raises ApiError (``challenge_wrong_step``, ...)."""
        return self._answer_challenge(verification_id, {"step": step, "shown": True})

    def cannot_turn(self, verification_id: str) -> VerificationBody:
        """The customer cannot turn the head: a blink is asked for, if it can be. Raises ApiError."""
        return self._answer_challenge(verification_id, {"cannot_turn": True})

    def _answer_challenge(self, verification_id: str, answer: JsonObject) -> VerificationBody:
        path = f"/v1/verifications/{_segment(verification_id)}/challenge"
        return VerificationBody.model_validate_json(self._call("POST", path, json=answer).content)

    def withdraw(self, verification_id: str) -> VerificationBody:
        """Consent withdrawn: destroy everything personal of it; what was not over is ``deleted``."""
        answer = self._call("POST", f"/v1/verifications/{_segment(verification_id)}/withdraw", slow=ERASE_S)
        return VerificationBody.model_validate_json(answer.content)

    def enrol(self, user_id: str, picture: bytes, content_type: str = "image/jpeg") -> None:
        """Upload the user's source picture. Raises ApiError (``picture_refused``, ``source_exists``, ``offline``)."""
        headers = {"Content-Type": content_type}
        self._call("PUT", f"/v1/users/{_segment(user_id)}/source", content=picture, headers=headers, slow=UPLOAD_S)

    def enrol_from_camera(self, user_id: str, *, search_timeout_s: float | None = None) -> None:
        """As ``enrol``, with whoever stands before the camera; ``close`` from another thread ends the filming."""
        params = {"from": "camera"} | (
            {} if search_timeout_s is None else {"search_timeout_s": f"{search_timeout_s:g}"}
        )
        slow = UPLOAD_S + (search_timeout_s or 120.0)
        self._call("PUT", f"/v1/users/{_segment(user_id)}/source", params=params, slow=slow)

    def matches(self, user_id: str, *, limit: int = 20) -> MatchList:
        """What CypherFace said of this user, the newest verdict first."""
        answer = self._call("GET", f"/v1/users/{_segment(user_id)}/matches", params={"limit": limit})
        return MatchList.model_validate_json(answer.content)

    def delete_user(self, user_id: str) -> UserDestroyedBody:
        """Destroy everything local about a user; limits and lock-outs stay."""
        answer = self._call("DELETE", f"/v1/users/{_segment(user_id)}", slow=ERASE_S)
        return UserDestroyedBody.model_validate_json(answer.content)

    def status(self) -> JsonObject:
        """How the agent is doing."""
        return self._json("GET", "/v1/status")

    def metrics(self) -> str:
        """The page of metrics, in Prometheus' text format."""
        return self._call("GET", "/metrics").text

    def ready(self) -> bool:
        """True when a verification could start."""
        try:
            return bool(self._call("GET", "/v1/ready").json()["ready"])
        except ApiError:
            return False

    def alive(self) -> bool:
        """True when an agent answers. Raises ApiError when it does not admit this caller."""
        try:
            self._call("GET", "/v1/health")
        except EnvironmentFault:
            return False
        return True

    # -- for operators: the outbox, its proof, its key

    def outbox_list(self, *, limit: int = 100, before: int | None = None, parked: bool | None = None) -> OutboxList:
        """What holds a picture, the newest first; ``before`` is ``next_before`` of the page before."""
        options = {"limit": limit, "before": before, "parked": None if parked is None else str(parked).lower()}
        given = {name: value for name, value in options.items() if value is not None}
        return OutboxList.model_validate_json(self._call("GET", "/v1/outbox", params=given).content)

    def outbox_show(self, verification_id: str) -> OutboxEntry:
        """One verification and all that happened to it."""
        return OutboxEntry.model_validate_json(self._call("GET", f"/v1/outbox/{_segment(verification_id)}").content)

    def outbox_verify(self) -> OutboxCheck:
        """Authenticate every row and picture, and check the file."""
        return OutboxCheck.model_validate_json(self._call("POST", "/v1/outbox/verify", slow=CHECK_S).content)

    def outbox_retry(self, verification_id: str) -> RetryBody:
        """Queue a parked capture again, or end its back-off. Raises ApiError ``state_conflict``."""
        answer = self._call("POST", f"/v1/outbox/{_segment(verification_id)}/retry")
        return RetryBody.model_validate_json(answer.content)

    def outbox_retry_all(self, *, parked: bool = False) -> RetryBody:
        """End every back-off; ``parked`` queues what was set aside too."""
        params = {"parked": str(parked).lower()}
        answer = self._call("POST", "/v1/outbox/retry", params=params, slow=CHECK_S)
        return RetryBody.model_validate_json(answer.content)

    def outbox_export(self, verification_id: str) -> bytes:
        """The picture in clear: biometric data. The agent has audited it before this returns."""
        return self._call("POST", f"/v1/outbox/{_segment(verification_id)}/export").content

    def outbox_purge(self, verification_id: str) -> PurgeBody:
        """Destroy one open or parked capture. Raises ApiError ``state_conflict``."""
        answer = self._call("DELETE", f"/v1/outbox/{_segment(verification_id)}")
        return PurgeBody.model_validate_json(answer.content)

    def outbox_purge_all(self, *, parked_only: bool) -> PurgeBody:
        """Destroy every capture, or the parked ones."""
        params = {"which": "parked" if parked_only else "all"}
        return PurgeBody.model_validate_json(self._call("DELETE", "/v1/outbox", params=params, slow=CHECK_S).content)

    def audit_verify(self, expect_head: str | None = None) -> AuditCheck:
        """Walk the audit chain; with a head that was noted (SEQ:MAC) a cut-off end is found too."""
        params = {} if expect_head is None else {"expect_head": expect_head}
        return AuditCheck.model_validate_json(
            self._call("POST", "/v1/audit/verify", params=params, slow=CHECK_S).content
        )

    def key_rotate(self) -> RotationBody:
        """Change to the configured key. Raises ApiError ``rotation_not_due``."""
        return RotationBody.model_validate_json(self._call("POST", "/v1/key/rotate", slow=CHECK_S).content)

    def privacy(self) -> PrivacyBody:
        """What is held of persons: counts and dates, no content."""
        return PrivacyBody.model_validate_json(self._call("GET", "/v1/privacy", slow=CHECK_S).content)

    def adopt(self) -> AdoptionBody:
        """Accept a state directory that was made on another machine. Raises ApiError ``not_moved``."""
        return AdoptionBody.model_validate_json(self._call("POST", "/v1/adopt").content)

    def reload(self) -> JsonObject:
        """Have the configuration file read again. Raises ApiError ``configuration_refused`` when the old one goes on."""
        return self._json("POST", "/v1/reload", slow=60.0)

    def apply_config(self, text: str, **terms: Any) -> JsonObject:
        """Run ``text`` on trial; ``terms`` are those of ``POST /v1/config/apply``."""
        return self._json("POST", "/v1/config/apply", json={"text": text, **terms}, slow=60.0)

    def config_trial(self) -> JsonObject:
        """The last trial, open or not."""
        return self._json("GET", "/v1/config/trial")

    def confirm_config(self) -> JsonObject:
        """Promise to put the candidate (``text``) into the file at once, and then to ``reload``."""
        return self._json("POST", "/v1/config/confirm", slow=60.0)

    def revert_config(self) -> JsonObject:
        """End the trial at once."""
        return self._json("POST", "/v1/config/revert", slow=60.0)

    def _json(self, method: str, path: str, **options: Any) -> JsonObject:
        body: JsonObject = self._call(method, path, **options).json()
        return body

    def events(
        self, verification_id: str | None = None, *, after: str | None = None, timeout_s: float = EVENTS_S
    ) -> Iterator[ServerEvent]:
        """Events as they come, of one verification until it is final, or of everything until the agent stops.

        ``after``: the ``id`` of the last event known; FROM_THE_START replays what the agent remembers. A stream that
        breaks is resumed for as long as ``patience_s``; then, and without patience at once, EnvironmentFault.
        """
        path = f"/v1/verifications/{_segment(verification_id)}/events" if verification_id else "/v1/events"
        patience = _Patience(self._patience_s)
        while True:
            final = False
            try:
                for event in self._stream(path, after, timeout_s):
                    patience.renew()
                    after, final = event.id or after, event.kind == "state" and bool(event.data["final"])
                    yield event
            except httpx.TransportError as exc:
                if not patience.wait():
                    raise self._unreachable(exc) from exc
            except ApiError as exc:
                if exc.code not in RESTARTING or not patience.wait():
                    raise
            else:
                if (verification_id and final) or not patience.wait():
                    return

    def _stream(self, path: str, after: str | None, timeout_s: float) -> Iterator[ServerEvent]:
        headers = {} if after is None else {"Last-Event-ID": after}
        with self._http.stream("GET", path, headers=headers, timeout=timeout_s) as response:
            if response.status_code >= 400:
                response.read()
                raise _error(response)
            yield from _parse(response.iter_lines())

    def aim(self, limit_s: float) -> Iterator[JsonObject]:
        """The live picture, look by look; see docs/aim.md. The last one has ``ended`` alone. Raises ApiError (``busy``).

        Closing the iterator, from the thread that reads it, closes the camera.
        """
        timeout = httpx.Timeout(self._timeout_s, read=CAMERA_S)
        try:
            with self._http.stream("POST", "/v1/aim", params={"limit_s": f"{limit_s:g}"}, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error(response)
                yield from map(json.loads, response.iter_lines())
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc

    def _call(self, method: str, path: str, *, slow: float = 0.0, **options: Any) -> httpx.Response:
        safe = method == "GET" or "Idempotency-Key" in options.get("headers", {})
        patience = _Patience(self._patience_s if safe else 0.0)
        while True:
            try:
                response = self._request(method, path, timeout=httpx.Timeout(self._timeout_s + slow), **options)
            except (httpx.TransportError, FileNotFoundError, PermissionError) as exc:
                if not patience.wait():
                    raise self._unreachable(exc) from exc
                continue
            if response.status_code < 400:
                return response
            error = _error(response)
            if error.code not in RESTARTING or not patience.wait():
                raise error

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        if self._socket is not None and not self._socket.exists():
            raise FileNotFoundError("there is no such socket")
        return self._http.request(method, path, **options)

    def _unreachable(self, exc: Exception) -> EnvironmentFault:
        if self._socket is not None and _refused_by_the_system(exc):
            return may_not_connect(self._socket)
        return EnvironmentFault(
            f"cannot reach the agent at {self._socket or self._http.base_url}: {exc}",
            code="agent_unreachable",
            hint="is it running? systemctl status edge-agent, or: edge-agent run --config FILE",
            retryable=True,
        )


def may_not_connect(socket: Path) -> EnvironmentFault:
    """The system keeps this user from the socket: nothing is known of the agent behind it."""
    return EnvironmentFault(
        f"cannot connect to {socket}: this user may not",
        code="agent_unreachable",
        hint="call with sudo, or join the group edge-agent",
    )


def _refused_by_the_system(error: BaseException | None) -> bool:
    """Httpx wraps what the socket said, in two layers."""
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_loopback(address: str) -> bool:
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Patience:
    """How much longer to try."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """The agent answered: from now on anew."""
        self._until_s = time.monotonic() + self._seconds

    def wait(self) -> bool:
        """Pause before another try; False at once when there is no patience left."""
        if time.monotonic() + PAUSE_S > self._until_s:
            return False
        time.sleep(PAUSE_S)
        return True


def _segment(text: str) -> str:
    """Text as one part of a path: a typing mistake must not lead to another route."""
    if text in {"", ".", ".."}:
        raise InputError("cannot find the verification: the id is empty or a dot", code="not_found")
    return quote(text, safe="")


def _wait(seconds: float) -> dict[str, str]:
    return {"wait": f"{seconds:g}"} if seconds else {}


def _error(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    after = response.headers.get("retry-after", "")
    retry_after_s = float(after) if after.isdecimal() else None
    return ApiError(problem if isinstance(problem, dict) else {}, response.status_code, retry_after_s)


def _parse(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Server-Sent Events out of lines; comments are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield ServerEvent(fields.get("id"), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
