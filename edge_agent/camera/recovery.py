"""The camera as the agent has it: one for all its sessions, which remembers failures and recovers by the ladder.

``CameraRecovery.open`` is the agent's camera factory. It gives a Camera whose ``open`` and ``read`` tell the ladder how
it went: ``open`` after a failure takes the step that is due (reopen the same source, or make everything anew), and
before its time it refuses at once with camera_unavailable, naming the seconds left. So whoever calls ``close`` and
``open`` in a loop after an error climbs the ladder at its pace. A new session does not wait for a pause: somebody stands
in front of the terminal.

A source that stays silent (camera_stalled) for ``SILENT_S`` counts as failed, and its reader gets camera_unavailable.

All but ``status``, ``steps_taken`` and the methods about hanging and the exit belongs to the camera's thread;
``on_change`` is called in it. Those are for the agent's loop, because a thread that hangs in a driver answers no more.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.camera.ladder import Advice, ExitRecord, Ladder, Step
from edge_agent.camera.port import Camera, not_open
from edge_agent.errors import CameraError
from edge_agent.moments import told
from edge_agent.types import Frame

log = logging.getLogger(__name__)

SILENT_S = 2.5
"""Half of what a session waits for a lost camera, so that it can be opened again within it."""

BootClock = Callable[[], float]
"""Seconds of CLOCK_BOOTTIME."""


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """For status, metrics and events."""

    state: str
    """``unknown`` (not tried yet) | ``ok`` | ``lost``."""
    step: Step
    """The step that was taken last, or that is due next while it is lost."""
    failures: int
    """Since it was last well."""
    code: str | None
    detail: str
    """What is used, or why it is lost."""
    hint: str | None


class CameraRecovery:
    """``make`` gives a closed camera, found anew each time; it may raise CameraError."""

    def __init__(
        self,
        make: Callable[[], Camera],
        ladder: Ladder,
        *,
        on_change: Callable[[CameraStatus], None] = lambda _status: None,
        clock: BootClock = boottime_s,
    ) -> None:
        self._make, self._ladder, self._on_change, self._clock = make, ladder, on_change, clock
        self._source: Camera | None = None
        self._watched = False
        """It is open between sessions."""
        self.status = CameraStatus("unknown", Step.NONE, 0, None, "", None)
        self.steps_taken: Counter[Step] = Counter()
        """Of the ladder; for metrics."""

    def open(self) -> Camera:
        """An open camera for a session; the step that is due is taken at once. Raises CameraError."""
        camera = _Recovering(self)
        self.bring_up(patient=False)
        return camera

    def probe(self) -> CameraStatus:
        """Between sessions: try a lost camera when its step is due, and close it again. Never raises CameraError."""
        if self.status.state == "lost" and self._clock() >= self._ladder.advice(self._clock()).not_before_s:
            try:
                self._look(patient=True)
            except CameraError as exc:
                log.debug("the camera is still lost: %s", exc.message)
        return self.status

    def examine(self) -> None:
        """Between sessions: open the camera now, whatever is known of it, and close it again. Raises CameraError."""
        self._look(patient=False)

    def _look(self, *, patient: bool) -> None:
        """Every source opens with its first picture, so one that opens is well."""
        try:
            self.bring_up(patient=patient)
            self.note_success()
        finally:
            self.put_away()

    def hanging(self, for_s: float) -> None:
        """A call of ours has not returned for so long: a failure, told by the agent's loop while the thread hangs."""
        self.note_failure(
            CameraError(
                f"cannot use the camera: a call into its driver has not returned for {for_s:.0f} s",
                hint="only a new process helps; under systemd the agent starts itself again",
                retryable=True,
            )
        )

    def exit_advised(self, *, in_session: bool) -> bool:
        """True when only a new process is left to try; then store ``exit_record`` and end the daemon."""
        return self._ladder.advice(self._clock(), in_session=in_session).step is Step.EXIT

    def exit_record(self) -> ExitRecord:
        """What to store before ending, so that it happens once an hour; the next ladder is made with it."""
        self.steps_taken[Step.EXIT] += 1
        return self._ladder.exit_record(self._clock())

    def now_s(self) -> float:
        """Seconds of the ladder's clock."""
        return self._clock()

    # -- the camera's side ----------------------------------------------------------------------------------------

    @property
    def source(self) -> Camera | None:
        """The camera behind it all, while there is one."""
        return self._source

    def bring_up(self, *, patient: bool) -> None:
        """Open the source, by the step that is due; ``patient``: not before its time. Raises CameraError."""
        advice = self._ladder.advice(self._clock(), in_session=True)
        if patient:
            self._refuse_before(advice)
        if advice.step is not Step.NONE:
            self.steps_taken[advice.step] += 1
            moment = told("camera_step", step=advice.step.value, failures=self._ladder.failures)
            log.info("camera: %s after %d failures", advice.step.value, self._ladder.failures, extra=moment)
        try:
            self._take(advice.step)
        except CameraError as exc:
            self.note_failure(exc)
            raise

    def _take(self, step: Step) -> None:
        if step is Step.RESPAWN and self._source is not None:
            self._source.close()
            self._source = None
        elif step is Step.REOPEN and self._watched and self._source is not None:
            self._source.close()  # a session closes what failed it, the watch had no time to
        if self._source is None:
            self._source = self._make()
        self._source.open()
        if self._watched:
            self._source.ease(None)
        self._watched = False

    def _refuse_before(self, advice: Advice) -> None:
        left_s = advice.not_before_s - self._clock()
        if left_s > 0:
            raise CameraError(
                f"cannot open the camera: the next attempt ({advice.step.value}) is in {left_s:.1f} s; "
                f"{self.status.detail}",
                hint=self.status.hint,
                retryable=True,
            )

    def note_success(self) -> None:
        self._ladder.succeeded(self._clock())
        if self.status.state != "ok":
            description = self._source.description if self._source is not None else ""
            self._change(CameraStatus("ok", self.status.step, self._ladder.failures, None, description, None))
        self._refresh()

    def note_failure(self, error: CameraError) -> None:
        now_s = self._clock()
        self._ladder.failed(now_s)
        step = self._ladder.advice(now_s, in_session=True).step
        self._change(CameraStatus("lost", step, self._ladder.failures, error.code, error.message, error.hint))

    def watch(self, fps: float) -> Camera:
        """Between sessions: an open camera that few pictures are wanted of. Raises CameraError."""
        camera = self.open()
        if self._source is not None:
            self._source.ease(fps)
        self._watched = True
        return camera

    def put_away(self) -> None:
        """Close the source; one that was delivering is well."""
        if self._source is not None:
            self._source.close()
        self._watched = False
        self._ladder.rested()
        self._refresh()

    def _refresh(self) -> None:
        """That a camera has settled is no news for anybody; it only shows."""
        if self.status.state == "ok" and self.status.failures != self._ladder.failures:
            self.status = replace(self.status, failures=self._ladder.failures)

    def _change(self, status: CameraStatus) -> None:
        self.status = status
        self._on_change(status)


