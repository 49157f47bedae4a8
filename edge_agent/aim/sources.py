"""Where the looks are from: the running agent, or the camera itself where no agent runs."""

from __future__ import annotations

import asyncio
import errno
import socket as sockets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge_agent.camera import Camera, make_camera
from edge_agent.client import AgentClient
from edge_agent.config import Config, ModelsSection
from edge_agent.errors import EnvironmentFault, ModelError
from edge_agent.looking import Looking
from edge_agent.screening import Vision
from edge_agent.types import JsonObject
from edge_agent.workers import Worker

See = Callable[[JsonObject], None]
ANSWER_S = 5.0
"""An agent that takes no connection within this time is one that does not answer."""
LOOK_FOR_AGENT_S = 1.0
NOBODY_LISTENS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED})
"""What connecting to a socket fails with where no agent runs; anything else says nothing about that."""
HANG_UP_S = 3.0


class Source(Protocol):
    """The way to the camera."""

    description: str

    async def follow(self, see: See, limit_s: float) -> str:
        """Open the camera and tell every look until somebody else ends it: the reason. Cancelling it closes the camera.

        Raises AgentError when it cannot begin.
        """
        ...


class FromAgent:
    """Through the daemon, which films itself and gives way to verifications by itself."""

    def __init__(self, socket: Path) -> None:
        self.description = f"the agent at {socket}"
        self._socket = socket

    async def follow(self, see: See, limit_s: float) -> str:
        loop, left = asyncio.get_running_loop(), threading.Event()

        def read() -> str:
            with AgentClient(self._socket) as client:
                for line in client.aim(max(1.0, limit_s)):
                    if left.is_set():
                        break
                    if "ended" in line:
                        return str(line["ended"])
                    loop.call_soon_threadsafe(see, line)
            return "left"

        reader = Worker("aim")
        reading = asyncio.create_task(reader.run(read), name="read looks")
        try:
            return await asyncio.shield(reading)
        finally:
            left.set()  # it ends with the next look, and with it the request
            await asyncio.wait({reading}, timeout=HANG_UP_S)
            reader.close(abandon=not reading.done())


class OwnCamera:
    """The camera of the configuration, opened here. Ends when an agent starts: then the camera is the agent's."""

    def __init__(
        self,
        config: Config,
        *,
        make: Callable[[], Camera] | None = None,
        open_vision: Callable[[ModelsSection], Vision] | None = None,
        may_film: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``make``: another way to a closed camera; ``open_vision``: to the models.

        ``may_film`` is asked before the camera is opened: it raises AgentError where a daemon has it.
        """
        self.description = "the camera itself: no agent runs"
        self._config, self._clock, self._may_film = config, clock, may_film
        self._make = make or (lambda: make_camera(config.camera))
        self._open_vision = open_vision or _open_models

    async def follow(self, see: See, limit_s: float) -> str:
        del limit_s  # the server's own is enough where there is no agent
        filming, judging = Worker("camera"), Worker("inference")
        try:
            vision = await judging.run(self._vision)
            camera = await filming.run(self._opened)
            try:
                looking = Looking(
                    camera, vision, self._config, camera_worker=filming, inference_worker=judging, clock=self._clock
                )
                return await self._look(looking, see)
            finally:
                await filming.run(camera.close)
        finally:
            for worker in (filming, judging):
                worker.close(abandon=worker.busy_s > ANSWER_S)

    async def _look(self, looking: Looking, see: See) -> str:
        looked_at_s = self._clock()
        while True:
            see((await looking.next()).as_json())
            if self._clock() - looked_at_s >= LOOK_FOR_AGENT_S:
                looked_at_s = self._clock()
                if await asyncio.to_thread(agent_answers, self._config.api.socket):
                    return "agent"

    def _opened(self) -> Camera:
        self._may_film()
        camera = self._make()
        camera.open()
        return camera

    def _vision(self) -> Vision | ModelError:
        try:
            return self._open_vision(self._config.models)
        except ModelError as exc:
            return exc


def _open_models(models: ModelsSection) -> Vision:
    from edge_agent.vision.opening import open_configured

    return open_configured(models)


def agent_answers(socket: Path) -> bool:
    """Somebody listens there. Raises EnvironmentFault where that cannot be told: then the camera may be an agent's."""
    probe = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    probe.settimeout(ANSWER_S)
    try:
        probe.connect(str(socket))
    except (TimeoutError, BlockingIOError):
        pass  # somebody listens, and takes nobody in just now
    except OSError as exc:
        if exc.errno in NOBODY_LISTENS:
            return False
        refused = isinstance(exc, PermissionError)
        raise EnvironmentFault(
            f"cannot ask the agent at {socket}: {'this user may not' if refused else exc}",
            hint="sudo edge-agent aim" if refused else "give the agent's own socket with --socket",
        ) from exc
    finally:
        probe.close()
    return True
