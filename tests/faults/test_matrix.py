"""The fault matrix: each fault lasts for a while, is lifted, the queue drains, and the oracle has nothing to say.

End to end: the process under test on one side, the sandbox on the other, the fault proxy in between. What a row says
is what an operator sees while the fault lasts: the error on the captures, and what the forwarder thinks of the network.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cases import ANSWERS, NETWORK, SERVICE, Case, Stage, service
from tests.faults.ledger import Line
from tests.faults.oracle import Kind
from tests.faults.proxy import FaultProxy
from tests.faults.scene import scene
from tests.faults.zygote import Life, Zygote, zygote

CAPTURES = ("--captures", 5, "--users", 3, "--sizes", 20_000, 40_000, "--quarantine-s", 60)
QUICK = ("--timeouts-s", 0.3, 0.4, 0.4)
"""Where a time-out is what the fault comes to; elsewhere a busy machine must not bring one about."""


@pytest.fixture(scope="module")
def workers() -> Iterator[Zygote]:
    with zygote() as ready:
        yield ready


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with scene(tmp_path) as here, FaultProxy(here.server.port) as proxy:
        here.base_url = f"http://localhost:{proxy.port}/"
        yield Stage(here, proxy)


def start(stage: Stage, workers: Zygote, *extra: object) -> Life:
    return workers.start(stage.scene.arguments(*CAPTURES, "--resolver-down", stage.no_dns, *extra))


def drain(stage: Stage, workers: Zygote, life: Life) -> None:
    """Let it come to its end now that everything works, reopen what was set aside, and ask the oracle."""
    life.send(signal.SIGUSR1)
    assert life.to_the_end() == 0, life.lines[-1:]
    stage.scene.ledger.absorb(life.lines)
    if stage.scene.ledger.parked:
        reopened = workers.run(stage.scene.arguments("--do", "forward", "--hurry", "--reopen"))
        assert reopened.status == 0, reopened.lines[-1:]
        stage.scene.ledger.absorb(reopened.lines)
    stage.scene.must_be_good(drained=True)
    assert len(stage.scene.ledger.acknowledged) == 5


def is_trouble(line: Line) -> bool:
    return line["event"] == "network" and line["network"] in {"offline", "stopped"}


def verdicts(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["event"] == "final" and not line["parked"]]


@pytest.mark.parametrize("case", [*NETWORK, *SERVICE, *ANSWERS], ids=lambda case: case.name)
def test_a_fault_delays_and_never_loses_or_decides_anything(stage: Stage, workers: Zygote, case: Case) -> None:
    case.begin(stage)
    life = start(stage, workers, *(QUICK if case.error == "timeout" else ()))
    assert life.until(lambda line: line.get("error") == case.error), life.lines[-3:]
    if case.network is not None and not any(is_trouble(line) for line in life.lines):
        assert life.until(is_trouble), life.lines[-3:]
    before = list(life.lines)
    stage.lift()
    assert verdicts(before) == [], "a verdict while the fault lasted"
    drain(stage, workers, life)
    told = {line["network"] for line in before if is_trouble(line)}
    assert told == ({case.network} if case.network else set())


def test_while_a_picture_may_still_land_no_other_one_of_its_user_is_compared(stage: Stage, workers: Zygote) -> None:
    """Live captures overtake the one that waits for its back-off: only the quarantine holds them."""
    service("put", "late_put", times=1, delay_s=30.0, answer="error")(stage)
    life = start(stage, workers, "--users", 1, "--live-share", 1, "--gap-s", 0.2)
    assert life.until(lambda line: line.get("error") == "server_error")
    if not any(line.get("picture") == "1/4" for line in life.lines):
        assert life.until(lambda line: line.get("picture") == "1/4")
    stage.lift()
    drain(stage, workers, life)


def test_a_contradictory_verdict_is_a_no(stage: Stage, workers: Zygote) -> None:
    """The rule of the design: a false anywhere in it is negative, so that a contradiction never opens a till."""
    service("match", "contradict")(stage)
    life = start(stage, workers)
    assert life.to_the_end() == 0
    stage.scene.ledger.absorb(life.lines)
    assert {line["state"] for line in verdicts(life.lines)} == {"not_verified"}
    assert {finding.kind for finding in stage.scene.inspect(drained=True)} <= {Kind.UNFOUNDED, Kind.WRONG}


@pytest.mark.parametrize("refresh", ["ok", "refused"])
def test_tokens_that_expire_in_the_middle_of_the_queue_are_renewed(stage: Stage, workers: Zygote, refresh: str) -> None:
    stage.scene.server.vary(token_life_s=5, refresh=refresh)
    service("generate_url", "latency", latency_s=0.1)(stage)  # time to let the token expire between two sequences
    life = start(stage, workers, "--live-share", 0, "--users", 1)
    for _ in range(4):
        assert life.until(lambda line: line["event"] == "final")
        stage.scene.server.advance(6.0)
    drain(stage, workers, life)
    assert {"token", "refresh"} <= {seen.step for seen in stage.scene.server.requests}
    assert len(stage.scene.service.tokens) > 2


def test_a_key_that_is_revoked_in_the_middle_of_the_queue_stops_it_until_it_is_restored(
    stage: Stage, workers: Zygote
) -> None:
    life = start(stage, workers, "--live-share", 0)
    assert life.until(lambda line: line["event"] == "final")
    stage.scene.server.vary(api_key_revoked=True)
    assert life.until(lambda line: line.get("network") == "stopped")
    at_the_stop = len(verdicts(life.lines))
    stage.lift()  # the probe of a stopped forwarder comes by itself, after 15 minutes of the terminal's clock
    drain(stage, workers, life)
    assert at_the_stop < 5
    assert [line["network"] for line in life.lines if line["event"] == "network"][-2:] == ["stopped", "online"]
