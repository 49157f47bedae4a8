"""The agent's tasks: none is forgotten, none dies unheard, and all end with the agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edge_agent.errors import report

log = logging.getLogger(__name__)

RESTART_PAUSE_S = 1.0
"""A loop of ours that ended with an unexpected error starts again after this."""


class Tasks:
    """Used from the event loop's thread only."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def loop(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Keep a loop of ours running until it returns: an unexpected error is logged, and it starts again."""

        async def supervised() -> None:
            while True:
                try:
                    return await body()
                except asyncio.CancelledError:
                    raise
                except Exception as exc:  # the top of a loop
                    report(log, exc, f"the {name} loop ended unexpectedly and starts again")
                await asyncio.sleep(RESTART_PAUSE_S)

        self.spawn(supervised(), name)

    def spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        """Run it beside everything else; an error is logged."""

        async def guarded() -> None:
            try:
                await work
            except Exception as exc:  # the top of a task: nobody else would hear of it
                report(log, exc, f"{name} failed")

        task = asyncio.create_task(guarded(), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if asyncio.iscoroutine(work):  # cancelled before its first step it would be said to be forgotten
            task.add_done_callback(lambda _: work.close())
        return task

    async def cancel(self) -> None:
        """End them all."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
