"""The service as systemd has it: its state, and the unit with its drop-ins, line by line where a line is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from edge_agent.bundle.part import Found, Gap, Member, Terminal, as_json
from edge_agent.doctor.redaction import REDACTED
from edge_agent.doctor.systemd import HARDENING, UNIT

LIMIT_S: Final = 10.0
FACTS: Final = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "ExecMainCode", "ExecMainStatus",
    "ActiveEnterTimestamp", "InactiveEnterTimestamp", "StateChangeTimestamp", "MemoryCurrent", "MemoryPeak", "CPUUsageNSec",
    "TasksCurrent", "WatchdogUSec", "NeedDaemonReload", *HARDENING,
)  # fmt: skip
SHOW: Final = ("systemctl", "show", UNIT, f"--property={','.join(FACTS)}")
CAT: Final = ("systemctl", "cat", UNIT, "--no-pager")
KEPT: Final = frozenset({
    "After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "Conflicts", "WantedBy", "Type", "NotifyAccess", "User",
    "Group", "SupplementaryGroups", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory", "RuntimeDirectoryMode",
    "ConfigurationDirectory", "ConfigurationDirectoryMode", "UMask", "MemoryHigh", "MemoryMax", "MemoryLow", "TasksMax",
    "CPUWeight", "CPUQuota", "IOWeight", "Nice", "OOMScoreAdjust", "Restart", "RestartSec", "RestartPreventExitStatus",
    "StartLimitIntervalSec", "StartLimitBurst", "WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "AmbientCapabilities",
    "CapabilityBoundingSet", "NoNewPrivileges", "KeyringMode", "MemoryDenyWriteExecute", "RemoveIPC", "LockPersonality",
    "SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber", "DevicePolicy", "DeviceAllow", "ExecReload",
    "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "BindReadOnlyPaths", "WorkingDirectory",
    "StandardOutput", "StandardError", "ExecStart", "ExecStartPre", "ExecStopPost", "OnCalendar", "Persistent",
})  # fmt: skip
"""Directives whose value is told (cleaned); with every ``Protect…``, ``Private…``, ``Restrict…`` and ``Limit…``."""
_FAMILIES = re.compile(r"(?:Protect|Private|Restrict|Limit|Proc)[A-Za-z0-9]+")
_HARMLESS_VARIABLES: Final = frozenset({
    "ORT_DISABLE_TELEMETRY", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "HOME", "GST_REGISTRY", "LANG", "TZ",
    "PYTHONUNBUFFERED", "CUDA_VISIBLE_DEVICES", "GST_DEBUG", "LIBCAMERA_LOG_LEVELS", "MALLOC_ARENA_MAX",
})  # fmt: skip
_DIRECTIVE = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9-]*)\s*=\s*(?P<value>.*)", re.DOTALL)
_VARIABLE = re.compile(r"(?P<quote>[\"']?)(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
_PIECE = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")


def unit(terminal: Terminal) -> Iterator[Found]:
    """``service.json`` and ``unit.txt``."""
    said = terminal.around.sources.run(SHOW, LIMIT_S)
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if not facts:
        yield Gap("service", "systemd does not run here, or does not answer")
        return
    known = {name: terminal.cleaner.text(facts[name]) for name in FACTS if name in facts}
    yield as_json("service.json", known, f"the state of {UNIT}")
    lines = list(_lines(terminal.around.sources.run(CAT, LIMIT_S), terminal))
    if lines:
        content = "".join(f"{line}\n" for line in lines).encode()
        yield Member("unit.txt", content, "the unit and its drop-ins; values that are not known are withheld")
    else:
        yield Gap("unit", "systemd has no file of it")


def _lines(text: str, terminal: Terminal) -> Iterator[str]:
    """Without comments but those with which ``systemctl cat`` names a file."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        stripped = line.strip()
        if re.fullmatch(r"# /\S+\.(?:service|timer|conf)|\[[A-Za-z]+\]", stripped):
            yield terminal.cleaner.text(stripped)
        elif stripped and stripped[0] not in "#;":
            yield _line(stripped, terminal)


def _line(line: str, terminal: Terminal) -> str:
    found = _DIRECTIVE.fullmatch(line)
    if found is None:
        return REDACTED
    name, value = found["name"], found["value"]
    if name in {"Environment", "PassEnvironment", "UnsetEnvironment"}:
        return f"{name}={' '.join(_variable(piece, terminal) for piece in _PIECE.findall(value))}"
    if name in {"LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"}:
        return f"{name}={terminal.cleaner.text(value.partition(':')[0])}:{REDACTED}"
    if name in KEPT or _FAMILIES.fullmatch(name):
        return f"{name}={_value(name, value, terminal)}"
    return f"{terminal.cleaner.text(name)}={REDACTED}"


def _value(name: str, value: str, terminal: Terminal) -> str:
    """Of a command its words that are a program, an option or a path; an argument may be anything."""
    if not name.startswith("Exec"):
        return terminal.cleaner.text(value)
    words = (word if re.fullmatch(r"[-+@!:]*/[\w./-]+|--?[a-z][a-z-]*|run|\$MAINPID|-HUP", word) else REDACTED
             for word in value.split())  # fmt: skip
    return terminal.cleaner.text(" ".join(words))


def _variable(piece: str, terminal: Terminal) -> str:
    """A variable's name, and its value where it is one of ours or of a library."""
    found = _VARIABLE.fullmatch(piece)
    if found is None:
        return piece if piece in _HARMLESS_VARIABLES else REDACTED
    if found["name"] in _HARMLESS_VARIABLES:
        return terminal.cleaner.text(piece)
    return f"{terminal.cleaner.text(found['name'])}={REDACTED}"
