"""How an error looks on the wire (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel


class ConfigurationProblem(BaseModel):
    """One thing wrong with a configuration."""

    line: int
    column: int
    key: str
    message: str
    hint: str | None


class ProblemDocument(BaseModel):
    """An error. Act on ``code``, which is stable; the other texts may change."""

    type: str
    """``urn:edge-agent:problem:`` and the code."""
    title: str
    status: int
    code: str
    detail: str
    """What could not be done, and why."""
    hint: str
    """What to try."""
    retryable: bool
    """The same request can succeed later."""
    retry_after_s: float | None = None
    """With ``locked_out``: how long to wait."""
    reasons: list[str] | None = None
    """With ``picture_refused``: the gate's codes."""
    problems: list[ConfigurationProblem] | None = None
    """With ``configuration_refused``: every problem of the text."""
    server_message: str | None = None
    """With ``service_refused``: CypherFace's own words."""
