"""A whole terminal in a process of its own, which kills itself (SIGKILL) at one point of a verification.

    python -m tests.faults.terminal_child FOLDER BASE_URL API_KEY MERCHANT_ID STAGE USER

The agent, its socket, its outbox and its forwarder are the real ones; the camera shows noise and the models see a good
face. It dies at STAGE of the verification of USER that began in this life, before the next instruction; with the stage
``never`` it ends in order on SIGTERM. On stdout, one JSON object a line: ``serving``, and ``created`` with the ``id``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge_agent.agent import Agent
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.upload import UploadKind, UploadTarget
from edge_agent.cypherface.verdict import Verdict
from edge_agent.daemon import serve_until
from edge_agent.outbox import Store
from edge_agent.outbox.records import Leased, NewVerification, VerificationRecord
from edge_agent.types import Frame, Measurement
from tests.faults.worker import Teller, quiet
from tests.terminal import Eyes, Terminal

STAGES = (
    "asked",
    "storing",
    "created",
    "searching",
    "qualified",
    "storing the capture",
    "captured",
    "leased",
    "url",
    "upload noted",
    "uploaded",
    "answered",
    "storing the verdict",
    "decided",
)
"""In the order in which a verification passes them."""


class Reaper:
    """Knows where this life ends, and which verification it is about."""

    def __init__(self, stage: str, user: str, teller: Teller) -> None:
        self._stage, self.user, self._teller = stage, user, teller
        self._ours: str | None = None

    def at(self, stage: str) -> None:
        if stage == self._stage:
            os.kill(os.getpid(), signal.SIGKILL)

    def created(self, record: VerificationRecord) -> None:
        self._ours = record.id
        self._teller.say("created", id=record.id)

    def around(self, name: str, *, before: str = "", after: str = "") -> None:
        """Die before or after this operation on our verification: its first argument is the id, or the row."""
        original = getattr(Store, name)

        def operation(store: Store, subject: Any, *args: Any, **kwargs: Any) -> Any:
            ours = self._ours is not None and self._ours == (subject if isinstance(subject, str) else subject["id"])
            if ours:
                self.at(before)
            result = original(store, subject, *args, **kwargs)
            if ours:
                self.at(after)
            return result

        self._replace(**{name: operation})

    def _replace(self, **operations: Callable[..., Any]) -> None:
        for name, operation in operations.items():
            setattr(Store, name, operation)

    def instrument(self) -> None:
        """Only ever in a process of its own: the classes themselves are changed."""
        self._instrument_create()
        self.around("commit_capture", before="qualified", after="captured")
        self.around("_insert_payload", after="storing the capture")
        self.around("lease_one", after="leased")
        self.around("record_upload", after="upload noted")
        self.around("commit_verdict", after="decided")
        self.around("_check_evidence", after="storing the verdict")
        self._instrument_lease_next()

    def _instrument_create(self) -> None:
        create, remember = Store.create, Store._remember_key

        def creating(store: Store, new: NewVerification) -> tuple[VerificationRecord, bool]:
            if new.user_id != self.user:
                return create(store, new)
            self.at("asked")
            record, replayed = create(store, new)
            self.created(record)
            self.at("created")
            return record, replayed

        def remembering(store: Store, key_hmac: bytes, new: NewVerification, *rest: Any) -> None:
            remember(store, key_hmac, new, *rest)
            if new.user_id == self.user:
                self.at("storing")

        self._replace(create=creating, _remember_key=remembering)

    def _instrument_lease_next(self) -> None:
        """The queue may be faster than the hand-over."""
        lease_next = Store.lease_next

        def leasing(store: Store, *args: Any, **kwargs: Any) -> Leased | None:
            leased = lease_next(store, *args, **kwargs)
            if leased is not None and leased.record.id == self._ours:
                self.at("leased")
            return leased

        self._replace(lease_next=leasing)


def _client_of(reaper: Reaper) -> Callable[..., CypherFaceClient]:
    class DyingClient(CypherFaceClient):
        """The real one; it dies after a step for our user."""

        async def generate_url(self, user_id: str, name: str, content_type: str, kind: UploadKind) -> UploadTarget:
            target = await super().generate_url(user_id, name, content_type, kind)
            self._ours = user_id == reaper.user
            self._at("url")
            return target

        async def put(self, target: UploadTarget, data: bytes, content_type: str) -> None:
            await super().put(target, data, content_type)
            self._at("uploaded")

        async def match(self, user_id: str) -> Verdict:
            verdict = await super().match(user_id)
            self._at("answered")
            return verdict

        def _at(self, stage: str) -> None:
            if self._ours:
                reaper.at(stage)

    return DyingClient


class DyingEyes(Eyes):
    """Dies while the second frame is judged."""

    def __init__(self, reaper: Reaper) -> None:
        super().__init__()
        self._reaper = reaper

    def measure(self, frame: Frame) -> Measurement:
        if frame.index == 1:
            self._reaper.at("searching")
        return super().measure(frame)


async def live(t: Terminal, eyes: Eyes, client: Callable[..., CypherFaceClient], teller: Teller) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    agent = Agent(t._config, camera_factory=t._make_camera, vision_factory=lambda _: eyes, client_factory=client)
    serving = asyncio.create_task(serve_until(stop, agent))
    await agent.wait_started()
    teller.say("serving")
    await serving


def warm_up() -> None:
    """For the zygote: what every life would otherwise import anew."""
    import cv2  # noqa: F401

    from edge_agent.vision import capture  # noqa: F401


def main(arguments: Sequence[str], descriptor: int = 1) -> int:
    """Runs in a child of the zygote, or in a fresh process. Returns the exit status."""
    folder, url, api_key, merchant_id, stage, user = arguments
    teller = Teller(descriptor)
    reaper = Reaper(stage, user, teller)
    reaper.instrument()
    credentials = SimpleNamespace(api_key=api_key, merchant_id=merchant_id)
    session = {"search_timeout_s": 60.0, "verdict_timeout_s": 60.0, "capture_window_s": 0.0, "max_failures": 0}
    t = Terminal(Path(folder), url, credentials, session=session)
    with quiet(wanted=True), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(live(t, DyingEyes(reaper), _client_of(reaper), teller))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
