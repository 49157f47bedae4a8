"""The object storage behind the pre-signed URLs: one verb, PUT, and S3's XML errors."""

from __future__ import annotations

import hashlib
from urllib.parse import unquote
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent.sandbox import presign
from edge_agent.sandbox.presign import StorageRefused
from edge_agent.sandbox.runtime import Sandbox
from edge_agent.sandbox.service import BUCKET
from edge_agent.sandbox.state import Upload

MAX_PICTURE_BYTES = 10 * 1024 * 1024
PREFIX = f"/storage/{BUCKET}/"
LATE_KEY = "edge_agent.sandbox.late_s"
"""Where a late_put fault leaves its delay in the request's scope."""


class Storage:
    """The storage of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        return [Route("/storage/{key:path}", self.handle, methods=["PUT", "GET", "POST", "DELETE"])]

    async def handle(self, request: Request) -> Response:
        try:
            upload = self._authorised(request)
            content = await _content(request)
        except StorageRefused as exc:
            return _xml_error(exc)
        late_s = float(request.scope.get(LATE_KEY, 0.0))
        await self._sandbox.receive_picture(upload, content, late_s=late_s)
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return Response(status_code=200, headers={"etag": f'"{etag}"'})

    def _authorised(self, request: Request) -> Upload:
        """The upload that this PUT is for. Raises StorageRefused."""
        if "authorization" in request.headers:
            raise StorageRefused("AccessDenied", "Only one auth mechanism allowed; the URL already carries one.")
        path = request.scope["raw_path"].decode("ascii")
        presign.check(
            self._sandbox.state.saved.secret,
            method=request.method,
            host=request.headers["host"],
            path=path,
            query_string=request.scope["query_string"].decode("ascii"),
            content_type=request.headers.get("content-type", ""),
            now_s=self._sandbox.server_time_s,
        )
        upload = self._sandbox.state.saved.uploads.get(unquote(path).removeprefix(PREFIX))
        if upload is None:
            raise StorageRefused("AccessDenied", "Access Denied")
        return upload


async def _content(request: Request) -> bytes:
    """The picture's bytes. Raises StorageRefused for none, too many, or a length that was not announced."""
    if "content-length" not in request.headers:
        raise StorageRefused("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_PICTURE_BYTES:
            raise StorageRefused("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.", 400)
    return bytes(content)


def _xml_error(error: StorageRefused) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
    )
    return Response(body, error.status, media_type="application/xml")
