"""The terminal API (v1): every route on one screen.

``any``: whoever is admitted, that is, has a role at all (access.py, admission.py). Owners are told apart by the handlers.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent.agent import Agent
from edge_agent.api import (
    aiming,
    condition,
    configuring,
    describing,
    measuring,
    openapi,
    outbox_routes,
    problems,
    users,
    verifications,
)
from edge_agent.api.access import Access
from edge_agent.api.admission import Admission
from edge_agent.api.answers import http_problem, problem_answer, problem_of
from edge_agent.api.calls import Call
from edge_agent.api.measuring import Asked
from edge_agent.api.operation import problems_of
from edge_agent.api.operations import OPERATIONS
from edge_agent.api.peer import STATE_KEY, Peer
from edge_agent.api.strictness import check_request
from edge_agent.errors import AgentError, report
from edge_agent.metrics.page import MetricsPage
from edge_agent.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

Role = Literal["any", "pos", "enrol", "admin"]
Handler = Callable[[Call], Awaitable[Response]]


class Entry(NamedTuple):
    """One line of the route table."""

    method: str
    path: str
    role: Role
    handler: Handler


def route_table() -> tuple[Entry, ...]:
    """Method, path, who may call, handler."""
    return (
        Entry("POST", "/v1/verifications", "pos", verifications.create),
        Entry("GET", "/v1/verifications", "pos", verifications.list_verifications),
        Entry("GET", "/v1/verifications/{id}", "pos", verifications.get_verification),
        Entry("DELETE", "/v1/verifications/{id}", "pos", verifications.cancel),
        Entry("POST", "/v1/verifications/{id}/challenge", "pos", verifications.answer_challenge),
        Entry("POST", "/v1/verifications/{id}/withdraw", "pos", verifications.withdraw),
        Entry("GET", "/v1/verifications/{id}/events", "pos", verifications.verification_events),
        Entry("GET", "/v1/events", "pos", verifications.all_events),
        Entry("PUT", "/v1/users/{user_id}/source", "enrol", users.enrol),
        Entry("GET", "/v1/users/{user_id}/matches", "admin", users.matches),
        Entry("DELETE", "/v1/users/{user_id}", "admin", users.delete),
        Entry("GET", "/v1/privacy", "admin", outbox_routes.privacy),
        Entry("GET", "/v1/outbox", "admin", outbox_routes.list_outbox),
        Entry("DELETE", "/v1/outbox", "admin", outbox_routes.purge_all),
        Entry("POST", "/v1/outbox/verify", "admin", outbox_routes.verify),
        Entry("POST", "/v1/outbox/retry", "admin", outbox_routes.retry_all),
        Entry("GET", "/v1/outbox/{id}", "admin", outbox_routes.show),
        Entry("DELETE", "/v1/outbox/{id}", "admin", outbox_routes.purge),
        Entry("POST", "/v1/outbox/{id}/retry", "admin", outbox_routes.retry),
        Entry("POST", "/v1/outbox/{id}/export", "admin", outbox_routes.export),
        Entry("POST", "/v1/audit/verify", "admin", outbox_routes.verify_audit),
        Entry("POST", "/v1/key/rotate", "admin", outbox_routes.rotate_key),
        Entry("POST", "/v1/adopt", "admin", outbox_routes.adopt),
        Entry("POST", "/v1/aim", "admin", aiming.aim),
        Entry("POST", "/v1/reload", "admin", configuring.reload),
        Entry("POST", "/v1/config/apply", "admin", configuring.apply_config),
        Entry("GET", "/v1/config/trial", "admin", configuring.config_trial),
        Entry("POST", "/v1/config/confirm", "admin", configuring.confirm_config),
        Entry("POST", "/v1/config/revert", "admin", configuring.revert_config),
        Entry("GET", "/v1/health", "any", condition.health),
        Entry("GET", "/v1/ready", "any", condition.ready),
        Entry("GET", "/v1/status", "any", condition.status),
        Entry("GET", "/v1/openapi.json", "any", describing.openapi),
        Entry("GET", measuring.PATH, "any", measuring.metrics),
    )


def application(agent: Agent, settings: Settings, access: Access) -> Starlette:
    """The ASGI application over ``agent`` and its configuration."""
    asked = Asked(access)
    by_path: dict[str, dict[str, Entry]] = {}
    for entry in route_table():
        by_path.setdefault(entry.path, {})[entry.method] = entry
    routes = [
        Route(path, _endpoint(agent, settings, access, asked, entries), methods=list(entries))
        for path, entries in by_path.items()
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Admission, access=access)],
        exception_handlers={HTTPException: functools.partial(_nowhere, asked)},
    )
    app.router.redirect_slashes = False  # a path is right or wrong; a redirected POST may come as another request
    app.state.metrics = MetricsPage(agent, settings, asked.counted)
    app.state.openapi = functools.cache(lambda: openapi.text(route_table(), OPERATIONS))
    return app


def _endpoint(
    agent: Agent, settings: Settings, access: Access, asked: Asked, entries: Mapping[str, Entry]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        entry = entries["GET" if request.method == "HEAD" else request.method]
        answer = await answered(request, entry)
        asked.requests[entry.path, entry.method, answer.status_code] += 1
        return answer

    async def answered(request: Request, entry: Entry) -> Response:
        peer: Peer = request.state._state[STATE_KEY]  # noqa: SLF001 - the admission puts it there
        if entry.role != "any" and entry.role not in peer.roles:
            detail = f"cannot {entry.method} {entry.path}: {peer.caller} does not have the role {entry.role}"
            access.refuse("forbidden", detail)
            return problem_answer("forbidden", detail)
        try:
            check_request(request, OPERATIONS[entry.method, entry.path])
            return await entry.handler(Call(request, agent, peer, settings, access))
        except ClientDisconnect:
            return Response(status_code=499)
        except AgentError as exc:
            return _documented(entry, exc, asked)
        except Exception as exc:  # the top of a request: its errors are problem documents too
            report(log, exc, f"cannot answer {entry.method} {entry.path}")
            asked.problems["internal_error"] += 1
            return problem_answer("internal_error", "cannot answer: something unexpected happened")

    return endpoint


async def _nowhere(asked: Asked, request: Request, exc: Exception) -> Response:
    answer = await http_problem(request, exc)
    asked.nowhere(answer.status_code)
    return answer


def _documented(entry: Entry, error: AgentError, asked: Asked) -> Response:
    code = problems.of_error(error).code
    asked.problems[code] += 1
    if code not in problems_of(OPERATIONS[entry.method, entry.path]):
        log.error("%s %s answers %s, which is not documented for it (%s)", entry.method, entry.path, code, error.code)
    return problem_of(error)
