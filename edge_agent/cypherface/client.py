"""The CypherFace API, one method per step: generate-url, PUT, match. Tokens are handled inside.

No retries here (``retry`` decides, ``forwarder`` sequences): a method either gives its result or raises one of the
errors of ``errors.CypherFaceError``. Every step has one total deadline, token work included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Self

import httpx

from edge_agent.config import CypherFaceSection
from edge_agent.cypherface import statuses, upload, wire
from edge_agent.cypherface.exchange import Line
from edge_agent.cypherface.faults import Progress
from edge_agent.cypherface.statuses import Row
from edge_agent.cypherface.tokens import Token, TokenSource, boottime_s
from edge_agent.cypherface.upload import UploadKind, UploadTarget
from edge_agent.cypherface.verdict import Verdict, judge
from edge_agent.cypherface.wire import Answer, Step, new_image_name
from edge_agent.errors import (
    ConfigurationError,
    SequenceConflict,
    ServiceMisconfigured,
    Transient,
    Unauthenticated,
)
from edge_agent.types import JsonObject

__all__ = ["CypherFaceClient", "UploadKind", "UploadTarget", "Verdict", "new_image_name"]

ACCESS_TOKEN_PATH = "/api/access-token/"  # noqa: S105  # a path, not a password
REFRESH_TOKEN_PATH = "/api/refresh-token/"  # noqa: S105  # a path, not a password
GENERATE_URL_PATH = "/api/upload/generate-url/"

_BAD_ANSWER = Row(Transient, "bad_answer")
_INDETERMINATE = Row(SequenceConflict, "indeterminate")
_NO_URL = Row(ServiceMisconfigured, "no_upload_url", "docs/cypherface.md lists the field names that are accepted")
_NO_TOKEN = Row(ServiceMisconfigured, "no_token", "docs/cypherface.md lists the field names that are accepted")
_REFUSED_TOKEN = Row(Unauthenticated, "unauthenticated", "check cypherface.merchant_id and the API key")

_SIGNED_OUT = frozenset({401, 403})


class CypherFaceClient:
    """One per environment and event loop; an async context manager."""

    def __init__(
        self,
        settings: CypherFaceSection,
        *,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        """``api_key`` None: read from its place in the settings whenever a token is issued (it may be exchanged).

        Raises ConfigurationError when ``ca_bundle`` cannot be read.
        """
        self._settings = settings
        self._given_key = api_key
        self._clock = clock
        self._base = settings.base_url.rstrip("/")
        self._tokens = TokenSource(self, clock=clock)
        self._line = Line(settings, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._line.aclose()

    async def rebuild(self) -> None:
        """Replace the HTTP client after repeated failures; see ``Line.rebuild``. Tokens stay."""
        await self._line.rebuild()

    @property
    def answers(self) -> int:
        """HTTP answers received so far, of any status: whoever sees it grow has reached a server."""
        return self._line.answers

    @property
    def sequence_limit_s(self) -> float:
        """The longest that generate-url, PUT and match can take together; a lease must outlast it."""
        times = self._settings.timeouts
        return 2 * times.request_s + times.match_s + self._settings.match_settle_s

    # --- the three steps -------------------------------------------------------------------------------------------

    async def generate_url(self, user_id: str, image_name: str, content_type: str, kind: UploadKind) -> UploadTarget:
        """A pre-signed URL for one picture, on a host of the allow-list. Use it at once.

        Raises CypherFaceError; for ``upload`` CaptureRefused ``source_exists`` when the user is enrolled already.
        """
        step = Step.SOURCE_URL if kind == "upload" else Step.TARGET_URL
        payload = {"userId": user_id, "imageName": image_name, "contentType": content_type, "type": kind}

        async def work(progress: Progress) -> UploadTarget:
            answer = await self._call(GENERATE_URL_PATH, payload, progress)
            if not answer.ok:
                raise statuses.error_for(step, answer, (user_id,))
            url = upload.accept_url(_url_of(step, answer, user_id), self._settings.upload_hosts)
            return UploadTarget(
                str(url),
                upload.authority(url),
                image_name,
                content_type,
                kind,
                self._clock(),
                upload.expires_after_s(url),
            )

        return await self._line.within(step, self._settings.timeouts.request_s, work)

    async def put(self, target: UploadTarget, data: bytes, content_type: str) -> None:
        """Send the picture; ``content_type`` must be the one that was announced. Never repeat it: ask for a new URL.

        Raises SequenceConflict ``upload_url_stale`` (by our clock, without sending; or by the storage's 403), Transient
        with ``outcome_unknown`` when the picture may have landed or may still land. A *cancelled* put is unknown too.
        """
        if content_type != target.content_type:
            raise ValueError(f"cannot upload {content_type}: {target.content_type} was announced")
        if target.stale(self._clock()):
            raise SequenceConflict("cannot upload the image: its URL is stale", code="upload_url_stale")
        url = upload.accept_url(target.url, self._settings.upload_hosts)

        async def work(progress: Progress) -> None:
            answer = await self._line.exchange("PUT", url, {"content-type": content_type}, data, progress)
            if not answer.ok:
                raise statuses.error_for(Step.PUT, answer)
            if answer.body and answer.is_html:
                raise statuses.unusable(Step.PUT, answer, _BAD_ANSWER, "it answered with a page")

        await self._line.within(Step.PUT, self._settings.timeouts.request_s, work)

    async def match(self, user_id: str) -> Verdict:
        """Compare the user's last uploaded target image with the source image: a positive or negative verdict.

        Raises CypherFaceError for everything else; an answer that decides nothing is SequenceConflict
        ``indeterminate`` with the evidence in its message.
        """
        step = Step.MATCH

        async def work(progress: Progress) -> Verdict:
            answer = await self._call(self._settings.match_path, {"userId": user_id}, progress, self._decides)
            if answer.ok and not answer.body and not answer.framed:
                raise Transient("cannot match the image: the answer ended without a body", code="incomplete_answer")
            verdict = self._judge(answer)
            if verdict.decided:
                return verdict
            if answer.ok:
                raise statuses.unusable(step, answer, _INDETERMINATE, f"no verdict: {verdict.evidence}", (user_id,))
            raise statuses.error_for(step, answer, (user_id,))

        return await self._line.within(step, self._settings.timeouts.match_s, work)

    def _judge(self, answer: Answer) -> Verdict:
        return judge(answer.status, answer.content_type, answer.body, self._settings)

    def _decides(self, answer: Answer) -> bool:
        return self._judge(answer).decided

    # --- tokens (the port that TokenSource uses) -------------------------------------------------------------------

    async def issue(self) -> str:
        """access-token: a token for the API key. Raises Unauthenticated, ServiceMisconfigured or Transient."""
        headers = {"merchantId": self._settings.merchant_id, "x-api-key": self._api_key()}
        return await self._token(Step.ISSUE, ACCESS_TOKEN_PATH, headers, ())

    async def refresh(self, token: str) -> str:
        """refresh-token: a token for an expired or expiring one. Raises like ``issue``."""
        return await self._token(Step.REFRESH, REFRESH_TOKEN_PATH, self._authorization(token), (token,))

    async def _token(self, step: Step, path: str, headers: dict[str, str], private: tuple[str, ...]) -> str:
        async def work(progress: Progress) -> str:
            answer = await self._line.exchange("POST", self._base + path, headers, b"", progress)
            if not answer.ok:
                raise statuses.error_for(step, answer, private)
            body = answer.json()
            token = wire.find_token(body) if body is not None else None
            if body is None:
                raise statuses.unusable(step, answer, _BAD_ANSWER, "the answer is not JSON", private)
            if wire.says_failure(body):
                raise statuses.unusable(step, answer, _REFUSED_TOKEN, "it refused", private)
            if token is None:
                why = f"no usable token among {wire.seen_keys(body)}"
                raise statuses.unusable(step, answer, _NO_TOKEN, why, private)
            return token

        return await self._line.within(step, self._settings.timeouts.request_s, work)

    def _api_key(self) -> str:
        problem, code = "it is not plain ASCII", "secret_invalid"
        try:
            key = self._settings.api_key.read().decode("ascii") if self._given_key is None else self._given_key
        except ConfigurationError as exc:
            problem, code = exc.message, exc.code
        except UnicodeDecodeError:
            pass
        else:
            if wire.header_safe(key):
                return key
        raise Unauthenticated(f"cannot get an access token: the API key cannot be used: {problem}", code=code)

    def _authorization(self, token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}" if self._settings.auth_scheme == "bearer" else token}

    # --- one exchange, one step ------------------------------------------------------------------------------------

    async def _call(
        self,
        path: str,
        payload: JsonObject,
        progress: Progress,
        decides: Callable[[Answer], bool] = lambda _answer: False,
    ) -> Answer:
        """POST with a token. 401 and 403 renew it by refresh, then by access-token, unless the answer ``decides``."""
        token = await self._tokens.current()
        answer = await self._post(path, payload, token, progress)
        for renew in (self._tokens.renew, self._tokens.reissue):
            if answer.status not in _SIGNED_OUT or decides(answer):
                return answer
            fresh = await renew(token)
            answer = await self._post(path, payload, fresh, progress)
            token = fresh
            if fresh.issued:
                break  # straight from the API key: there is nothing fresher
        if answer.status == 401:
            self._tokens.invalidate(token)
        return answer

    async def _post(self, path: str, payload: JsonObject, token: Token, progress: Progress) -> Answer:
        headers = {**self._authorization(token.value), "content-type": "application/json"}
        return await self._line.exchange(
            "POST", self._base + path, headers, json.dumps(payload).encode("ascii"), progress
        )


def _url_of(step: Step, answer: Answer, user_id: str) -> str:
    body = answer.json()
    if body is None:
        raise statuses.unusable(step, answer, _BAD_ANSWER, "the answer is not JSON", (user_id,))
    if wire.says_failure(body):
        raise statuses.unusable(step, answer, _INDETERMINATE, "it refused", (user_id,))
    url = wire.find_url(body)
    if url is None:
        raise statuses.unusable(step, answer, _NO_URL, f"no upload URL among {wire.seen_keys(body)}", (user_id,))
    return url
