"""Server-sent events, on a raw ASGI path.

``EventStream`` sends what an async generator of bytes gives, nothing between it and the socket. Deliberate
oddities, each with its reason:

- A comment goes out at once, before anything is known, and after every quiet pause: proxies cut
  connections that are silent, and a reader must be able to tell slow from dead.
- The socket may hold 64 KiB; beyond that ``send`` waits. A reader that takes nothing for the patience time
  is cut off hard, because a polite close would wait for it to read what is buffered.
- All open streams end when the server closes, without a terminal event: readers come back to its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inkstream.events import Event, Note, frame

OPENING = b"retry: 2000\n: ok\n\n"  # the milliseconds after which a browser comes back
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
ABORT = "inkstream.abort"  # the ASGI extension by which our server lets a connection be cut


class OpenStreams:
    """The streams of one server, so that closing it can end them."""

    def __init__(self) -> None:
        self._pumps: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._pumps)

    def close(self) -> None:
        self._is_closed = True
        for pump in self._pumps:
            pump.cancel()

    @contextlib.contextmanager
    def holding(self, pump: asyncio.Task[None]) -> Any:
        self._pumps.add(pump)
        if self._is_closed:
            pump.cancel()
        try:
            yield
        finally:
            self._pumps.discard(pump)


class EventStream(Response):
    """A reply that streams ``frames`` until they end or the reader leaves; then it closes them."""

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        streams: OpenStreams,
        *,
        heartbeat_seconds: float,
        patience_seconds: float,
        opening: bytes = OPENING,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._frames, self._streams, self._opening = frames, streams, opening
        self._heartbeat, self._patience = heartbeat_seconds, patience_seconds
        self._last_sent = time.monotonic()
        self._is_sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort = scope.get("extensions", {}).get(ABORT)
        # Not in the pump, which a closing server cancels before its first step.
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        pump = asyncio.create_task(self._pump(send))
        watchers = [
            asyncio.create_task(_until_gone(receive, pump)),
            asyncio.create_task(self._beat(send, pump, abort)),
        ]
        try:
            with self._streams.holding(pump), contextlib.suppress(asyncio.CancelledError):
                await pump
            _reraise_own_cancellation()
        finally:
            for task in (pump, *watchers):
                task.cancel()
            await asyncio.gather(pump, *watchers, return_exceptions=True)
            await self._frames.aclose()
        await self._send(send, b"", is_last=True)

    async def _pump(self, send: Send) -> None:
        await self._send(send, self._opening)
        async for piece in self._frames:
            await self._send(send, piece)

    async def _send(self, send: Send, body: bytes, *, is_last: bool = False) -> None:
        self._is_sending = True
        await send({"type": "http.response.body", "body": body, "more_body": not is_last})
        self._is_sending = False
        self._last_sent = time.monotonic()

    async def _beat(self, send: Send, pump: asyncio.Task[None], abort: Any) -> None:
        """Keep a quiet stream open, and cut off a reader that has taken nothing for too long."""
        while True:
            quiet = time.monotonic() - self._last_sent
            if self._is_sending and quiet >= self._patience:
                pump.cancel()
                if abort is not None:
                    abort()
                return
            if not self._is_sending and quiet >= self._heartbeat:
                await self._send(send, b":\n\n")
                continue
            limit = self._patience if self._is_sending else self._heartbeat
            await asyncio.sleep(min(limit - quiet, self._heartbeat))


async def _until_gone(receive: Receive, pump: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    pump.cancel()


def _reraise_own_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def frames_of(
    batches: AsyncGenerator[list[Event | Note]], write: Callable[[Event | Note], bytes] = frame
) -> AsyncGenerator[bytes]:
    """A run's events, by default as they stand in the log, in one piece per batch."""
    async with contextlib.aclosing(batches):
        async for batch in batches:
            if piece := b"".join(map(write, batch)):
                yield piece
