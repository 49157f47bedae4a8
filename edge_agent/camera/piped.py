"""A camera behind a capture process: a thread reads its pipe without a pause and keeps only the newest picture.

So a library that hangs, crashes or leaks does so in a process that can be killed and replaced: ``close`` kills it, and
``open`` starts a new one. A process that delivers no whole picture in time is killed by the reading thread itself, and
the reader gets camera_unavailable, so that the agent opens it again at once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.camera.child import Child
from edge_agent.camera.guard import FrameGuard
from edge_agent.camera.newest import Newest
from edge_agent.camera.pipe import Pipe, PipeEnded, PipeSilent, PipeStopped
from edge_agent.camera.port import Camera, Clock, Rotation, not_open, upright, upright_size
from edge_agent.errors import CameraError
from edge_agent.types import Frame, Image

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
"""libcamera needs one to two seconds, a network stream or Jetson's camera service up to five."""
SILENCE_S = 3.0
"""A whole picture must come in this time; DESIGN's sessions give a camera up after five seconds."""
CLOSE_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture from a capture process."""

    image: Image
    """uint8 (H, W, 3) BGR, C-contiguous, not used by anybody else."""
    age_s: float
    """Since its capture, where the source tells it; 0 = it has just arrived."""
    number: int | None
    """The source's own count, which shows gaps; None where it has none."""
    compare: Image
    """What is compared with the next picture's to notice a frozen camera."""


class Feed(Protocol):
    """What is particular to one kind of capture process."""

    @property
    def description(self) -> str:
        """For people."""
        ...

    @property
    def install_hint(self) -> str:
        """What to do when its program is missing."""
        ...

    def command(self, fd: int) -> Sequence[str]:
        """Program and arguments of a process that writes its pictures to descriptor ``fd``. Raises CameraError."""
        ...

    def picture(self, pipe: Pipe) -> Picture:
        """Read one. Raises CameraError for what is none, and what ``Pipe.read_into`` raises."""
        ...

    def ended(self, status: int, said: Sequence[str], *, partial: bool) -> CameraError:
        """Why the process ended: its exit status (negative: the signal), its last lines, amid a picture or not."""
        ...


