"""One simulator for a whole module of tests, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.simulator.outcomes import parse
from edge_agent.simulator.run import Options, configuration, serve_simulated, state_folder
from edge_agent.simulator.terminal import SimulatedAgent


@contextmanager
def simulator(
    folder: Path,
    *,
    lockout: bool = False,
    speed: float = 5.0,
    session: Mapping[str, float] | None = None,
    tcp: str | None = None,
) -> Iterator[Path]:
    """Its socket. The state stays in ``folder``; ``session`` changes that section of its configuration."""
    options = Options(folder / "api.sock", parse("verified"), speed, lockout, tcp)
    started = threading.Event()
    running: dict[str, asyncio.AbstractEventLoop] = {}
    stop = asyncio.Event()

    async def run(state: Path) -> None:
        def ready(agent: SimulatedAgent) -> None:
            assert agent.ready, agent.faults
            running["loop"] = asyncio.get_running_loop()
            started.set()

        config = configuration(state, options)
        config = config.model_copy(update={"session": config.session.model_copy(update=session or {})})
        await serve_simulated(stop, config, options, on_ready=ready)

    with state_folder(folder / "kept") as state:
        thread = threading.Thread(target=lambda: asyncio.run(run(state)), name="simulator", daemon=True)
        thread.start()
        assert started.wait(20), "the simulator did not start"
        try:
            yield options.socket
        finally:
            running["loop"].call_soon_threadsafe(stop.set)
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # fast hints, and time enough for a capture and a verdict on a busy machine
    session = {"search_timeout_s": 20.0, "verdict_timeout_s": 3.0}
    with simulator(tmp_path_factory.mktemp("simulator"), speed=10, session=session) as path:
        yield path
