"""Looks at capture processes from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from edge_agent.camera.piped import PipedCamera


def reader_of(camera: PipedCamera):
    assert camera._reader is not None
    return camera._reader


def await_pictures(camera: PipedCamera, more: int) -> None:
    """Until that many more pictures have come, read or not."""
    newest = reader_of(camera).newest
    newest.wait(after=newest.index + more - 1, not_before_s=0, timeout_s=20)


def kill_process(camera: PipedCamera) -> None:
    """As a crash, or the kernel short of memory, does it; nothing where it ended by itself."""
    if camera.process_id is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(camera.process_id, signal.SIGKILL)


def stop_process(camera: PipedCamera) -> None:
    """It goes on existing, and does nothing more."""
    assert camera.process_id is not None
    os.kill(camera.process_id, signal.SIGSTOP)


def state_of(pid: int) -> str:
    """The kernel's letter (R, S, T, Z, ...), or "gone"."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def gone_within(pid: int, seconds: float) -> bool:
    """True once there is no such process (one that only waits to be fetched by its parent is none)."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if state_of(pid) in {"gone", "Z"}:
            return True
        time.sleep(0.02)
    return False
