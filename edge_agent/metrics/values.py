"""The values of one scrape, read from the agent's state: one hop into the store's thread, otherwise only memory.

Called in the event loop's thread; what comes out of it is rendered elsewhere, and does not change any more.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Final, get_args

from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.availability import ForwarderStatus, Network
from edge_agent.errors import AgentError
from edge_agent.forwarder import Outcome
from edge_agent.outbox.provisional_records import Withheld
from edge_agent.outbox.records import Limits, QueueStats
from edge_agent.outbox.space import Space
from edge_agent.outbox.store import Store
from edge_agent.settings import Settings
from edge_agent.tally import Buckets, Tally
from edge_agent.types import ChallengeCode, GateCode, State

CAMERA_STATES: Final = ("unknown", "ok", "lost", "none")
STORE_S: Final = 2.0
"""A store that is busy for longer (a salvage, an erasure) is left out of the scrape."""
REASONS: Final[Mapping[str, float]] = MappingProxyType({code.value: 0.0 for code in GateCode})
"""A series that begins at 0 shows its first increase too."""
OF_CHALLENGES: Final[Mapping[str, float]] = MappingProxyType({code.value: 0.0 for code in ChallengeCode})
PROVISIONAL: Final = ("answered", "confirmed", "contradicted", *(why.value for why in Withheld))
COUNTED: Final = frozenset(State) - {State.MATCHING}


@dataclass(frozen=True, slots=True)
class Histogram:
    """``Buckets`` at one moment."""

    at_most: tuple[tuple[float, int], ...]
    """(bound, how many values were at most that); the last bound is infinite."""
    sum: float

    @classmethod
    def of(cls, buckets: Buckets) -> Histogram:
        bounds = (*buckets.bounds, float("inf"))
        return cls(tuple(zip(bounds, accumulate(buckets.counts), strict=True)), buckets.sum)


Value = tuple[str, tuple[str, ...], float | Histogram]
"""Name (without ``edge_agent_``), label values in the catalogue's order, value."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What the API counts: requests by route, method and status, and problems and refusals by code."""

    requests: Mapping[tuple[str, str, int], int]
    problems: Mapping[str, int]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Outbox:
    stats: QueueStats
    states: Mapping[State, int]
    space: Space
    head: int
    tampered: int
    limits: Limits


async def values_of(agent: Agent, settings: Settings, counted: Counted) -> list[Value]:
    """All of them."""
    outbox = await _read_outbox(agent)
    parts: tuple[Iterable[Value], ...] = (
        _condition(agent),
        _screened(agent.tally),
        _verified(agent.tally),
        (("provisional_total", (outcome,), agent.provisional.counts[outcome]) for outcome in PROVISIONAL),
        _forwarded(agent.tally, agent.forwarder_status),
        _queued(agent, outbox) if outbox is not None else [("outbox_up", (), 0)],
        _filmed(agent),
        _configured(settings),
        _asked(agent, counted),
    )
    return [value for part in parts for value in part]


async def _read_outbox(agent: Agent) -> _Outbox | None:
    """None where the outbox is missing or busy."""
    try:
        async with asyncio.timeout(STORE_S):
            return await agent.keeper.run(_outbox_of)
    except (AgentError, TimeoutError):
        return None


def _outbox_of(store: Store) -> _Outbox:
    """In the store's thread."""
    head = store.audit_head()
    return _Outbox(
        stats=store.queue(),
        states=store.counts(),
        space=store.space(),
        head=head.seq if head is not None else 0,
        tampered=len(store.tampered),
        limits=store.limits,
    )


def _one_of(name: str, states: Iterable[str], present: str) -> Iterator[Value]:
    for state in states:
        yield name, (state,), state == present


def _by(name: str, counts: Mapping[str, float]) -> Iterator[Value]:
    for key, count in sorted(counts.items()):
        yield name, (key,), count


def _condition(agent: Agent) -> Iterator[Value]:
    config = agent.config
    yield "build_info", (__version__, platform.python_version()), 1
    yield "terminal_info", (config.terminal_id, config.models.pack, str(agent.simulated).lower()), 1
    yield "start_time_seconds", (), agent.started_at.timestamp()
    yield "ready", (), agent.ready
    yield "searching", (), agent.searching
    for part, fault in sorted(agent.faults.items()):
        yield "fault", (part, fault.code), 1
    yield "loops_late", (), len(agent.heartbeats.late())
    yield "clock_synchronised", (), agent.clock.synchronised()


