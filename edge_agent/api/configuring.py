"""Handlers of the agent's configuration: reload, and candidates on trial (docs/configuration.md)."""

from __future__ import annotations

from starlette.responses import Response

from edge_agent.api import wire
from edge_agent.api.answers import answer
from edge_agent.api.calls import Call, parse, read_body, refuse
from edge_agent.api.wire_status import ConfigurationBody, LastReloadBody, OpenTrialBody
from edge_agent.errors import ConfigurationError
from edge_agent.settings import Settings, Terms
from edge_agent.trial import Trial


async def reload(call: Call) -> Response:
    """Read the configuration file again; an open trial ends. 422 when the old one goes on."""
    done = await call.settings.reload(call.peer.caller)
    if done.problems:
        raise ConfigurationError("cannot take it, the old one goes on: " + "; ".join(done.problems),
                                 code="configuration_refused")  # fmt: skip
    return answer(wire.ReloadBody(at=done.at, restart_needed=list(call.settings.current.restart_needed)))


async def apply_config(call: Call) -> Response:
    """Run a candidate on trial; see docs/configuration.md."""
    asked = parse(await read_body(call.request, wire.MAX_CONFIG_BYTES), wire.ApplyRequest)
    terms = Terms(asked.watch_s, asked.confirm_within_s, asked.restart)
    return answer(_trial_body(call, await call.settings.try_out(asked.text, terms, call.peer.caller)), 202)


async def config_trial(call: Call) -> Response:
    """The last trial, open or not."""
    trial = call.settings.trial
    if trial is None:
        raise refuse("not_found", "cannot find a trial: no configuration was applied yet")
    return answer(_trial_body(call, trial))


async def confirm_config(call: Call) -> Response:
    """The candidate, to be put in place by the caller, who then reloads."""
    trial = await call.settings.confirm()
    return answer(_trial_body(call, trial).model_copy(update={"text": trial.text}))


async def revert_config(call: Call) -> Response:
    """Go back to the file at once."""
    return answer(_trial_body(call, await call.settings.revert("it was called off")))


def _trial_body(call: Call, trial: Trial) -> wire.TrialBody:
    return wire.TrialBody(
        id=trial.id,
        phase=trial.phase.value,
        reason=trial.reason,
        digest=trial.digest,
        restart=trial.restart,
        confirm_within_s=trial.confirm_within_s,
        left_s=call.settings.left_s,
        changes=[wire.ChangeBody(key=c.key, old=c.old, new=c.new) for c in trial.changes],
    )


def configuration_body(settings: Settings) -> ConfigurationBody:
    """The configuration's part of the status."""
    current, trial = settings.current, settings.trial
    last = current.last
    return ConfigurationBody(
        file=str(settings.file) if settings.file else None,
        last_reload=LastReloadBody(at=last.at, ok=not last.problems, problems=list(last.problems)) if last else None,
        reloads=dict(current.reloads),
        restart_needed=list(current.restart_needed),
        trial=OpenTrialBody(phase=trial.phase.value, reason=trial.reason, left_s=settings.left_s) if trial else None,
    )
