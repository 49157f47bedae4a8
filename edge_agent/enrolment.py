"""Enrolment: the user's source picture, pre-screened here at stricter limits, then uploaded. Never queued.

CypherFace keeps the first source picture of a user for good, and every later match is measured by it: what is refused
here can be taken again in a second, what is accepted cannot.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.config import Config
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.wire import new_image_name
from edge_agent.errors import CypherFaceError, InputError
from edge_agent.outbox.store import Store
from edge_agent.screening import Screener, Vision
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import Assessment, Check, Frame, GateCode
from edge_agent.workers import Worker

CONTENT_TYPE = "image/jpeg"
MAY_HAVE_ARRIVED = "the picture may have arrived all the same: try again; source_exists then says that it did"


class PictureRefused(InputError):
    """An enrolment picture does not pass the gate."""

    code = "picture_refused"

    def __init__(self, reasons: tuple[GateCode, ...], checks: tuple[Check, ...] = ()) -> None:
        """``checks``: those that failed, with value and limit. Those of the liveness models must not leave as they are."""
        names = ", ".join(reason.value for reason in reasons)
        super().__init__(f"cannot enrol this picture: {names}", hint="take another picture; see docs/gate.md")
        self.reasons = reasons
        self.checks = checks


def failed_checks(assessment: Assessment | None) -> tuple[Check, ...]:
    """What one frame failed on, most severe first."""
    return tuple(c for c in assessment.checks if c.passed is False) if assessment is not None else ()


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that passed, and what is audited of it."""

    jpeg: bytes = field(repr=False)
    origin: str
    """``body`` or ``camera``."""
    facts: Mapping[str, Any]


class Enrolment:
    """Takes one picture at a time to CypherFace."""

    def __init__(self, config: Config, keeper: Storekeeper, inference: Worker) -> None:
        self._config = config
        self._keeper = keeper
        self._inference = inference
        self._screening = asyncio.Lock()
        """One picture at a time: between two of them the frames of whoever is being filmed have their turn."""

    async def enrol(
        self,
        user_id: str,
        picture: bytes,
        vision: Vision,
        client: CypherFaceClient,
        *,
        actor: str,
        go_on: Callable[[], None],
    ) -> None:
        """Pre-screen ``picture`` (an image file) and upload it as the user's source.

        Raises InputError (not a picture), PictureRefused (the gate), and as ``upload``.
        """
        async with self._screening:
            source = await self._inference.run(self._prescreen, vision, picture)
        await self.upload(user_id, source, client, actor=actor, go_on=go_on)

    async def must_be_possible(self, user_id: str, client: CypherFaceClient) -> None:
        """Ask for an upload URL and leave it unused: nobody is filmed for a picture that has nowhere to go.

        Raises CypherFaceError; CaptureRefused ``source_exists`` when the user is enrolled already.
        """
        self._keeper.require()
        await client.generate_url(user_id, new_image_name(), CONTENT_TYPE, "upload")

    async def upload(
        self, user_id: str, source: Source, client: CypherFaceClient, *, actor: str, go_on: Callable[[], None]
    ) -> None:
        """To CypherFace, at once or not at all; that it began is in the audit log before the first byte leaves.

        ``go_on`` raises what forbids it to begin. Raises CypherFaceError, StorageError.
        """
        target = await client.generate_url(user_id, new_image_name(), CONTENT_TYPE, "upload")
        user = await self._keeper.run(Store.user_hmac, user_id)
        digest = hashlib.sha256(source.jpeg).hexdigest()
        detail = {"user": user, "actor": actor, "origin": source.origin, "image_sha256": digest}
        go_on()  # right before the note: a deletion is before both, or after both
        await self._keeper.run(Store.note, "source_upload", **detail, **source.facts)
        try:
            await client.put(target, source.jpeg, CONTENT_TYPE)
        except CypherFaceError as exc:
            exc.hint = MAY_HAVE_ARRIVED if exc.outcome_unknown else exc.hint
            await self._keeper.run(Store.note, "source_failed", **detail, code=exc.code, unknown=exc.outcome_unknown)
            raise
        await self._keeper.run(Store.note, "source_uploaded", **detail)

    def _prescreen(self, vision: Vision, picture: bytes) -> Source:
        from edge_agent.picture import read_picture
        from edge_agent.vision.capture import encode_capture

        image = read_picture(picture)
        limits = self._config.enrolment.stricter(self._config.gate)
        screener = Screener(vision, limits)
        try:
            assessment = screener.still(Frame(image, 0.0, 0))
        finally:
            screener.forget()
        face = assessment.measurement.face
        if not assessment.accepted or face is None:
            raise PictureRefused(assessment.reasons, failed_checks(assessment))
        facts = {"quality_score": assessment.quality_score, "liveness": {s.model: s.score for s in assessment.liveness}}
        return Source(encode_capture(image, face.box, self._config.capture), "body", facts)
