"""How the operator's commands reach the outbox: through the agent when it runs, else on its files.

Both ways give the same bodies and the same error codes. Without the key (or on a moved or damaged state directory)
the commands that only look fall back to what can be read without it, and say so.
"""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import click

from edge_agent.api import problems
from edge_agent.api.custody import unauthenticated
from edge_agent.api.wire import UserDestroyedBody
from edge_agent.api.wire_outbox import (
    AdoptionBody,
    AuditCheck,
    Authenticity,
    OutboxCheck,
    OutboxEntry,
    OutboxList,
    PrivacyBody,
    PurgeBody,
    RetryBody,
    RotationBody,
)
from edge_agent.cli.files import FilesAccess
from edge_agent.cli.options import load_config
from edge_agent.client import AgentClient, may_not_connect
from edge_agent.config import Config
from edge_agent.errors import AgentError, ConfigurationError, EnvironmentFault
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.structure import Structure

T = TypeVar("T")

NEGATIVE = {"not_found", "state_conflict", "rotation_not_due", "not_moved"}
"""The answer is no: exit code 1, whoever gave it."""
NO_KEY = {"key_mismatch", "key_unavailable", "state_moved", "storage_failed", "storage_full"}
"""The store cannot be opened or used; its files can still be looked at."""
ANSWER_S = 5.0
"""An agent that does not say that it lives within this time is one that does not answer."""


class OutboxAccess(Protocol):
    """What the commands need. ``AgentClient`` and ``FilesAccess`` are the two implementations.

    Errors are AgentErrors whose documented code (``code_of``) is the same either way.
    """

    def outbox_list(self, *, limit: int = 100, before: int | None = None, parked: bool | None = None) -> OutboxList: ...
    def outbox_show(self, verification_id: str) -> OutboxEntry: ...
    def outbox_verify(self) -> OutboxCheck: ...
    def outbox_retry(self, verification_id: str) -> RetryBody: ...
    def outbox_retry_all(self, *, parked: bool = False) -> RetryBody: ...
    def outbox_export(self, verification_id: str) -> bytes: ...
    def outbox_purge(self, verification_id: str) -> PurgeBody: ...
    def outbox_purge_all(self, *, parked_only: bool) -> PurgeBody: ...
    def audit_verify(self, expect_head: str | None = None) -> AuditCheck: ...
    def key_rotate(self) -> RotationBody: ...
    def adopt(self) -> AdoptionBody: ...
    def privacy(self) -> PrivacyBody: ...
    def delete_user(self, user_id: str) -> UserDestroyedBody: ...


class Reach:
    """Where the outbox is; loads the configuration only when something of it is needed."""

    def __init__(self, socket: Path | None, config_path: Path) -> None:
        self._socket = socket
        self._config_path = config_path
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        if self._config is None:
            self._config = load_config(self._config_path)
        return self._config

    @contextmanager
    def open(self) -> Iterator[OutboxAccess]:
        """The agent where it answers, else the files. Errors leave with their exit code: the same either way."""
        socket = self._socket or self.config.api.socket
        try:
            if answers(socket):
                with AgentClient(socket) as client:
                    yield client
            else:
                click.echo(f"no agent answers at {socket}: using the files in {self.config.state_dir}", err=True)
                yield FilesAccess(self.config)
        except AgentError as exc:
            exc.exit_code = exit_code_of(exc)
            raise

    def look(self, through: Callable[[], T], beside: Callable[[Structure, Authenticity], T]) -> T:
        """``through`` the store, or, where that has no key or no hold of the files, ``beside`` it."""
        try:
            return through()
        except AgentError as exc:
            if code_of(exc) not in NO_KEY:
                raise
            why = AgentError(exc.message, code=code_of(exc))
            with Structure(self.config.state_dir, SystemClock()) as structure:
                return beside(structure, unauthenticated(why))


def code_of(error: AgentError) -> str:
    """The documented code, as the API gives it."""
    return error.code if error.code in NEGATIVE | problems.CATALOGUE.keys() else problems.of_error(error).code


def exit_code_of(error: AgentError) -> int:
    """1 for a no, 3 for what is wrong with the device, also where the agent's answer says so."""
    if code_of(error) in NEGATIVE:
        return 1
    of_the_device = problems.of_error(error).status == 503 and not isinstance(error, ConfigurationError)
    return EnvironmentFault.exit_code if of_the_device or code_of(error) in NO_KEY else error.exit_code


def answers(socket: Path) -> bool:
    """Asked with a bare connection first: a dead agent's socket is the usual case.

    Raises EnvironmentFault where this user may not connect: then an agent may well run.
    """
    probe = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    probe.settimeout(ANSWER_S)
    try:
        probe.connect(str(socket))
    except PermissionError as exc:
        raise may_not_connect(socket) from exc
    except OSError:
        return False
    finally:
        probe.close()
    with AgentClient(socket, timeout_s=ANSWER_S) as client:
        return client.alive()
