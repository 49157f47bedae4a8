"""Named worker threads: the event loop never blocks, and each blocking library has one thread of its own.

Camera, inference and SQLite each get one ``Worker``; a call that was handed over is never abandoned half-way, even
when its caller is cancelled (an acknowledged commit must not be lost to a client that hung up).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from edge_agent.errors import AgentError, report

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """One thread; calls run in the order they came."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._clock = clock
        self._began_s: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long the present call has been running; 0 where there is none."""
        began_s = self._began_s
        return self._clock() - began_s if began_s is not None else 0.0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``call`` in the thread and give its result. Cancelling the caller does not undo the call."""
        loop = asyncio.get_running_loop()

        def timed() -> T:
            self._began_s = self._clock()
            try:
                return call(*args, **kwargs)
            finally:
                self._began_s = None

        future = loop.run_in_executor(self._executor, timed)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_note_failure)
            raise

    def soon(self, call: Callable[[], None]) -> None:
        """Run ``call``, which raises nothing, after what was handed over before. Nobody waits for it, nor for a hang."""
        self._executor.submit(call)

    def close(self, *, abandon: bool = False) -> None:
        """Finish what was handed over, then end the thread. ``abandon``: leave a call that hangs, and what waits for it.

        An abandoned thread keeps the interpreter from ending in order: see os._exit.
        """
        self._executor.shutdown(wait=not abandon, cancel_futures=abandon)


def _note_failure(future: asyncio.Future[T]) -> None:
    """Nobody waits for it any more: for one that was cancelled, its capture may have come too late, for example."""
    error = None if future.cancelled() else future.exception()
    if isinstance(error, AgentError):
        log.info("a call whose caller had left failed: %s", error.message, extra={"code": error.code})
    elif error is not None:
        report(log, error, "a call whose caller had left failed")
