"""Every metric: name, type, labels, unit, meaning. docs/metrics.md shows this table, the alert rules may use nothing else.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows (and begins at 0 with the process),
``_info`` for labels with the value 1. Label values are states, codes, stages, routes and roles of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One of them; a gauge with the label of a state is 1 for the present one and 0 for the others."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    unit: str
    """"1" for what is true or not; "" for a number of something."""
    text: str


def _gauge(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"edge_agent_{name}", "gauge", labels, unit, text)


def _counter(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"edge_agent_{name}_total", "counter", labels, unit, text)


def _histogram(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"edge_agent_{name}_seconds", "histogram", labels, "s", text)


METRICS: Final[tuple[Metric, ...]] = (
    # -- the agent
    _gauge("build_info", "Which release runs, on which Python.", "version", "python", unit="1"),
    _gauge("terminal_info", "Which terminal it is; simulator=true means that nobody is verified here.",
           "terminal_id", "pack", "simulator", unit="1"),
    _gauge("start_time_seconds", "When the agent started, Unix time.", unit="s"),
    _gauge("ready", "A verification could start: everything was brought up and nothing is missing.", unit="1"),
    _gauge("searching", "Somebody is being filmed, for a verification or an enrolment.", unit="1"),
    _gauge("fault", "A part is missing, and the problem code that says why; no series while nothing is.",
           "part", "code", unit="1"),
    _gauge("loops_late", "Loops of the agent that have not turned for too long: the watchdog is not fed then."),
    _gauge("clock_synchronised", "The kernel says that a time service keeps the wall clock right.", unit="1"),
    # -- frames
    _counter("frames", "Screened frames; outcome is accepted or refused.", "outcome"),
    _counter("frame_reasons", "Why frames were refused, by gate code; a frame may have several.", "reason"),
    _histogram("stage", "Time of screening one frame, by stage: detect, quality, liveness, and screen for the whole.",
               "stage"),
    # -- verifications
    _counter("verifications", "Verifications that came into the state: searching counts what began, the final states "
             "how they ended; matching is not counted.", "state"),
    _gauge("verifications_stored", "Verifications in the outbox, by state.", "state"),
    _counter("verification_rejections", "Why verifications were rejected, by code of the gate or of the challenge; up to three each.",
             "reason"),
    _counter("verification_failures", "Why verifications failed, by problem code.", "code"),
    _histogram("verification_capture", "From the request to the durable capture."),
    _histogram("verification_verdict", "From the request to CypherFace's verdict, where both were in one boot."),
    _counter("verdicts", "CypherFace's verdicts, positive or negative.", "verdict"),
    _counter("verdicts_late", "Verdicts that came after the deadline of their verification."),
    _counter("verdicts_contradicted", "Verdicts that contradicted a provisional yes."),
    _counter("provisional", "What came of captures that got no connection, with offline.policy provisional: answered, then "
             "confirmed or contradicted, or why no answer was given.", "outcome"),
    # -- forwarding
    _gauge("network_state", "How forwarding to CypherFace goes: unknown, online, offline or stopped.", "state", unit="1"),
    _gauge("forwarding_stopped", "Why forwarding stopped, as a problem code; no series while it is not.",
           "code", unit="1"),
    _gauge("last_verdict_timestamp_seconds", "When CypherFace gave the last verdict, Unix time; no series before one.",
           unit="s"),
    _gauge("forwarding_active", "Sequences with CypherFace that are under way."),
    _counter("forward_attempts", "Attempts to forward a capture; outcome is verdict, retried, parked, stopped, "
             "discarded (its lease was lost), interrupted, storage or failed (errors of the terminal).", "outcome"),
    _counter("forward_errors", "Errors that ended an attempt, by code.", "code"),
    # -- the outbox
    _gauge("outbox_up", "The outbox is open and answered; otherwise the other metrics of it are missing.", unit="1"),
    _gauge("outbox_captures", "Stored captures; status is queued (to be forwarded) or parked (set aside).", "status"),
    _gauge("outbox_leased", "Captures that are being forwarded now."),
    _gauge("outbox_bytes", "Size of the stored pictures.", unit="bytes"),
    _gauge("outbox_oldest_age_seconds", "Running time since the oldest stored capture was asked for; no series while "
           "none is stored.", unit="s"),
    _gauge("outbox_limit_captures", "outbox.max_items: above it the oldest is evicted."),
    _gauge("outbox_limit_bytes", "outbox.max_bytes: above it the oldest is evicted.", unit="bytes"),
    _gauge("outbox_limit_age_seconds", "outbox.max_age_s: a capture that is older expires.", unit="s"),
    _counter("outbox_parked_dropped", "Parked captures whose picture retention or a cap took."),
    _gauge("outbox_tampered", "Verifications that did not authenticate; they are left alone."),
    _counter("outbox_reopened", "How often a broken outbox was opened anew."),
    _gauge("outbox_salvage_lost", "Captures that the last salvage since the start could not save."),
    _gauge("storage_free_bytes", "Free space of the state directory's file system.", unit="bytes"),
    _gauge("storage_reserve_bytes", "Space set aside for draining the queue that is in place.", unit="bytes"),
    _gauge("storage_takes_captures", "There is room for a new capture beside the reserve.", unit="1"),
    _gauge("audit_head_sequence", "Number of the last audit record: it never falls."),
    # -- the camera
    _gauge("camera_state", "The camera: unknown (not tried yet), ok, lost or none (camera.source is none).",
           "state", unit="1"),
    _gauge("camera_failures", "Failures of the camera since it was last well."),
    _counter("camera_recovery_steps", "Steps of the camera's recovery that were taken.", "step"),
    # -- the configuration
    _counter("config_reloads", "Times that the file was read again; result is succeeded or failed.", "result"),
    _gauge("config_last_reload_successful", "The last reload took the file; no series before one.", unit="1"),
    _gauge("config_last_reload_timestamp_seconds", "When the file was last read again, Unix time.", unit="s"),
    _gauge("config_restart_needed", "Keys of the file that wait for a restart."),
    _gauge("config_on_trial", "A configuration is on trial and not confirmed yet.", unit="1"),
    # -- the API
    _counter("api_requests", "Answered requests, by the route's template, its method and the status; route=other is a "
             "path or a method that there is not.", "route", "method", "status"),
    _counter("api_problems", "Problem documents that handlers answered, by code.", "code"),
    _counter("api_refused", "Requests and connections that were not admitted or lacked the role, by problem code.",
             "code"),
    _gauge("event_readers", "Open streams of events."),
    _counter("events_dropped", "Events that a slow reader lost."),
    # -- the process
    _gauge("process_resident_memory_bytes", "Memory in use.", unit="bytes"),
    _gauge("process_virtual_memory_bytes", "Address space in use.", unit="bytes"),
    _counter("process_cpu_seconds", "CPU time used, user and system.", unit="s"),
    _gauge("process_start_time_seconds", "When the process started, Unix time.", unit="s"),
    _gauge("process_open_fds", "Open file descriptors."),
    _gauge("process_max_fds", "File descriptors that may be open."),
)  # fmt: skip

PROCESS: Final = "edge_agent_process_"
"""What prometheus_client's collector of /proc gives under our prefix."""
