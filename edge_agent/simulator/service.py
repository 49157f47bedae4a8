"""A stand-in for CypherFace within the process: the answers of its wire, chosen by what the uploaded picture says.

The real client talks to it through httpx, so tokens, upload URLs, errors and verdicts are read as always; its hosts end in
``.invalid``, which no resolver knows: whatever went wrong, nothing could leave this machine.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import Callable

import httpx
from pydantic import BaseModel

from edge_agent.errors import InputError
from edge_agent.simulator import card
from edge_agent.simulator.outcomes import OF_SERVICE, Kind, Outcome, parse
from edge_agent.types import JsonObject

HOST, STORAGE = "cypherface.invalid", "storage.invalid"
BASE_URL = f"https://{HOST}/"
STEP_S = 0.25
"""Each answer takes so long, in life's time."""
LATE_S = 3.0
"""A slow verdict comes, and an outage ends, so long after the verdict deadline."""
SIMILARITY = {True: 97.4, False: 21.3}


class Line:
    """The connection to CypherFace. Used in the event loop's thread only."""

    def __init__(self, away_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``away_s``: for how long it stays cut, from when it was ``missed``."""
        self._away_s, self._clock = away_s, clock
        self._back_s = 0.0

    def cut(self) -> None:
        self._back_s = math.inf

    def missed(self) -> None:
        """The verification that it was cut for had its answer."""
        self._back_s = min(self._back_s, self._clock() + self._away_s)

    def restore(self) -> None:
        self._back_s = 0.0

    def need(self) -> None:
        """Raises httpx.ConnectError while it is cut."""
        if self._clock() < self._back_s:
            raise httpx.ConnectError("this is simulated")


class _Upload(BaseModel):
    userId: str  # noqa: N815 - the wire's spelling
    type: str


class StandIn(httpx.AsyncBaseTransport):
    """One service. ``verdict_timeout_s``: what the terminal waits at most. Used in the event loop's thread only."""

    def __init__(
        self, verdict_timeout_s: float, speed: float, line: Line, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._line = line
        self._late_s = verdict_timeout_s + LATE_S / speed
        self._step_s = STEP_S / speed
        self._clock = clock
        self._uploads: dict[str, _Upload] = {}
        self._targets: dict[str, str] = {}
        """What the last target picture of a user says."""
        self._sources: set[str] = set()
        self._first_asked_s: dict[str, float] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._line.need()
        await asyncio.sleep(self._step_s)
        body = await request.aread()
        if request.url.host == STORAGE:
            return self._store(request.url.path, body)
        match request.url.path:
            case "/api/access-token/" | "/api/refresh-token/":
                return _answer(200, {"token": secrets.token_hex(16)})
            case "/api/upload/generate-url/":
                return self._generate_url(_Upload.model_validate_json(body))
            case _:
                return await self._match(json.loads(body)["userId"])

    def _generate_url(self, upload: _Upload) -> httpx.Response:
        if upload.type == "upload" and upload.userId in self._sources:
            return _answer(409, {"message": "a source image exists"})
        path = f"/{secrets.token_hex(16)}"
        self._uploads[path] = upload
        return _answer(200, {"url": f"https://{STORAGE}{path}"})

    def _store(self, path: str, picture: bytes) -> httpx.Response:
        upload = self._uploads.pop(path)
        if upload.type == "upload":
            self._sources.add(upload.userId)
            return httpx.Response(200)
        try:
            self._targets[upload.userId] = card.read(picture)
        except InputError as exc:  # the queue of an older simulator, perhaps
            return httpx.Response(413, text=exc.message)
        return httpx.Response(200)

    async def _match(self, user_id: str) -> httpx.Response:
        said = self._targets.pop(user_id)
        outcome = parse(said.partition("#")[0])
        if outcome.kind is Kind.FAILED:
            return _answer(OF_SERVICE[outcome.detail], {"message": "this is simulated"})
        if outcome.kind is Kind.SLOW:
            await asyncio.sleep(self._late_s)
        if outcome.kind is Kind.PENDING and not self._recovered(said, outcome):
            return _answer(503, {"message": "this is simulated"})
        self._first_asked_s.pop(said, None)
        positive = Kind.NOT_VERIFIED not in {outcome.kind, outcome.detail}
        return _answer(200, {"match": positive, "similarity": SIMILARITY[positive]})

    def _recovered(self, said: str, outcome: Outcome) -> bool:
        now_s = self._clock()
        return bool(outcome.detail) and now_s - self._first_asked_s.setdefault(said, now_s) > self._late_s


def _answer(status: int, body: JsonObject) -> httpx.Response:
    return httpx.Response(status, json=body)
