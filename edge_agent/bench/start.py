"""One start of the vision in a process of its own: ``python -m edge_agent.bench.start PICTURE MODELS``.

MODELS is the section of the configuration as JSON. Prints one JSON line: seconds from the first import to the first screened picture, and the memory then.
"""

# ruff: noqa: E402 - the clock starts before the imports
from __future__ import annotations

import time

_began_s = time.perf_counter()

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import EnvironmentFault

if TYPE_CHECKING:
    from edge_agent.config import ModelsSection


@dataclass(frozen=True, slots=True)
class Start:
    """Of one process."""

    seconds: float
    resident_mb: float
    """MB of 10^6 bytes, after the first result."""
    peak_mb: float
    """The most until then."""


def start_once(models: ModelsSection, picture: Path) -> Start:
    """In a fresh interpreter. Raises EnvironmentFault when it fails."""
    import subprocess  # the parent's alone: every import of this module counts as the child's

    command = [sys.executable, "-m", "edge_agent.bench.start", str(picture), models.model_dump_json()]
    child = subprocess.run(command, capture_output=True, check=False, text=True)
    if child.returncode != 0:
        why = (child.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise EnvironmentFault(f"cannot measure the start: {why}")
    return Start(**json.loads(child.stdout))


def _main(picture: str, models: str) -> Start:
    from edge_agent.packs.manifest import load_pack
    from edge_agent.vision.opening import open_pipeline

    chosen = json.loads(models)
    pipeline = open_pipeline(
        load_pack(chosen["pack"]), Path(chosen["dir"]), providers=chosen["providers"], threads=chosen["threads"]
    )
    from edge_agent.picture import read_picture
    from edge_agent.types import Frame

    frame = Frame(read_picture(Path(picture)), 0.0, 0)
    measurement = pipeline.measure(frame)
    if measurement.face is not None:
        pipeline.liveness(frame, measurement.face)
    seconds = time.perf_counter() - _began_s
    from edge_agent.bench.ground import resident_mb

    return Start(seconds, resident_mb(), resident_mb("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(asdict(_main(*sys.argv[1:]))))  # noqa: T201 - what the parent reads
