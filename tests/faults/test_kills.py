"""SIGKILL at any moment: nothing that was acknowledged is lost, altered, judged wrongly or twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.sandbox.faults import Fault
from tests.faults import oracle
from tests.faults.phases import PHASES, Phase, phases_at_the_end
from tests.faults.scene import Scene, scene
from tests.faults.zygote import Kill, Zygote, zygote

KILLS = 200
KILLS_PER_DIRECTORY = 25
LEAST_PER_PHASE = 5
DURING_DESTRUCTION = [Kill(delay_s, "started") for delay_s in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016)]
SLOWER = (
    Fault(step="put", kind="latency", latency_s=0.004, times=None),
    Fault(step="match", kind="latency", latency_s=0.008, times=None),
)
"""The service is slow enough for kills to fall into every step."""

# event after which the kill comes, which one of them, how long after it (s)
PLANS: dict[Phase, tuple[str | None, int, float]] = {
    "start": (None, 1, 0.06),
    "enqueue": ("creating", 5, 0.012),
    "upload": ("url", 3, 0.015),
    "match": ("match", 3, 0.008),
    "commit": ("answered", 3, 0.003),
}


@pytest.fixture(scope="module")
def workers() -> Iterator[Zygote]:
    with zygote() as ready:
        yield ready


def chosen_seed() -> int:
    """Another one every time; shown when the test fails, and then to be given in EDGE_AGENT_FAULT_SEED."""
    seed = int(os.environ.get("EDGE_AGENT_FAULT_SEED", time.time_ns()))
    print("EDGE_AGENT_FAULT_SEED =", seed)
    return seed


def kills(chance: random.Random) -> Iterator[Kill]:
    """All phases in turn, each at a random moment of it; every sixth at any moment whatever."""
    while True:
        for event, most, longest_s in PLANS.values():
            yield Kill(chance.uniform(0, longest_s), event, chance.randint(1, most))
        yield Kill(chance.uniform(0, 0.3))


def one_life(here: Scene, workers: Zygote, kill: Kill, number: int) -> set[Phase]:
    """Run, kill, and let the oracle look at what is left; gives the phases that the kill fell into."""
    life = workers.run(here.arguments("--captures", 1000, "--gap-s", 0.015, "--seed", number), kill)
    assert life.status == -9, life.lines[-1:]
    here.ledger.absorb(life.lines)
    here.must_be_good(files=False)
    return phases_at_the_end(life.lines)


def drain(here: Scene, workers: Zygote) -> None:
    here.server.clear_faults()
    life = workers.run(here.arguments("--do", "forward", "--hurry"))
    assert life.status == 0, life.lines[-1:]
    here.ledger.absorb(life.lines)
    here.must_be_good(drained=True)


def test_nothing_acknowledged_is_lost_by_200_kills(tmp_path: Path, workers: Zygote) -> None:
    chance, fell_into = random.Random(chosen_seed()), Counter[Phase]()
    plan = kills(chance)
    for directory in range(KILLS // KILLS_PER_DIRECTORY):
        folder = tmp_path / str(directory)
        folder.mkdir()
        with scene(folder) as here:
            here.server.inject(*SLOWER)
            for number in range(KILLS_PER_DIRECTORY):
                fell_into.update(one_life(here, workers, next(plan), number))
            drain(here, workers)
            assert len(here.ledger.acknowledged) > KILLS_PER_DIRECTORY
    assert all(fell_into[phase] >= LEAST_PER_PHASE for phase in PHASES), fell_into


def test_a_user_destroyed_between_two_kills_leaves_nothing(tmp_path: Path, workers: Zygote) -> None:
    with scene(tmp_path) as here:
        here.ledger.absorb(workers.run(here.arguments("--do", "enqueue"), Kill(0.1, "ack", 8)).lines)
        known = next(iter(here.ledger.acknowledged.values()))
        here.gone = oracle.harvest(here.state_dir, [known.id])
        order = here.arguments("--do", "forward", "--hurry", "--delete", known.user)
        for kill in (*DURING_DESTRUCTION, Kill(0.0, "deleted")):
            # the destruction was asked for, whether or not the kill left time to say so
            here.ledger.deleted.add(known.user)
            lines = workers.run(order, kill).lines
            here.ledger.absorb(lines)
            if any(line["event"] == "deleted" for line in lines):
                here.must_be_good()  # at once, and not only after the next start
        life = workers.run(order)
        assert life.status == 0
        here.ledger.absorb(life.lines)
        here.must_be_good(drained=True)
