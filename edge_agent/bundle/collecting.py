"""The whole bundle, put together in memory: nothing is written before everything has been looked at once more."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from edge_agent import __version__
from edge_agent.bundle import agent, checks, configuration, hidden, journal, machine, stored, unit
from edge_agent.bundle.cleaning import Cleaner
from edge_agent.bundle.part import Found, Gap, Member, Part, Surroundings, Terminal, as_json, collected
from edge_agent.config import SYSTEM_SOCKET, Config, load
from edge_agent.doctor.examination import run_checks, to_json
from edge_agent.doctor.setup import CREDENTIAL_FOLDERS
from edge_agent.errors import AgentError
from edge_agent.types import JsonObject

FORMAT: Final = "edge-agent bundle"
VERSION: Final = 1
"""Of the manifest."""
MANIFEST: Final = "manifest.json"
NAMES_S: Final = 60.0
PARTS: Final = (
    Part("configuration", configuration.configuration, 60.0),
    Part("doctor", checks.checks, 300.0),
    Part("status", agent.status, 60.0),
    Part("metrics", agent.metrics, 60.0),
    Part("outbox", stored.stored, 120.0),
    Part("journal", journal.journal, 120.0),
    Part("service", unit.unit, 60.0),
    Part("versions", machine.versions, 60.0),
    Part("hardware", machine.hardware, 60.0),
    Part("models", machine.models, 120.0),
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Ready to be written or shown; the manifest is the first member."""

    terminal_id: str
    at: datetime
    members: tuple[Member, ...]
    gaps: tuple[Gap, ...]

    def member(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)


def surroundings(environment: dict[str, str]) -> Surroundings:
    """Those of the machine it runs on."""
    passed = environment.get("CREDENTIALS_DIRECTORY")
    folders = (*CREDENTIAL_FOLDERS, *((Path(passed),) if passed else ()))
    return Surroundings(credential_folders=folders, environment=environment, examine=_examine)


def _examine(config_path: Path, socket: Path | None) -> JsonObject:
    return to_json(run_checks(config_path, socket=socket))


def collect(
    config_path: Path,
    around: Surroundings,
    *,
    socket: Path | None = None,
    parts: Sequence[Part] = PARTS,
    names_s: float = NAMES_S,
) -> Bundle:
    """Look at everything. What cannot be had is a gap; nothing is raised for what is wrong with the terminal."""
    config, error = _configuration(config_path)
    cleaner, unknown_names = _cleaner(config_path, config, around, names_s)
    terminal = Terminal(
        config_path=config_path,
        config=config,
        config_error=error,
        given_socket=socket,
        socket=socket or (config.api.socket if config else SYSTEM_SOCKET),
        around=around,
        cleaner=cleaner,
    )
    found = [_fit(one, cleaner) for one in (*unknown_names, *collected(parts, terminal))]
    return _bundle(config.terminal_id if config else "unknown", around.sources.clock.wall(), found)


def _configuration(path: Path) -> tuple[Config | None, AgentError | None]:
    try:
        return load(path), None
    except AgentError as exc:
        return None, exc


def _cleaner(
    config_path: Path, config: Config | None, around: Surroundings, limit_s: float
) -> tuple[Cleaner, list[Gap]]:
    """A disk that hangs must not keep the rest from being told: then the names are not known."""
    folders = (*around.credential_folders, config_path.parent / "credentials")
    secrets = hidden.secrets(config_path, folders, around.environment)
    result: list[tuple[Cleaner, list[Gap]]] = []
    clock = around.sources.clock

    def read() -> None:
        result.append(hidden.cleaner(secrets, config, clock))

    thread = threading.Thread(target=read, name="bundle names", daemon=True)
    thread.start()
    thread.join(limit_s)
    late = Gap("names", f"{hidden.NOT_COMPARED}: not read within {limit_s:g} s")
    return next(iter(result), (Cleaner(secrets), [late]))


def _fit(found: Found, cleaner: Cleaner) -> Found:
    """The last look: too large a member, or one that holds what must not leave, is left out as a whole."""
    if isinstance(found, Gap):
        return found
    if len(found.content) > found.limit_bytes:
        return Gap(found.name, f"it has {len(found.content)} bytes, more than {found.limit_bytes}: left out")
    if cleaner.leaks(found.content):
        return Gap(found.name, "it would have held a secret or a user id: left out")
    return found


def _bundle(terminal_id: str, at: datetime, found: Iterable[Found]) -> Bundle:
    members = tuple(one for one in found if isinstance(one, Member))
    gaps = tuple(one for one in found if isinstance(one, Gap))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "edge_agent": __version__,
        "terminal_id": terminal_id,
        "at": at.isoformat(timespec="seconds"),
        "members": [
            {"name": m.name, "bytes": len(m.content), "sha256": hashlib.sha256(m.content).hexdigest(), "what": m.what}
            for m in members
        ],
        "gaps": [{"part": gap.part, "why": gap.why} for gap in gaps],
    }
    first = as_json(MANIFEST, manifest, "what is in here, and what is not")
    return Bundle(terminal_id, at, (first, *members), gaps)
