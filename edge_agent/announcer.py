"""What others are told: state changes, hints, camera, network and storage, as events of the bus."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from edge_agent.availability import ForwarderStatus
from edge_agent.camera import CameraStatus
from edge_agent.camera.ladder import Step
from edge_agent.challenge.prompts import News
from edge_agent.errors import AgentError
from edge_agent.events import Event, EventBus, Subscription, utc
from edge_agent.outbox.clock import Clock, instant
from edge_agent.outbox.records import VerificationRecord, approved
from edge_agent.texts import hint_text
from edge_agent.types import GateCode, JsonObject, State


@dataclass(frozen=True, slots=True)
class ShownHint:
    """What the customer is shown; ``code`` None = all is well, hold on."""

    code: GateCode | None
    since: datetime
    """When it became the one shown."""
    enrolment: bool = False
    """To somebody who is being enrolled."""

    def data(self) -> JsonObject:
        """The fields of its event."""
        code = self.code.value if self.code else None
        return {
            "code": code,
            "text": hint_text(self.code),
            "since": utc(self.since),
            "enrolment": self.enrolment,
        }


class Announcer:
    """Used from the event loop's thread only."""

    def __init__(self, bus: EventBus, clock: Clock, result_valid_s: float) -> None:
        self._bus = bus
        self._clock = clock
        self._result_valid_s = result_valid_s
        self._earlier = (-math.inf, result_valid_s)
        self._announced: dict[str, State] = {}

    def is_approved(self, record: VerificationRecord) -> bool:
        """See outbox.records.approved: the one thing a POS may act on."""
        return approved(record, instant(self._clock), self._valid_s(record))

    def set_result_valid_s(self, result_valid_s: float) -> None:
        """From now on. What was announced with a shorter time keeps it: no approval comes back."""
        shortest_s = min(self._earlier[1], self._result_valid_s, result_valid_s)
        self._earlier = (self._clock.boottime_s(), shortest_s)
        self._result_valid_s = result_valid_s

    def _valid_s(self, record: VerificationRecord) -> float:
        until_s, earlier_valid_s = self._earlier
        verdict_at = record.verdict_instant
        old = verdict_at is not None and verdict_at.boottime_s <= until_s
        return earlier_valid_s if old else self._result_valid_s

    def hint(self, verification_id: str | None, code: GateCode | None) -> ShownHint:
        """What the customer is shown from now on; code None = all is well, no verification = an enrolment."""
        shown = ShownHint(code, self._clock.wall(), enrolment=verification_id is None)
        self._bus.publish("hint", shown.data(), at=shown.since, verification_id=verification_id)
        return shown

    def challenge(self, verification_id: str, news: News) -> None:
        """The challenge goes on, or is over."""
        self._publish(f"challenge.{news.kind}", news.data, verification_id)

    def camera(self, verification_id: str | None, state: str, detail: str) -> None:
        """What this verification sees of it: ``lost`` or ``ok``; no verification = an enrolment."""
        data = _camera_data(CameraStatus(state, Step.NONE, 0, None, detail, None))
        self._publish("camera", data | {"enrolment": verification_id is None}, verification_id)

    @contextlib.contextmanager
    def enrolling(self) -> Iterator[Callable[[str], None]]:
        """An enrolment from the camera: ``searching``, then what is said, then ``ended`` with its error's code or None."""

        def say(state: str, code: str | None = None) -> None:
            self._publish("enrolment", {"state": state, "code": code})

        say("searching")
        try:
            yield say
        except BaseException as exc:
            say("ended", exc.code if isinstance(exc, AgentError) else "cancelled")
            raise
        say("ended")

    def aim(self, state: str, reason: str | None = None) -> None:
        """Somebody who mounts the camera sees the live picture (``on``), or no longer (``off``), for a reason."""
        self._publish("aim", {"state": state, "reason": reason})

    def camera_status(self, status: CameraStatus) -> None:
        """The terminal's camera, also between verifications: lost, or a step of its recovery, or back."""
        self._publish("camera", _camera_data(status))

    def motion(self, moving: bool) -> None:
        """Between sessions, where the camera is watched: something begins to move, or all is still."""
        self._publish("motion", {"state": "moving" if moving else "still"})

    def network(self, status: ForwarderStatus) -> None:
        """The service can be used, or not, or forwarding stopped."""
        self._publish("network", {"state": status.network, "code": status.stopped_code})

    def storage(self, fault: AgentError | None) -> None:
        """The outbox is open, or missing for a reason."""
        self._publish("storage", {"state": "missing" if fault else "open", "code": fault.code if fault else None})

    def state(self, record: VerificationRecord) -> None:
        """A record as it is now. Only a new state is an event, and the erasure of a final one: a lease renewed is none."""
        if self._announced.get(record.id) is record.state:
            return
        self._announced[record.id] = record.state
        if record.final:
            del self._announced[record.id]
        data = self._state_data(record)
        if record.erased:  # consent was withdrawn: no old event may approve any longer
            self._bus.retract(record.id)
        self._bus.publish(
            "state",
            data,
            at=self._clock.wall(),
            verification_id=record.id,
            approved_until_s=self._approved_until_s(record),
        )

    def present(
        self, reader: Subscription, record: VerificationRecord, hint: ShownHint | None, prompt: News | None = None
    ) -> Iterator[Event]:
        """How a verification is now, as events for ``reader`` alone."""
        yield reader.note("state", self._state_data(record), self._approved_until_s(record))
        if hint is not None:
            yield reader.note("hint", hint.data())
        if prompt is not None:
            yield reader.note(f"challenge.{prompt.kind}", prompt.data)

    def _state_data(self, record: VerificationRecord) -> JsonObject:
        return {
            "state": record.state.value,
            "final": record.final,
            "approved": self.is_approved(record),
            "late": record.late,
            "contradicted": record.contradicted,
            "reasons": list(record.reasons),
            "error": record.error_code,
        }

    def _approved_until_s(self, record: VerificationRecord) -> float | None:
        """The boot time at which a verdict stops to approve; None where there is none."""
        verdict_at = record.verdict_instant
        return verdict_at.boottime_s + self._valid_s(record) if verdict_at is not None else None

    def _publish(self, kind: str, data: dict[str, object], verification_id: str | None = None) -> None:
        self._bus.publish(kind, data, at=self._clock.wall(), verification_id=verification_id)


def _camera_data(status: CameraStatus) -> JsonObject:
    return {
        "state": status.state,
        "step": status.step.value,
        "failures": status.failures,
        "code": status.code,
        "detail": status.detail,
        "hint": status.hint,
        "enrolment": False,
    }
