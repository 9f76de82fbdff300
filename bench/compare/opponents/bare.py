"""The limit: raw ASGI that sends frames made beforehand, at the pace: ``bare.py PORT TOKENS_PER_SECOND``.

No log, no engine, no framework; nothing is waited for but one timer that all streams share.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from urllib.parse import parse_qs

import uvicorn

PACE = float(sys.argv[2])
FRAME = b'id: 1:1000\nevent: message\ndata: {"text":"\xe6\xb5\x81\xe5\xbc\x8f "}\n\n'
END = b"event: end\ndata: [DONE]\n\n"
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


class Steps:
    """Wakes everybody at each step."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._due = 0.0

    def next(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._due = max(self._due + 1 / PACE, loop.time())
            loop.call_at(self._due, self._wake)
        waiter = loop.create_future()
        self._waiting.append(waiter)
        return waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


STEPS = Steps()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    tokens = int(parse_qs(scope["query_string"].decode()).get("max_tokens", ["0"])[0])
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    for _ in range(tokens):
        await STEPS.next()
        await send({"type": "http.response.body", "body": FRAME, "more_body": True})
    await send({"type": "http.response.body", "body": END})


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", backlog=4096
    )
