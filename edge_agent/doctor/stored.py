"""The outbox and its audit log: through the agent when it runs, else on its files, under the same lock as the daemon's."""

from __future__ import annotations

from typing import Any

from edge_agent.client import ApiError
from edge_agent.config import Config
from edge_agent.doctor.finding import Finding, Limits, failed, measured, passed, unknown, warned
from edge_agent.doctor.setup import DEVICE_KEY_CODES, device_key
from edge_agent.doctor.sources import Case
from edge_agent.errors import AgentError
from edge_agent.outbox.configured import open_outbox
from edge_agent.outbox.records import QueueStats
from edge_agent.outbox.structure import Structure, require_outbox

QUEUE = ("queue.open", "queue.depth", "queue.age", "queue.parked")
STORED = ("credentials.device_key", *QUEUE)
ANSWER_S = 5.0
AUDIT_S = 120.0
"""A long audit log on a slow card takes more; then `edge-agent audit verify` does it in its own time."""
WARN_SHARE, FAIL_SHARE = 0.5, 0.9
"""Of the caps of the outbox: behind them captures are evicted and expire."""
_SUDO = "call as root: sudo edge-agent doctor"
_KEY = 'put the key of this queue back: docs/durability.md, "Keys"; never make a new one over an old queue'
_FORWARD = "edge-agent status says why it waits; edge-agent outbox retry tries it now"


def stored(case: Case) -> list[Finding]:
    if case.status is not None:
        return _through_agent(case, case.status)
    if case.config is None:
        return case.without_config(*STORED)
    return _on_files(case.config, case)


# -- through the agent ------------------------------------------------------------------------------------------------


def _through_agent(case: Case, status: dict[str, Any]) -> list[Finding]:
    fault = case.fault("store")
    if fault is not None:
        return _unopened(fault["code"], fault["detail"], fault["hint"])
    queue = status["queue"]
    if "error" in queue:
        return _unopened(queue["error"], "the agent cannot read its queue", None)
    return [
        passed("credentials.device_key", "the agent uses it"),
        passed("queue.open", "the agent has it open"),
        *_counted(case.config, queue["depth"], queue["parked"], queue["oldest_age_s"]),
    ]


# -- on the files -----------------------------------------------------------------------------------------------------


def _on_files(config: Config, case: Case) -> list[Finding]:
    key = device_key(config, case)
    try:
        require_outbox(config.state_dir)
    except AgentError as exc:
        why = "there is no queue yet: the agent makes it" if exc.code == "storage_missing" else exc.message
        first = key or passed("credentials.device_key", "it can be read; there is no queue yet that it must fit")
        return [first, *(unknown(id_, why, None if exc.code == "storage_missing" else _SUDO) for id_ in STORED[1:])]
    if key is not None:
        return [key, unknown("queue.open", "not tried: see credentials.device_key"), *_without_key(config, case)]
    try:
        with open_outbox(config, clock=case.sources.clock) as store:
            queue = store.queue()
    except AgentError as exc:
        told = _unopened(exc.code, exc.message, exc.hint)
        return [*told[:2], *_without_key(config, case)]
    return [
        passed("credentials.device_key", "it fits the queue"),
        passed("queue.open", "it can be opened"),
        *_stats(config, queue),
    ]


def _without_key(config: Config, case: Case) -> list[Finding]:
    """What the file says of itself."""
    try:
        with Structure(config.state_dir, case.sources.clock) as structure:
            return _stats(config, structure.queue())
    except AgentError as exc:
        return [unknown(id_, exc.message, _SUDO) for id_ in STORED[2:]]


# -- the audit log ----------------------------------------------------------------------------------------------------


def audit(case: Case) -> list[Finding]:
    """Apart from the queue: it may take long."""
    id_ = "audit.chain"
    if case.status is not None:
        return [_agents_audit(case)]
    if case.config is None:
        return case.without_config(id_)
    try:
        require_outbox(case.config.state_dir)
        with open_outbox(case.config, clock=case.sources.clock) as store:
            report = store.verify_audit()
    except AgentError as exc:
        return [_unauthenticated(case.config, case, exc)]
    return [_audited(report.ok, report.records, report.problem)]


def _agents_audit(case: Case) -> Finding:
    id_ = "audit.chain"
    try:
        with case.sources.client(case.socket, ANSWER_S) as client:
            body = client.audit_verify()
    except ApiError as exc:
        if exc.status == 403:
            return unknown(id_, "the agent tells an admin only", _SUDO)
        return unknown(id_, f"the agent could not check it: {exc.message}")
    return _audited(body.ok, body.records, body.problem)


