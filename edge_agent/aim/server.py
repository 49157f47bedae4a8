"""Serves the page until it is over: when its time is, its person leaves, or somebody else needs the camera."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from edge_agent.aim.door import Door
from edge_agent.aim.show import Ended, Show, ended
from edge_agent.aim.sources import Source
from edge_agent.aim.web import application
from edge_agent.errors import AgentError

UNREAD_S = 60.0
"""A page that asks nothing for so long was closed or is out of sight, or its tunnel broke."""
LOOK_S = 1.0
LAST_WORDS_S = 3.0
"""The page may take this long to learn why it is over."""
MAX_CONNECTIONS = 16
MAX_HEADER_BYTES = 16 * 1024


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(source: Source, listener: socket.socket, show: Show, door: Door, terminal: str) -> Ended:
    """Why it is over. Raises AgentError when the camera cannot be had; the page is told so too."""
    server = _Server(_server_config(show, door, terminal))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="aim page")
    failure: AgentError | None = None
    try:
        end = await _until_over(source, show, serving)
    except AgentError as exc:
        failure, end = exc, Ended(exc.code, f"{exc.message}{f' (try: {exc.hint})' if exc.hint else ''}")
    show.finish(end)
    if show.opened.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await show.told.wait()
    server.should_exit = True
    await serving
    if failure is not None:
        raise failure
    return end


async def _until_over(source: Source, show: Show, serving: asyncio.Task[None]) -> Ended:
    """The camera is closed when this returns or raises."""
    following = asyncio.create_task(_follow(source, show), name="aim")
    ways = {
        following,
        serving,
        asyncio.create_task(_until_stopped(show), name="wait for a stop"),
        asyncio.create_task(_until_left(show), name="look after the page"),
    }
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        first = next(iter(done - {serving}), None)
        return ended("failed") if first is None else ended(first.result() or "failed")
    finally:
        for task in ways - {serving}:
            task.cancel()
        await asyncio.gather(*(ways - {serving}), return_exceptions=True)


async def _follow(source: Source, show: Show) -> str:
    await show.opened.wait()
    return await source.follow(show.see, show.left_s)


async def _until_stopped(show: Show) -> str:
    await show.stop.wait()
    return "stopped"


async def _until_left(show: Show) -> str:
    while True:
        if show.left_s <= 0:
            return "time" if show.opened.is_set() else "not_opened"
        if show.opened.is_set() and show.unread_s > UNREAD_S:
            return "closed"
        await asyncio.sleep(LOOK_S)


def _server_config(show: Show, door: Door, terminal: str) -> uvicorn.Config:
    return uvicorn.Config(
        application(show, door, terminal),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=1,
    )
