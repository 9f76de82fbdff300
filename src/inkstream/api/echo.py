"""``/api/echo``: what the server has seen of a request, told in a stream that shows how streams arrive.

``inkstream doctor URL`` reads it from outside. It is for whoever wonders why nothing streams, signed in or
not: it asks no engine, touches nothing stored, and tells of a request what the request has brought.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from inkstream.api.services import Services, services
from inkstream.api.sse import EventStream, frame
from inkstream.errors import Overloaded

TICKS = 5
TICK_SECONDS = 0.1
LONGEST_SILENCE_SECONDS = 900
MOST_AT_ONCE = 8  # nobody signs in for it, and a stream that does nothing still holds a connection
RETRY_SECONDS = 10
SAMPLE = "流式：é, 字, 👩‍👩‍👧"  # what a wrong character set would garble

router = APIRouter(prefix="/api")


@router.get("/echo")
async def echo(
    request: Request,
    seconds: Annotated[
        float, Query(ge=0, le=LONGEST_SILENCE_SECONDS, description="of silence, heartbeats apart")
    ] = 0,
) -> Response:
    """The request as it has arrived here, five ticks a tenth of a second apart, a silence, and the end."""
    here = services(request)
    if len(here.echoes) >= MOST_AT_ONCE:
        raise Overloaded(
            f"{MOST_AT_ONCE} such streams are open already.",
            code="too_many_readers",
            retry_after_seconds=RETRY_SECONDS,
        )
    seen = _seen(request, here)

    async def source(stream: EventStream) -> None:
        here.echoes.add(stream)
        try:
            await _tell(stream, seen, seconds)
        finally:
            here.echoes.discard(stream)

    return here.stream(source)


async def _tell(stream: EventStream, seen: dict[str, Any], seconds: float) -> None:
    stream.push(frame("seen", seen))
    for tick in range(1, TICKS + 1):
        await asyncio.sleep(TICK_SECONDS)
        stream.push(frame("tick", {"tick": tick}))
    await asyncio.sleep(seconds)
    stream.push(frame("end", {}))


def _seen(request: Request, here: Services) -> dict[str, Any]:
    scope = request.scope
    return {
        "http": scope["http_version"],
        "scheme": scope["scheme"],
        "host": request.headers.get("host", ""),
        "path": scope["raw_path"].decode("latin-1"),  # the base path is still on it, if the proxy left it
        "has_key": "authorization" in request.headers,
        "base_path": here.settings.base_path,
        "heartbeat_seconds": here.settings.heartbeat_seconds,
        "text": SAMPLE,
    }
