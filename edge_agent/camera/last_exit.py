"""The last time that the daemon ended because of its camera: what has to outlive it, so that it is once an hour.

A small file in the state directory, replaced in one step and on the disk before the daemon ends.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path

from edge_agent.camera.ladder import ExitRecord
from edge_agent.errors import EnvironmentFault
from edge_agent.swap import replace_file

log = logging.getLogger(__name__)

FILE = "camera-exit.json"


def save(state_dir: Path, record: ExitRecord) -> None:
    """Raises EnvironmentFault; then the daemon must not end, or it would do so again and again."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise EnvironmentFault(f"cannot make {state_dir}: {exc.strerror}", code="not_writable") from exc
    replace_file(state_dir / FILE, json.dumps(asdict(record)).encode(), mode=0o600)


def read(state_dir: Path) -> ExitRecord | None:
    """The record that is there. One that cannot be understood is none."""
    path = state_dir / FILE
    try:
        return _record(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        log.warning("the record of the camera's last restart cannot be read: %s: %s", path, type(exc).__name__)
        return None


def _record(values: dict[str, object]) -> ExitRecord:
    boot_id, boottime_s = values["boot_id"], values["boottime_s"]
    if not isinstance(boot_id, str) or isinstance(boottime_s, bool) or not isinstance(boottime_s, int | float):
        raise TypeError
    if not math.isfinite(boottime_s) or boottime_s < 0:
        raise ValueError
    return ExitRecord(boot_id, float(boottime_s))
