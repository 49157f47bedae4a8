"""The fault matrix: each fault lasts for a while, is lifted, the queue drains, and the oracle has nothing to say.

End to end: the process under test on one side, the sandbox on the other, the fault proxy in between. What a row says
is what an operator sees while the fault lasts: the error on the captures, and what the forwarder thinks of the network.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_agent.sandbox.faults import Fault
from tests.faults.ledger import Line
from tests.faults.oracle import Kind
from tests.faults.proxy import PASS, FaultProxy, Mode
from tests.faults.scene import Scene, scene
from tests.faults.zygote import Life, Zygote, zygote

CAPTURES = ("--captures", 5, "--users", 3, "--sizes", 20_000, 40_000, "--quarantine-s", 60)
TIMEOUTS = ("--timeouts-s", 0.3, 0.4, 0.4)


@dataclass(slots=True)
class Stage:
    """Where a fault is played."""

    scene: Scene
    proxy: FaultProxy

    @property
    def no_dns(self) -> Path:
        return self.scene.folder / "no-dns"

    def lift(self) -> None:
        """Everything works again."""
        self.proxy.set(PASS)
        self.scene.server.clear_faults()
        self.scene.server.vary(api_key_revoked=False, processing_lag_s=0.0, while_processing="previous")
        self.scene.server.advance(60.0)  # what was late has landed, what was processed is ready
        self.no_dns.unlink(missing_ok=True)


Begin = Callable[[Stage], object]


@dataclass(frozen=True, slots=True)
class Case:
    """One row."""

    name: str
    begin: Begin
    error: str
    """The code on a capture while the fault lasts."""
    network: str | None = None
    """What the forwarder says of the network; None = it never speaks of trouble."""


def network(**mode: Any) -> Begin:
    return lambda stage: stage.proxy.set(Mode(**mode))


def service(step: str, kind: str, **parameters: Any) -> Begin:
    fault = Fault.model_validate({"step": step, "kind": kind, "times": None, **parameters})
    return lambda stage: stage.scene.server.inject(fault)


def varied(**variants: Any) -> Begin:
    return lambda stage: stage.scene.server.vary(**variants)


NETWORK = [
    Case("connection refused", network(action="refuse"), "connect", "offline"),
    Case("black hole", network(action="swallow"), "timeout", "offline"),
    Case("name does not resolve", lambda stage: stage.no_dns.touch(), "connect", "offline"),
    Case("reset in the body of the PUT", network(action="reset", verb=b"PUT", after_bytes=9000), "network", "offline"),
    Case("reset before the PUT's answer", network(action="reset", verb=b"PUT", flow="answer"), "network", "offline"),
    Case("reset before any answer", network(action="reset", verb=b"POST", flow="answer"), "network", "offline"),
    Case("1 KB/s upwards", network(action="trickle", verb=b"PUT", bytes_per_s=1024), "timeout", "offline"),
    Case("stall in the body of the PUT", network(action="stall", verb=b"PUT", after_bytes=9000), "timeout", "offline"),
    Case("stall in an answer", network(action="stall", flow="answer", after_bytes=40), "timeout", "offline"),
    Case("slow-loris server", network(action="trickle", flow="answer", bytes_per_s=50), "timeout", "offline"),
    Case("captive portal, page", network(action="portal", status=200), "captive_portal", "offline"),
    Case("captive portal, redirect", network(action="portal", status=302), "captive_portal", "offline"),
]

SERVICE = [
    Case("reset before the match's answer", service("match", "reset", at_bytes=0), "incomplete_answer", "offline"),
    Case("match carried out, no answer", service("match", "drop"), "network", "offline"),
    Case("match hangs", service("match", "hang"), "timeout", "offline"),
    Case("truncated answer", service("match", "truncate"), "incomplete_answer", "offline"),
    Case("truncated URL", service("generate_url", "truncate"), "incomplete_answer", "offline"),
    Case("late PUT, no answer", service("put", "late_put", delay_s=30.0), "timeout", "offline"),
    Case("late PUT, error", service("put", "late_put", delay_s=30.0, answer="error"), "server_error"),
    Case("processing lag", varied(processing_lag_s=50.0, while_processing="refuse"), "out_of_order"),
    Case("garbage for JSON", service("match", "garbage"), "indeterminate"),
    Case("garbage for a URL", service("generate_url", "garbage"), "bad_answer"),
    Case("garbage for a token", service("token", "garbage"), "bad_answer"),
    Case("contradictory URL", service("generate_url", "contradict"), "indeterminate"),
    Case("contradictory token", service("token", "contradict"), "unauthenticated", "stopped"),
    Case("bare 200", service("match", "status", status=200, body="{}"), "indeterminate"),
    Case("portal instead of a match", service("match", "html"), "captive_portal", "offline"),
    Case("portal instead of the storage", service("put", "html"), "captive_portal", "offline"),
    Case("API key revoked", varied(api_key_revoked=True), "unauthenticated", "stopped"),
]

STATUSES: dict[str, dict[int, tuple[str, str | None]]] = {
    "match": {
        400: ("bad_request", "stopped"),  # for a third user in a row it is our fault
        401: ("unauthenticated", "stopped"),
        402: ("upstream_error", None),
        403: ("forbidden", "stopped"),
        404: ("unknown_user", "stopped"),
        405: ("service_misconfigured", "stopped"),
        406: ("service_misconfigured", "stopped"),
        409: ("conflict", None),
        422: ("out_of_order", None),
        429: ("rate_limited", None),
        500: ("server_error", None),
        503: ("server_error", None),
    },
    "generate_url": {
        401: ("unauthenticated", "stopped"),
        404: ("unknown_user", "stopped"),
        422: ("out_of_order", None),
        502: ("server_error", None),
    },
    "put": {
        400: ("upload_refused", None),
        403: ("upload_url_stale", None),
        404: ("service_misconfigured", "stopped"),
        413: ("too_large", "stopped"),
        500: ("server_error", None),
    },
    "token": {
        401: ("unauthenticated", "stopped"),
        404: ("service_misconfigured", "stopped"),
        503: ("server_error", None),
    },
}
ANSWERS = [
    Case(f"{step} answers {status}", service(step, "status", status=status), *seen)
    for step, statuses in STATUSES.items()
    for status, seen in statuses.items()
]


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
    return workers.start(stage.scene.arguments(*CAPTURES, *TIMEOUTS, "--resolver-down", stage.no_dns, *extra))


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
    life = start(stage, workers)
    assert life.until(lambda line: line.get("error") == case.error), life.lines[-3:]
    if case.network is not None and not any(is_trouble(line) for line in life.lines):
        assert life.until(is_trouble), life.lines[-3:]
    before = list(life.lines)
    stage.lift()
    assert verdicts(before) == [], "a verdict while the fault lasted"
    drain(stage, workers, life)
    told = {line["network"] for line in before if is_trouble(line)}
    assert told == ({case.network} if case.network else set())


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
    life = start(stage, workers, "--live-share", 0)
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
