"""Which phase a cut fell into, read off the last lines."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.powercut.phases import DRIVEN, Line, Phase, counted_as, next_to_drive, under_way

STARTED = {"event": "started"}
CREATING = {"event": "creating", "user": "u"}


def ack(*, live: bool) -> Line:
    return {"event": "ack", "id": "1", "user": "u", "live": live}


def state(name: str, id_: str = "1") -> Line:
    return {"event": "state", "id": id_, "state": name, "user": "u"}


def step(event: str, user: str = "u", **facts: Any) -> Line:
    return {"event": event, "user": user, **facts}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        pytest.param([], {Phase.START}, id="nothing was told"),
        pytest.param([STARTED], {Phase.IDLE}, id="opened, and nothing more"),
        pytest.param([step("migrating")], {Phase.MIGRATION}, id="the statements run"),
        pytest.param([step("migrating"), step("applied")], {Phase.MIGRATION}, id="the commit runs"),
        pytest.param([step("migrating"), step("migrated")], {Phase.START}, id="migrated, not yet recovered"),
        pytest.param([STARTED, CREATING], {Phase.ENQUEUE}, id="a capture is being stored"),
        pytest.param([STARTED, CREATING, ack(live=True)], {Phase.IDLE}, id="a live one is acknowledged"),
        pytest.param(
            [STARTED, CREATING, ack(live=False)], {Phase.ENQUEUE}, id="one for the backlog is not pending yet"
        ),
        pytest.param([STARTED, CREATING, ack(live=False), state("pending", "2")], {Phase.ENQUEUE}, id="another one is"),
        pytest.param([STARTED, CREATING, ack(live=False), state("pending")], {Phase.IDLE}, id="now it is"),
        pytest.param([STARTED, CREATING, step("refused")], {Phase.IDLE}, id="it was refused"),
        pytest.param([STARTED, step("url")], {Phase.UPLOAD}, id="an upload URL is asked for"),
        pytest.param([STARTED, step("url"), step("put")], {Phase.UPLOAD}, id="the picture is sent"),
        pytest.param([STARTED, step("put"), step("match")], {Phase.MATCH}, id="the service compares"),
        pytest.param([STARTED, step("match"), step("answered")], {Phase.COMMIT}, id="the verdict is here, not told"),
        pytest.param([STARTED, step("answered"), step("final")], {Phase.IDLE}, id="the verdict is told"),
        pytest.param([STARTED, step("put"), step("gave_up")], {Phase.IDLE}, id="the attempt was given up"),
        pytest.param(
            [STARTED, step("put", "u"), step("match", "v"), CREATING],
            {Phase.UPLOAD, Phase.MATCH, Phase.ENQUEUE},
            id="several at once",
        ),
    ],
)
def test_what_was_under_way_is_read_off_the_lines(lines: list[Line], found: set[Phase]) -> None:
    assert under_way(lines) == found


@pytest.mark.parametrize(
    ("driven", "found", "counted"),
    [
        (Phase.MATCH, {Phase.MATCH, Phase.ENQUEUE}, Phase.MATCH),
        (Phase.ENQUEUE, {Phase.MATCH, Phase.ENQUEUE}, Phase.ENQUEUE),
        (Phase.UPLOAD, {Phase.COMMIT, Phase.MATCH}, Phase.COMMIT),
        (Phase.MIGRATION, {Phase.START}, Phase.START),
        (Phase.UPLOAD, {Phase.IDLE}, Phase.IDLE),
    ],
)
def test_a_cut_counts_for_one_phase(driven: Phase, found: set[Phase], counted: Phase) -> None:
    assert counted_as(driven, frozenset(found)) is counted


def test_the_phase_with_the_fewest_cuts_is_driven_next() -> None:
    counts: Counter[Phase] = Counter()
    order = []
    for _ in range(6):
        order.append(next_to_drive(counts, DRIVEN))
        counts[order[-1]] += 1
    assert order == [*DRIVEN, *DRIVEN[:2]]
    assert next_to_drive(Counter({Phase.ENQUEUE: 3, Phase.UPLOAD: 1, Phase.MATCH: 2}), DRIVEN[:3]) is Phase.UPLOAD
