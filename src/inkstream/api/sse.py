"""Server-sent events, on a raw ASGI path.

``EventStream`` is a reader of runs: the log hands it what has been committed and it goes to the socket in the
same turn of the loop, no task being woken for it. Deliberate oddities, each with its reason:

- A comment goes out at once, before anything is known, and after every quiet pause: proxies cut
  connections that are silent, and a reader must be able to tell slow from dead.
- When more waits for a socket than the server buffers, the log is told to give no more. A reader that takes
  nothing for the patience time is cut off hard, because a polite close would wait for it to read what is
  buffered.
- All open streams end when the server closes, without a terminal event: readers come back to its successor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from inkstream.events import Batch, Event, encode

OPENING = b"retry: 2000\n: ok\n\n"  # the milliseconds after which a browser comes back
BEAT = b":\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
CONNECTION = "inkstream.connection"  # the ASGI extension by which our server hands out a Connection
BEGUN = "inkstream.begun"
CREDENTIAL = "inkstream.credential"  # by what a request was let in
LONGEST_LOOK_SECONDS = 1.0


def frame(event: str, payload: dict[str, Any]) -> bytes:
    """An event that no log has numbered."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), encode(payload))


@dataclass(slots=True)
class ReaderTally:
    """How often readers came back with a last event's id, went on behind a cursor, and were cut off."""

    reconnects: int = 0
    resumes: int = 0
    dropped: int = 0


class OpenStreams:
    """The streams of one server: one timer looks after all of them, and closing it ends them."""

    def __init__(self, heartbeat_seconds: float, patience_seconds: float) -> None:
        self.tally = ReaderTally()
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

    def credentials(self) -> set[str]:
        """By what the readers were let in."""
        return {stream.credential for stream in self._streams}

    def end_of(self, credentials: Container[str]) -> None:
        for stream in self._streams:
            if stream.credential in credentials:
                stream.end()

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
            self.tally.dropped += stream.look_after(now, self._heartbeat, self._patience)
        self._timer = None
        if self._streams:
            self._look_later()


class Connection(Protocol):
    """What our server offers beyond ASGI: pieces go out without a coroutine, and a reader can be let go."""

    on_lost: Callable[[], None] | None

    def begin(self) -> None:
        """Say before the headers that what follows is a stream."""
        ...

    def send(self, piece: bytes) -> bool:
        """Write a part of the body, in any case. False: the socket and what it may buffer are full."""
        ...

    async def drained(self) -> None:
        """Return when there is room again."""
        ...

    def backlog(self) -> tuple[int, int]:
        """How many bytes wait for the socket, and how many it has taken by now."""
        ...

    def abort(self) -> None:
        """Cut the connection, whatever is buffered."""
        ...


class EventStream(Response):
    """A reply that sends what ``source`` pushes into it until that returns or the reader leaves.

    It is a ``Reader``: a run's events go out as they stand in the log.
    """

    status_code = 200
    background = None
    credential = ""

    def __init__(self, source: Source, streams: OpenStreams, opening: bytes = OPENING) -> None:
        self._source, self._streams, self._opening = source, streams, opening
        self._scope = asyncio.timeout(None)
        self._connection: Connection
        self._sent_at = self._moved_at = time.monotonic()
        self._taken_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][CONNECTION].begin()
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        self.credential = scope.get(CREDENTIAL, "")
        scope[BEGUN].append(self)

    async def run(self, connection: Connection) -> None:
        """Send until the source or the reader has had enough."""
        self._connection = connection
        try:
            async with self._scope:
                connection.on_lost = self.end
                self._streams.add(self)
                self.push(self._opening)
                await self._source(self)
                await self.ready()
        except TimeoutError:
            if not self._scope.expired():
                raise
            if connection.backlog()[0]:  # who takes nothing would not take the end either
                connection.abort()
        finally:
            connection.on_lost = None
            self._streams.discard(self)

    def take(self, batch: Batch) -> bool:
        return self.push(batch.frames)

    def push(self, piece: bytes) -> bool:
        """Send a piece. False: there is no room for another before ``ready``."""
        self._sent_at = time.monotonic()
        return self._connection.send(piece)

    async def ready(self) -> None:
        await self._connection.drained()

    def end(self) -> None:
        """Send nothing more, and close."""
        if not self._scope.expired():
            self._scope.reschedule(0)

    def look_after(self, now: float, heartbeat_seconds: float, patience_seconds: float) -> bool:
        """Says whether the reader had to be cut off."""
        waiting_bytes, taken_bytes = self._connection.backlog()
        if waiting_bytes == 0 or taken_bytes > self._taken_bytes:
            self._taken_bytes, self._moved_at = taken_bytes, now
        if now - self._moved_at >= patience_seconds:
            self._connection.abort()
            self.end()
            return True
        if waiting_bytes == 0 and now - self._sent_at >= heartbeat_seconds:
            self.push(BEAT)
        return False


Source = Callable[[EventStream], Awaitable[None]]


def outlasting(app: ASGIApp) -> ASGIApp:
    """Send the bodies of event streams from here, when all that led to them has returned and is freed.

    A stream lives for minutes, and what a framework keeps on the stack for one is as large as the rest of it.
    """

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        begun: list[EventStream] = []
        await app({**scope, BEGUN: begun}, receive, send)  # what is added to the scope goes with it
        if begun:
            connection = scope["extensions"][CONNECTION]
            _forget(scope)
            await begun.pop().run(connection)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return outermost


def _forget(scope: Scope) -> None:
    """Let go of what the request said, 2 KiB; how it was made is all that uvicorn asks for at the end."""
    scope["headers"].clear()
    method = scope["method"]
    scope.clear()
    scope["method"] = method


class Rewriting:
    """A reader that sends a run's events in another format."""

    def __init__(self, stream: EventStream, write: Callable[[Event], bytes]) -> None:
        self._stream, self._write = stream, write

    def take(self, batch: Batch) -> bool:
        piece = b"".join(map(self._write, batch.events))
        return self._stream.push(piece) if piece else True

    async def ready(self) -> None:
        await self._stream.ready()
