"""The service as systemd has it."""

from __future__ import annotations

from edge_agent.doctor.finding import Finding, Limits, failed, measured, passed, unknown, warned
from edge_agent.doctor.sources import Case

UNIT = "edge-agent.service"
HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "DevicePolicy": "closed",
    "CapabilityBoundingSet": "",
    "User": "edge-agent",
}
"""Of systemd/edge-agent.service; a board's drop-in changes none of these (tested)."""
_FACTS = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result", "DropInPaths", "InvocationID",
)  # fmt: skip
QUESTION = ("systemctl", "show", UNIT, f"--property={','.join((*_FACTS, *HARDENING))}")
LIMIT_S = 5.0
RESTARTS = Limits(warn=0, fail=4, unit="restarts")
_JOURNAL = "journalctl -u edge-agent -n 100"
_INSTALL = "sudo scripts/install"


def systemd(case: Case) -> list[Finding]:
    ids = ("systemd.unit", "systemd.restarts", "systemd.hardening")
    try:
        said = case.sources.run(QUESTION, LIMIT_S)
    except OSError as exc:
        return [unknown(id_, f"systemd cannot be asked: {exc.strerror or exc}") for id_ in ids]
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if not facts.get("LoadState"):
        return [unknown(id_, "systemd does not run here, or does not answer") for id_ in ids]
    if facts["LoadState"] == "not-found":
        return [unknown(id_, f"there is no {UNIT}: it was not installed as a service", _INSTALL) for id_ in ids]
    return [_unit(facts), _restarts(facts), _hardening(facts)]


def _unit(facts: dict[str, str]) -> Finding:
    id_, state = "systemd.unit", f"{facts.get('ActiveState')} ({facts.get('SubState')})"
    if facts.get("LoadState") != "loaded":
        return failed(id_, f"the unit is {facts['LoadState']}", "systemctl unmask edge-agent", facts["LoadState"], limit="loaded")  # fmt: skip
    if facts.get("ActiveState") == "failed":
        detail = f"it failed ({facts.get('Result')}) and is not started any more"
        mend = f"{_JOURNAL}; then: systemctl reset-failed edge-agent; systemctl start edge-agent"
        return failed(id_, detail, mend, state, limit="active (running)")
    if facts.get("ActiveState") not in {"active", "reloading"}:
        return failed(id_, f"it is {state}", "sudo systemctl start edge-agent", state, limit="active (running)")
    if facts.get("UnitFileState") not in {"enabled", "enabled-runtime", ""}:
        detail = f"it runs, and would not after the next boot ({facts.get('UnitFileState')})"
        return warned(id_, detail, "sudo systemctl enable edge-agent", facts.get("UnitFileState"), limit="enabled")
    return passed(id_, "it is active and enabled", state, limit="active (running)")


def _restarts(facts: dict[str, str]) -> Finding:
    id_, text = "systemd.restarts", facts.get("NRestarts", "")
    if not text.isdigit():
        return unknown(id_, "this systemd does not count them")
    detail = f"systemd started it anew {text} times since it was started by hand or at boot"
    return measured(id_, int(text), RESTARTS, detail, _JOURNAL)


def _hardening(facts: dict[str, str]) -> Finding:
    id_ = "systemd.hardening"
    changed = [
        f"{name}={facts[name] or '(empty)'}"
        for name, wanted in HARDENING.items()
        if name in facts and facts[name] != wanted
    ]
    drop_ins = [path.rpartition("/")[2] for path in facts.get("DropInPaths", "").split()]
    told = f"drop-ins: {', '.join(drop_ins) or 'none'}"
    if changed:
        mend = "systemctl cat edge-agent shows which drop-in does it: take those lines out of it"
        return warned(id_, f"looser than delivered: {', '.join(changed)}; {told}", mend, len(changed), limit=0)
    return passed(id_, f"as delivered; {told}", 0, limit=0)
