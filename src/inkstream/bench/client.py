"""One answer, read off a bare socket as cheaply as Python can: a client that is slow measures itself.

Deliberate oddities, each with its reason:

- One time stamp per read of the socket. What comes in one read has come at one moment.
- Frames are counted, not decoded. Only where a piece holds other frames than tokens is it looked at.
- The connection is closed at the end marker; whether the server would have kept it is not our question.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import httptools

from inkstream.bench.dialect import Dialect
from inkstream.bench.stats import Tally

USED = re.compile(rb'"completion_tokens": ?(\d+)')
WHOLE_FRAMES = (b"\n\n", b"\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, resolved once."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    name: str | None = None

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        named = self.name if self.tls else None
        await loop.create_connection(factory, self.host, self.port, ssl=self.tls, server_hostname=named)


class Connection(asyncio.Protocol):
    """Feeds a response parser and remembers how the reply begins. ``over``: nothing more comes."""

    def __init__(self) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard_at = perf_counter()
        self.failure: str | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's; uvloop's class is no asyncio.Transport

    def write(self, request: bytes) -> None:
        """Ask; what comes next is the reply to this."""
        assert self._transport is not None
        self.status, self.headers, self.body = 0, {}, b""
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.heard_at = perf_counter()
        assert self._parser is not None, "nothing comes before it is asked for"
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.finish("protocol")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def connection_lost(self, error: Exception | None) -> None:
        self.finish("cut")
        self._parser = None  # it knows us: nobody collects such cycles while a load runs

    def finish(self, failure: str | None = None) -> None:
        """End this; the first word on how it ended counts."""
        if not self.over.done():
            self.failure = failure
            self.over.set_result(None)
        if self._transport is not None:
            self._transport.abort()


class Exchange(Connection):
    """One request and its whole reply."""

    def __init__(self, request: bytes) -> None:
        super().__init__()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write(self._request)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._request.startswith(b"HEAD"):  # its reply may name a length, and has no body
            self.finish()

    def on_message_complete(self) -> None:
        self.finish()


@dataclass(slots=True, eq=False)
class _Reading:
    """Where one answer stands."""

    began: float
    arrived: float = 0.0
    longest: float = 0.0
    events: int = 0
    used: int | None = None
    tail: bytes = b""
    fresh: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """What all answers of one worker share. ``open`` are those that are being read."""

    dialect: Dialect
    tally: Tally
    open: set[Answer] = field(default_factory=set)


class Answer(Connection):
    """One answer, from its request to its last frame. Latency counts from ``began`` (of ``perf_counter``)."""

    def __init__(self, book: Book, began: float) -> None:
        super().__init__()
        self._book, self._tally, self._frames = book, book.tally, book.dialect.frames
        self._opening = book.dialect.opening()
        self._reading = _Reading(began)
        self._is_stream = False
        book.open.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write(self._opening)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._tally.received_bytes += len(data)
        if self._reading.fresh:
            self._arrived()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        kind = self.headers.get(b"content-type", b"")
        self._is_stream = self.status == 200 and kind.startswith(b"text/event-stream")

    def on_body(self, body: bytes) -> None:
        if self._is_stream:
            self._read(body)
        else:
            self.body += body

    def on_message_complete(self) -> None:
        if self._is_stream:
            self.finish("unfinished")
        elif self.status >= 300:
            self.finish(f"http {self.status}")
        elif (request := self._book.dialect.follow_up(self.body)) is not None:
            self.write(request)
        else:
            self.finish("no stream")

    def finish(self, failure: str | None = None) -> None:
        if not self.over.done():
            self._settle(failure)
        super().finish(failure)

    def _read(self, body: bytes) -> None:
        """Count the frames that are complete; the beginning of another waits for its rest."""
        reading = self._reading
        if reading.tail:
            body, reading.tail = reading.tail + body, b""
        if not body.endswith(WHOLE_FRAMES):
            body, reading.tail = _split(body)
        tokens = self._frames.tokens(body)
        reading.fresh += tokens
        if not tokens or tokens != body.count(b"\n\n") + body.count(b"\n\r\n"):
            self._look_at(body)

    def _look_at(self, body: bytes) -> None:
        """A piece that may hold more than tokens: usage, the end, a failure."""
        if (used := USED.search(body)) is not None:
            self._reading.used = int(used[1])
        if self._frames.failure.search(body):
            self.finish("failed")
        elif self._frames.end.search(body):
            self._arrived()
            self.finish()

    def _arrived(self) -> None:
        reading, now = self._reading, self.heard_at
        if not reading.fresh:
            return
        if reading.events:
            gap = now - reading.arrived
            self._tally.gaps.append(gap)
            reading.longest = max(reading.longest, gap)
        else:
            self._tally.first.append(now - reading.began)
        reading.arrived = now
        reading.events += reading.fresh
        self._tally.events += reading.fresh
        reading.fresh = 0

    def _settle(self, failure: str | None) -> None:
        tally, reading = self._tally, self._reading
        self._book.open.discard(self)
        tally.longest.append(reading.longest)
        tally.tokens += reading.events if reading.used is None else reading.used
        if failure is None:
            tally.answers += 1
            tally.reported += reading.used is not None
        else:
            tally.errors[failure] += 1


def _split(body: bytes) -> tuple[bytes, bytes]:
    """The whole frames, and the beginning of the next."""
    end = max(body.rfind(mark) + len(mark) if mark in body else 0 for mark in WHOLE_FRAMES)
    return body[:end], body[end:]
