"""The faults of the matrix: how each begins, how all are lifted, and what an operator sees while one lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.sandbox.faults import Fault
from tests.faults.proxy import PASS, FaultProxy, Mode
from tests.faults.scene import Scene


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
    Case("match hangs", service("match", "hang"), "timeout", None),
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
