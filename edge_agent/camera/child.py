"""A capture process: started without a shell, in a process group of its own, watched, and ended whatever it does.

It sees a short list of environment variables (never a secret that ours may hold), nothing on its standard output, and
one descriptor for its pictures. What it says on its standard error goes to our log as debug lines, a bounded number of
them, and its last lines are kept to explain its end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from edge_agent.errors import CameraError

log = logging.getLogger(__name__)

_PASSED_ON = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "DISPLAY", "XDG_", "LIBCAMERA_", "GST_", "PICAMERA2_", "EGL_")
"""Names, and beginnings of names (those with an underscore at the end), that a capture process may need."""
_LINES_KEPT = 20
_LINE_BYTES = 400
_LINES_LOGGED_PER_MINUTE = 30
_CREDENTIALS = re.compile(r"//[^/\s@]+@")


def environment() -> dict[str, str]:
    """What a capture process sees: ours, cut down, and messages in English because they are read."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if any(name == p or (p.endswith("_") and name.startswith(p)) for p in _PASSED_ON)
    }
    return {**ours, "LC_ALL": "C.UTF-8"}


class Child:
    """One running process. ``command`` gets the descriptor that it writes pictures to; ``read_fd`` is our end.

    Its standard input is a pipe that nothing is written to: it ends when we do, whatever ends us.
    Raises CameraError camera_unavailable when it cannot be started.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], *, name: str, hint: str) -> None:
        self._name = name
        self.said: deque[str] = deque(maxlen=_LINES_KEPT)
        self.read_fd, write_fd = os.pipe()
        program = ""
        try:
            line = list(command(write_fd))
            program = line[0]
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[write_fd],
                env=environment(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            os.close(self.read_fd)
            raise CameraError(f"cannot start {program} for {name}: {exc.strerror}", hint=hint) from exc
        except CameraError:
            os.close(self.read_fd)
            raise
        finally:
            os.close(write_fd)
        self._listener = threading.Thread(target=self._listen, name=f"stderr of {name}", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask_to_end(self) -> None:
        """A source such as Jetson's camera service wants to be left in order."""
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGINT)

    def end(self, patience_s: float = 0.0) -> int:
        """Kill the whole group unless it ends by itself within ``patience_s``. Gives the exit status; never fails."""
        if self._process.returncode is None:
            self._await_exit(patience_s)
            # not fetched yet, so its number is still its own; the others of its group may have outlived it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            log.warning("%s: its process %d cannot be killed: it hangs in the kernel", self._name, self.pid)
            status = -signal.SIGKILL
        self._listener.join(0.5)
        return status

    def _await_exit(self, patience_s: float) -> None:
        """Without fetching its status."""
        end_s = time.monotonic() + patience_s
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None and time.monotonic() < end_s:
            time.sleep(0.01)

    def release(self) -> None:
        """Close our ends of its pipes, after ``end``."""
        os.close(self.read_fd)
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                stream.close()

    def _listen(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        window_s, lines = time.monotonic(), 0
        with contextlib.suppress(ValueError, OSError):  # closed under our hands: it is over
            while raw := stream.readline(_LINE_BYTES):
                text = _CREDENTIALS.sub("//", raw.decode(errors="replace").strip())
                if not text:
                    continue
                self.said.append(text)
                if time.monotonic() - window_s > 60:
                    window_s, lines = time.monotonic(), 0
                lines += 1
                if lines <= _LINES_LOGGED_PER_MINUTE:
                    log.debug("%s: %s", self._name, text)
