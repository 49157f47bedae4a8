"""Space set aside on the disk, so that what is stored can always be forwarded, ended and erased.

The file ``reserve`` holds really allocated bytes. Everything but new captures may use it: where the file system is
(nearly) full it is given back in steps, before the transaction that needs them. In steps, because whoever filled the
disk may take what becomes free. New captures are taken only while all of it is in place, and ``adapt`` restores it
once there is room again.

SQLite's needs on a full disk are small: the write-ahead log is moved into the database after 1000 pages (4 MB) and
begun anew, and the pages of a picture that left the queue are used again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import StorageError

RESERVE_FILE = "reserve"
LOW_WATER_BYTES = 2 << 20
"""Below this much free space a step of the reserve is given back; more than the largest transaction that drains."""
STEP_BYTES = 4 << 20
_ROWS_BYTES = 64 << 10
"""What the rows, indexes and audit records of one capture need at most."""
_CHUNK = bytes(1 << 20)
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Space:
    """How much room there is, for status and metrics."""

    free_bytes: int
    reserve_bytes: int
    """Allocated in the reserve now."""
    reserve_wanted_bytes: int
    problem: str | None
    """Why the reserve could not be made as large as wanted, as the system said it; None also while it is whole."""

    @property
    def takes_captures(self) -> bool:
        """Whether a small capture would be taken."""
        return self.reserve_bytes >= self.reserve_wanted_bytes and self.free_bytes >= room_for(0)


def room_for(picture_bytes: int) -> int:
    """Free bytes that a new capture needs beside the whole reserve: once in the write-ahead log, once in the database."""
    return LOW_WATER_BYTES + _ROWS_BYTES + 2 * picture_bytes


class Reserve:
    """The file ``reserve`` of one state directory; used by the holder of its lock only."""

    def __init__(self, state_dir: Path, free_bytes: Callable[[Path], int]) -> None:
        self.path = state_dir / RESERVE_FILE
        self.problem: str | None = None
        self._free_bytes = free_bytes
        self.held_bytes = self._allocated()

    def free_bytes(self) -> int:
        """Raises StorageError when the file system does not say."""
        try:
            return self._free_bytes(self.path.parent)
        except OSError as exc:
            raise StorageError(f"cannot ask for the free space of {self.path.parent}: {exc.strerror}") from exc

    def make_room(self) -> None:
        """Before whatever lets the queue drain: where the disk is (nearly) full, give a step back."""
        if self.held_bytes and self.free_bytes() < LOW_WATER_BYTES:
            self.give_back()

    def give_back(self) -> bool:
        """Hand a step to the file system; False when nothing is left."""
        left = max(0, self.held_bytes - STEP_BYTES)
        return self.held_bytes > 0 and self._cut(left)

    def insist(self, work: Callable[[], T]) -> T:
        """Run ``work``, which is all or nothing; while the disk is too full for it, run it again with a step more.

        Raises what ``work`` raises; ``storage_full`` only once the reserve is used up.
        """
        while True:
            self.make_room()
            held_bytes = self.held_bytes
            try:
                return work()
            except StorageError as exc:
                given = self.held_bytes < held_bytes  # by a transaction inside
                if exc.code != "storage_full" or not (given or self.give_back()):
                    raise

    def adapt(self, wanted_bytes: int) -> None:
        """Bring the reserve to the wanted size, as near as the room allows. Never raises: ``problem`` says why not.

        What is taken leaves twice the low-water mark free, so that the next transaction does not give it back.
        """
        self.problem = None
        self.held_bytes = self._allocated()
        if self.held_bytes > wanted_bytes:
            self._cut(wanted_bytes)
        missing, spare = wanted_bytes - self.held_bytes, self._spare_bytes()
        if missing > spare:
            self.problem = "the file system is too full"
            missing = spare // STEP_BYTES * STEP_BYTES
        if missing > 0:
            self._grow(self.held_bytes + missing)

    def _spare_bytes(self) -> int:
        try:
            return max(0, self.free_bytes() - 2 * LOW_WATER_BYTES)
        except StorageError:
            return 0  # whoever writes next is told by SQLite

    def check_new(self, picture_bytes: int, wanted_bytes: int) -> None:
        """Raises StorageError ``storage_full`` when a new capture would use up what the old ones need to drain."""
        if self.held_bytes != wanted_bytes:
            self.adapt(wanted_bytes)  # space may be back, or the limit was changed since the last tick
        free, needed = self.free_bytes(), room_for(picture_bytes)
        missing = wanted_bytes - self.held_bytes
        if missing <= 0 and free >= needed:
            return
        why = f" ({self.problem})" if missing > 0 and self.problem else ""
        raise StorageError(
            f"cannot take a new capture: {free} bytes are free on the file system of {self.path.parent}, "
            f"{needed + max(0, missing)} are needed{why}",
            code="storage_full",
            hint="free space there, or set a smaller outbox.reserve_bytes; "
            "captures that are stored already are forwarded all the same",
            retryable=True,
        )

    # -- the file

    def _allocated(self) -> int:
        """Bytes really there: a file that came out of a backup may be nothing but a hole."""
        try:
            found = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return 0
        except OSError as exc:
            self.problem = exc.strerror
            return 0
        real = stat.S_ISREG(found.st_mode) and found.st_blocks * 512 >= found.st_size
        return found.st_size if real else 0

    def _cut(self, size: int) -> bool:
        return self._change(size, os.O_RDWR, lambda fd: os.ftruncate(fd, size))

    def _grow(self, size: int) -> None:
        start = self.held_bytes

        def grow(fd: int) -> None:
            os.ftruncate(fd, start)
            try:
                _allocate(fd, start, size - start)
            except OSError:
                os.ftruncate(fd, start)  # some file systems keep the part that did fit
                raise

        self._change(size, os.O_RDWR | os.O_CREAT, grow)

    def _change(self, size: int, flags: int, how: Callable[[int], None]) -> bool:
        try:
            fd = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(fd, 0o600)
                how(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            self.held_bytes = self._allocated()
            self.problem = exc.strerror
            return False
        self.held_bytes = size
        return True


def _allocate(fd: int, start: int, length: int) -> None:
    """Really allocate; a file system without that gets zeros written."""
    try:
        os.posix_fallocate(fd, start, length)
    except OSError as exc:
        if exc.errno not in _NO_FALLOCATE:
            raise
        end = start + length
        while start < end:
            start += os.pwrite(fd, _CHUNK[: end - start], start)
        os.fsync(fd)
