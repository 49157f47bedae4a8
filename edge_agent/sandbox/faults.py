"""Faults to inject: for which step, how often, and what exactly goes wrong."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Step = Literal["token", "refresh", "generate_url", "put", "match"]
STEPS: tuple[Step, ...] = ("token", "refresh", "generate_url", "put", "match")

Kind = Literal[
    "latency",
    "hang",
    "drop",
    "reset_request",
    "reset",
    "truncate",
    "slow",
    "status",
    "html",
    "redirect",
    "garbage",
    "contradict",
    "late_put",
]

KINDS: dict[Kind, str] = {
    "latency": "answers correctly, latency_s late",
    "hang": "never answers; the connection stays open until the client gives up",
    "drop": "closes the connection without a byte of answer",
    "reset_request": "resets the connection (TCP RST) once at_bytes of the request's body have arrived",
    "reset": "resets the connection (TCP RST) in the middle of the answer's body, or after at_bytes of it",
    "truncate": "closes cleanly in the middle of the body: Content-Length promises more",
    "slow": "sends the answer's body at bytes_per_s",
    "status": "answers status (default 500), with body, content_type and retry_after where given",
    "html": "answers an HTML page (captive portal), status 200 unless given",
    "redirect": "answers 302 (or status) to location, on another host",
    "garbage": "answers 200 with a body that is announced as JSON and is not",
    "contradict": "answers 200 with a body that contradicts itself",
    "late_put": "only for put: the picture lands delay_s later; meanwhile answer = hang, ok or error",
}

UNDONE_KINDS: frozenset[Kind] = frozenset({"reset_request", "status", "html", "redirect", "garbage"})
"""Kinds that do not carry the request out unless ``effect`` says so."""


class Fault(BaseModel):
    """One fault; irrelevant parameters are ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    step: Literal["any", "token", "refresh", "generate_url", "put", "match"] = Field(description="which call")
    kind: Kind = Field(description="what goes wrong")
    times: int | None = Field(1, ge=1, le=1_000_000, description="how many requests; null = until deleted")
    skip: int = Field(0, ge=0, le=1_000_000, description="let so many requests pass first")
    effect: bool | None = Field(
        None, description="whether the request is carried out all the same; null = as usual for the kind"
    )
    latency_s: float = Field(0.0, ge=0, le=900, description="wait before anything else, with any kind")
    status: int | None = Field(None, ge=200, le=599, description="status of the answer")
    body: str | None = Field(None, max_length=1 << 20, description="body of the answer")
    content_type: str | None = Field(None, max_length=200, description="content type of the answer")
    retry_after: str | int | None = Field(None, description="Retry-After header: seconds or a date")
    location: str = Field("http://portal.invalid/login", max_length=2000, description="target of a redirect")
    at_bytes: int | None = Field(None, ge=0, description="where in the body the connection is cut")
    bytes_per_s: float = Field(1.0, gt=0, le=1e9, description="speed of slow")
    delay_s: float = Field(5.0, ge=0, le=3600, description="when a late picture lands")
    answer: Literal["hang", "ok", "error"] = Field("hang", description="what the client of a late put is told")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.kind == "late_put" and self.step != "put":
            raise ValueError("late_put is for the step put")
        if self.kind == "reset_request" and self.effect:
            raise ValueError("a request that never arrived cannot have an effect")
        if self.kind in ("latency", "late_put") and self.effect is False:
            raise ValueError(f"{self.kind} always carries the request out")
        return self

    @property
    def carries_out(self) -> bool:
        """Whether the real request happens, whatever the client is told."""
        return self.kind not in UNDONE_KINDS if self.effect is None else self.effect


class FaultQueue:
    """The active faults; the first that fits a request is played."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, fault: Fault) -> None:
        self._entries.append(_Entry(fault))

    def clear(self) -> None:
        self._entries.clear()

    def take(self, step: Step) -> Fault | None:
        """The fault to play for this request, if any; counts it."""
        for entry in self._entries:
            if entry.fault.step not in ("any", step):
                continue
            if entry.skip_left > 0:
                entry.skip_left -= 1
                continue
            if entry.times_left is not None:
                entry.times_left -= 1
                if entry.times_left == 0:
                    self._entries.remove(entry)
            return entry.fault
        return None

    def waiting(self) -> list[Fault]:
        """What is still to be played, with what is left of ``times`` and ``skip``."""
        return [e.fault.model_copy(update={"times": e.times_left, "skip": e.skip_left}) for e in self._entries]


class _Entry:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.times_left = fault.times
        self.skip_left = fault.skip
