"""The moments that the log names: a stable key each, with the fields that come with it. docs/logging.md has the table.

A message is for people and may change; programs read ``event`` and the fields. They hold states, codes, counts and the
ids of verifications: never a user id, a token, a URL or what a service said.
"""

from __future__ import annotations

from typing import Any, Final

EVENTS: Final[dict[str, tuple[str, ...]]] = {
    "ready": ("version",),
    "stopping": (),
    "stopped": (),
    "unexpected_error": ("error",),
    "watchdog_not_fed": ("loops",),
    "part_missing": ("part", "code"),
    "verification_state": ("verification", "state", "code", "reasons", "late", "contradicted"),
    "forward_failed": ("verification", "code", "status"),
    "forwarding_stopped": ("code",),
    "network_changed": ("state", "code"),
    "camera_lost": ("code",),
    "camera_back": (),
    "camera_step": ("step", "failures"),
    "camera_exit": (),
    "storage_missing": ("code",),
    "storage_opened": ("interrupted", "resumed", "audit_head"),
    "storage_salvaged": ("kept", "lost"),
    "audit_head": ("head",),
    "configuration_taken": ("changed", "restart_needed"),
    "configuration_refused": ("code",),
    "trial_ended": ("phase",),
    "access_refused": ("code", "times"),
}
"""Key -> its fields. A test compares every call of ``told`` with it."""


def told(event: str, **fields: object) -> dict[str, Any]:
    """What goes into ``extra`` of a log record."""
    return {"event": event, "fields": fields}
