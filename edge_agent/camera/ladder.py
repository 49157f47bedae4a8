"""The recovery ladder: what to do about a camera that fails, and when. A pure state machine, told the time.

Each failure climbs; each rung has a number of tries and pauses that double::

    reopen      close the camera and open it again
    respawn     throw everything of it away: its process, its thread, the device that was found; begin from scratch
    exit        end the daemon, so that systemd starts it anew (a driver that hangs inside our own process)

``exit`` is advice to the agent alone, at most once an hour, after minutes of failing, and never during a session. While
it is not allowed the rung below goes on, at its longest pause, for as long as it takes.

Which steps there are depends on the source: a replay is not mended by a new daemon. A camera is well again after
``settled_s`` of pictures, or when it was closed while it delivered; one that opens and dies again keeps climbing.

Times are seconds of CLOCK_BOOTTIME. What has to outlive the process is one record, the last exit; the caller keeps it
(``ExitRecord``). After a reboot its age is unknown, so the hour counts from the boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """What to do next (wire values of status, metrics and events)."""

    NONE = "none"
    """The camera is well, or was not tried."""
    REOPEN = "reopen"
    RESPAWN = "respawn"
    EXIT = "exit"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the ladder is climbed."""

    reopen_tries: int = 3
    reopen_pause_s: float = 0.5
    respawn_tries: int = 5
    respawn_pause_s: float = 2.0
    longest_pause_s: float = 60.0
    exit_after_s: float = 180.0
    """Of failing without a picture that lasted."""
    exit_every_s: float = 3600.0
    settled_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The last time that the daemon ended because of the camera. The caller stores it before it ends."""

    boot_id: str
    boottime_s: float


@dataclass(frozen=True, slots=True)
class Advice:
    """The step to take, and not before ``not_before_s``."""

    step: Step
    not_before_s: float


ALL_STEPS = (Step.REOPEN, Step.RESPAWN, Step.EXIT)


class Ladder:
    """One camera's. ``steps``: those that can help this source, a beginning of ``ALL_STEPS`` or without RESPAWN."""

    def __init__(
        self,
        *,
        boot_id: str,
        last_exit: ExitRecord | None = None,
        steps: tuple[Step, ...] = ALL_STEPS,
        pace: Pace | None = None,
    ) -> None:
        self._boot_id = boot_id
        self._steps = steps
        self._pace = pace or Pace()
        self._last_exit_s = _boottime_of(last_exit, boot_id)
        self.failures = 0
        """Since the camera was last well."""
        self._failing_since_s = 0.0
        self._failed_s = 0.0
        self._good_since_s: float | None = None

    def failed(self, now_s: float) -> None:
        """An attempt to open it failed, or it stopped to deliver."""
        if self.failures == 0:
            self._failing_since_s = now_s
        self.failures += 1
        self._failed_s = now_s
        self._good_since_s = None

    def succeeded(self, now_s: float) -> None:
        """A picture came."""
        if self._good_since_s is None:
            self._good_since_s = now_s
        if now_s - self._good_since_s >= self._pace.settled_s:
            self.failures = 0

    def rested(self) -> None:
        """We closed it. When it was delivering, it is well."""
        if self._good_since_s is not None:
            self.failures = 0
        self._good_since_s = None

    def advice(self, now_s: float, *, in_session: bool = False) -> Advice:
        """What to do now, given everything told so far; changes nothing."""
        if self.failures == 0:
            return Advice(Step.NONE, now_s)
        pace, beyond = self._pace, self.failures - self._pace.reopen_tries
        if beyond <= 0 or Step.RESPAWN not in self._steps:
            step, pause_s = Step.REOPEN, self._doubled(pace.reopen_pause_s, self.failures - 1)
        else:
            step, pause_s = Step.RESPAWN, self._doubled(pace.respawn_pause_s, beyond - 1)
        if beyond > pace.respawn_tries and not in_session and self._exit_allowed(now_s):
            return Advice(Step.EXIT, now_s)
        return Advice(step, self._failed_s + pause_s)

    def exit_record(self, now_s: float) -> ExitRecord:
        """To be stored when the advice is EXIT and will be followed; from now on the hour runs."""
        self._last_exit_s = now_s
        return ExitRecord(self._boot_id, now_s)

    def _exit_allowed(self, now_s: float) -> bool:
        if Step.EXIT not in self._steps or now_s - self._failing_since_s < self._pace.exit_after_s:
            return False
        return self._last_exit_s is None or now_s - self._last_exit_s >= self._pace.exit_every_s

    def _doubled(self, first_s: float, times: int) -> float:
        return min(self._pace.longest_pause_s, first_s * 2.0 ** min(times, 30))


def _boottime_of(record: ExitRecord | None, boot_id: str) -> float | None:
    """When that was, on this boot's clock; another boot's counts as the moment of booting."""
    if record is None:
        return None
    return record.boottime_s if record.boot_id == boot_id else 0.0
