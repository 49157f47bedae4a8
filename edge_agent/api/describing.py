"""Handler of the API's own description."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from edge_agent.api.calls import Call
from edge_agent.api.operation import JSON


async def openapi(call: Call) -> Response:
    """The API's own description: OpenAPI 3.1, as docs/openapi.json."""
    text: str = await asyncio.to_thread(call.request.app.state.openapi)
    return Response(text, media_type=JSON)
