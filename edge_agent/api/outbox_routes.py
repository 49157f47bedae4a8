"""Handlers of the operator's routes: the outbox, its proof, its key. The table is in routes.py; all are ``admin``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from edge_agent.api import custody, keeping
from edge_agent.api.answers import answer
from edge_agent.api.wire_outbox import MAX_LISTED, AdoptionBody, PrivacyBody
from edge_agent.errors import InputError
from edge_agent.outbox import Store
from edge_agent.outbox.holdings import Holdings
from edge_agent.outbox.records import AuditHead, AuditReport, Limits
from edge_agent.outbox.structure import Structure, StructureReport

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.api.calls import Call

_TRUTH = {"true": True, "false": False}


def _flag(call: Call, name: str) -> bool | None:
    text = call.request.query_params.get(name)
    if text is not None and text not in _TRUTH:
        raise InputError(f"cannot use {name}={text!r}: must be true or false", code="invalid_request")
    return _TRUTH[text] if text is not None else None


def _number(call: Call, name: str, default: int | None, limit: int) -> int | None:
    text = call.request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and 1 <= int(text) <= limit):
        raise InputError(f"cannot use {name}={text!r}: must be a number from 1 to {limit}", code="invalid_request")
    return int(text)


def _id(call: Call) -> str:
    return str(call.request.path_params["id"])


async def list_outbox(call: Call) -> Response:
    """What holds a picture, the newest first."""
    limit = _number(call, "limit", 100, MAX_LISTED) or 100
    before = _number(call, "before", None, 10**18)
    parked = _flag(call, "parked")
    return answer(await keeping.run(call.agent, custody.waiting, limit=limit, before=before, parked=parked))


async def show(call: Call) -> Response:
    """One verification with its history."""
    return answer(await keeping.run(call.agent, custody.entry, _id(call)))


async def verify(call: Call) -> Response:
    """Authenticate every row and picture, and check the file."""
    found = await keeping.run(call.agent, Store.verify_part, None)
    while found.next_after is not None:  # a part at a time: a customer's capture need not wait for all of it
        found = await keeping.run(call.agent, Store.verify_part, found)
    structure = await asyncio.to_thread(_check_structure, call.agent)
    return answer(custody.check_body(structure, found, custody.AUTHENTICATED))


def _check_structure(agent: Agent) -> StructureReport:
    """On a connection of its own: reading the whole file must not keep the store's thread."""
    with Structure(agent.config.state_dir, agent.clock) as structure:
        return structure.check()


async def verify_audit(call: Call) -> Response:
    """Walk the audit chain; ``?expect_head=SEQ:MAC`` finds a cut-off end too."""
    text = call.request.query_params.get("expect_head")
    head = AuditHead.parse(text) if text is not None else None
    walked = await keeping.run(call.agent, Store.walk_audit, None, head)
    while not isinstance(walked, AuditReport):
        walked = await keeping.run(call.agent, Store.walk_audit, walked, head)
    return answer(custody.audit_body(walked, custody.AUTHENTICATED))


async def retry_all(call: Call) -> Response:
    """End every back-off; ``?parked=true`` queues the parked ones again. Stopped forwarding tries at once."""
    actor, parked = call.peer.caller, bool(_flag(call, "parked"))
    forwarding = call.agent.forwarder_status is not None
    environment = call.agent.environment()
    body = await keeping.run(
        call.agent, custody.retry_all, environment, actor=actor, parked=parked, forwarding=forwarding
    )
    keeping.resume(call.agent)
    return answer(body)


async def retry(call: Call) -> Response:
    """End the back-off of one, or queue a parked one again."""
    forwarding = call.agent.forwarder_status is not None
    body = await keeping.run(call.agent, custody.retry, _id(call), actor=call.peer.caller, forwarding=forwarding)
    keeping.resume(call.agent)
    return answer(body)


async def export(call: Call) -> Response:
    """The picture in clear. Audited before the first byte leaves."""
    picture = await keeping.run(call.agent, custody.export, _id(call), actor=call.peer.caller)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def purge(call: Call) -> Response:
    """Destroy one open or parked capture."""
    return answer(await keeping.run(call.agent, custody.purge, _id(call), actor=call.peer.caller))


async def purge_all(call: Call) -> Response:
    """Destroy all captures or the parked ones: ``?which=`` is required, so that nobody does it by mistake."""
    which = call.request.query_params.get("which")
    if which not in {"parked", "all"}:
        raise InputError("cannot purge: say which", code="invalid_request", hint="?which=parked or ?which=all")
    parked_only = which == "parked"
    return answer(await keeping.run(call.agent, custody.purge_all, actor=call.peer.caller, parked_only=parked_only))


async def rotate_key(call: Call) -> Response:
    """Change to the configured key."""
    return answer(custody.rotation_body(await keeping.rotate(call.agent, call.peer.caller)))


async def privacy(call: Call) -> Response:
    """What is held of persons: counts and dates."""
    return answer(await asyncio.to_thread(_count_holdings, call.agent))


def _count_holdings(agent: Agent) -> PrivacyBody:
    """On a connection of its own, see ``_check_structure``; so it also answers while the store has no key."""
    with Holdings(agent.config.state_dir, agent.clock) as holdings:
        found = holdings.holdings(Limits.of(agent.config))
    return custody.privacy_body(agent.clock.wall(), agent.config.terminal_id, found)


async def adopt(call: Call) -> Response:
    """Accept a state directory that was made on another machine."""
    await keeping.adopt(call.agent, call.peer.caller)
    return answer(AdoptionBody())
