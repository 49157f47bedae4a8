"""Answers of the terminal API: bodies as JSON, errors as problem documents."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_agent.api import problems
from edge_agent.config import InvalidConfiguration
from edge_agent.enrolment import PictureRefused
from edge_agent.errors import AgentError, CaptureRefused, SessionRefused
from edge_agent.types import Check, GateCode, JsonObject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def problem_of(error: AgentError) -> Response:
    """The problem document of any error of ours."""
    problem = problems.of_error(error)
    body = problems.document(error, problem)
    if isinstance(error, PictureRefused):
        body["reasons"] = [reason.value for reason in error.reasons]
        body["checks"] = [_check_json(check) for check in error.checks]
    if isinstance(error, InvalidConfiguration):
        body["problems"] = [asdict(found) for found in error.problems]
    if isinstance(error, CaptureRefused) and error.server_message:
        body["server_message"] = error.server_message
    headers = {}
    if isinstance(error, SessionRefused) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return JSONResponse(body, problem.status, headers, problems.MEDIA_TYPE)


def _check_json(check: Check) -> JsonObject:
    """Without the liveness models' names, scores and thresholds: whoever forges pictures would learn from them."""
    if check.code is GateCode.SPOOF_SUSPECTED:
        return {"code": check.code.value, "measure": "liveness", "value": None, "limit": None, "unit": ""}
    measure = check.measure.rpartition(".")[2]
    value, limit = (
        None if n is None or not math.isfinite(n) else round(float(n), 4) for n in (check.value, check.limit)
    )
    return {"code": check.code.value, "measure": measure, "value": value, "limit": limit, "unit": check.unit}


def problem_answer(code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The problem document of ``code``."""
    problem = problems.CATALOGUE[code]
    body = problems.document(AgentError(detail, code=code), problem)
    return JSONResponse(body, problem.status, dict(headers or {}), problems.MEDIA_TYPE)


async def http_problem(request: Request, exc: Exception) -> Response:
    """What the router itself refuses: unknown paths and methods."""
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return problem_answer("method_not_allowed", f"cannot {request.method} {request.url.path}", exc.headers)
    return problem_answer("not_found", f"cannot find {request.url.path}")


def answer(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``body`` as JSON."""
    return Response(body.model_dump_json(), status, dict(headers or {}), "application/json")
