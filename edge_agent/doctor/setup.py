"""The configuration, the secrets it names, and the agent that runs with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

from edge_agent.config import Config, InvalidConfiguration, SecretRef
from edge_agent.doctor.finding import Finding, failed, passed, unknown, warned
from edge_agent.doctor.sources import Case
from edge_agent.errors import ConfigurationError
from edge_agent.outbox.configured import read_device_key
from edge_agent.outbox.crypto import parse_key

CREDENTIAL_FOLDERS = (Path("/run/credentials/edge-agent.service"), Path("/etc/edge-agent/credentials"))
"""What systemd passed to the service that runs, and where the installer puts it."""
DEVICE_KEY_CODES = frozenset({
    "key_mismatch", "key_unavailable", "key_invalid", "secret_missing", "secret_exposed", "secret_invalid",
})  # fmt: skip
"""Codes of a store that cannot be opened for its key's sake."""
_SUDO = "call as root: sudo edge-agent doctor"


def borrow_credentials(
    environment: MutableMapping[str, str], folders: tuple[Path, ...] = CREDENTIAL_FOLDERS
) -> Path | None:
    """Outside the unit, root can read what systemd passes to it: have ``{credential: NAME}`` mean that folder.

    The folder that was taken; None where one is set already, or none can be read.
    """
    if "CREDENTIALS_DIRECTORY" in environment:
        return None
    found = next((folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)), None)
    if found is not None:
        environment["CREDENTIALS_DIRECTORY"] = str(found)
    return found


def configuration(case: Case) -> list[Finding]:
    id_, path = "config.file", case.config_path
    if isinstance(case.config_error, InvalidConfiguration):
        problems = case.config_error.problems
        detail = f"{path}: {problems[0]}" + (f", and {len(problems) - 1} more" if len(problems) > 1 else "")
        return [failed(id_, detail, f"edge-agent config check --config {path}", len(problems), limit=0)]
    if case.config_error is not None and isinstance(case.config_error.__cause__, PermissionError):
        return [unknown(id_, f"this user may not read {path}", _SUDO)]
    if case.config_error is not None:
        return [failed(id_, case.config_error.message, "give the right file with --config, or: sudo edge-agent doctor")]
    return [next(_as_it_runs(case), None) or passed(id_, f"{path} can be used")]


def _as_it_runs(case: Case) -> Iterator[Finding]:
    """In what the agent that runs departs from the file."""
    told = (case.status or {}).get("configuration") or {}
    problems = (told.get("last_reload") or {}).get("problems") or []
    if problems:
        mend = f"mend that in {case.config_path}, then: sudo systemctl reload edge-agent"
        yield warned("config.file", f"the agent goes on with the old one: {problems[0]}", mend)
    if told.get("restart_needed"):
        keys = ", ".join(told["restart_needed"])
        yield warned("config.file", f"a restart is needed for: {keys}", "sudo systemctl restart edge-agent")
    if (told.get("trial") or {}).get("left_s") is not None:
        yield warned("config.file", "a configuration is on trial", "edge-agent config confirm")


def api_key(case: Case) -> list[Finding]:
    id_ = "credentials.api_key"
    if case.config is None:
        return case.without_config(id_)
    return [_secret(id_, case.config.cypherface.api_key, case) or passed(id_, "it can be read")]


def device_key(config: Config, case: Case) -> Finding | None:
    """What keeps the device key from being used, without looking into the queue; None when nothing does."""
    id_ = "credentials.device_key"
    found = _secret(id_, config.outbox.key, case, lambda: read_device_key(config))
    if found is not None:
        return found
    try:
        parse_key(config.outbox.key.read())
    except ConfigurationError as exc:
        return failed(id_, exc.message, exc.hint or 'docs/durability.md, "Keys"')
    return None


def _secret(id_: str, ref: SecretRef, case: Case, read: Callable[[], bytes] | None = None) -> Finding | None:
    """Why a secret cannot be read, by ``read`` where its errors say more than ``ref``'s; None when it can."""
    try:
        (read or ref.read)()
    except ConfigurationError as exc:
        mend = exc.hint or "put it there again: docs/install-raspberry-pi.md"
        if ref.credential is not None and ref.path() is None:
            return unknown(id_, f"the service manager gives {ref} to the service only", _SUDO)
        if isinstance(exc.__cause__, PermissionError):
            return unknown(id_, f"this user may not read {ref}", _SUDO)
        if ref.env is not None and case.status is not None:
            return unknown(id_, f"{ref} is set for the agent, or not: it is not set here")
        return failed(id_, exc.message, mend)
    return None


def agent(case: Case) -> list[Finding]:
    id_, status = "agent.state", case.status
    if status is None:
        return [_silent(id_, case)]
    if status["simulator"]:
        return [warned(id_, "it is the simulator: nobody is verified here", "stop it, and: systemctl start edge-agent")]
    if status["ready"]:
        return [passed(id_, f"version {status['version']} is ready", "ready")]
    if not status["started"]:
        return [warned(id_, "it is still starting", "try again in a minute", "starting", limit="ready")]
    missing = "; ".join(f"{fault['part']}: {fault['code']}" for fault in status["faults"])
    mend = next((fault["hint"] for fault in status["faults"] if fault["hint"]), "edge-agent status")
    return [failed(id_, f"it is degraded ({missing or 'stopping'})", mend, "degraded", limit="ready")]


def _silent(id_: str, case: Case) -> Finding:
    if case.listening is None:
        return unknown(id_, f"this user may not connect to {case.socket}", _SUDO)
    if not case.listening:
        detail = f"it does not run (nobody listens at {case.socket}); the checks were made without it"
        return warned(id_, detail, "sudo systemctl start edge-agent")
    if case.silence is not None and case.silence.code != "agent_unreachable":
        return unknown(id_, f"it does not tell this user: {case.silence.message}", _SUDO)
    mend = "journalctl -u edge-agent -n 50; sudo systemctl restart edge-agent"
    return failed(id_, f"it listens at {case.socket} and does not answer", mend)
