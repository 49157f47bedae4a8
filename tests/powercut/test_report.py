"""The table, the JSON document and when a run has failed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.faults.oracle import Finding, Kind
from tests.powercut.phases import DRIVEN, Phase
from tests.powercut.report import NOT_COVERED, End, Result, Row, count, ending, heading, line, summary

GOOD = Row(1, Phase.ENQUEUE, (Phase.ENQUEUE,), 12.34, 57, 0, 0, 41, ())
END = End(acknowledged=57, verified=40, not_verified=17, lost=0, altered=0, open=0, findings=())
PASSED = Result("FULL", tuple(replace(GOOD, cut=n, phase=phase) for n, phase in enumerate(DRIVEN, 1)), END, DRIVEN, 4)
LOST = [Finding(Kind.LOST, "a", "gone"), Finding(Kind.LOST, "b", "gone"), Finding(Kind.AUDIT, "7", "cut off")]


def test_a_run_passes_when_every_phase_was_hit_and_nothing_was_found() -> None:
    assert PASSED.problems == ()
    assert "passed" in ending(PASSED).splitlines()


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (
            replace(PASSED, cuts=(*PASSED.cuts, replace(GOOD, cut=5, findings=("1 x lost: a: gone",)))),
            "cut 5: 1 x lost",
        ),
        (replace(PASSED, cuts=PASSED.cuts[:3]), "no cut fell into: migration"),
        (replace(PASSED, cuts_wanted=5), "only 4 of 5 cuts fell into a phase"),
        (replace(PASSED, end=None), "the run ended before everything was forwarded"),
        (replace(PASSED, end=replace(END, findings=("1 x still open: a: it is pending",))), "end: 1 x still open"),
        (replace(PASSED, network=""), "no packet was lost"),
    ],
)
def test_a_run_fails(result: Result, problem: str) -> None:
    assert any(text.startswith(problem) for text in result.problems)
    assert not result.to_json()["passed"]
    assert "FAILED" in ending(result)


def test_a_row_stands_under_its_heading() -> None:
    row = replace(GOOD, under_way=(Phase.ENQUEUE, Phase.UPLOAD), lost=3, findings=("3 x lost: a: gone",))
    assert heading().split() == ["cut", "phase", "seconds", "acked", "lost", "altered", "open", "oracle"]
    assert line(row).split()[:8] == ["1", "enqueue", "(+1)", "12.3", "57", "3", "0", "41"]
    assert line(row).endswith("3 x lost: a: gone")
    assert line(GOOD).endswith("clean")
    assert heading().index("oracle") == line(GOOD).index("clean")


def test_the_end_says_what_the_cuts_cannot_show() -> None:
    assert ending(PASSED).splitlines() == [
        "4 cuts with synchronous=FULL: enqueue 1, match 1, migration 1, upload 1",
        "drained: 57 acknowledged, 0 lost, 0 altered, 0 open, 40 verified, 17 not verified; oracle: clean",
        "passed",
        NOT_COVERED,
    ]
    assert "torn sectors" in NOT_COVERED


def test_the_document_holds_every_cut() -> None:
    document = json.loads(json.dumps(PASSED.to_json()))
    assert document["passed"] is True
    assert document["phases"] == {"enqueue": 1, "match": 1, "migration": 1, "upload": 1}
    assert [cut["phase"] for cut in document["cuts"]] == list(DRIVEN)
    assert document["end"]["verified"] == 40


def test_findings_are_told_once_per_kind_and_counted_once_per_capture() -> None:
    assert summary(LOST) == ("2 x lost: a: gone", "1 x audit log: 7: cut off")
    assert count([*LOST, LOST[0]], Kind.LOST) == 2
    assert count(LOST, Kind.ALTERED) == 0
