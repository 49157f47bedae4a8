"""Runs checks side by side, each within its own time, and never stops at one that fails.

A check is a function in a thread of its own: it may hang in a driver for ever, and then it is left behind. Checks of one
``lane`` run one after the other, because they would spoil each other's measurement.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from edge_agent.doctor.finding import Finding, failed, unknown
from edge_agent.errors import AgentError

PUT_AWAY_S = 3.0
"""At the end a check that is still running gets this long to let go of what it holds (the camera)."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Check:
    """``run`` gives a finding for each of ``ids``, whatever it raises; ``limit_s`` bounds it."""

    ids: tuple[str, ...]
    run: Callable[[], Iterable[Finding]]
    limit_s: float
    lane: str | None = None
    hanging: Mapping[str, str] = field(default_factory=dict)
    """Ids that have failed when the time is over, because what they look at hangs, and what mends that."""


@dataclass(slots=True)
class _Running:
    check: Check
    thread: threading.Thread
    began_s: float


class Runner:
    """One run. ``stop`` is set at its end, for checks that look at it."""

    def __init__(self, checks: Sequence[Check], *, stop: threading.Event, clock: Clock = time.monotonic) -> None:
        self._checks = tuple(checks)
        self._waiting = list(checks)
        self._running: list[_Running] = []
        self._done: SimpleQueue[tuple[_Running, list[Finding]]] = SimpleQueue()
        self._found: dict[str, Finding] = {}
        self._stop = stop
        self._clock = clock
        self.interrupted = False
        """Somebody pressed Ctrl-C: what was not finished is ``unknown``."""

    def run(self) -> dict[str, Finding]:
        """A finding for every id of every check. KeyboardInterrupt ends it early, and is not raised."""
        left_behind: list[threading.Thread] = []
        try:
            while self._waiting or self._running:
                self._begin_what_may()
                self._await()
                left_behind += [late.thread for late in self._give_up_on_late()]
        except KeyboardInterrupt:
            self.interrupted = True
            left_behind += [running.thread for running in self._running]
            for check in self._checks:
                if check.ids[0] not in self._found:
                    self._note(check, [unknown(id_, "it was interrupted") for id_ in check.ids], 0.0)
        finally:
            self._stop.set()
        _join(left_behind)
        return self._found

    def _begin_what_may(self) -> None:
        for check in tuple(self._waiting):
            busy = {running.check.lane for running in self._running}
            if check.lane is None or check.lane not in busy:
                self._waiting.remove(check)
                self._begin(check)

    def _begin(self, check: Check) -> None:
        thread = threading.Thread(target=lambda: self._work(running), name=f"check {check.ids[0]}", daemon=True)
        running = _Running(check, thread, self._clock())
        self._running.append(running)
        thread.start()

    def _work(self, running: _Running) -> None:
        """In the check's thread."""
        findings: list[Finding] = []
        why = "it gave no result"
        try:
            findings.extend(running.check.run())
        except AgentError as exc:
            why = exc.message + (f" ({exc.hint})" if exc.hint else "")
        except Exception as exc:  # the top of the check's thread: one that breaks must not take the others along
            why = f"the check itself broke: {type(exc).__name__}"
        known = {finding.id for finding in findings}
        findings += [unknown(id_, why) for id_ in running.check.ids if id_ not in known]
        self._done.put((running, findings))

    def _await(self) -> None:
        first_end_s = min(running.began_s + running.check.limit_s for running in self._running)
        try:
            running, findings = self._done.get(timeout=max(0.0, first_end_s - self._clock()))
        except Empty:
            return
        if running in self._running:  # not given up meanwhile
            self._running.remove(running)
            self._note(running.check, findings, self._clock() - running.began_s)

    def _give_up_on_late(self) -> list[_Running]:
        now_s = self._clock()
        late = [running for running in self._running if now_s - running.began_s >= running.check.limit_s]
        for running in late:
            self._running.remove(running)
            self._note(running.check, _too_late(running.check), now_s - running.began_s)
        return late

    def _note(self, check: Check, findings: Iterable[Finding], took_s: float) -> None:
        for finding in findings:
            if finding.id in check.ids:
                self._found[finding.id] = replace(finding, took_s=took_s)


def _too_late(check: Check) -> list[Finding]:
    why = f"it was not done within {check.limit_s:g} s"
    return [failed(id_, why, check.hanging[id_]) if id_ in check.hanging else unknown(id_, why) for id_ in check.ids]


def _join(threads: Sequence[threading.Thread]) -> None:
    """Give them the time to let go, all together."""
    end_s = time.monotonic() + PUT_AWAY_S
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