class _Recovering(Camera):
    """The camera that a session is given; open from the beginning."""

    def __init__(self, recovery: CameraRecovery) -> None:
        self._recovery = recovery
        self._open = True
        self._failed = False
        self._heard_s: float | None = None

    @property
    def description(self) -> str:
        source = self._recovery.source
        return source.description if source is not None else "camera"

    @property
    def size(self) -> tuple[int, int]:
        source = self._recovery.source
        return source.size if source is not None else (0, 0)

    def open(self) -> None:
        if self._open:
            return
        self._recovery.bring_up(patient=True)
        self._open, self._failed, self._heard_s = True, False, None

    def read(self, timeout_s: float) -> Frame:
        source = self._recovery.source
        if not self._open or source is None:
            raise not_open(self.description)
        if self._heard_s is None:
            self._heard_s = self._recovery.now_s()
        try:
            frame = source.read(timeout_s)
        except CameraError as exc:
            error = self._judged(exc)
            if error is exc:
                raise
            raise error from exc
        self._heard_s, self._failed = self._recovery.now_s(), False
        self._recovery.note_success()
        return frame

    def _judged(self, error: CameraError) -> CameraError:
        """What the reader gets: a stall that lasts is a loss. Each loss counts once."""
        silent_s = self._recovery.now_s() - (self._heard_s or 0.0)
        if error.code == "camera_stalled" and silent_s < SILENT_S:
            return error
        if error.code == "end_of_source":
            return error
        found = error
        if error.code == "camera_stalled":
            found = CameraError(
                f"cannot read from {self.description}: it is silent for {silent_s:.1f} s",
                hint=error.hint,
                retryable=True,
            )
        if not self._failed:
            self._failed = True
            self._recovery.note_failure(found)
        return found

    def close(self) -> None:
        if self._open:
            self._recovery.put_away()
        self._open = False
