"""The running clock: uptime summed over boots, and what is known of the time without power.

``running = base + CLOCK_BOOTTIME``, where ``base`` is the sum of the last persisted uptime of every earlier boot.
What was not persisted before a power cut and the time without power are missing, so a difference is a *lower
bound* of the time elapsed: nothing expires early, whatever the wall clock does.

The time without power ("dark") is added where it is known: between the last moment of one boot and the first of a later
one at which the wall clock was synchronised. The wall clock is never compared within a boot, so one that jumps, even
while it calls itself synchronised, makes nothing older; only what it says right before and right after a gap counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from edge_agent.outbox.clock import BootInstant, Clock

MAX_BOOTS = 64
"""Boots whose dark time is told apart: bounds what is written with every tick. What was made before the oldest counts as
if made in it."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot, and the time without power that is known of before it, in all."""

    boot_id: str
    dark_s: float


@dataclass(frozen=True, slots=True)
class Trusted:
    """The last moment at which the wall clock was synchronised."""

    boot_id: str
    wall_s: float
    """Seconds since 1970, UTC."""
    running_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that is known about "now"."""

    wall: datetime
    synchronised: bool
    instant: BootInstant
    running_s: float
    boots: tuple[Boot, ...] = ()
    """The oldest first, this one last."""

    @property
    def iso(self) -> str:
        return to_iso(self.wall)

    def dark_since_s(self, boot_id: str) -> float:
        """Time without power that is known of since that boot."""
        if not self.boots:
            return 0.0
        before = next((boot.dark_s for boot in self.boots if boot.boot_id == boot_id), self.boots[0].dark_s)
        return self.boots[-1].dark_s - before


@dataclass(frozen=True, slots=True)
class RunningClock:
    """As persisted: the boot it was last seen in, that boot's uptime, and the sum of the boots before."""

    boot_id: str
    boottime_s: float
    base_s: float
    boots: tuple[Boot, ...] = ()
    trusted: Trusted | None = None

    @classmethod
    def resume(cls, seen: Sequence[RunningClock], now: BootInstant) -> RunningClock:
        """Continue from the latest of what was seen: the last tick, the last audit record."""
        if not seen:
            return cls(now.boot_id, now.boottime_s, 0.0, (Boot(now.boot_id, 0.0),))
        last = max(seen, key=lambda clock: clock.base_s + clock.boottime_s)
        base_s = last.base_s if last.boot_id == now.boot_id else last.base_s + last.boottime_s
        memory = max(seen, key=lambda clock: len(clock.boots))  # an audit record has none
        return cls(now.boot_id, now.boottime_s, base_s, _with_boot(memory.boots, now.boot_id), memory.trusted)

    def trusting(self, clock: Clock) -> RunningClock:
        """Take in what the wall clock says, if it is synchronised; once per boot that tells the dark time before it."""
        if not clock.synchronised():
            return self
        trusted = Trusted(self.boot_id, clock.wall().timestamp(), self.base_s + clock.boottime_s())
        if self.trusted is None or self.trusted.boot_id == self.boot_id:
            return replace(self, trusted=trusted)
        elapsed_s = trusted.wall_s - self.trusted.wall_s
        dark_s = max(0.0, elapsed_s - (trusted.running_s - self.trusted.running_s))
        return replace(self, trusted=trusted, boots=_darken(self.boots, self.trusted.boot_id, dark_s))

    def moment(self, clock: Clock) -> Moment:
        boottime_s = clock.boottime_s()
        return Moment(
            wall=clock.wall(),
            synchronised=clock.synchronised(),
            instant=BootInstant(self.boot_id, boottime_s),
            running_s=self.base_s + boottime_s,
            boots=self.boots,
        )

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> RunningClock:
        values = json.loads(text)
        boots = tuple(Boot(**boot) for boot in values.pop("boots", ()))
        trusted = values.pop("trusted", None)
        return cls(**values, boots=boots, trusted=Trusted(**trusted) if trusted else None)


def _with_boot(boots: tuple[Boot, ...], boot_id: str) -> tuple[Boot, ...]:
    if boots and boots[-1].boot_id == boot_id:
        return boots
    return (*boots, Boot(boot_id, boots[-1].dark_s if boots else 0.0))[-MAX_BOOTS:]


def _darken(boots: tuple[Boot, ...], trusted_boot_id: str, dark_s: float) -> tuple[Boot, ...]:
    """Add dark time after the boot that was trusted last.

    Boots in between never knew the time. Where the gap lay among them is unknown too, so it counts as before them: what
    was made in them does not become older.
    """
    names = [boot.boot_id for boot in boots]
    first = names.index(trusted_boot_id) + 1 if trusted_boot_id in names else 0
    return boots[:first] + tuple(replace(boot, dark_s=boot.dark_s + dark_s) for boot in boots[first:])


def age_s(now: Moment, *, running_s: float, boot_id: str) -> float:
    """How old something is at least, when it was made at ``running_s`` in that boot."""
    return max(0.0, now.running_s - running_s) + now.dark_since_s(boot_id)


def to_iso(moment: datetime) -> str:
    """ISO 8601 UTC with six decimals: sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def from_iso(text: str) -> datetime:
    return datetime.fromisoformat(text)
