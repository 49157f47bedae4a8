"""The board that figures of the pipeline belong to: its processor, what runs the models, load and heat."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_agent.bench.ground import processor

_ZONES = Path("/sys/class/thermal")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class Board:
    """At one moment."""

    processor: str
    cores: int
    """That this process may use."""
    python: str
    onnxruntime: str
    load: float
    """Average of the last minute: others at work make every figure worse."""
    temperature_c: float | None
    """Of the hottest zone that can be read; None where there is none. A hot board is a slow one."""


def board() -> Board:
    return Board(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        onnxruntime=_version_of(_RUNTIMES),
        load=os.getloadavg()[0],
        temperature_c=temperature_c(_ZONES),
    )


def temperature_c(zones: Path) -> float | None:
    """Of the hottest ``thermal_zone*/temp`` (millidegrees) in ``zones``."""
    found = [reading for zone in sorted(zones.glob("thermal_zone*/temp")) if (reading := _reading(zone)) is not None]
    return max(found, default=None)


def _reading(file: Path) -> float | None:
    """None for a zone that is switched off: reading that is an error."""
    try:
        return int(file.read_text(encoding="ascii")) / 1000.0
    except (OSError, ValueError):
        return None


def _version_of(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"
