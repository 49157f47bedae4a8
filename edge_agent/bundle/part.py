"""What a bundle is made of, and how it is collected: each part by itself, within its own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

from edge_agent.bundle.cleaning import Cleaner
from edge_agent.config import Config
from edge_agent.doctor.sources import Sources
from edge_agent.errors import AgentError
from edge_agent.types import JsonObject

MEMBER_BYTES = 512 * 1024
"""The most that a member may have, where it does not say otherwise."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the bundle, ready to be read by somebody else."""

    name: str
    content: bytes
    what: str
    """One sentence, for the manifest."""
    limit_bytes: int = MEMBER_BYTES


@dataclass(frozen=True, slots=True)
class Gap:
    """What is not in the bundle, or not as it should be, and why."""

    part: str
    why: str


Found = Member | Gap


def as_json(name: str, value: Any, what: str) -> Member:
    """A member for people and programs; what JSON cannot carry is a mistake of ours."""
    return Member(name, (dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(), what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The machine it runs on, unless said otherwise."""

    sources: Sources = field(default_factory=Sources)
    """The doctor's: its programs, /proc and /sys, the way to the agent."""
    os_release: Path = Path("/etc/os-release")
    credential_folders: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Looked through for secrets; nothing of it is in the bundle."""
    examine: Callable[[Path, Path | None], JsonObject]
    """The doctor, as ``doctor --json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What every part is told."""

    config_path: Path
    config: Config | None
    config_error: AgentError | None
    given_socket: Path | None
    """None: the configuration's."""
    socket: Path
    around: Surroundings
    cleaner: Cleaner


@dataclass(frozen=True, slots=True)
class Part:
    """``collect`` blocks; it may raise OSError or AgentError, or hang: then it is a gap."""

    name: str
    collect: Callable[[Terminal], Iterable[Found]]
    limit_s: float


def collected(parts: Sequence[Part], terminal: Terminal, *, clock: Callable[[], float] = time.monotonic) -> list[Found]:
    """All parts side by side, in their order. Ends with the largest limit; one that hangs is left behind."""
    running = [_Running(part, terminal, clock()) for part in parts]
    return [found for one in running for found in one.result(clock)]


class _Running:
    """A part in a thread of its own."""

    def __init__(self, part: Part, terminal: Terminal, began_s: float) -> None:
        self._part = part
        self._began_s = began_s
        self._found: list[Found] | None = None
        self._thread = threading.Thread(target=self._work, args=(terminal,), name=f"bundle {part.name}", daemon=True)
        self._thread.start()

    def _work(self, terminal: Terminal) -> None:
        name = self._part.name
        try:
            self._found = list(self._part.collect(terminal))
        except AgentError as exc:
            self._found = [Gap(name, terminal.cleaner.text(exc.message))]
        except OSError as exc:
            self._found = [Gap(name, exc.strerror or type(exc).__name__)]
        except Exception as exc:  # the top of the part's thread: one that breaks must not take the others along
            self._found = [Gap(name, f"it broke: {type(exc).__name__}")]

    def result(self, clock: Callable[[], float]) -> list[Found]:
        self._thread.join(max(0.0, self._began_s + self._part.limit_s - clock()))
        found = self._found  # read once: it may end this very moment
        return (
            found if found is not None else [Gap(self._part.name, f"it was not done within {self._part.limit_s:g} s")]
        )
