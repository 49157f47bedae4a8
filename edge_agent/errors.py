"""The errors of edge-agent, split by what the caller can do about them.

::

    AgentError                     every error of ours: code, message, hint, retryable
    |-- ConfigurationError         mend the configuration or the command line          (exit 2)
    |-- InputError                 send something else (a picture, a user id)          (exit 2)
    |-- EnvironmentFault           mend the device                                     (exit 3)
    |   |-- CameraError            camera_unavailable, camera_format, camera_stalled, ...
    |   |-- ModelError             models_missing, model_tampered, model_invalid, ...
    |   `-- StorageError           storage_full, storage_failed, key_mismatch, ...
    |-- SessionRefused             the daemon will not start this verification now     (409/429/503)
    `-- CypherFaceError            the wire; see its four kinds below
        |-- Transient              server or network: back off and keep                (retryable)
        |-- SequenceConflict       409/422/garbage: rerun the whole sequence a bounded number of times
        |-- CaptureRefused         permanent for this capture: park it
        |-- Unauthenticated        credentials: stop forwarding, keep everything, alert
        `-- ServiceMisconfigured   configuration fault: stop forwarding, keep everything, alert

A message says what could not be done, to what and why, and starts with "cannot"; ``hint`` says what to try.
Codes are stable. Messages never hold secrets, pictures or raw user ids.
"""

from __future__ import annotations

import logging
import traceback

from edge_agent.moments import told


class AgentError(Exception):
    """Base of every error that edge-agent raises on purpose."""

    code = "internal_error"
    exit_code = 1
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class ConfigurationError(AgentError):
    """The configuration or the command line is wrong."""

    code = "invalid_configuration"
    exit_code = 2


class InputError(AgentError):
    """What was sent cannot be used."""

    code = "invalid_input"
    exit_code = 2


class EnvironmentFault(AgentError):
    """The device lacks something that the work needs."""

    code = "environment"
    exit_code = 3


class CameraError(EnvironmentFault):
    """The camera cannot be opened or does not deliver usable frames."""

    code = "camera_unavailable"


class ModelError(EnvironmentFault):
    """A model file is missing, altered or not what its manifest says."""

    code = "models_missing"


class StorageError(EnvironmentFault):
    """The state directory cannot take or give the data."""

    code = "storage_failed"


class SessionRefused(AgentError):
    """A verification cannot start now."""

    code = "busy"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str | None = None,
        retryable: bool = True,
        retry_after_s: float | None = None,
        active_id: str | None = None,
    ) -> None:
        """``active_id``: the verification that is in the way, for its owner alone."""
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.retry_after_s = retry_after_s
        self.active_id = active_id


class CypherFaceError(AgentError):
    """A call to CypherFace did not give an answer that can be used.

    ``connect_failed`` is true only when no connection was established by this attempt, so that the service
    cannot have seen anything of it. ``outcome_unknown`` is true when the request may have been acted upon although
    no usable answer came (a time-out or reset after bytes may have left): a picture may still land later.
    ``server_message`` is the service's own text, cut and cleaned.
    """

    code = "cypherface_error"
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        status: int | None = None,
        server_message: str | None = None,
        retry_after_s: float | None = None,
        connect_failed: bool = False,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.server_message = server_message
        self.retry_after_s = retry_after_s
        self.connect_failed = connect_failed
        self.outcome_unknown = outcome_unknown


class Transient(CypherFaceError):
    """Server or network trouble: back off, keep the capture, try again."""

    code = "network"
    retryable = True


class SequenceConflict(CypherFaceError):
    """The sequence was out of step, or the answer meant nothing: rerun it a bounded number of times, then park."""

    code = "indeterminate"
    retryable = True


class CaptureRefused(CypherFaceError):
    """Permanent for this capture: park it with the server's reason."""

    code = "capture_refused"


class Unauthenticated(CypherFaceError):
    """The credentials are not accepted, even fresh: stop forwarding, keep everything, alert."""

    code = "unauthenticated"


class ServiceMisconfigured(CypherFaceError):
    """Our settings do not fit the service (path, method, host): stop forwarding, keep everything, alert."""

    code = "service_misconfigured"


def report(log: logging.Logger, error: BaseException, what: str) -> None:
    """Log ``what`` an error has ended (a loop, a task, a request), with its kind and the lines it came through.

    Foreign messages may quote values (a user id, a URL), so only those of ours are repeated.
    """
    said = f": {error.message}" if isinstance(error, AgentError) else ""
    lines = "".join(traceback.format_tb(error.__traceback__))
    name = type(error).__name__
    log.error("%s: %s%s\n%s", what, name, said, lines.rstrip(), extra=told("unexpected_error", error=name))
