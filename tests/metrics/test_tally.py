"""What counts as what: the outbox's own changes go in, numbers come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.outbox.records import VerificationRecord
from edge_agent.tally import MOST_KEYS, OTHER, Buckets, Counts, Tally
from edge_agent.types import Assessment, Frame, State
from tests.faces import measurement, scores
from tests.outbox.fakes import FakeClock, capture, crash, finish, lease, open_store, pending, reopen, search


class Counting:
    """A store whose changes are told to a tally."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.tally = folder, FakeClock(), Tally()
        self.news: list[State] = []
        self.store = open_store(folder, self.clock, listener=self._heard)

    def _heard(self, record: VerificationRecord) -> None:
        if self.tally.state(record):
            self.news.append(record.state)

    def restart(self) -> None:
        """Another process: its counts begin anew."""
        self.tally, self.news = Tally(), []
        self.store = reopen(self.store, self.folder, self.clock, listener=self._heard)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    found = Counting(tmp_path / "state")
    yield found
    crash(found.store)


def retried_until_verified(c: Counting) -> None:
    capture(c.store)
    leased = lease(c.store)
    c.store.release(leased.record.id, leased.lease, next_attempt_in_s=1, code="network", detail="", failure="transient")
    c.clock.advance(2)
    finish(c.store, lease(c.store))


def late_and_negative(c: Counting) -> None:
    pending(c.store)
    c.clock.advance(60)
    finish(c.store, lease(c.store), positive=False)


def verified_then_withdrawn(c: Counting) -> None:
    capture(c.store)
    c.store.withdraw(finish(c.store, lease(c.store)).id)


def parked(c: Counting) -> None:
    pending(c.store)
    leased = lease(c.store)
    c.store.park(leased.record.id, leased.lease, code="capture_refused", detail="", status=403, upload_settled=True)


def parked_and_expired(c: Counting) -> None:
    parked(c)
    c.clock.advance(c.store.limits.max_age_s + 1)
    c.store.tick()


def parked_and_reopened(c: Counting) -> None:
    parked(c)
    c.store.reopen(c.store.list()[0].id, actor="uid:0")
    finish(c.store, lease(c.store))


def expired_after_a_restart(c: Counting) -> None:
    pending(c.store)
    c.restart()
    c.clock.advance(c.store.limits.max_age_s + 1)
    c.store.tick()


def forwarded_after_a_restart(c: Counting) -> None:
    pending(c.store)
    c.restart()
    finish(c.store, lease(c.store))


def destroyed_by_policy(c: Counting) -> None:
    c.store.destroy(pending(c.store).id, "offline", "the line is cut")


def interrupted(c: Counting) -> None:
    search(c.store)
    c.restart()


@pytest.mark.parametrize(
    ("life", "told", "counts"),
    [
        (retried_until_verified, "searching captured verified", {"positive": 1}),
        (late_and_negative, "searching captured pending not_verified", {"negative": 1, "late": 1}),
        (verified_then_withdrawn, "searching captured verified", {"positive": 1}),
        (parked, "searching captured pending failed", {"capture_refused": 1}),
        (parked_and_expired, "searching captured pending failed", {"capture_refused": 1, "dropped": 1}),
        (parked_and_reopened, "searching captured pending failed verified", {"capture_refused": 1, "positive": 1, "late": 0}),
        (expired_after_a_restart, "expired", {}),
        (forwarded_after_a_restart, "verified", {"positive": 1}),
        (destroyed_by_policy, "searching captured pending failed", {"offline": 1}),
        (interrupted, "failed", {"interrupted": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_every_new_state_counts_once(
    counting: Counting, life: Callable[[Counting], None], told: str, counts: dict[str, int]
) -> None:
    life(counting)
    tally = counting.tally
    assert " ".join(counting.news) == told
    assert tally.states == {State(state): 1 for state in told.split()}
    assert +tally.verdicts + tally.failures == +type(tally.verdicts)(
        {key: count for key, count in counts.items() if key != "dropped"}
    )
    assert tally.parked_dropped == counts.get("dropped", 0)
    assert len(tally._open) == 0


def test_the_times_are_those_from_the_request_on(counting: Counting) -> None:
    record = search(counting.store)
    counting.clock.advance(2.5)
    counting.store.commit_capture(record.id, b"jpeg", quality_score=0.8, liveness_score=0.97)
    counting.clock.advance(4.5)
    finish(counting.store, lease(counting.store))
    assert counting.tally.to_capture_s.sum == pytest.approx(2.5)
    assert counting.tally.to_verdict_s.sum == pytest.approx(7.0)
    assert sum(counting.tally.to_verdict_s.counts) == 1


def test_a_verdict_of_another_boot_has_no_time(counting: Counting) -> None:
    pending(counting.store)
    counting.clock.reboot(off_s=60)
    counting.restart()
    finish(counting.store, lease(counting.store))
    assert counting.tally.verdicts["positive"] == 1
    assert sum(counting.tally.to_verdict_s.counts) == 0


def test_a_frame_counts_with_its_reasons_and_only_the_stages_that_ran() -> None:
    tally = Tally()
    spent = {"detect": 20.0, "quality": 3.0, "measure": 23.0, "liveness": 40.0, "total": 63.0}
    for seen, voted in ((measurement(), scores(0.9, 0.9)), (measurement(()), ())):
        frame = Frame(np.zeros((8, 8, 3), np.uint8), 0.0, 0)
        tally.frame(Assessment(frame, seen, (), voted, 0.5, timings_ms=spent))
    assert tally.frames == {"accepted": 1, "refused": 1}
    assert {stage: sum(found.counts) for stage, found in tally.stages.items()} == {
        "detect": 2, "quality": 1, "liveness": 1, "screen": 2,
    }  # fmt: skip
    assert tally.stages["screen"].sum == pytest.approx(0.126)


def test_labels_are_bounded_whatever_is_counted() -> None:
    counts, tally = Counts(), Tally()
    for number in range(10 * MOST_KEYS):
        counts.add(f"code-{number}")
        tally.attempt("retried", f"code-{number}")
    assert len(counts) == len(tally.attempt_errors) == MOST_KEYS + 1
    assert counts[OTHER] == tally.attempt_errors[OTHER] == 9 * MOST_KEYS
    assert tally.attempts == {"retried": 10 * MOST_KEYS}


def test_a_value_is_in_the_bucket_that_it_just_fills() -> None:
    buckets = Buckets((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        buckets.add(value)
    assert (buckets.counts, buckets.sum) == ([2, 2, 1], 8.0)
