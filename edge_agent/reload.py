"""What changed between two configurations, and what each change needs. Pure.

A running agent takes most changes at once; some it takes at the next session; a few need a restart. A key without a
rule of its own, or of its section, needs a restart: that is always right, only slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edge_agent.config import Config, SecretRef


class Part(StrEnum):
    """What is made anew, or told, when a key changes."""

    SESSION = "session"
    """Nothing: each session reads it when it begins."""
    VALIDITY = "validity"
    """How long a verdict approves."""
    CAMERA = "camera"
    """The camera and its recovery; the session that is being filmed keeps the old one."""
    MODELS = "models"
    SERVICE = "service"
    """The CypherFace client and the forwarder."""
    LIMITS = "limits"
    """The caps of the outbox."""
    ACCESS = "access"
    """Who may call the API; its tokens are read again at every reload."""
    LOG = "log"
    RESTART = "restart"
    """Only a new process takes it."""


RULES: dict[str, Part] = {
    "terminal_id": Part.RESTART,  # one process speaks under one name
    "state_dir": Part.RESTART,
    "api": Part.RESTART,  # a socket is bound once
    "api.roles": Part.ACCESS,
    "api.token": Part.ACCESS,
    "api.enrol_token": Part.ACCESS,
    "api.admin_token": Part.ACCESS,
    "camera": Part.CAMERA,
    "models": Part.MODELS,
    "gate": Part.SESSION,
    "liveness": Part.SESSION,
    "session": Part.SESSION,
    "session.result_valid_s": Part.VALIDITY,
    "session.max_failures": Part.LIMITS,
    "capture": Part.SESSION,
    "enrolment": Part.SESSION,
    "cypherface": Part.SERVICE,
    "cypherface.upload_quarantine_s": Part.LIMITS,
    "outbox": Part.LIMITS,
    "outbox.key": Part.RESTART,
    "outbox.previous_key": Part.RESTART,
    "offline": Part.SERVICE,
    "retention": Part.LIMITS,
    "log": Part.LOG,
}
"""By key or section; the longest that fits counts."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key; values as in the file, secrets as references."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """How to get from one configuration to another."""

    changes: tuple[Change, ...]
    parts: frozenset[Part]
    """What to renew, without ``RESTART``."""
    restart: tuple[str, ...]
    """Keys that keep their old value until a restart."""
    effective: Config
    """The new configuration, with the old values of ``restart``."""


def plan(old: Config, new: Config) -> Plan:
    """What it takes to go on with ``new`` where ``old`` runs."""
    before, after = (dict(leaves(config.model_dump(mode="json"))) for config in (old, new))
    keys = [key for key in {**after, **before} if before.get(key) != after.get(key)]
    restart = tuple(key for key in keys if _needs_restart(key, old, new))
    parts = frozenset(rule_of(key) or Part.RESTART for key in keys if key not in restart)
    changes = tuple(Change(key, before.get(key), after.get(key)) for key in keys)
    return Plan(changes, parts - {Part.RESTART}, restart, _with_old(old, new, restart))


def rule_of(key: str) -> Part | None:
    """The rule for a key such as ``cypherface.timeouts.match_s``; None where there is none."""
    names = key.split(".")
    prefixes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((RULES[prefix] for prefix in prefixes if prefix in RULES), None)


def _needs_restart(key: str, old: Config, new: Config) -> bool:
    if key == "models.dir" and old.state_dir != new.state_dir:
        return True  # the models move with the state directory, not before it
    if key == "api.token" and new.api.token is None and old.api.tcp is not None:
        return True  # the listener that it is for goes on until then
    return rule_of(key) in {Part.RESTART, None}


def _with_old(old: Config, new: Config, keys: tuple[str, ...]) -> Config:
    if not keys:
        return new
    kept, values = old.model_dump(), new.model_dump()
    for key in keys:
        *sections, name = key.split(".")
        source, target = kept, values
        for section in sections:
            source, target = source[section], target[section]
        target[name] = source[name]
    return Config.model_validate(values)


def is_section(value: Any) -> bool:
    """True for a part of a dumped configuration that holds keys of its own; a secret's reference is a value."""
    return isinstance(value, dict) and not value.keys() <= SecretRef.model_fields.keys()


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of a dumped configuration by their dotted name; a list and the reference to a secret are values."""
    for name, value in values.items():
        if is_section(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
