"""Server-sent events, on a raw ASGI path.

``EventStream`` is a reader of runs: the log hands it what has been committed and it goes to the socket in the
same turn of the loop, no task being woken for it. Deliberate oddities, each with its reason:

- A comment goes out at once, before anything is known, and after every quiet pause: proxies cut
  connections that are silent, and a reader must be able to tell slow from dead.
- The socket may hold 64 KiB; beyond that a piece waits and the log is told to give no more. A reader that
  takes nothing for the patience time is cut off hard, because a polite close would wait for it to read what
  is buffered.
- All open streams end when the server closes, without a terminal event: readers come back to its successor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, cast

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inkstream.events import Batch, Event

OPENING = b"retry: 2000\n: ok\n\n"  # the milliseconds after which a browser comes back
BEAT = b":\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
CONNECTION = "inkstream.connection"  # the ASGI extension by which our server hands out the transport
BEGUN = "inkstream.begun"
LONGEST_LOOK_SECONDS = 1.0


class OpenStreams:
    """The streams of one server: one timer looks after all of them, and closing it ends them."""

    def __init__(self, heartbeat_seconds: float, patience_seconds: float) -> None:
        self._heartbeat, self._patience = heartbeat_seconds, patience_seconds
        self._look_seconds = min(heartbeat_seconds / 4, patience_seconds / 4, LONGEST_LOOK_SECONDS)
        self._streams: set[EventStream] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._streams)

    def close(self) -> None:
        self._is_closed = True
        for stream in self._streams:
            stream.end()
        if self._timer is not None:
            self._timer.cancel()

    def add(self, stream: EventStream) -> None:
        self._streams.add(stream)
        if self._is_closed:
            stream.end()
        if self._timer is None:
            self._look_later()

    def discard(self, stream: EventStream) -> None:
        self._streams.discard(stream)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._look_seconds, self._look)

    def _look(self) -> None:
        """Keep quiet streams open, and cut off readers that have taken nothing for too long."""
        now = time.monotonic()
        for stream in self._streams:
            stream.look_after(now - self._heartbeat, now - self._patience)
        self._timer = None
        if self._streams:
            self._look_later()


class EventStream(Response):
    """A reply that sends what ``source`` pushes into it until that returns or the reader leaves.

    It is a ``Reader``: a run's events go out as they stand in the log.
    """

    status_code = 200
    background = None

    def __init__(self, source: Source, streams: OpenStreams, opening: bytes = OPENING) -> None:
        self._source, self._streams, self._opening = source, streams, opening
        self._last_sent = time.monotonic()
        self._waiting: _Begun | None = None
        self._scope = asyncio.timeout(None)
        self._connection: asyncio.Transport | None = None
        self._send: Callable[[Message], Coroutine[Any, Any, None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        scope[BEGUN].append(self)

    async def run(self, connection: asyncio.Transport | None, receive: Receive, send: Send) -> None:
        """Send the body, until the source or the reader has had enough."""
        self._connection = connection
        self._send = cast(Callable[[Message], Coroutine[Any, Any, None]], send)  # it is one wherever we run
        watcher = asyncio.create_task(_until_gone(receive, self))
        try:
            async with self._scope:
                self._streams.add(self)
                self.push(self._opening)
                await self.ready()
                await self._source(self)
                await self.ready()
        except TimeoutError:
            if not self._scope.expired():
                raise
        finally:
            self._streams.discard(self)
            watcher.cancel()
        await self._close()

    def take(self, batch: Batch) -> bool:
        return self.push(batch.frames)

    def push(self, piece: bytes) -> bool:
        """Send a piece. False if the socket is full: it waits, and the next must too, until ``ready``."""
        # ASGI's send is a coroutine that as a rule does not wait. It is stepped by hand: a task for it would
        # cost more than the sending.
        message = {"type": "http.response.body", "body": piece, "more_body": True}
        sending = self._send(message)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            self._last_sent = time.monotonic()
            return True
        self._waiting = _Begun(sending, waits_for)
        return False

    async def ready(self) -> None:
        if self._waiting is not None:
            await self._waiting
            self._waiting = None
            self._last_sent = time.monotonic()

    def end(self) -> None:
        """Send nothing more, and close."""
        if not self._scope.expired():
            self._scope.reschedule(0)

    def look_after(self, quiet_since: float, stuck_since: float) -> None:
        is_stuck = self._waiting is not None or self._is_backed_up()
        if is_stuck and self._last_sent <= stuck_since:
            self._cut()
            self.end()
        elif not is_stuck and self._last_sent <= quiet_since:
            self.push(BEAT)

    def _is_backed_up(self) -> bool:
        return self._connection is not None and self._connection.get_write_buffer_size() > 0

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    async def _close(self) -> None:
        if self._waiting is not None:  # the reader takes nothing, so it would not take the end either
            self._waiting.close()
            self._cut()
            return
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


Source = Callable[[EventStream], Awaitable[None]]


def outlasting(app: ASGIApp) -> ASGIApp:
    """Send the bodies of event streams from here, when all that led to them has returned and is freed.

    A stream lives for minutes, and what a framework keeps on the stack for one is as large as the rest of it.
    """

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        begun: list[EventStream] = []
        await app({**scope, BEGUN: begun}, receive, send)  # what is added to the scope goes with it
        if begun:
            await begun.pop().run(scope.get("extensions", {}).get(CONNECTION), receive, send)

    return outermost


class _Begun:
    """A coroutine that was started outside of a task. Awaited, it goes on in that one."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        yield self._waits_for  # as the coroutine would have, had it been in a task
        yield from self._coroutine.__await__()

    def close(self) -> None:
        self._coroutine.close()


async def _until_gone(receive: Receive, stream: EventStream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()


class Rewriting:
    """A reader that sends a run's events in another format."""

    def __init__(self, stream: EventStream, write: Callable[[Event], bytes]) -> None:
        self._stream, self._write = stream, write

    def take(self, batch: Batch) -> bool:
        piece = b"".join(map(self._write, batch.events))
        return self._stream.push(piece) if piece else True

    async def ready(self) -> None:
        await self._stream.ready()