def _screened(tally: Tally) -> Iterator[Value]:
    yield from _by("frames_total", {"accepted": 0, "refused": 0, **tally.frames})
    yield from _by("frame_reasons_total", {**REASONS, **tally.frame_reasons})
    for stage, buckets in tally.stages.items():
        yield "stage_seconds", (stage,), Histogram.of(buckets)


def _verified(tally: Tally) -> Iterator[Value]:
    for state in State:
        if state in COUNTED:
            yield "verifications_total", (state.value,), tally.states[state]
    yield from _by("verification_rejections_total", {**REASONS, **OF_CHALLENGES, **tally.rejections})
    yield from _by("verification_failures_total", tally.failures)
    yield "verification_capture_seconds", (), Histogram.of(tally.to_capture_s)
    yield "verification_verdict_seconds", (), Histogram.of(tally.to_verdict_s)
    for verdict in ("positive", "negative"):
        yield "verdicts_total", (verdict,), tally.verdicts[verdict]
    yield "verdicts_late_total", (), tally.verdicts["late"]
    yield "verdicts_contradicted_total", (), tally.verdicts["contradicted"]


def _forwarded(tally: Tally, status: ForwarderStatus | None) -> Iterator[Value]:
    status = status or ForwarderStatus()
    yield from _one_of("network_state", get_args(Network), status.network)
    if status.stopped_code is not None:
        yield "forwarding_stopped", (status.stopped_code,), 1
    if status.last_success_at is not None:
        yield "last_verdict_timestamp_seconds", (), status.last_success_at.timestamp()
    yield "forwarding_active", (), status.active
    yield from _by("forward_attempts_total", {**dict.fromkeys(get_args(Outcome), 0), **tally.attempts})
    yield from _by("forward_errors_total", tally.attempt_errors)


def _queued(agent: Agent, outbox: _Outbox) -> Iterator[Value]:
    stats, space, limits, salvaged = outbox.stats, outbox.space, outbox.limits, agent.keeper.salvaged
    yield "outbox_up", (), 1
    yield "outbox_captures", ("queued",), stats.depth
    yield "outbox_captures", ("parked",), stats.parked
    yield "outbox_leased", (), stats.leased
    yield "outbox_bytes", (), stats.payload_bytes
    if stats.oldest_age_s is not None:
        yield "outbox_oldest_age_seconds", (), stats.oldest_age_s
    yield "outbox_limit_captures", (), limits.max_items
    yield "outbox_limit_bytes", (), limits.max_bytes
    yield "outbox_limit_age_seconds", (), limits.max_age_s
    yield "outbox_parked_dropped_total", (), agent.tally.parked_dropped
    yield "outbox_tampered", (), outbox.tampered
    yield "outbox_reopened_total", (), agent.keeper.reopened
    yield "outbox_salvage_lost", (), len(salvaged.captures_lost) if salvaged is not None else 0
    yield from _by("verifications_stored", {state.value: count for state, count in outbox.states.items()})
    yield "storage_free_bytes", (), space.free_bytes
    yield "storage_reserve_bytes", (), space.reserve_bytes
    yield "storage_takes_captures", (), space.takes_captures
    yield "audit_head_sequence", (), outbox.head


def _filmed(agent: Agent) -> Iterator[Value]:
    camera = agent.camera.describe()
    yield from _one_of("camera_state", CAMERA_STATES, camera["state"])
    yield "camera_failures", (), camera["failures"]
    yield from _by("camera_recovery_steps_total", camera["steps_taken"])


def _configured(settings: Settings) -> Iterator[Value]:
    current, trial = settings.current, settings.trial
    yield from _by("config_reloads_total", current.reloads)
    if current.last is not None:
        yield "config_last_reload_successful", (), not current.last.problems
        yield "config_last_reload_timestamp_seconds", (), current.last.at.timestamp()
    yield "config_restart_needed", (), len(current.restart_needed)
    yield "config_on_trial", (), trial is not None and trial.open


def _asked(agent: Agent, counted: Counted) -> Iterator[Value]:
    for (route, method, status), count in sorted(counted.requests.items()):
        yield "api_requests_total", (route, method, str(status)), count
    yield from _by("api_problems_total", counted.problems)
    yield from _by("api_refused_total", counted.refused)
    yield "event_readers", (), agent.bus.readers
    yield "events_dropped_total", (), agent.bus.dropped
