"""What the page shows now: the newest look, whether the camera is on, and why it no longer is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.types import JsonObject

POLL_S = 5.0
"""The page is answered at least so often, also when there is nothing new."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why there are no more pictures."""

    reason: str
    text: str
    """For the person at the page and the one at the terminal."""


TEXTS = {
    "verification": "A verification has begun: the camera is the customer's. Start edge-agent aim again when it is over.",
    "enrolment": "An enrolment from the camera has begun. Start edge-agent aim again when it is over.",
    "check": "The agent has to check its camera. Start edge-agent aim again.",
    "time": "The time is over. Start edge-agent aim again for more (--minutes).",
    "closed": "The page was not read any more.",
    "not_opened": "Nobody opened the page.",
    "not_read": "The pictures were not read any more.",
    "stopped": "You stopped it.",
    "stopping": "The agent is stopping.",
    "agent": "The agent was started: the camera is the agent's. Start edge-agent aim again to go through it.",
    "left": "The connection to the agent ended.",
    "failed": "Something unexpected happened: see the agent's log.",
}


def ended(reason: str) -> Ended:
    """With its text, also for a reason of a newer agent."""
    return Ended(reason, TEXTS.get(reason, f"The agent ended it ({reason})."))


class Show:
    """Used from the event loop's thread only."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._began_s = self.read_at_s = clock()
        self._look: JsonObject | None = None
        self._number = 0
        self._news = asyncio.Event()
        self.end: Ended | None = None
        self.opened = asyncio.Event()
        """The page is there: the camera may be opened."""
        self.stop = asyncio.Event()
        """Somebody wants it to end."""
        self.told = asyncio.Event()
        """The page knows of the end."""

    @property
    def left_s(self) -> float:
        """Until it ends by itself."""
        return max(0.0, self._began_s + self._limit_s - self._clock())

    @property
    def unread_s(self) -> float:
        """Since the page last asked."""
        return self._clock() - self.read_at_s

    def open(self) -> None:
        """The page was loaded."""
        self.read_at_s = self._clock()
        self.opened.set()

    def see(self, look: JsonObject) -> None:
        """A new look; the one before is forgotten."""
        self._look, self._number = look, self._number + 1
        self._tell()

    def finish(self, end: Ended) -> None:
        """There are no more; the last picture is forgotten too."""
        self._look, self.end = None, end
        self._tell()

    def _tell(self) -> None:
        """To whoever waits now."""
        self._news.set()
        self._news = asyncio.Event()

    async def newer(self, than: int) -> JsonObject:
        """What is shown once it is another look than number ``than``, or the end, or after ``POLL_S``."""
        self.read_at_s = self._clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                while self._number <= than and self.end is None:
                    await self._news.wait()
        if self.end is not None:
            self.told.set()
        return {
            "number": self._number,
            "left_s": round(self.left_s, 1),
            "look": self._look,
            "ended": self.end and {"reason": self.end.reason, "text": self.end.text},
        }