def _unauthenticated(config: Config, case: Case, why: AgentError) -> Finding:
    """A gap shows without the key; a log without one proves nothing."""
    id_ = "audit.chain"
    if why.code == "storage_missing":
        return unknown(id_, "there is no queue yet: the agent makes it")
    try:
        with Structure(config.state_dir, case.sources.clock) as structure:
            report = structure.check_audit()
    except AgentError as exc:
        return unknown(id_, exc.message, _SUDO)
    if report.ok:
        return unknown(id_, "no record is missing, but nothing was authenticated: see queue.open")
    return _audited(report.ok, report.records, report.problem)


# -- what it means ----------------------------------------------------------------------------------------------------


def _unopened(code: str, detail: str, hint: str | None) -> list[Finding]:
    """For all of STORED: a store that cannot be opened, for its key's sake or for another."""
    rest = [unknown(id_, "the queue cannot be opened: see queue.open") for id_ in STORED[2:]]
    if code in DEVICE_KEY_CODES:
        told = failed("credentials.device_key", detail, hint or _KEY, code)
        return [told, unknown("queue.open", "it waits for its key: see credentials.device_key"), *rest]
    key = unknown("credentials.device_key", "the queue that it must fit cannot be opened: see queue.open")
    if code == "starting":
        return [key, unknown("queue.open", detail, "try again in a minute"), *rest]
    if code == "state_locked":
        mend = "an agent that does not answer holds it: sudo systemctl restart edge-agent"
        return [key, unknown("queue.open", detail, mend), *rest]
    return [key, failed("queue.open", detail, hint or "edge-agent outbox verify", code), *rest]


def _stats(config: Config, queue: QueueStats) -> list[Finding]:
    return _counted(config, queue.depth, queue.parked, queue.oldest_age_s)


def _counted(config: Config | None, depth: int, parked: int, oldest_age_s: float | None) -> list[Finding]:
    if config is None:
        return [unknown(id_, "the caps are in the configuration: see config.file") for id_ in QUEUE[1:]]
    return [_depth(config, depth), _age(config, oldest_age_s), _parked(parked)]


def _depth(config: Config, depth: int) -> Finding:
    cap = config.outbox.max_items
    limits = Limits(WARN_SHARE * cap, FAIL_SHARE * cap, "captures")
    return measured("queue.depth", depth, limits, f"{depth} captures wait; the cap is {cap}", _FORWARD)


def _age(config: Config, oldest_age_s: float | None) -> Finding:
    if oldest_age_s is None:
        return passed("queue.age", "nothing waits", 0.0, limit=WARN_SHARE * config.outbox.max_age_s, unit="s")
    cap_s = config.outbox.max_age_s
    detail = f"the oldest is {oldest_age_s / 3600.0:.1f} h old; after {cap_s / 3600.0:.0f} h it expires"
    return measured("queue.age", oldest_age_s, Limits(WARN_SHARE * cap_s, FAIL_SHARE * cap_s, "s"), detail, _FORWARD)


def _parked(parked: int) -> Finding:
    if not parked:
        return passed("queue.parked", "nothing was set aside", 0, limit=0, unit="captures")
    mend = "edge-agent outbox list --parked says why; then: edge-agent outbox retry ID, or purge ID"
    return warned(
        "queue.parked", f"{parked} captures were set aside for a person", mend, parked, limit=0, unit="captures"
    )


def _audited(ok: bool, records: int, problem: str | None) -> Finding:
    if ok:
        return passed("audit.chain", f"{records} records, unbroken", records, unit="records")
    mend = "keep a copy of the state directory, tell the security officer: edge-agent audit verify, outbox verify"
    return failed("audit.chain", problem or "a record was changed", mend, records, unit="records")


def forwarding(case: Case) -> list[Finding]:
    """How the agent gets on with the service. Its last error is left out: it may name a user."""
    id_ = "queue.forwarding"
    network = case.status["network"] if case.status else None
    if network is None:
        return [unknown(id_, "only a running agent knows, and none told")]
    state, code = network["state"], network["stopped_code"]
    if state == "stopped":
        mend = "mend what the code names (docs/cypherface.md); then: edge-agent outbox retry"
        return [failed(id_, f"it stopped: {code}", mend, state, limit="online")]
    if state == "offline":
        return [warned(id_, "CypherFace does not answer the agent; captures wait", "see network and api above", state, limit="online")]  # fmt: skip
    if state == "unknown":
        return [unknown(id_, "nothing was forwarded since the agent started")]
    return [passed(id_, "the last capture got through", state, limit="online")]
