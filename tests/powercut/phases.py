"""What was under way when the plug was pulled, read off the lines that the worker told until then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

Line = Mapping[str, Any]


class Phase(StrEnum):
    """Where a cut fell. The first four are driven on purpose, the others happen."""

    ENQUEUE = "enqueue"
    """A capture was being stored."""
    UPLOAD = "upload"
    """Between the request for an upload URL and the match."""
    MATCH = "match"
    """The service was comparing."""
    MIGRATION = "migration"
    """A database of the version before was being changed."""
    COMMIT = "commit"
    """A verdict had arrived and was not told yet."""
    START = "start"
    """The program had not opened the store, or was recovering it."""
    IDLE = "idle"
    """Nothing was under way."""


DRIVEN = (Phase.ENQUEUE, Phase.UPLOAD, Phase.MATCH, Phase.MIGRATION)


def under_way(lines: Iterable[Line]) -> frozenset[Phase]:
    """Everything that had begun and not ended at the last line of one life; never empty."""
    life = _Life()
    for line in lines:
        life.follow(line)
    if life.migrating:
        return frozenset({Phase.MIGRATION})
    if not life.started:
        return frozenset({Phase.START})
    found = set(life.sequences.values()) | ({Phase.ENQUEUE} if life.enqueuing else set())
    return frozenset(found or {Phase.IDLE})


def counted_as(driven: Phase, found: frozenset[Phase]) -> Phase:
    """The one phase a cut counts for: the one that was driven where it was under way, else the rarest to be met."""
    rarest_first = (driven, Phase.COMMIT, Phase.MATCH, Phase.UPLOAD, Phase.ENQUEUE, Phase.MIGRATION, Phase.START)
    return next((phase for phase in rarest_first if phase in found), Phase.IDLE)


def next_to_drive(counts: Counter[Phase], phases: Iterable[Phase]) -> Phase:
    """The phase with the fewest cuts so far; among equals the first."""
    return min(phases, key=lambda phase: counts[phase])


class _Life:
    """One life of the worker, from its first line on."""

    def __init__(self) -> None:
        self.started = self.migrating = False
        self.enqueuing = False
        self._acknowledged = ""
        self.sequences: dict[str, Phase] = {}

    def follow(self, line: Line) -> None:
        user = line.get("user", "")
        match line["event"]:
            case "started":
                self.started = True
            case "migrating" | "migrated" as event:
                self.migrating = event == "migrating"
            case "creating":
                self.enqueuing = True
            case "ack":
                # one for the backlog is stored when it has become pending as well
                self._acknowledged = line["id"]
                self.enqueuing = not line["live"]
            case "state" if line["id"] == self._acknowledged and line["state"] == "pending":
                self.enqueuing = False
            case "refused":
                self.enqueuing = False
            case "url" | "put":
                self.sequences[user] = Phase.UPLOAD
            case "match":
                self.sequences[user] = Phase.MATCH
            case "answered":
                self.sequences[user] = Phase.COMMIT
            case "gave_up" | "final":
                self.sequences.pop(user, None)
