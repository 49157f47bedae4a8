"""Checks run side by side, within their time, and whatever one does, the others end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from edge_agent.doctor.finding import Finding, Status, passed
from edge_agent.doctor.runner import Check, Runner
from edge_agent.errors import CameraError

LONG_S = 300.0


def fine(*ids: str) -> list[Finding]:
    return [passed(id_, "fine") for id_ in ids]


def run(*checks: Check) -> dict[str, Finding]:
    return Runner(checks, stop=threading.Event()).run()


def test_a_check_that_breaks_or_says_too_little_does_not_stop_the_others() -> None:
    def breaks() -> Iterable[Finding]:
        yield passed("breaks.first", "fine")
        raise ValueError("the user alice")

    def refuses() -> list[Finding]:
        raise CameraError("cannot open it", hint="plug it in")

    found = run(
        Check(("breaks.first", "breaks.then"), breaks, LONG_S),
        Check(("refuses",), refuses, LONG_S),
        Check(("silent",), list, LONG_S),
        Check(("well",), lambda: fine("well"), LONG_S),
    )
    assert {id_: (finding.status, finding.detail) for id_, finding in found.items()} == {
        "breaks.first": (Status.PASS, "fine"),
        "breaks.then": (Status.UNKNOWN, "the check itself broke: ValueError"),
        "refuses": (Status.UNKNOWN, "cannot open it (plug it in)"),
        "silent": (Status.UNKNOWN, "it gave no result"),
        "well": (Status.PASS, "fine"),
    }


def test_a_check_that_hangs_is_left_behind_and_its_lane_goes_on() -> None:
    stop = threading.Event()

    def hangs() -> list[Finding]:
        stop.wait()
        return fine("hangs", "and")

    checks = [
        Check(("hangs", "and"), hangs, 0.05, "lane", {"hangs": "mend it"}),
        Check(("next",), lambda: fine("next"), LONG_S, "lane"),
    ]
    found = Runner(checks, stop=stop).run()
    assert [(f.status, f.mend) for f in (found["hangs"], found["and"])] == [
        (Status.FAIL, "mend it"),
        (Status.UNKNOWN, None),
    ]
    assert found["and"].detail == "it was not done within 0.05 s"
    assert found["next"].status is Status.PASS


def test_checks_of_one_lane_never_overlap_and_others_do() -> None:
    met = threading.Barrier(2)
    inside: list[str] = []
    most = 0

    def in_lane(name: str) -> list[Finding]:
        nonlocal most
        inside.append(name)
        most = max(most, len(inside))
        if name == "lane.0":
            met.wait(LONG_S)  # only with somebody who runs at the same time
        inside.remove(name)
        return fine(name)

    def beside() -> list[Finding]:
        met.wait(LONG_S)
        return fine("beside")

    lane = [Check((name,), lambda name=name: in_lane(name), LONG_S, "lane") for name in ("lane.0", "lane.1", "lane.2")]  # type: ignore[misc]
    found = run(*lane, Check(("beside",), beside, LONG_S))
    assert {finding.status for finding in found.values()} == {Status.PASS}
    assert most == 1


def test_ctrl_c_ends_it_early_with_what_was_found_and_has_the_rest_let_go() -> None:
    stop, first_done = threading.Event(), threading.Event()

    def ticks() -> Iterator[float]:
        while not first_done.is_set():
            yield 0.0
        yield 0.0  # the first one is noted
        raise KeyboardInterrupt

    def first() -> list[Finding]:
        first_done.set()
        return fine("first")

    def long() -> list[Finding]:
        stop.wait()
        return fine("long")

    checks = [Check(("first",), first, LONG_S, "lane"), Check(("long", "too"), long, LONG_S, "lane")]
    runner = Runner([*checks, Check(("never",), list, LONG_S, "lane")], stop=stop, clock=ticks().__next__)
    found = runner.run()
    assert runner.interrupted
    assert set(found) == {"first", "long", "too", "never"}
    assert found["long"].detail == found["never"].detail == "it was interrupted"
    assert stop.is_set()
