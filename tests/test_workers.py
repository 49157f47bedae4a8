"""A worker's calls, and callers that leave before they are done."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from edge_agent.errors import InputError
from edge_agent.workers import Worker

USER = "customer-4711"


def refused() -> None:
    raise InputError("cannot store the capture: it is cancelled", code="state_conflict")


def broken() -> None:
    raise ValueError(USER)


@pytest.mark.parametrize(
    ("call", "level", "said"),
    [(refused, logging.INFO, "it is cancelled"), (broken, logging.ERROR, "ValueError")],
)
def test_a_call_whose_caller_has_left_is_finished_and_its_failure_is_told(
    call: Callable[[], None], level: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    complaints: list[dict[str, object]] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait()
        call()

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        worker = Worker("test")
        caller = asyncio.create_task(worker.run(slow))
        await asyncio.to_thread(begun.wait)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go_on.set()
        await worker.run(lambda: None)  # after it
        worker.close()

    asyncio.run(leave())
    assert complaints == []
    [record] = caplog.records
    assert (record.levelno, said in record.getMessage(), USER in record.getMessage()) == (level, True, False)
