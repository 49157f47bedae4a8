"""The clock: whether somebody keeps it, and whether it agrees with the service's."""

from __future__ import annotations

from datetime import datetime

from edge_agent.cypherface.probe import Look
from edge_agent.doctor.finding import Finding, Limits, measured, passed, unknown, warned
from edge_agent.doctor.sources import Case, ask
from edge_agent.timeservice import ANSWERS

SKEW = Limits(warn=30.0, fail=300.0, unit="s")
"""Pre-signed URLs and certificates are judged by the clock; storages allow for minutes."""
_SET_IT = "timedatectl set-ntp true; is UDP port 123 open? timedatectl timesync-status says more"


def synchronised(case: Case) -> list[Finding]:
    """The kernel's word, else systemd's, as the agent has it."""
    id_, sources = "clock.synchronised", case.sources
    answer: bool | None
    if sources.kernel_tells():
        answer = sources.clock.synchronised()
    else:
        try:
            said = ask(sources.ask_time_service)
        except OSError as exc:
            return [unknown(id_, f"neither the kernel nor systemd tells: {exc.strerror or exc}")]
        answer = ANSWERS.get(said)
        if answer is None:
            return [unknown(id_, f"neither the kernel nor systemd tells: {said or 'an empty answer'}")]
    if answer:
        return [passed(id_, "a time service keeps it right", "yes", limit="yes")]
    return [warned(id_, "no time service keeps it right", _SET_IT, "no", limit="yes")]


def skew(look: Look, received_at: datetime) -> Finding:
    """``received_at``: this machine's time when the answer was there."""
    id_ = "clock.skew"
    if look.date is None:
        return unknown(id_, "the service's answer carries no Date")
    ahead_s = (received_at - look.date).total_seconds()
    direction = "ahead of" if ahead_s > 0 else "behind"
    return measured(id_, abs(ahead_s), SKEW, f"{abs(ahead_s):.0f} s {direction} CypherFace's", _SET_IT)
