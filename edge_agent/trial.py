"""A configuration on trial: what is written down of it, and when it is worse than the one before.

The configuration file is the truth, and only an operator's command (root) writes it. A trial runs a *candidate* that
is not in the file; its record lies in the state directory. Whatever ends a trial without a confirmation (a deadline, a
crash, a power cut) leads back to the file, because that is what every start reads: nothing has to be undone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.config import Config, parse, read_text
from edge_agent.errors import AgentError, EnvironmentFault
from edge_agent.reload import Change
from edge_agent.swap import replace_file

if TYPE_CHECKING:
    from edge_agent.outbox.clock import BootInstant

log = logging.getLogger(__name__)

TRIAL_FILE = "trial.json"
RESTART_WITHIN_S = 120.0
"""A candidate that asked for a restart is forgotten when the restart takes longer."""
CONFIRM_GRACE_S = 30.0
"""After the health check the command has this long to confirm, and after that as long to put the file in place."""


class Phase(StrEnum):
    """Where a trial is."""

    RESTARTING = "restarting"
    """The next process runs the candidate."""
    WATCHING = "watching"
    """The candidate runs; its health is looked at."""
    HEALTHY = "healthy"
    """It passed, and waits for the confirmation."""
    CONFIRMED = "confirmed"
    """Confirmed; the file is about to be replaced."""
    KEPT = "kept"
    """The file holds the candidate."""
    ROLLED_BACK = "rolled_back"
    """The file's configuration runs; ``reason`` says why."""


ENDED = frozenset({Phase.KEPT, Phase.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class Health:
    """How the agent is: what a candidate must not make worse."""

    faults: Mapping[str, str] = field(default_factory=dict)
    """Code by part that is missing."""
    network: str = "unknown"
    stopped_code: str | None = None
    camera: str | None = None
    """Why the camera could not be opened; None also where it was not tried."""
    late: tuple[str, ...] = ()
    """Loops that hang."""


def worse(before: Health, now: Health, *, final: bool) -> str | None:
    """Why ``now`` is worse than ``before``, or None. ``final``: an outage, which may pass, counts only then."""
    for part, code in now.faults.items():
        if before.faults.get(part) != code:
            return f"{part} is missing: {code}"
    if now.camera is not None and before.camera is None:
        return f"the camera cannot be opened: {now.camera}"
    if now.network == "stopped" and (before.network, before.stopped_code) != (now.network, now.stopped_code):
        return f"forwarding stopped: {now.stopped_code}"
    if now.late:
        return f"a loop hangs: {', '.join(now.late)}"
    if final and before.network == "online" and now.network != "online":
        return "CypherFace cannot be reached any more"
    return None


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate."""

    id: str
    phase: Phase
    text: str
    """The candidate, as it will be in the file; empty once the trial has ended."""
    digest: str
    """SHA-256 of the text, hex."""
    began: BootInstant
    watch_s: float
    confirm_within_s: float | None
    """How long a person has to confirm, once it is healthy; None = the command does."""
    restart: bool
    """The candidate needs a process of its own."""
    before: Health
    changes: tuple[Change, ...]
    reason: str | None = None

    @property
    def open(self) -> bool:
        return self.phase not in ENDED

    def ended(self, phase: Phase, reason: str | None = None) -> Trial:
        return replace(self, phase=phase, reason=reason, text="")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a daemon's configuration is from."""

    file: Path
    state_dir: Path
    """That of the file, where the record of a trial lies; a candidate may name another one."""
    trial: Trial | None = None
    """The record found at the start. While it is open, its candidate runs."""

    def give_up(self, reason: str) -> None:
        """The candidate cannot even start: the file's configuration is to run."""
        _ended(self.state_dir, self.trial, reason)


def _now() -> BootInstant:
    from edge_agent.outbox.clock import SystemClock, instant  # costs the start something, and is hardly ever needed

    return instant(SystemClock())


def begin(file: Path, now: Callable[[], BootInstant] = _now) -> tuple[Config, Source]:
    """What a starting daemon runs: the file's configuration, or the candidate that a restart was asked for.

    Raises InvalidConfiguration and ConfigurationError for the file.
    """
    text = read_text(file)
    config = parse(text, str(file))
    found = read(config.state_dir)
    if found is None or not found.open:
        return config, Source(file, config.state_dir, found)
    trial = at_start(found, digest(text), now())
    try:
        save(config.state_dir, trial)  # before the candidate runs: it gets one chance
        if trial.open:
            return parse(trial.text, "the candidate"), Source(file, config.state_dir, trial)
    except AgentError as exc:
        return config, Source(file, config.state_dir, _ended(config.state_dir, trial, exc.message))
    return config, Source(file, config.state_dir, trial)


def _ended(state_dir: Path, trial: Trial | None, reason: str) -> Trial | None:
    if trial is None or not trial.open:
        return trial
    log.error("the configuration on trial is given up: %s", reason)
    ended = trial.ended(Phase.ROLLED_BACK, reason)
    try:
        save(state_dir, ended)
    except EnvironmentFault as exc:  # the file runs all the same
        log.warning("%s", exc.message)
    return ended


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def at_start(trial: Trial, file_digest: str, now: BootInstant) -> Trial:
    """What a starting process makes of the record it finds: it runs the candidate only where that is ``WATCHING``."""
    if not trial.open:
        return trial
    if trial.digest == file_digest:
        return trial.ended(Phase.KEPT)  # the file was replaced; only the last word was missing
    waited_s = now.seconds_since(trial.began)
    if trial.phase is Phase.RESTARTING and waited_s is not None and 0 <= waited_s <= RESTART_WITHIN_S:
        return replace(trial, phase=Phase.WATCHING)
    why = "the restart took too long" if trial.phase is Phase.RESTARTING else "the agent was restarted meanwhile"
    return trial.ended(Phase.ROLLED_BACK, why)


def save(state_dir: Path, trial: Trial) -> None:
    """Raises EnvironmentFault."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise EnvironmentFault(f"cannot make {state_dir}: {exc.strerror}", code="not_writable") from exc
    replace_file(state_dir / TRIAL_FILE, json.dumps(asdict(trial)).encode(), mode=0o600)


def read(state_dir: Path) -> Trial | None:
    """The record that is there. One that cannot be understood is none: its candidate is forgotten."""
    path = state_dir / TRIAL_FILE
    try:
        return _trial(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        log.warning("the record of a configuration's trial cannot be read: %s: %s", path, type(exc).__name__)
        return None


def _trial(values: dict[str, Any]) -> Trial:
    from edge_agent.outbox.clock import BootInstant  # see _now

    before = values["before"]
    return Trial(
        **{
            **values,
            "phase": Phase(values["phase"]),
            "began": BootInstant(**values["began"]),
            "before": Health(**{**before, "late": tuple(before["late"])}),
            "changes": tuple(Change(**change) for change in values["changes"]),
        }
    )
