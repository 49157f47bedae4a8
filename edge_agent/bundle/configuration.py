"""The configuration as it is in force: every key with where it is from, secrets as references, names of people counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edge_agent.bundle.part import Found, Gap, Terminal, as_json
from edge_agent.config import Config, InvalidConfiguration, Problem, Section, lines_of
from edge_agent.doctor.redaction import REDACTED
from edge_agent.reload import leaves
from edge_agent.types import JsonObject

AS_IT_IS = frozenset({"terminal_id", "cypherface.base_url", "cypherface.match_path", "cypherface.upload_hosts"})
"""Checked when they were loaded: none can hold credentials or a query. Other texts are cleaned."""
_PROPERTY = re.compile(r"(?P<name>[\w-]+)\s*=\s*(?P<value>\"[^\"]*\"|'[^']*'|[^\s,!]+)")
_PLAIN = re.compile(r"(?:\([a-z/]+\))?[\w/.:+-]{1,40}")
_HARMLESS = frozenset({
    "device", "width", "height", "framerate", "format", "io-mode", "sensor-id", "sensor-mode", "camera-name", "drop",
    "max-buffers", "sync", "num-buffers", "do-timestamp", "is-live", "pixel-aspect-ratio", "interlace-mode", "colorimetry",
    "flip-method", "method", "latency", "protocols", "leaky", "max-size-buffers", "ee-mode", "tnr-mode", "wbmode",
})  # fmt: skip
"""Properties of a GStreamer pipeline that hold no address and no password."""


def configuration(terminal: Terminal) -> Iterator[Found]:
    """``configuration.json``; of a file that cannot be used its problems, without what stands there."""
    error = terminal.config_error
    if terminal.config is not None:
        what = "the configuration in force, each key with its line in the file (null: the default)"
        yield as_json("configuration.json", _in_force(terminal, terminal.config), what)
    elif isinstance(error, InvalidConfiguration):
        problems = {"problems": [_problem(problem, terminal) for problem in error.problems]}
        yield as_json("configuration.json", problems, "what is wrong with the configuration file")
        yield Gap("configuration", "the file cannot be used: only its problems are here")
    elif error is not None:
        yield Gap("configuration", terminal.cleaner.text(error.message))


def _in_force(terminal: Terminal, config: Config) -> JsonObject:
    lines = lines_of(terminal.config_path)
    return {
        key: {"value": _shown(key, value, terminal), "line": lines.get(key)}
        for key, value in leaves(config.model_dump(mode="json"))
    }


def _shown(key: str, value: Any, terminal: Terminal) -> Any:
    if key in AS_IT_IS or value is None:
        return value
    if key == "cypherface.merchant_id":
        return f"{len(value)} hex digits that end in {value[-4:]}"
    if key.startswith("api.roles."):
        return f"{len(value)} entries"
    if key == "camera.pipeline":
        return terminal.cleaner.text(_PROPERTY.sub(_property, value))
    if isinstance(value, dict):  # the reference to a secret
        return {kind: _place(where, terminal) for kind, where in value.items()}
    return terminal.cleaner.value(value)


def _place(where: str, terminal: Terminal) -> str:
    """Where a secret is: that a word of it looks like a secret is no reason to hide it, only that it is one."""
    return REDACTED if terminal.cleaner.leaks(where.encode()) else where


def _property(found: re.Match[str]) -> str:
    harmless = found["name"] in _HARMLESS and _PLAIN.fullmatch(found["value"])
    return found[0] if harmless else f"{found['name']}={REDACTED}"


def _problem(problem: Problem, terminal: Terminal) -> JsonObject:
    """An unknown key is somebody's own text, and a message may quote a value."""
    known = _known_keys(Config)
    key = ".".join(part if part in known or part.isdigit() else "[unknown]" for part in problem.key.split("."))
    message = re.sub(r"'[^']*'|\"[^\"]*\"", REDACTED, problem.message)
    return {
        "line": problem.line,
        "column": problem.column,
        "key": key if problem.key else "",
        "message": terminal.cleaner.text(message),
    }


def _known_keys(section: type[Section]) -> set[str]:
    found = set(section.model_fields)
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= _known_keys(field.annotation)
    return found
