"""Inside the machine: the worker, and the sandbox in the same process, telling outside of the machine what they do.

    python -m tests.powercut.guest TOLD SERVICE [--synchronous FULL|OFF] [--latency STEP=SECONDS]... -- WORKER ARGUMENTS

TOLD and SERVICE are files of the shared folder: JSON lines, one system call each; the first is the worker's, the second
says what the sandbox did. ``--synchronous OFF`` breaks the outbox on purpose, in this process only: a test that cannot
fail proves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.outbox import migrations
from edge_agent.outbox import store as store_module
from edge_agent.outbox.database import Database
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from tests.faults import worker
from tests.faults.ledger import Act, ServiceRecord

PORT = 8799
"""Always the same: a capture remembers the service it was made for."""


class StampedTeller(worker.Teller):
    """Adds ``at_s``: seconds since this life began."""

    def say(self, event: str, **facts: Any) -> None:
        at_s = time.clock_gettime(time.CLOCK_BOOTTIME) - float(os.environ["POWERCUT_BEGAN"])
        super().say(event, at_s=round(at_s, 3), **facts)


class ToldActs(list[Act]):
    """Every act is outside of the machine before the answer that it is about is sent."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def append(self, act: Act) -> None:
        super().append(act)
        os.write(self._descriptor, json.dumps({"act": asdict(act)}).encode() + b"\n")


class ToldTokens(list[str]):
    """As ``ToldActs``, for the tokens that were issued."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def append(self, token: str) -> None:
        super().append(token)
        os.write(self._descriptor, json.dumps({"token": token}).encode() + b"\n")


def open_sandbox(stack: ExitStack, told: int, options: argparse.Namespace) -> None:
    """Serve with everybody enrolled."""
    server = stack.enter_context(SandboxServer(faults=tuple(map(_latency, options.latency)), port=options.port))
    service = ServiceRecord.of(server)
    service.acts, service.tokens = ToldActs(told), ToldTokens(told)
    for number in range(options.users):
        server.enrol(worker.user_name(number), b"source")


def _latency(text: str) -> Fault:
    step, _, seconds = text.partition("=")
    return Fault.model_validate({"step": step, "kind": "latency", "latency_s": float(seconds), "times": None})


def stop_syncing() -> None:
    """From now on SQLite leaves it to the kernel when to write."""
    configure = Database._configure

    def configure_and_break(self: Database) -> None:
        configure(self)
        self._connection.execute("PRAGMA synchronous = OFF").fetchall()

    Database._configure = configure_and_break  # type: ignore[method-assign]


def tell_of_migrations(teller: StampedTeller) -> None:
    """``migrating`` before the statements, ``applied`` after them and before the commit, ``migrated`` after it."""
    apply, migrate = migrations._apply, migrations.migrate
    applied: list[Any] = []

    def telling_apply(*given: Any) -> None:
        teller.say("migrating")
        apply(*given)
        applied.append(given)
        teller.say("applied")

    def telling_migrate(*given: Any) -> None:
        migrate(*given)
        if applied:
            teller.say("migrated")

    setattr(migrations, "_apply", telling_apply)  # noqa: B010  # the types of the arguments do not matter here
    setattr(store_module, "migrate", telling_migrate)  # noqa: B010


def open_told(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def main(arguments: Sequence[str]) -> int:
    """Returns the worker's exit status."""
    options = parse(arguments)
    if options.synchronous == "OFF":
        stop_syncing()
    told = open_told(options.told)
    tell_of_migrations(StampedTeller(told))
    worker.Teller = StampedTeller  # type: ignore[misc]  # the lines of this run carry their time
    with ExitStack() as stack:
        open_sandbox(stack, open_told(options.service), options)
        status = worker.main(options.worker, told)
        while options.linger:
            signal.pause()  # everything is done: the plug is pulled all the same
        return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.powercut.guest")
    parser.add_argument("told", type=Path)
    parser.add_argument("service", type=Path)
    parser.add_argument("--synchronous", choices=("FULL", "OFF"), default="FULL")
    parser.add_argument("--latency", action="append", default=[], metavar="STEP=SECONDS")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--linger", action="store_true", help="do not end when everything is done")
    parser.add_argument("worker", nargs="+")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
