"""The page of ``edge-agent aim`` served for real, in a thread of its own, and a camera that is made up."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

import httpx

from edge_agent.aim.door import Door
from edge_agent.aim.server import serve
from edge_agent.aim.show import Ended, Show
from edge_agent.aim.sources import See, Source
from edge_agent.errors import AgentError
from edge_agent.listening import bind_tcp
from edge_agent.types import JsonObject

LOOK: JsonObject = {
    "jpeg": None, "size": None, "index": 0, "fps": 15.0, "judged": None, "hint": None, "scene_sharpness": 0.5, "problem": None
}  # fmt: skip


class MadeUp:
    """A look every 10 ms, until it is given a reason to end or something to raise."""

    description = "made up"

    def __init__(self, error: AgentError | None = None) -> None:
        self._error = error
        self.is_open = False
        self.opened = 0
        self.reason: str | None = None

    async def follow(self, see: See, limit_s: float) -> str:
        assert limit_s > 0
        if self._error is not None:
            raise self._error
        self.is_open, self.opened = True, self.opened + 1
        try:
            while self.reason is None:
                see(LOOK)
                await asyncio.sleep(0.01)
            return self.reason
        finally:
            self.is_open = False


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Page:
    """A context manager: it is served until it is over, and must be over at the end."""

    def __init__(self, source: Source, *, limit_s: float = 600.0, clock: Clock | None = None) -> None:
        self._source, self._limit_s, self._clock = source, limit_s, clock
        self.end: Ended | None = None
        self.error: AgentError | None = None
        self.door = Door()
        self._listener = bind_tcp("127.0.0.1:0")
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.link = f"http://{self.address}/?token={self.door.token}"
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="page", daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.show.stop.set)
        self.join()
        self._listener.close()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.show = Show(self._limit_s, self._clock) if self._clock else Show(self._limit_s)
        self._ready.set()
        try:
            self.end = await serve(self._source, self._listener, self.show, self.door, "pos-0001")
        except AgentError as exc:
            self.error = exc

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "the page goes on"

    def browser(self) -> httpx.Client:
        """Somebody without a cookie."""
        return httpx.Client(base_url=f"http://{self.address}", timeout=20)
