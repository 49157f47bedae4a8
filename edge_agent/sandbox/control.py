"""The control endpoints under ``/_sandbox/``: what the sandbox saw, and how it shall misbehave."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_agent.sandbox.clock import iso
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.runtime import Sandbox
from edge_agent.sandbox.variants import Variants


class Control:
    """The control endpoints of one sandbox; they need no token."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        return [
            Route("/_sandbox/state", self.state, methods=["GET"]),
            Route("/_sandbox/state", self.forget, methods=["DELETE"]),
            Route("/_sandbox/settings", self.settings, methods=["GET"]),
            Route("/_sandbox/settings", self.change_settings, methods=["PUT"]),
            Route("/_sandbox/settings", self.reset_settings, methods=["DELETE"]),
            Route("/_sandbox/faults", self.faults, methods=["GET"]),
            Route("/_sandbox/faults", self.add_faults, methods=["POST"]),
            Route("/_sandbox/faults", self.clear_faults, methods=["DELETE"]),
            Route("/_sandbox/judged", self.judged, methods=["GET"]),
            Route("/_sandbox/requests", self.requests, methods=["GET"]),
            Route("/_sandbox/advance", self.advance, methods=["POST"]),
        ]

    async def state(self, request: Request) -> Response:
        del request
        sandbox = self._sandbox
        return JSONResponse(
            {
                "now": iso(sandbox.clock.now_s()),
                "matcher": sandbox.matcher.name,
                "settings": sandbox.variants.model_dump(mode="json"),
                "faults": [f.model_dump(mode="json") for f in sandbox.faults.waiting()],
                "users": self._users(),
                "judged": len(sandbox.state.saved.judgements),
            }
        )

    def _users(self) -> dict[str, Any]:
        state, now_s = self._sandbox.state, self._sandbox.clock.now_s()
        users: dict[str, Any] = {}
        for picture in state.saved.pictures:
            user = users.setdefault(picture.user_id, {"source": None, "target": None, "pictures": []})
            user["pictures"].append(asdict(picture))
        for user_id, user in users.items():
            source, target = state.source(user_id, now_s), state.target(user_id, now_s)
            user["source"] = source.sha256 if source else None
            user["target"] = target.sha256 if target else None
        return users

    async def forget(self, request: Request) -> Response:
        del request
        self._sandbox.state.clear()
        self._sandbox.requests.clear()
        await self._sandbox.save()
        return Response(status_code=204)

    async def settings(self, request: Request) -> Response:
        del request
        return JSONResponse(self._sandbox.variants.model_dump(mode="json"))

    async def change_settings(self, request: Request) -> Response:
        changes = await _json(request)
        if not isinstance(changes, dict):
            return _refused("the settings must be a JSON object")
        try:
            self._sandbox.variants = changed(self._sandbox.variants, changes)
        except ValidationError as exc:
            return _refused(problems(exc))
        return await self.settings(request)

    async def reset_settings(self, request: Request) -> Response:
        self._sandbox.variants = Variants()
        return await self.settings(request)

    async def faults(self, request: Request) -> Response:
        del request
        return JSONResponse([f.model_dump(mode="json") for f in self._sandbox.faults.waiting()])

    async def add_faults(self, request: Request) -> Response:
        """Takes one fault or a list; nothing is added unless all are good."""
        body = await _json(request)
        try:
            faults = [Fault.model_validate(item) for item in (body if isinstance(body, list) else [body])]
        except ValidationError as exc:
            return _refused(problems(exc))
        for fault in faults:
            self._sandbox.faults.add(fault)
        return await self.faults(request)

    async def clear_faults(self, request: Request) -> Response:
        del request
        self._sandbox.faults.clear()
        return Response(status_code=204)

    async def judged(self, request: Request) -> Response:
        """All judgements in order, or those of ``?user_id=``."""
        user_id = request.query_params.get("user_id")
        judgements = self._sandbox.state.saved.judgements
        wanted = [j for j in judgements if user_id in (None, j.user_id)]
        return JSONResponse([{**asdict(j), "at": iso(j.at_s)} for j in wanted])

    async def requests(self, request: Request) -> Response:
        del request
        return JSONResponse([asdict(seen) for seen in self._sandbox.requests])

    async def advance(self, request: Request) -> Response:
        body = await _json(request)
        seconds = body.get("seconds") if isinstance(body, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 1e9:
            return _refused('give {"seconds": N} with N from 0 to 1e9')
        self._sandbox.clock.advance(seconds)
        await self._sandbox.save()
        return JSONResponse({"now": iso(self._sandbox.clock.now_s())})


def changed(variants: Variants, changes: dict[str, Any]) -> Variants:
    """The variants with some of them changed. Raises ValidationError."""
    return Variants.model_validate({**variants.model_dump(), **changes})


def problems(error: ValidationError) -> str:
    """All that is wrong, in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())


async def _json(request: Request) -> Any:
    """The body whatever its declared type (``curl -d`` declares a form); None when it is not JSON."""
    try:
        return json.loads(await request.body())
    except ValueError:
        return None


def _refused(message: str) -> Response:
    return JSONResponse({"message": f"cannot use this: {message}"}, 422)
