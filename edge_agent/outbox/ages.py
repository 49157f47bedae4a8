"""The running clock: uptime summed over boots.

``running = base + CLOCK_BOOTTIME``, where ``base`` is the sum of the last persisted uptime of every earlier boot.
What was not persisted before a power cut and the time without power are missing, so a difference is a *lower
bound* of the time elapsed: nothing expires early, whatever the wall clock does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from edge_agent.outbox.clock import BootInstant, Clock


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that is known about "now"."""

    wall: datetime
    synchronised: bool
    instant: BootInstant
    running_s: float

    @property
    def iso(self) -> str:
        return to_iso(self.wall)


@dataclass(frozen=True, slots=True)
class RunningClock:
    """As persisted: the boot it was last seen in, that boot's uptime, and the sum of the boots before."""

    boot_id: str
    boottime_s: float
    base_s: float

    @classmethod
    def resume(cls, seen: Sequence[RunningClock], now: BootInstant) -> RunningClock:
        """Continue from the latest of what was seen: the last tick, the last audit record."""
        if not seen:
            return cls(now.boot_id, now.boottime_s, 0.0)
        last = max(seen, key=lambda clock: clock.base_s + clock.boottime_s)
        if last.boot_id == now.boot_id:
            return cls(now.boot_id, now.boottime_s, last.base_s)
        return cls(now.boot_id, now.boottime_s, last.base_s + last.boottime_s)

    def moment(self, clock: Clock) -> Moment:
        boottime_s = clock.boottime_s()
        return Moment(
            wall=clock.wall(),
            synchronised=clock.synchronised(),
            instant=BootInstant(self.boot_id, boottime_s),
            running_s=self.base_s + boottime_s,
        )

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> RunningClock:
        return cls(**json.loads(text))


def age_s(now: Moment, *, running_s: float, wall: str, synchronised: bool, boot_id: str) -> float:
    """How old something is at least: running time, or the wall-clock difference where both ends can be trusted.

    Within one boot the running time is exact, so the wall clock is not asked.
    """
    age = max(0.0, now.running_s - running_s)
    if synchronised and now.synchronised and boot_id != now.instant.boot_id:
        age = max(age, (now.wall - from_iso(wall)).total_seconds())
    return age


def to_iso(moment: datetime) -> str:
    """ISO 8601 UTC with six decimals: sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def from_iso(text: str) -> datetime:
    return datetime.fromisoformat(text)
