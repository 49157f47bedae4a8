"""The configuration that runs, and the file that it is from: read it, take it, say so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_agent.agent import Agent
from edge_agent.config import Config, InvalidConfiguration, LogSection, parse, read_text
from edge_agent.errors import AgentError, ConfigurationError
from edge_agent.moments import told
from edge_agent.outbox.store import Store
from edge_agent.reload import Part, Plan, plan
from edge_agent.trial import Source, Trial
from edge_agent.types import JsonObject

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reload:
    """The last time that the file was read again."""

    at: datetime
    problems: tuple[str, ...]
    """Why the old configuration goes on; empty when the new one was taken."""


class Current:
    """Used from the event loop's thread only; its caller keeps changes apart."""

    def __init__(self, agent: Agent, source: Source | None, on_log: Callable[[LogSection], None]) -> None:
        """``source`` None: there is no file."""
        self._agent = agent
        self._source = source
        self._on_log = on_log
        self.admit: Callable[..., Awaitable[Callable[[], None]]] = _nobody_to_admit
        """Prepares who may call the API (``ApiSection``, strict): what it gives puts that in force. See Access."""
        self.last: Reload | None = None
        self.reloads: Counter[str] = Counter(succeeded=0, failed=0)
        self.restart_needed: tuple[str, ...] = ()
        """Keys of the file that differ from what runs, and wait for a restart."""

    @property
    def file(self) -> Path | None:
        return self._source.file if self._source else None

    async def read_again(self, *, strict: bool, actor: str | None = None) -> Reload:
        """A file that cannot be used leaves everything as it is. ``strict``: see Agent.reconfigure.

        ``actor``: the caller who asked for it, for the audit record; None where nobody did over the API.
        """
        try:
            await self.take(parse(*await asyncio.to_thread(self._file_text)), strict=strict, actor=actor)
        except AgentError as exc:
            problems = _problems(exc)
            moment = told("configuration_refused", code=exc.code)
            log.error("the old configuration goes on: %s", exc.message, extra=moment)  # noqa: TRY400
        else:
            problems = ()
        self.reloads["failed" if problems else "succeeded"] += 1
        self.last = Reload(self._agent.clock.wall(), problems)
        self.announce("refused" if problems else "reloaded", problems=problems)
        return self.last

    def _file_text(self) -> tuple[str, str]:
        source = self.need_source()
        return read_text(source.file), str(source.file)

    def need_source(self) -> Source:
        """Raises ConfigurationError where there is no file."""
        if self._source is None:
            raise ConfigurationError("cannot read the configuration again: this agent was started without a file")
        return self._source

    async def take(self, config: Config, *, strict: bool, actor: str | None = None) -> Plan:
        """Run ``config``, but for what needs a restart. Raises AgentError; then everything is as it was."""
        found = plan(self._agent.config, config)
        admit = await self.admit(found.effective.api, strict=strict)
        await self._agent.reconfigure(found.effective, found.parts, strict=strict)
        admit()
        if Part.LOG in found.parts:
            self._on_log(config.log)
        self.restart_needed = found.restart
        keys = [change.key for change in found.changes]
        moment = told("configuration_taken", changed=keys, restart_needed=list(found.restart))
        log.info("configuration taken; changed: %s", ", ".join(keys) or "nothing", extra=moment)
        if found.restart:
            log.warning("a restart is needed for: %s", ", ".join(found.restart))
        if keys:
            with contextlib.suppress(AgentError):  # the store may be what is being mended
                await self._agent.keeper.run(Store.note, "configured", keys=keys, actor=actor)
        return found

    async def look_at_file(self) -> tuple[str, bool]:
        """Its text, and whether a start could use it."""
        try:
            text, source = await asyncio.to_thread(self._file_text)
            parse(text, source)
        except ConfigurationError:
            return "", False
        return text, True

    def announce(self, state: str, trial: Trial | None = None, problems: Sequence[str] = ()) -> None:
        """An event about the configuration, of a trial where there is one."""
        data: JsonObject = {
            "state": state,
            "restart_needed": list(self.restart_needed),
            "problems": list(problems),
            "trial": trial.id if trial is not None else None,
            "keys": [change.key for change in trial.changes] if trial is not None else [],
            "reason": trial.reason if trial is not None else None,
        }
        self._agent.bus.publish("configuration", data, at=self._agent.clock.wall())


async def _nobody_to_admit(*_: object, **__: object) -> Callable[[], None]:
    return lambda: None


def _problems(error: AgentError) -> tuple[str, ...]:
    if isinstance(error, InvalidConfiguration):
        return tuple(map(str, error.problems))
    return (error.message,)
