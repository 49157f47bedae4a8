"""The sandbox itself: settings, clock, faults, state and matcher, with the rules that tie them together."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import AgentError
from edge_agent.sandbox import presign, tokens
from edge_agent.sandbox.answers import Refusal
from edge_agent.sandbox.clock import SandboxClock
from edge_agent.sandbox.faults import FaultQueue
from edge_agent.sandbox.matcher import Comparison, Matcher
from edge_agent.sandbox.state import Judgement, Picture, SandboxState, Upload
from edge_agent.sandbox.variants import Variants

log = logging.getLogger(__name__)

DEFAULT_MERCHANT_ID = "5a9db0c0ffee5a9db0c0ffee"
DEFAULT_API_KEY = "5a9db0c0-ffee-4000-8000-5a9db0c0ffee"
"""Well-known on purpose: they open nothing but a sandbox on loopback."""

MAX_REQUESTS = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credentials:
    merchant_id: str = DEFAULT_MERCHANT_ID
    api_key: str = DEFAULT_API_KEY


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that arrived, without its secrets."""

    at_s: float
    step: str
    method: str
    path: str
    status: int | None
    """None when no whole answer was given."""
    fault: str | None
    headers: tuple[str, ...]
    """Names only."""


@dataclass
class Sandbox:
    """Everything behind the endpoints. Only the server's event loop touches it."""

    matcher: Matcher
    credentials: Credentials = field(default_factory=Credentials)
    variants: Variants = field(default_factory=Variants)
    clock: SandboxClock = field(default_factory=SandboxClock)
    folder: Path | None = None

    def __post_init__(self) -> None:
        self.faults = FaultQueue()
        self.state = SandboxState(self.folder)
        self.clock.advanced_s = self.state.saved.advanced_s
        self.requests: deque[Seen] = deque(maxlen=MAX_REQUESTS)
        self._arrival = asyncio.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-matcher")
        self._saver = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-state")

    def close(self) -> None:
        """Wait for the worker threads and give the state folder free."""
        self._worker.shutdown(cancel_futures=True)
        self._saver.shutdown()
        self.state.close()

    @property
    def server_time_s(self) -> float:
        """What this server believes the time is: with the clock skew."""
        return self.clock.now_s() + self.variants.clock_skew_s

    # Tokens

    def new_token(self) -> str:
        return tokens.issue(
            self.state.saved.secret,
            id_claim=self.variants.id_claim,
            merchant_id=self.credentials.merchant_id,
            api_key=self.credentials.api_key,
            now_s=self.server_time_s,
            life_s=self.variants.token_life_s,
        )

    def check_authorization(self, header: str, *, expired_is_fine: bool = False) -> None:
        """Raises Refusal unless the header holds a good token in the scheme in force."""
        try:
            self._require_good_token(header, expired_is_fine=expired_is_fine)
        except tokens.TokenRefused as exc:
            log.info("token refused: %s", exc)
            raise Refusal(self.variants.bad_token_status, "Invalid Auth Token") from exc

    def _require_good_token(self, header: str, *, expired_is_fine: bool) -> None:
        if self.variants.api_key_revoked:
            raise tokens.TokenRefused("the API key is revoked")
        tokens.check(
            _bare_token(header, self.variants),
            self.state.saved.secret,
            api_key=self.credentials.api_key,
            now_s=self.server_time_s,
            expired_is_fine=expired_is_fine,
        )

    # Uploads

    def new_upload_url(self, upload: Upload, *, host: str, path: str) -> str:
        """The pre-signed URL for ``path`` (percent-encoded), remembered with what it was asked for."""
        self.state.add_upload(upload)
        host = self.variants.url_host or host
        query = presign.presign(
            self.state.saved.secret,
            host=host,
            path=path,
            content_type=upload.content_type,
            now_s=self.server_time_s,
            valid_s=self.variants.url_valid_s,
        )
        return f"http://{host}{path}?{query}"

    async def receive_picture(self, upload: Upload, content: bytes, *, late_s: float = 0.0) -> Picture:
        """Store an uploaded picture; it lands ``late_s`` from now and is ready after the processing lag."""
        received_at_s = self.clock.now_s()
        usable = upload.type == "match" or await self._in_worker(self.matcher.usable, content)
        picture = Picture(
            key=upload.key,
            user_id=upload.user_id,
            type=upload.type,
            image_name=upload.image_name,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            received_at_s=received_at_s,
            lands_at_s=received_at_s + late_s,
            ready_at_s=received_at_s + late_s + self.variants.processing_lag_s,
            usable=usable,
        )
        if not usable:
            log.warning("enrolment picture %s shows no usable face: not enrolled", picture.sha256[:12])
        async with self._arrival:  # else the bytes could be pruned between being stored and being listed
            await self._on_disk(functools.partial(self.state.keep_blob, picture.sha256, content))
            self.state.add_picture(picture)
        await self.save()
        return picture

    # Matching

    async def match(self, user_id: str) -> Comparison:
        """Compare the enrolled source with the last ready target, and record it. Raises Refusal."""
        source, target = self._pair(user_id)
        try:
            content = self.state.blob(source.sha256), self.state.blob(target.sha256)
            comparison = await self._in_worker(self.matcher.compare, user_id, *content)
        except AgentError as exc:
            log.exception("the matcher failed")
            raise Refusal(402, "The face processor failed.") from exc
        if target.sha256 in self.variants.mismatch_sha256:
            comparison = Comparison("mismatch", 1.0)
        self.state.add_judgement(
            Judgement(
                at_s=self.clock.now_s(),
                user_id=user_id,
                outcome=comparison.outcome,
                similarity=comparison.similarity,
                target_sha256=target.sha256,
                target_image_name=target.image_name,
                source_sha256=source.sha256,
            )
        )
        await self.save()
        return comparison

    def _pair(self, user_id: str) -> tuple[Picture, Picture]:
        now_s = self.clock.now_s()
        if not self.state.knows(user_id):
            raise Refusal(404, "User not found")
        source = self.state.source(user_id, now_s)
        if source is None:
            raise Refusal(404, "No source image for this user")
        if self.variants.while_processing == "refuse" and self.state.is_processing(user_id, now_s):
            raise Refusal(422, "The target image is still being processed")
        target = self.state.target(user_id, now_s)
        if target is None:
            raise Refusal(422, "No target image was uploaded")
        return source, target

    async def save(self) -> None:
        """Write the state to its folder, where there is one."""
        self.state.saved.advanced_s = self.clock.advanced_s
        if self.folder:
            await self._on_disk(functools.partial(self.state.write, self.state.dump()))

    async def _in_worker(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    async def _on_disk(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._saver, function)


def _bare_token(header: str, variants: Variants) -> str:
    """Raises TokenRefused when the header is in the wrong scheme."""
    is_bearer = header[:7].lower() == "bearer "
    if is_bearer and variants.auth_scheme == "raw":
        raise tokens.TokenRefused("the bare token is expected here, without Bearer")
    if not is_bearer and variants.auth_scheme == "bearer":
        raise tokens.TokenRefused("Bearer is expected here")
    return header[7:].strip() if is_bearer else header
