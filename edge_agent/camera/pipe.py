"""Our end of a capture process's pipe: every read is bounded, and a pause of our own is noticed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time

_SLICE_S = 0.1
"""How often a waiting read looks whether it shall stop."""
_PAUSED_S = 1.0
"""Two slices so much further apart: this process did not run (it was stopped, or the board was starved)."""
_PIPE_BYTES = 1 << 20
_SCRAP_BYTES = 1 << 16


class PipeEnded(Exception):
    """The other end was closed. ``partial``: in the midst of a piece."""

    def __init__(self, *, partial: bool) -> None:
        super().__init__("the pipe ended")
        self.partial = partial


class PipeSilent(Exception):
    """The piece was not complete when its time was over."""


class PipeStopped(Exception):
    """We were told to stop."""


class Pipe:
    """Reads whole pieces from ``fd``, which stays the owner's. ``stopping`` ends every wait."""

    def __init__(self, fd: int, stopping: threading.Event) -> None:
        self._fd, self._stopping = fd, stopping
        self._ran_s = self._deadline_s = time.monotonic()
        self._started = False
        self.paused = False
        """Set when our process did not run for a while: what lies in the pipe is older than it looks."""
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # fewer and larger reads; not allowed everywhere, and not needed
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN | select.POLLHUP)

    def begin(self, limit_s: float) -> None:
        """What is read from here on must be complete within ``limit_s``."""
        self._deadline_s = time.monotonic() + limit_s
        self._started = False

    def read_into(self, buffer: bytearray | memoryview) -> None:
        """Fill ``buffer``. Raises PipeEnded, PipeSilent, PipeStopped."""
        left = memoryview(buffer).cast("B")
        while left:
            self._wait()
            try:
                count = os.readv(self._fd, [left])
            except BlockingIOError:
                continue
            if count == 0:
                raise PipeEnded(partial=self._started)
            self._started = True
            left = left[count:]

    def drain(self, limit_s: float) -> None:
        """Throw away what comes until the other end closes, so that it is not stuck in a write while it ends."""
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._poll.poll(left_s * 1000)
            with contextlib.suppress(BlockingIOError):
                if not os.read(self._fd, _SCRAP_BYTES):
                    return

    def _wait(self) -> None:
        while True:
            if self._stopping.is_set():
                raise PipeStopped
            ready = self._poll.poll(_SLICE_S * 1000)
            now_s = time.monotonic()
            if now_s - self._ran_s > _SLICE_S + _PAUSED_S:
                self.paused = True
                self._deadline_s += now_s - self._ran_s
            self._ran_s = now_s
            if ready:
                return
            if now_s >= self._deadline_s:
                raise PipeSilent
