"""A load in a process of its own, so that it shares no interpreter with whoever measures."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket as sockets
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edge_agent.api.peer import credentials_of
from tests.load.clients import Clients, Load, Tally

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

START_S = 60.0


class Running:
    """A context manager: the load runs when it is entered, for its ``seconds`` at most; ``tally`` waits for its end."""

    def __init__(self, socket: Path, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        self._answer, far_end = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(socket, load, far_end), daemon=True)
        self._load = load

    def __enter__(self) -> Self:
        self._process.start()
        if not self._answer.poll(START_S):
            raise TimeoutError("the load did not start")
        self._answer.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()

    def tally(self) -> Tally:
        """Raises TimeoutError when the load does not end."""
        if not self._answer.poll(self._load.seconds + 60.0):
            raise TimeoutError("the load did not end")
        found = self._answer.recv()
        if not isinstance(found, Tally):
            raise TypeError(f"the load failed: {found}")
        return found


def _work(socket: Path, load: Load, answer: Connection) -> None:
    answer.send("started")
    try:
        answer.send(asyncio.run(Clients(socket, load).run()))
    except BaseException as exc:
        answer.send(repr(exc))
        raise


def resident_bytes(socket: Path) -> int:
    """Resident memory of the process that listens on ``socket``."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.connect(str(socket))
        peer = credentials_of(probe)
    if peer is None:
        raise OSError(f"nobody is known behind {socket}")
    for line in Path(f"/proc/{peer.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the memory of process {peer.pid} cannot be read")
