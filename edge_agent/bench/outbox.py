"""All measurements of the outbox in one run."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.bench import claim, drain, enqueue, ground, service
from edge_agent.bench.claim import Depth
from edge_agent.bench.drain import Drain
from edge_agent.bench.enqueue import Enqueue
from edge_agent.bench.figures import Spread
from edge_agent.bench.ground import Machine
from edge_agent.bench.queue import BenchStore
from edge_agent.types import JsonObject

PICTURE_BYTES = 100_000
DRAIN_USERS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    pictures: int = 500
    rows: int = 100_000
    claims: int = 200
    drained: int = 10_000

    @property
    def depths(self) -> list[int]:
        """From ten rows to all, by factors of a hundred at most."""
        return sorted({claim.SHORT_ROWS, *(n for n in (1_000, 10_000) if n < self.rows), self.rows})


QUICK = Plan(pictures=60, rows=1_000, claims=40, drained=150)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; every time is in the unit of its name."""

    machine: Machine
    sync: Spread
    """An fdatasync of one page: the machine's own cost, beside which the rest is to be read."""
    enqueue: Enqueue
    claims: list[Depth]
    drain: Drain

    @property
    def memory_growth_mb(self) -> float:
        """Resident memory with all rows queued, less that with the fewest."""
        return self.claims[-1].resident_mb - self.claims[0].resident_mb

    def as_json(self) -> JsonObject:
        """The figures with the ratios that follow from them."""
        enqueued = {"ratio": self.enqueue.ratio, "ratio_new_file": self.enqueue.ratio_new_file}
        return {
            "machine": asdict(self.machine),
            "sync": asdict(self.sync),
            "enqueue": {**asdict(self.enqueue), **enqueued, "break_even_ms": self.enqueue.break_even_ms},
            "claim": [{**asdict(depth), "ratio": depth.ratio} for depth in self.claims],
            "memory_growth_mb": self.memory_growth_mb,
            "drain": {**asdict(self.drain), "ratio": self.drain.ratio, "ratio_together": self.drain.ratio_together},
        }


def measure(folder: Path, plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Everything, in ``folder`` (empty, on the file system in question). ``tell`` hears what is being done."""
    key = secrets.token_bytes(32)
    found, sync = ground.machine(folder), ground.sync_cost(folder)
    tell(f"storing {plan.pictures} captures")
    with BenchStore.begin(folder / "enqueue", key) as store:
        enqueued = enqueue.measure(folder, store, plan.pictures, PICTURE_BYTES)
    claims = claim.measure(folder, key, plan.depths, plan.claims, tell)
    with service.running(folder) as sandbox:
        drained = drain.measure(folder, key, sandbox, plan.drained, DRAIN_USERS, tell)
    return Report(found, sync, enqueued, claims, drained)
