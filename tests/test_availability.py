"""Whether CypherFace can be used now: told what happened, it says what that means for forwarding as a whole."""

from __future__ import annotations

import random

import pytest

from edge_agent.availability import MAX_PROBE_S, PROBE_S, REBUILD_AFTER, Availability, unreachable
from edge_agent.errors import CaptureRefused, CypherFaceError, SequenceConflict, Transient


class Told:
    """An availability, its clock and what it announced."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.changes: list[tuple[str, str]] = []
        self.it = Availability(
            on_change=lambda before, now: self.changes.append((before, now)),
            rng=random.Random(7),
            clock=lambda: self.now_s,
        )


@pytest.fixture
def told() -> Told:
    return Told()


REFUSED = Transient("cannot: refused", code="connect", connect_failed=True)


@pytest.mark.parametrize(
    ("error", "uploaded", "expected"),
    [
        (REFUSED, False, True),
        (REFUSED, True, True),
        (Transient("cannot: late", code="timeout"), False, True),
        (Transient("cannot: late", code="timeout"), True, False),
        (Transient("cannot: busy", code="server_error", status=503), False, False),
        (Transient("cannot: a page", code="captive_portal", status=200), True, True),
        (SequenceConflict("cannot: odd"), False, False),
        (CaptureRefused("cannot: no"), False, False),
    ],
)
def test_an_outage_is_when_nothing_usable_answered(error: CypherFaceError, uploaded: bool, expected: bool) -> None:
    assert unreachable(error, uploaded=uploaded) is expected


def test_an_outage_is_probed_at_least_every_30_seconds(told: Told) -> None:
    for _ in range(50):
        told.it.unreachable(REFUSED)
        assert 0 < told.it.begin_in_s <= MAX_PROBE_S
    assert told.changes == [("unknown", "offline")]


def test_an_outage_does_not_lift_a_stop_and_a_success_does(told: Told) -> None:
    assert told.it.stop("unauthenticated")
    assert not told.it.stop("unauthenticated")
    told.it.unreachable(REFUSED)
    assert (told.it.status.network, told.it.status.stopped_code) == ("stopped", "unauthenticated")
    told.it.succeeded()
    assert (told.it.status.network, told.it.status.stopped_code) == ("online", None)
    assert told.changes == [("unknown", "stopped"), ("stopped", "online")]


def test_a_stop_is_tested_every_15_minutes_or_when_somebody_asks(told: Told) -> None:
    told.it.stop("unauthenticated")
    assert told.it.begin_in_s == PROBE_S
    told.it.network_came_up()
    assert told.it.begin_in_s == PROBE_S
    told.it.try_now()
    assert told.it.begin_in_s == 0


def test_a_plea_to_wait_outlives_an_outage(told: Told) -> None:
    told.it.hold(60)
    told.it.hold(5)
    told.it.unreachable(REFUSED)
    told.it.network_came_up()
    assert told.it.begin_in_s == 60
    told.now_s += 61
    assert told.it.begin_in_s == 0


def test_every_fifth_failed_probe_asks_for_a_fresh_client(told: Told) -> None:
    asked = []
    for number in range(1, 2 * REBUILD_AFTER + 1):
        told.it.unreachable(REFUSED)
        asked += [number] if told.it.wants_fresh_client else []
    assert asked == [REBUILD_AFTER, 2 * REBUILD_AFTER]
    told.it.answered()
    assert not told.it.wants_fresh_client


def test_the_third_user_with_the_same_error_turns_suspicion_on_us(told: Told) -> None:
    suspect = told.it.suspect
    assert suspect("u1", "a", "unknown_user") is None
    assert suspect("u1", "b", "unknown_user") is None
    assert suspect("u2", "c", "unknown_user") is None
    assert suspect("u3", "d", "unknown_user") == {"a", "b", "c", "d"}
    assert suspect("u4", "e", "unknown_user") is None, "the count begins anew"


@pytest.mark.parametrize("between", ["success", "another error"])
def test_suspicion_ends_with_a_success_or_another_error(told: Told, between: str) -> None:
    told.it.suspect("u1", "a", "unknown_user")
    told.it.suspect("u2", "b", "unknown_user")
    if between == "success":
        told.it.succeeded()
    else:
        told.it.suspect("u9", "z", "capture_refused")
    assert told.it.suspect("u3", "c", "unknown_user") is None
