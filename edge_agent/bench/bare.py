"""The bare loop: the same three calls with the same HTTP library, and two commits; nothing else is kept safe."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from edge_agent.config import CypherFaceSection
from edge_agent.errors import EnvironmentFault


class BareLoop:
    """A table of pictures that are sent one by one: a commit before the upload, one after the verdict."""

    def __init__(self, file: Path, settings: CypherFaceSection) -> None:
        self._settings = settings
        self._base = settings.base_url.rstrip("/")
        self._database = sqlite3.connect(file, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self._database.execute(f"PRAGMA {pragma}").fetchall()
        self._database.execute("CREATE TABLE queue (seq INTEGER PRIMARY KEY, user TEXT, state TEXT, picture BLOB)")
        self._token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def fill(self, rows: int, users: list[str], picture_bytes: int) -> None:
        values = ((users[number % len(users)], os.urandom(picture_bytes)) for number in range(rows))
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO queue (user, state, picture) VALUES (?, 'queued', ?)", values)
        self._database.execute("COMMIT")

    async def drain(self, *, at_once: int) -> float:
        """Seconds for all that is queued, ``at_once`` users at a time."""
        queued = self._database.execute("SELECT seq, user FROM queue WHERE state = 'queued' ORDER BY seq").fetchall()
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
            self._token = await self._sign_in(client)
            users = list(dict.fromkeys(user for _, user in queued))
            lanes = [iter([row for row in queued if row[1] in users[lane::at_once]]) for lane in range(at_once)]
            began_s = loop.time()
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(self._drain_lane(client, lane))
            return loop.time() - began_s

    async def _drain_lane(self, client: httpx.AsyncClient, rows: Iterator[tuple[int, str]]) -> None:
        for seq, user in rows:
            await self._forward(client, seq, user)

    async def _forward(self, client: httpx.AsyncClient, seq: int, user: str) -> None:
        (picture,) = self._database.execute("SELECT picture FROM queue WHERE seq = ?", (seq,)).fetchone()
        wanted = {"userId": user, "imageName": f"{seq}.jpg", "contentType": "image/jpeg", "type": "match"}
        answer = await self._post(client, "/api/upload/generate-url/", wanted)
        self._set(seq, "uploading")
        put = await client.put(str(answer["url"]), content=picture, headers={"content-type": "image/jpeg"})
        put.raise_for_status()
        verdict = await self._post(client, self._settings.match_path, {"userId": user})
        if verdict.get("match") is not True:
            raise EnvironmentFault("cannot measure the drain: the sandbox found no match")
        self._set(seq, "verified")

    async def _post(self, client: httpx.AsyncClient, path: str, body: dict[str, str]) -> dict[str, Any]:
        answer = await client.post(self._base + path, json=body, headers={"authorization": self._token})
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    async def _sign_in(self, client: httpx.AsyncClient) -> str:
        headers = {"merchantId": self._settings.merchant_id, "x-api-key": self._settings.api_key.read().decode()}
        answer = await client.post(f"{self._base}/api/access-token/", headers=headers)
        if not answer.is_success:
            raise EnvironmentFault(f"cannot measure the drain: no token (status {answer.status_code})")
        return str(answer.json()["accessToken"])

    def _set(self, seq: int, state: str) -> None:
        self._database.execute("UPDATE queue SET state = ? WHERE seq = ?", (state, seq))  # commits by itself
