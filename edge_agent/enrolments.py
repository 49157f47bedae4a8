"""Enrolments of one terminal: from a picture that is sent, or from the camera. Never queued."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from edge_agent.announcer import Announcer
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.enrolling import Enroller
from edge_agent.parts import Parts
from edge_agent.screening import Vision
from edge_agent.storekeeper import Storekeeper
from edge_agent.verifications import Verifications


class Enrolments:
    """Used from the event loop's thread only."""

    def __init__(
        self,
        parts: Parts,
        *,
        keeper: Storekeeper,
        enroller: Enroller,
        verifications: Verifications,
        announcer: Announcer,
    ) -> None:
        self._parts, self._keeper = parts, keeper
        self._enroller, self._verifications = enroller, verifications
        self._announcer = announcer

    async def enrol(self, user_id: str, picture: bytes, *, actor: str) -> None:
        """Pre-screen ``picture`` and upload it as the user's source.

        Raises InputError (not a picture), PictureRefused (the gate), ModelError, CypherFaceError, and what
        ``Enroller.end`` was given before the upload began.
        """
        with self._enroller.under_way(user_id) as under_way:
            async with self._means() as (vision, client):
                enrolment, go_on = self._parts.enrolment, under_way.go_on
                await enrolment.enrol(user_id, picture, vision, client, actor=actor, go_on=go_on)

    async def enrol_from_camera(self, user_id: str, *, actor: str, search_timeout_s: float | None = None) -> None:
        """As ``enrol``, with a picture from the camera. Cancelling it ends the filming.

        Raises SessionRefused (busy, stopping), CameraError, PictureRefused after ``search_timeout_s``, ModelError,
        CypherFaceError, and what ``Enroller.end`` was given before the upload began.
        """
        timeout_s = search_timeout_s or self._parts.config.enrolment.search_timeout_s
        with self._enroller.under_way(user_id) as under_way:
            async with self._means() as (vision, client):
                enrolment = self._parts.enrolment
                self._verifications.refuse_if_filming("enrol")
                await enrolment.must_be_possible(user_id, client)
                async with self._verifications.starts:
                    self._verifications.refuse_if_filming("enrol")
                    under_way.go_on()
                    sitting = await self._enroller.begin(user_id, vision, self._parts.config, timeout_s)
                with self._announcer.enrolling() as say:
                    source = await sitting.film()
                    say("uploading")
                    await enrolment.upload(user_id, source, client, actor=actor, go_on=under_way.go_on)

    @contextlib.asynccontextmanager
    async def _means(self) -> AsyncIterator[tuple[Vision, CypherFaceClient]]:
        """What an enrolment needs, held for it: a reload does not take it away. Raises the fault of what is missing."""
        self._keeper.require()  # an enrolment that cannot be audited does not begin
        vision = await self._parts.need_vision()
        service = self._parts.services.current
        if service is None:
            raise self._parts.fault("cypherface")
        service.forwarder.hold()  # and its client
        try:
            yield vision, service.client
        finally:
            service.forwarder.let_go()
