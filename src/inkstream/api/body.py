"""What is taken for a body: how large, how long in coming, and which JSON.

The bounds hold before anything reads a body, and are pure ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inkstream.api.errors import error_response
from inkstream.config import Settings
from inkstream.errors import TooLarge


class BodyLimit:
    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._most, self._seconds = app, settings.body_kib * 1024, settings.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            await error_response(TooLarge(self._text()), scope["path"])(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _limited(self, receive: Receive) -> Receive:
        read = 0
        is_whole = False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def limited() -> Message:
            nonlocal read, is_whole
            if is_whole:  # what comes now is that the client leaves, whenever that is
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                # What the framework lets through while it reads.
                raise HTTPException(408, self._late(), {"connection": "close"}) from None
            read += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if read > self._most:
                raise HTTPException(413, self._text())
            return message

        return limited

    def _text(self) -> str:
        return f"the request's body is larger than {self._most} bytes. INKSTREAM_BODY_KIB sets the limit."

    def _late(self) -> str:
        return (
            f"the request's body took more than {self._seconds:g} s. INKSTREAM_BODY_SECONDS sets the limit."
        )


class StrictJson(APIRoute):
    """A route whose body is JSON as RFC 8259 has it: in UTF-8, without NaN and without halves of characters.

    Python's own parser takes them all, and none can be stored or sent again.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return orjson.loads(await self.body())
