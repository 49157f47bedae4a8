"""What one call of the API takes and gives: the record that refuses strange requests and is published as OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from edge_agent.types import JsonObject

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
LOOKS = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter or request header. Parameters of the path are read from the path."""

    name: str
    schema: JsonObject
    text: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """A request body, which is then required (but see ``unless``): JSON of a model, or bytes of one of some media types."""

    model: type[BaseModel] | None
    media_types: tuple[str, ...]
    limit_bytes: int
    example: JsonObject | None = None
    unless: tuple[str, str] | None = None
    """A query parameter and its value: then no body is taken."""


@dataclass(frozen=True, slots=True)
class Link:
    """Another operation that takes an id out of this answer."""

    operation: str
    parameter: str
    value: str
    """A run-time expression, as ``$response.body#/id``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that is no problem."""

    body: type[BaseModel] | str
    """A model, sent as JSON; or a media type."""
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Header -> what it says."""
    example: JsonObject | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """Everything that is fixed about one call but its path, its role and its handler, which the route table has."""

    id: str
    tag: str
    answers: Mapping[int, Answer]
    problems: frozenset[str]
    """Codes beyond ``ANYWHERE``."""
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    payload: Payload | None = None
    text: str = ""
    """What the handler's docstring does not say."""


ANYWHERE = frozenset({
    "invalid_request", "unauthenticated", "forbidden", "cross_origin", "request_timeout", "misdirected", "headers_too_large",
    "internal_error", "too_many_connections",
})  # fmt: skip
"""Problems that every call can answer."""


def problems_of(operation: Operation) -> frozenset[str]:
    """Every code that the operation may answer."""
    return operation.problems | ANYWHERE
