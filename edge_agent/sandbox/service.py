"""The service's endpoints: tokens, upload URLs, matching. Every path ends in '/'."""

from __future__ import annotations

import json
import re
import secrets
from typing import Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent.sandbox import answers
from edge_agent.sandbox.answers import Refusal
from edge_agent.sandbox.runtime import Sandbox
from edge_agent.sandbox.state import Upload
from edge_agent.sandbox.variants import MATCH_PATH, MATCH_PATH_ALIAS

BUCKET = "edge-agent-sandbox"
MAX_JSON_BYTES = 64 * 1024
M = TypeVar("M", bound=BaseModel)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _UploadRequest(BaseModel, strict=True):
    userId: str = Field(min_length=1, max_length=256)  # noqa: N815  # the wire's spelling
    imageName: str = Field(min_length=1, max_length=200)  # noqa: N815  # the wire's spelling
    contentType: Literal["image/jpeg", "image/png"]  # noqa: N815  # the wire's spelling
    type: Literal["upload", "match"]


class _MatchRequest(BaseModel, strict=True):
    userId: str = Field(min_length=1, max_length=256)  # noqa: N815  # the wire's spelling


class Service:
    """The endpoints of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        return [
            Route("/api/access-token/", self.access_token, methods=["POST"]),
            Route("/api/refresh-token/", self.refresh_token, methods=["POST"]),
            Route("/api/upload/generate-url/", self.generate_url, methods=["POST"]),
            Route(MATCH_PATH, self.match, methods=["POST"]),
            Route(MATCH_PATH_ALIAS, self.match, methods=["POST"]),
        ]

    async def access_token(self, request: Request) -> Response:
        sandbox = self._sandbox
        known = sandbox.credentials
        given = (request.headers.get("merchantid", ""), request.headers.get("x-api-key", ""))
        is_right = given == (known.merchant_id, known.api_key)
        if not is_right or sandbox.variants.api_key_revoked:
            raise Refusal(sandbox.variants.bad_key_status, "Invalid merchant id or API key")
        return answers.token(sandbox.variants, sandbox.new_token())

    async def refresh_token(self, request: Request) -> Response:
        sandbox = self._sandbox
        sandbox.check_authorization(request.headers.get("authorization", ""), expired_is_fine=True)
        if sandbox.variants.refresh == "refused":
            raise Refusal(sandbox.variants.bad_token_status, "The token cannot be refreshed")
        return answers.token(sandbox.variants, sandbox.new_token())

    async def generate_url(self, request: Request) -> Response:
        sandbox = self._sandbox
        sandbox.check_authorization(request.headers.get("authorization", ""))
        asked = await _parsed(request, _UploadRequest)
        if _CONTROL.search(asked.imageName) or "/" in asked.imageName or asked.imageName.startswith("."):
            raise Refusal(400, "imageName is not a file name")
        self._check_user(asked.userId, asked.type)
        key = f"{asked.type}/{secrets.token_hex(16)}/{asked.imageName}"
        upload = Upload(key, asked.userId, asked.type, asked.imageName, asked.contentType)
        path = quote(f"/storage/{BUCKET}/{key}", safe="/-_.~")
        url = sandbox.new_upload_url(upload, host=request.headers["host"], path=path)
        await sandbox.save()
        return answers.upload_url(sandbox.variants, url)

    def _check_user(self, user_id: str, type_: Literal["upload", "match"]) -> None:
        state, variants = self._sandbox.state, self._sandbox.variants
        if type_ == "upload" and state.source(user_id, self._sandbox.clock.now_s()):
            raise Refusal(variants.overwrite_status, "A processed source image already exists for this user")
        if type_ == "match" and variants.unknown_user_at == "generate_url" and not state.knows(user_id):
            raise Refusal(404, "User not found")

    async def match(self, request: Request) -> Response:
        sandbox = self._sandbox
        if sandbox.variants.match_path not in ("both", request.url.path):
            return no_such_path(request)
        sandbox.check_authorization(request.headers.get("authorization", ""))
        asked = await _parsed(request, _MatchRequest)
        return answers.verdict(sandbox.variants, await sandbox.match(asked.userId))


def no_such_path(request: Request) -> Response:
    """What a web framework answers for an unknown path: HTML, so that a client can tell it from an unknown user."""
    body = f"<!DOCTYPE html>\n<title>Error</title>\n<pre>Cannot {request.method} {quote(request.url.path)}</pre>\n"
    return Response(body, 404, media_type="text/html")


async def _parsed(request: Request, model: type[M]) -> M:
    """The request's JSON body as ``model``. Raises Refusal 400 saying what is wrong."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refusal(400, "The body must be JSON with Content-Type application/json")
    body = await _bounded_body(request)
    try:
        return model.model_validate(json.loads(body))
    except ValidationError as exc:
        wrong = ", ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in exc.errors())
        raise Refusal(400, f"Bad request: {wrong}") from exc
    except (ValueError, RecursionError) as exc:
        raise Refusal(400, "The body is not JSON") from exc


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise Refusal(400, "The body is too large")
    return bytes(body)
