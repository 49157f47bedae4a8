"""A bounded load on a real process of the simulator; scripts/load measures it on the real thing, side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.client import AgentClient, ApiError
from edge_agent.types import State
from tests.load.clients import Load
from tests.load.running import Running, resident_bytes

ROUNDS = 4
MAX_GROWTH_BYTES = 3 << 20
"""In the best of the rounds, of 400 requests and 1 000 events: what is never let go of costs 20 KB and more for each
exchange, in every round; a thread that gets a heap of its own costs 8 MB, once."""


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("load") / "api.sock"
    command = [sys.executable, "-m", "edge_agent", "simulate", "--json", "--stop-with-stdin", "--speed", "10"]
    with subprocess.Popen([*command, "--socket", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as simulator:
        assert simulator.stdout is not None
        assert simulator.stdin is not None
        assert json.loads(simulator.stdout.readline())["ready"]
        yield path
        simulator.stdin.close()


def verified(client: AgentClient) -> bool:
    while True:
        try:
            return client.verify("verified", wait_s=30, search_timeout_s=30).state is State.VERIFIED
        except ApiError as exc:
            if exc.code != "busy":  # a session of the load, about to be cancelled
                raise


def test_a_loaded_terminal_goes_on_verifying_answers_as_documented_and_keeps_its_memory(socket: Path) -> None:
    resident = []
    with AgentClient(socket) as client:
        for seed in range(ROUNDS):
            with Running(socket, Load(connections=100, rate=200.0, seconds=2.5, seed=seed)) as load:
                assert verified(client)
                tally = load.tally()
            assert tally.undocumented == []
            assert {kind for kind, _ in tally.answers} >= {
                "status",
                "list",
                "get",
                "start",
                "cancel",
                "wrong",
                "garbage",
            }
            assert tally.events > 0
            resident.append(resident_bytes(socket))
    assert min(after - before for before, after in pairwise(resident)) < MAX_GROWTH_BYTES, resident
