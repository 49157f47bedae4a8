"""A store to measure on: real keys, real rows, no caps; filled in batches."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from edge_agent.outbox import Store
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.core import Listener
from edge_agent.outbox.records import Environment, Limits, NewVerification, VerificationRecord

ENVIRONMENT = Environment("https://bench.invalid/", "0123456789abcdef01234567")
BATCH = 200
"""Rows per transaction while filling."""
_NO_CAPS = Limits(max_items=10_000_000, max_bytes=1 << 50, max_age_s=1e9, reserve_bytes=0)
_numbers = itertools.count(1)


class BenchStore(Store):
    """The store itself; ``fill`` lets many operations share a transaction, everything else is as it is."""

    _batch: Moment | None = None

    @classmethod
    def begin(cls, state_dir: Path, key: bytes, listener: Listener | None = None) -> Self:
        """As the daemon begins: opened and recovered."""
        store = cls.without_caps(state_dir, key, listener)
        store.recover()
        return store

    @classmethod
    def without_caps(cls, state_dir: Path, key: bytes, listener: Listener | None = None) -> Self:
        return cls.open(state_dir, key, clock=SystemClock(), limits=_NO_CAPS, listener=listener, machine="bench")

    @contextmanager
    def _change(self, **how: Any) -> Iterator[Moment]:
        if self._batch is not None:
            yield self._batch
            return
        with super()._change(**how) as now:
            yield now

    def fill(self, rows: int, users: int, picture_bytes: int, environment: Environment = ENVIRONMENT) -> None:
        """Add ``rows`` to the backlog (``pending``), of ``users`` users by turns; pictures are random bytes."""
        for begin in range(0, rows, BATCH):
            with self._change() as now:
                self._batch = now
                try:
                    for number in range(begin, min(begin + BATCH, rows)):
                        self.pend(self.capture(user(number % users), os.urandom(picture_bytes), environment).id)
                finally:
                    self._batch = None
                    self._changed = []

    def search(self, user_id: str, environment: Environment = ENVIRONMENT) -> VerificationRecord:
        """A verification that waits for its capture."""
        return self.create(
            NewVerification(
                user_id=user_id,
                caller="bench",
                idempotency_key=f"bench-{next(_numbers)}",
                body=b"{}",
                environment=environment,
                search_timeout_s=20.0,
                verdict_timeout_s=15.0,
            )
        )[0]

    def capture(
        self, user_id: str, picture: bytes, environment: Environment = ENVIRONMENT, of: str | None = None
    ) -> VerificationRecord:
        """A stored capture, of the verification ``of`` or a new one."""
        verification_id = of or self.search(user_id, environment).id
        return self.commit_capture(verification_id, picture, quality_score=0.8, liveness_score=0.97)


def user(number: int) -> str:
    return f"bench-user-{number}"
