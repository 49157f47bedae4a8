"""The whole examination: what is known first, then every check that was asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edge_agent.config import SYSTEM_SOCKET, Config, load
from edge_agent.doctor import board, camera, clock, disk, models, network, setup, stored, systemd
from edge_agent.doctor.catalogue import chosen
from edge_agent.doctor.finding import Finding, Status, as_json, worst
from edge_agent.doctor.redaction import known_secrets, redacted
from edge_agent.doctor.runner import Check, Runner
from edge_agent.doctor.sources import Case, Sources
from edge_agent.errors import AgentError
from edge_agent.types import JsonObject

VERSION = 1
"""Of the JSON."""
ANSWER_S = 5.0
"""An agent that does not say how it is within this time is one that does not answer."""
_BUSY = "measures"
"""Checks that would spoil each other's measurement on a small board run one after the other."""
_STORE = "store"
"""One at a time has the lock of the outbox."""


QUICK_S = 20.0
"""For what takes milliseconds on a board that does not swap."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some checks of one source; see runner.Check."""

    ids: tuple[str, ...]
    look: Callable[[Case], list[Finding]]
    limit_s: float = QUICK_S
    lane: str | None = None
    hanging: Mapping[str, str] = field(default_factory=dict)


PARTS = (
    Part(("agent.state",), setup.agent),
    Part(("systemd.unit", "systemd.restarts", "systemd.hardening"), systemd.systemd),
    Part(("config.file",), setup.configuration),
    Part(("credentials.api_key",), setup.api_key),
    Part(stored.STORED, stored.stored, 60.0, _STORE),
    Part(("audit.chain",), stored.audit, stored.AUDIT_S, _STORE),
    Part(("queue.forwarding",), stored.forwarding),
    Part(camera.IDS, camera.camera, 45.0, _BUSY, {"camera.open": f"its driver hangs: {camera.CABLE}"}),
    Part(models.RUN, models.running, 90.0, _BUSY),
    Part(models.FILES, models.files, 60.0),
    Part(("disk.space",), disk.space),
    Part(("disk.write",), disk.write, 30.0, hanging={"disk.write": f"the disk hangs: dmesg; {disk.RENEW}"}),
    Part(("disk.wear",), disk.wear),
    Part(("disk.errors",), disk.errors),
    Part(("memory.available",), board.memory),
    Part(("temperature.board",), board.temperature),
    Part(("power.undervoltage", "power.throttling"), board.power),
    Part(("clock.synchronised",), clock.synchronised, 30.0),
    Part(("network.dns",), network.dns, 30.0, hanging={"network.dns": f"no name server answers: {network.CHECK_DNS}"}),
    Part(("network.tls", "network.tls_expiry"), network.tls, 60.0),
    Part(("api.reach", "api.latency", "clock.skew"), network.reach, 60.0),
    Part(("api.token",), network.token, 60.0),
    Part(("upload.hosts",), network.upload_hosts, 60.0),
)


@dataclass(frozen=True, slots=True)
class Report:
    """One examination."""

    findings: tuple[Finding, ...]
    interrupted: bool = False

    @property
    def status(self) -> Status:
        return worst(self.findings)


def examine(
    config_path: Path,
    *,
    socket: Path | None = None,
    only: Sequence[str] = (),
    sources: Sources | None = None,
) -> Report:
    """Look at this terminal. Ends within the largest limit of its parts, or at Ctrl-C; no check stops another.

    ``socket``: the agent's, where it is not the configuration's. ``only``: ids or topics of ``catalogue.CHECKS``.
    Raises ConfigurationError ``unknown_check``; nothing else is raised for what is wrong with the terminal.
    """
    wanted = chosen(only)
    case = _case(config_path, socket, sources or Sources())
    checks = [
        Check(part.ids, partial(part.look, case), part.limit_s, part.lane, part.hanging) for part in _needed(wanted)
    ]
    runner = Runner(checks, stop=case.stop)
    found, secrets = runner.run(), known_secrets(case.config)
    return Report(tuple(redacted(found[id_], secrets) for id_ in wanted), runner.interrupted)


def run_checks(
    config_path: Path,
    *,
    socket: Path | None = None,
    only: Sequence[str] = (),
    sources: Sources | None = None,
) -> tuple[Finding, ...]:
    """The findings of ``examine``, in the catalogue's order."""
    return examine(config_path, socket=socket, only=only, sources=sources).findings


def to_json(findings: Sequence[Finding]) -> JsonObject:
    """The contract of ``doctor --json``: docs/doctor.md."""
    counts = {status.value: sum(finding.status is status for finding in findings) for status in Status}
    return {
        "version": VERSION,
        "status": worst(findings).value,
        "counts": counts,
        "checks": [as_json(finding) for finding in findings],
    }


def _needed(wanted: Sequence[str]) -> list[Part]:
    return [part for part in PARTS if not set(part.ids).isdisjoint(wanted)]


def _case(config_path: Path, socket: Path | None, sources: Sources) -> Case:
    config, config_error = _configuration(config_path)
    socket = socket or (config.api.socket if config else SYSTEM_SOCKET)
    status, silence = _status(socket, sources)
    listening = True if status is not None else sources.listens(socket)
    return Case(
        config_path=config_path,
        config=config,
        config_error=config_error,
        socket=socket,
        status=status,
        silence=silence,
        listening=listening,
        sources=sources,
        stop=threading.Event(),
    )


def _configuration(path: Path) -> tuple[Config | None, AgentError | None]:
    try:
        return load(path), None
    except AgentError as exc:
        return None, exc


def _status(socket: Path, sources: Sources) -> tuple[JsonObject | None, AgentError | None]:
    try:
        with sources.client(socket, ANSWER_S) as client:
            return client.status(), None
    except AgentError as exc:
        return None, exc
