"""Enrolment: the user's source picture, pre-screened here, then uploaded. Never queued."""

from __future__ import annotations

from edge_agent.config import Config
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.wire import new_image_name
from edge_agent.errors import InputError
from edge_agent.outbox.store import Store
from edge_agent.screening import Screener, Vision
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import Frame, GateCode
from edge_agent.workers import Worker


class PictureRefused(InputError):
    """An enrolment picture does not pass the gate."""

    code = "picture_refused"

    def __init__(self, reasons: tuple[GateCode, ...]) -> None:
        names = ", ".join(reason.value for reason in reasons)
        super().__init__(f"cannot enrol this picture: {names}", hint="take another picture; see docs/gate.md")
        self.reasons = reasons


class Enrolment:
    """Takes one picture at a time to CypherFace."""

    def __init__(self, config: Config, keeper: Storekeeper, inference: Worker) -> None:
        self._config = config
        self._keeper = keeper
        self._inference = inference

    async def enrol(self, user_id: str, picture: bytes, vision: Vision, client: CypherFaceClient) -> None:
        """Pre-screen ``picture`` (an image file) and upload it as the user's source.

        Raises InputError (not a picture), PictureRefused (the gate), CypherFaceError, StorageError.
        """
        jpeg = await self._inference.run(self._prescreen, vision, picture)
        target = await client.generate_url(user_id, new_image_name(), "image/jpeg", "upload")
        await client.put(target, jpeg, "image/jpeg")
        hmac = await self._keeper.run(Store.user_hmac, user_id)
        await self._keeper.run(Store.note, "source_uploaded", user=hmac)

    def _prescreen(self, vision: Vision, picture: bytes) -> bytes:
        from edge_agent.picture import read_picture
        from edge_agent.vision.capture import encode_capture

        image = read_picture(picture)
        assessment = Screener(vision, self._config.gate).still(Frame(image, 0.0, 0))
        face = assessment.measurement.face
        if not assessment.accepted or face is None:
            raise PictureRefused(assessment.reasons)
        return encode_capture(image, face.box, self._config.capture)
