"""A bound on request bodies, before anything reads them. Pure ASGI."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inkstream.api.errors import error_response
from inkstream.errors import TooLarge


class BodyLimit:
    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            await self._refuse(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, self._text())  # what the framework lets through while it reads
            return message

        await self._app(scope, limited, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(TooLarge(self._text()), scope["path"])(scope, receive, send)

    def _text(self) -> str:
        return f"the request's body is larger than {self._most} bytes. INKSTREAM_BODY_KIB sets the limit."
