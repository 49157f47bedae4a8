"""Named worker threads: the event loop never blocks, and each blocking library has one thread of its own.

Camera, inference and SQLite each get one ``Worker``; a call that was handed over is never abandoned half-way, even
when its caller is cancelled (an acknowledged commit must not be lost to a client that hung up).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """One thread; calls run in the order they came."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``call`` in the thread and give its result. Cancelling the caller does not undo the call."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Finish what was handed over, then end the thread."""
        self._executor.shutdown(wait=True)
