"""What happened since the start, in plain numbers: what the metrics are made of.

Counting is one addition each, and knows nothing of how it is shown (edge_agent/metrics). Keys are states, codes and
stages of ours, never anybody's data; ``Counts`` takes a bounded number of them all the same. Used from the event loop's
thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from edge_agent.outbox.records import VerificationRecord
from edge_agent.types import Assessment, State

MOST_KEYS: Final = 64
OTHER: Final = "other"
"""Counts what comes after ``MOST_KEYS`` different keys."""

STAGE_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CAPTURE_S: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 60.0)
VERDICT_S: Final = (1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
STAGES: Final = ("detect", "quality", "liveness", "screen")
"""Of screening one frame; ``screen`` is the whole of it."""


class Counts(Counter[str]):
    """A counter of few keys, whatever it is told."""

    def add(self, key: str) -> None:
        """One more of ``key``."""
        self[key if key in self or len(self) < MOST_KEYS else OTHER] += 1


class Buckets:
    """How many values were at most each of ``bounds``, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """``bounds``: rising; what is above the last is counted too."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Tally:
    """One per agent."""

    def __init__(self) -> None:
        self.frames: Counter[str] = Counter()
        """Screened ones: accepted, refused."""
        self.frame_reasons = Counts()
        """Gate codes of refused frames; a frame may have several."""
        self.stages = {stage: Buckets(STAGE_S) for stage in STAGES}
        self.states: Counter[State] = Counter()
        """Verifications that came into a state; see ``state`` for what counts."""
        self.rejections = Counts()
        """Gate codes of rejected verifications."""
        self.failures = Counts()
        """Error codes of failed verifications."""
        self.verdicts: Counter[str] = Counter()
        """positive, negative; and of these: late, contradicted."""
        self.parked_dropped = 0
        """Parked captures that retention or a cap took."""
        self.to_capture_s, self.to_verdict_s = Buckets(CAPTURE_S), Buckets(VERDICT_S)
        """From the request on, within one boot."""
        self.attempts, self.attempt_errors = Counts(), Counts()
        """Forwarding attempts by outcome; errors that ended one, by code."""
        self._open: dict[str, State] = {}
        """The last state of those that this process began or saw, while they are not over."""

    # -- frames

    def frame(self, assessment: Assessment) -> None:
        """One more screened frame."""
        self.frames["accepted" if assessment.accepted else "refused"] += 1
        for reason in assessment.reasons:
            self.frame_reasons.add(reason.value)
        spent_ms = assessment.timings_ms
        for stage, name, ran in (
            ("detect", "detect", True),
            ("quality", "quality", assessment.measurement.quality is not None),
            ("liveness", "liveness", bool(assessment.liveness)),
            ("screen", "total", True),
        ):
            if ran and name in spent_ms:
                self.stages[stage].add(spent_ms[name] / 1000.0)

    # -- verifications

    def state(self, record: VerificationRecord) -> bool:
        """Told of every change of a record. True when that is a new state of it, which is then counted.

        A state that is not the last counts for verifications that began in this process, because what an earlier one
        queued shows up here only when something is done with it; ``captured`` counts once, ``matching`` never (see
        ``attempts``). An end counts always.
        """
        before = self._open.get(record.id)
        if record.final:
            self._open.pop(record.id, None)
        else:
            self._open[record.id] = record.state
        if record.state is before or not (self._is_end(record) if record.final else _is_step(before, record)):
            return False
        self.states[record.state] += 1
        self._look_into(record)
        return True

    def _is_end(self, record: VerificationRecord) -> bool:
        """False for a change of a verification that was over already."""
        if record.erased and record.state is not State.DELETED:
            return False
        if _lost_its_parked_picture(record):
            self.parked_dropped += 1
            return False
        return True

    def _look_into(self, record: VerificationRecord) -> None:
        if record.state is State.CAPTURED and record.deadline is not None:
            until_deadline_s = record.deadline.seconds_since(record.created)
            if until_deadline_s is not None:
                self.to_capture_s.add(until_deadline_s - record.verdict_timeout_s)
        elif record.state is State.REJECTED:
            for reason in record.reasons:
                self.rejections.add(reason)
        elif record.state is State.FAILED:
            self.failures.add(record.error_code or OTHER)
        elif record.state in {State.VERIFIED, State.NOT_VERIFIED}:
            self._verdict(record)

    def _verdict(self, record: VerificationRecord) -> None:
        self.verdicts["positive" if record.state is State.VERIFIED else "negative"] += 1
        self.verdicts["late"] += record.late
        self.verdicts["contradicted"] += record.contradicted
        took_s = record.verdict_instant.seconds_since(record.created) if record.verdict_instant is not None else None
        if took_s is not None:
            self.to_verdict_s.add(took_s)

    # -- forwarding

    def attempt(self, outcome: str, code: str) -> None:
        """One more attempt to forward a capture; ``code`` of the error, "" where there was none."""
        self.attempts.add(outcome)
        if code:
            self.attempt_errors.add(code)


def _is_step(before: State | None, record: VerificationRecord) -> bool:
    if before is None:
        return record.state is State.SEARCHING
    return record.state is not State.MATCHING and not (record.state is State.CAPTURED and record.attempts)


def _lost_its_parked_picture(record: VerificationRecord) -> bool:
    """A failed one whose picture is gone had been parked with it, but where policy destroyed the picture at once."""
    destroyed = record.error_code == "offline"
    return record.state is State.FAILED and record.captured_at is not None and not (record.parked or destroyed)