class PipedCamera(Camera):
    """``size`` and ``fps`` are what the feed asks for; what comes may have another size."""

    def __init__(
        self,
        feed: Feed,
        *,
        size: tuple[int, int],
        fps: float,
        rotate: Rotation = 0,
        stale_after_s: float = 1.0,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        silence_s: float = SILENCE_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._feed, self._size, self._fps, self._rotate = feed, size, fps, rotate
        self._stale_after_s, self._open_timeout_s = stale_after_s, open_timeout_s
        self._silence_s = max(silence_s, 3 / fps)
        self._clock = clock
        self._reader: _Reader | None = None
        self._handed_out = -1

    @property
    def description(self) -> str:
        return self._feed.description

    @property
    def size(self) -> tuple[int, int]:
        return upright_size(self._size, self._rotate)

    @property
    def process_id(self) -> int | None:
        """Of the capture process, while the camera is open."""
        return None if self._reader is None else self._reader.child.pid

    def open(self) -> None:
        if self._reader is not None:
            return
        reader = _Reader(
            self._feed,
            self._clock,
            first_s=self._open_timeout_s,
            next_s=self._silence_s,
            pause_s=min(0.1, 0.5 / self._fps),
        )
        try:
            first = reader.newest.wait(after=-1, not_before_s=-math.inf, timeout_s=self._open_timeout_s + 1)
        except CameraError:
            reader.stop()
            raise
        self._note_size(first.image)
        self._reader, self._handed_out = reader, -1

    def read(self, timeout_s: float) -> Frame:
        if self._reader is None:
            raise not_open(self.description)
        frame = self._reader.newest.wait(
            after=self._handed_out, not_before_s=self._clock() - self._stale_after_s, timeout_s=timeout_s
        )
        self._handed_out = frame.index
        self._note_size(frame.image)
        return Frame(upright(frame.image, self._rotate), frame.captured_at_s, frame.index)

    def ease(self, fps: float | None) -> None:
        if self._reader is not None:
            self._reader.ease(fps)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.stop()
        self._reader = None

    def _note_size(self, image: Image) -> None:
        actual = (image.shape[1], image.shape[0])
        if actual != self._size:
            log.warning(
                "%s delivers %dx%d, not the %dx%d asked for: going on with what it delivers",
                self.description, *actual, *self._size,
            )  # fmt: skip
            self._size = actual


class _Reader:
    """The process, and the thread that reads it and ends it."""

    def __init__(self, feed: Feed, clock: Clock, *, first_s: float, next_s: float, pause_s: float) -> None:
        self._feed, self._clock, self._first_s, self._next_s, self._pause_s = feed, clock, first_s, next_s, pause_s
        self._stopping, self._awake = threading.Event(), threading.Event()
        self._eased_s: float | None = None
        """The time of a picture while few are enough; the process waits meanwhile, with a picture that grows old."""
        self._aged = False
        self._last_s = -math.inf
        self._count = -1
        self.newest = Newest(feed.description)
        self._guard = FrameGuard(feed.description)
        self.child = Child(feed.command, name=feed.description, hint=feed.install_hint)
        self._pipe = Pipe(self.child.read_fd, self._stopping)
        self._thread = threading.Thread(target=self._run, name=feed.description, daemon=True)
        self._thread.start()

    def ease(self, fps: float | None) -> None:
        self._aged |= self._eased_s is not None
        self._eased_s = None if fps is None else 1 / fps
        self._awake.set()

    def stop(self) -> None:
        """End process and thread; waits a few seconds at most."""
        self._stopping.set()
        self._awake.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._read_on()
        except PipeStopped:
            self.child.ask_to_end()
            self._pipe.drain(CLOSE_PATIENCE_S)
            self.child.end(CLOSE_PATIENCE_S)
        except PipeEnded as ended:
            status = self.child.end(CLOSE_PATIENCE_S)
            self.newest.fail(self._feed.ended(status, tuple(self.child.said), partial=ended.partial))
        except PipeSilent:
            self.child.end()
            self.newest.fail(self._silent())
        except CameraError as exc:
            self.child.end()
            self.newest.fail(exc)
        except Exception as exc:  # the top of the thread: a reader must hear of everything
            self.child.end()
            self.newest.fail(CameraError(f"cannot read from {self._feed.description}: {exc!r}"))
        finally:
            self.child.release()

    def _read_on(self) -> None:
        limit_s = self._first_s
        while True:
            began_s = time.monotonic()
            self._pipe.begin(limit_s)
            picture = self._feed.picture(self._pipe)
            limit_s = self._next_s
            if self._pipe.paused or self._aged:
                self._pass_over_old_pictures()
                continue
            self._publish(picture)
            self._rest(time.monotonic() - began_s)

    def _rest(self, spent_s: float) -> None:
        """A source that floods is held back here: it blocks, or drops, and the processor is left to the models."""
        self._awake.clear()
        eased_s = self._eased_s
        if eased_s is not None and not self._stopping.is_set():
            self._awake.wait(max(0.0, eased_s - spent_s))
        elif spent_s < self._pause_s:
            self._stopping.wait(self._pause_s)

    def _pass_over_old_pictures(self) -> None:
        """After a pause of ours one picture was half in the pipe and one waited behind it: neither is news."""
        if self._pipe.paused:
            log.info(
                "%s: this process did not run for a while; the pictures of that time are dropped",
                self._feed.description,
            )
        self._aged = False
        self._pipe.begin(self._next_s)
        self._feed.picture(self._pipe)
        self._pipe.paused = False

    def _publish(self, picture: Picture) -> None:
        now_s = self._clock()
        self._guard.see(picture.compare, now_s)
        self._count = max(self._count + 1, picture.number if picture.number is not None else 0)
        self._last_s = max(self._last_s, now_s - picture.age_s)
        self.newest.publish(Frame(picture.image, self._last_s, self._count))

    def _silent(self) -> CameraError:
        said = self.child.said[-1] if self.child.said else ""
        limit_s = self._next_s if self._count >= 0 else self._first_s
        return CameraError(
            f"cannot read from {self._feed.description}: no whole picture within {limit_s:g} s"
            + (f" (it last said: {said})" if said else ""),
            hint="its process was ended, and is started anew when the camera is opened again",
            retryable=True,
        )
