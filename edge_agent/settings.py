"""The daemon's hold on its configuration: when the file is read again, a candidate tried out, and gone back to the file.

See trial.py for why a candidate is never written into the file by the daemon (which may not write there) and why
every end of a trial that nobody confirmed leads back to the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.agent import Agent
from edge_agent.config import Config, LogSection, parse
from edge_agent.current import Current, Reload
from edge_agent.errors import AgentError, InputError, SessionRefused, report
from edge_agent.moments import told
from edge_agent.outbox.clock import instant
from edge_agent.reload import Plan, plan
from edge_agent.trial import CONFIRM_GRACE_S, Health, Phase, Source, Trial, digest, save, worse
from edge_agent.trial_health import ASK_S, examine, health_of

log = logging.getLogger(__name__)

TICK_S = 0.25
"""The health of a candidate is looked at this often."""
START_WITHIN_S = 120.0
"""After a restart the candidate must be up by then."""
SESSION_S = 60.0
"""A restart waits this long for the session that is being filmed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a candidate is tried out."""

    watch_s: float
    confirm_within_s: float | None
    restart: bool


class Settings:
    """One per daemon; used from the event loop's thread only."""

    def __init__(
        self,
        agent: Agent,
        source: Source | None,
        *,
        exit_for_restart: Callable[[], None] | None = None,
        on_log: Callable[[LogSection], None] = lambda _: None,
    ) -> None:
        """``source`` None: there is no file. ``exit_for_restart`` None: nobody would start the agent again."""
        self._agent = agent
        self._exit = exit_for_restart
        self.current = Current(agent, source, on_log)
        self._trial = source.trial if source else None
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._deadline_s = 0.0
        self._before = agent.config
        """What ran before the trial, should the file be unusable by then."""

    @property
    def file(self) -> Path | None:
        return self.current.file

    @property
    def trial(self) -> Trial | None:
        """The last one, open or not."""
        return self._trial

    @property
    def left_s(self) -> float | None:
        """Seconds to the deadline of the open trial."""
        if self._trial is None or not self._trial.open:
            return None
        return max(0.0, self._deadline_s - self._agent.clock.boottime_s())

    # -- lifetime

    def start(self) -> None:
        """Once the agent is being started: watch the candidate that this process was started for."""
        if self._trial is not None and self._trial.open:
            self._expect_within(START_WITHIN_S)
            self._watch()

    async def close(self) -> None:
        """Stop watching. What is not confirmed by now is forgotten by the next start."""
        for task in (self._watching, self._reloading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    # -- the file

    def reload_soon(self) -> None:
        """As ``reload``, for a signal handler."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_on_signal(), name="read the configuration again")
        else:
            self._reload_again = True

    async def _reload_on_signal(self) -> None:
        while True:
            self._reload_again = False
            try:
                await self.reload()
            except Exception as exc:  # the top of a task
                report(log, exc, "cannot read the configuration again")
            if not self._reload_again:
                return

    async def reload(self, actor: str | None = None) -> Reload:
        """Read the file again; an open trial ends. A file that cannot be used leaves everything as it is.

        ``actor``: the caller who asked for it, for the audit record; None where nobody did over the API.
        """
        async with self._lock:
            if self._trial is not None and self._trial.open:
                return await self._end_trial("the configuration file was read again")
            return await self.current.read_again(strict=True, actor=actor)

    # -- a candidate

    async def try_out(self, text: str, terms: Terms, actor: str | None = None) -> Trial:
        """Run ``text`` on trial; it takes effect before this returns, unless it needs a restart.

        Raises InvalidConfiguration, ConfigurationError, EnvironmentFault (the record cannot be written), InputError
        ``config_pending``, ``restart_needed``, ``restart_unavailable``, and SessionRefused ``busy``. Then nothing changed.
        """
        async with self._lock:
            self.current.need_source()
            if self._trial is not None and self._trial.open:
                raise InputError("cannot apply: another configuration is on trial", code="config_pending")
            await self._agent.wait_started()
            config = parse(text, "the candidate")
            found = plan(self._agent.config, config)
            self._check_restart(found, terms)
            self._before = self._agent.config
            trial = self._new_trial(
                text, terms, found, health_of(self._agent, await examine(self._agent, found.changes))
            )
            self._note(trial)
            self._announce("trial")
            if trial.restart:
                self._expect_within(SESSION_S)
                self._begin_restart()
            else:
                await self._begin_live(config, actor)
            return self._need_trial()

    def _check_restart(self, found: Plan, terms: Terms) -> None:
        if not found.restart:
            return
        if not terms.restart:
            keys = ", ".join(found.restart)
            raise InputError(
                f"cannot apply without a restart: {keys}",
                code="restart_needed",
                hint="apply it with --restart, or leave these keys as they are",
            )
        if self._exit is None:
            raise InputError(
                "cannot restart: the agent does not run under systemd",
                code="restart_unavailable",
                hint="put the file in place and restart the agent yourself",
            )
        if self._agent.searching:
            raise SessionRefused("cannot restart: a verification is searching", code="busy")

    def _new_trial(self, text: str, terms: Terms, found: Plan, before: Health) -> Trial:
        return Trial(
            id=uuid.uuid4().hex,
            phase=Phase.RESTARTING if found.restart else Phase.WATCHING,
            text=text,
            digest=digest(text),
            began=instant(self._agent.clock),
            watch_s=terms.watch_s,
            confirm_within_s=terms.confirm_within_s,
            restart=bool(found.restart),
            before=before,
            changes=found.changes,
        )

    async def _begin_live(self, config: Config, actor: str | None) -> None:
        try:
            await self.current.take(config, strict=True, actor=actor)
        except AgentError as exc:  # nothing was taken
            self._end(Phase.ROLLED_BACK, exc.message)
        else:
            self._expect_within(self._need_trial().watch_s + 2 * ASK_S)
            self._watch()

    def _begin_restart(self) -> None:
        log.warning("stopping, so that the service manager starts the agent with another configuration")
        if self._exit is not None:
            self._exit()

    def _watch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()  # of a trial that was ended while the service was being asked
        self._watching = asyncio.create_task(self._watch_trial(), name="watch the configuration on trial")

    async def _watch_trial(self) -> None:
        try:
            reason = await self._verdict()
        except Exception as exc:  # the top of a task: a trial that nobody watches must not go on
            report(log, exc, "cannot watch the configuration on trial")
            reason = f"it could not be watched: {type(exc).__name__}"
        if reason is not None:
            await self._roll_back(reason)

    async def _verdict(self) -> str | None:
        """Why to roll back; None when the trial was ended by somebody else."""
        started = await self._within(self._deadline_s, self._agent.wait_started())
        if not started:
            return "the agent did not start in time"
        camera = await examine(self._agent, self._need_trial().changes)
        trial = self._need_trial()
        self._expect_within(trial.watch_s)
        reason = await self._sample(camera, until=Phase.WATCHING)
        if reason is not None or self._need_trial().phase is not Phase.WATCHING:
            return reason
        await self._agent.try_service(ASK_S)
        reason = worse(trial.before, health_of(self._agent, camera), final=True)
        if reason is not None:
            return reason
        self._note(replace(self._need_trial(), phase=Phase.HEALTHY))
        self._announce("healthy")
        self._expect_within(trial.confirm_within_s or CONFIRM_GRACE_S)
        reason = await self._sample(camera, until=Phase.HEALTHY)
        if reason is None and self._need_trial().phase is Phase.HEALTHY:
            return "nobody confirmed it in time"
        if reason is None and self._need_trial().phase is Phase.CONFIRMED:
            reason = await self._sample(camera, until=Phase.CONFIRMED) or "it was confirmed, but not put in place"
        return reason if self._need_trial().open else None

    async def _sample(self, camera: str | None, *, until: Phase) -> str | None:
        """Look at the health while the trial is in phase ``until`` and its deadline has not come."""
        while self._need_trial().phase is until and (self.left_s or 0.0) > 0:
            reason = worse(self._need_trial().before, health_of(self._agent, camera), final=False)
            if reason is not None:
                return reason
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(TICK_S, self.left_s or TICK_S)):
                    await self._changed.wait()
        return None

    async def _within(self, deadline_s: float, work: Any) -> bool:
        try:
            async with asyncio.timeout(deadline_s - self._agent.clock.boottime_s()):
                await work
        except TimeoutError:
            return False
        return True

    # -- its end

    async def confirm(self) -> Trial:
        """Somebody wants to keep it: the file is to be replaced now, then ``reload``. Raises InputError."""
        async with self._lock:
            trial = self._trial
            if trial is None or not trial.open:
                raise InputError("cannot confirm: no configuration is on trial", code="config_not_pending")
            if trial.phase not in {Phase.HEALTHY, Phase.CONFIRMED}:
                raise InputError(
                    "cannot confirm: its health is still being watched", code="config_watching", hint="wait a little"
                )
            self._note(replace(trial, phase=Phase.CONFIRMED))
            self._expect_within(CONFIRM_GRACE_S)
            self._changed.set()
            return self._need_trial()

    async def revert(self, reason: str) -> Trial:
        """End the trial now. Raises InputError."""
        async with self._lock:
            if self._trial is None or not self._trial.open:
                raise InputError("cannot roll back: no configuration is on trial", code="config_not_pending")
            await self._end_trial(reason)
            return self._need_trial()

    async def _roll_back(self, reason: str) -> None:
        async with self._lock:
            if self._trial is not None and self._trial.open:
                await self._end_trial(reason)

    async def _end_trial(self, reason: str) -> Reload:
        """Run what the file says: the candidate, if that is in place by now."""
        trial = self._need_trial()
        text, usable = await self.current.look_at_file()
        if usable and digest(text) == trial.digest:
            self._end(Phase.KEPT, None)
            return await self.current.read_again(strict=True)
        if trial.restart and usable:
            await self._quiet()
            self._end(Phase.ROLLED_BACK, reason)
            self._begin_restart()
            return Reload(self._agent.clock.wall(), (reason,))
        try:
            return await self._go_back()
        finally:  # said when it is so
            self._end(Phase.ROLLED_BACK, reason)

    async def _go_back(self) -> Reload:
        done = await self.current.read_again(strict=False)
        if done.problems:  # the file was broken meanwhile
            await self.current.take(self._before, strict=False)
        return done

    async def _quiet(self) -> None:
        """Nobody's session is ended for it, within reason."""
        deadline_s = self._agent.clock.boottime_s() + SESSION_S
        while self._agent.searching and self._agent.clock.boottime_s() < deadline_s:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(TICK_S)

    def _end(self, phase: Phase, reason: str | None) -> None:
        trial = self._need_trial().ended(phase, reason)
        try:
            self._note(trial)
        except AgentError as exc:  # the file is the truth all the same
            self._trial = trial
            log.error("the end of the trial is not written down: %s", exc.message, extra={"code": exc.code})  # noqa: TRY400
        (log.info if phase is Phase.KEPT else log.error)(
            "configuration %s%s",
            phase.value,
            f": {reason}" if reason else "",
            extra=told("trial_ended", phase=phase.value),
        )
        self._announce(phase.value)
        self._changed.set()

    # -- parts

    def _need_trial(self) -> Trial:
        if self._trial is None:
            raise AssertionError("there is no trial")
        return self._trial

    def _note(self, trial: Trial) -> None:
        """To the disk first: a crash must find it."""
        save(self.current.need_source().state_dir, trial)
        self._trial = trial

    def _expect_within(self, seconds: float) -> None:
        self._deadline_s = self._agent.clock.boottime_s() + seconds

    def _announce(self, state: str) -> None:
        trial = self._need_trial()
        self.current.announce(state, trial)
