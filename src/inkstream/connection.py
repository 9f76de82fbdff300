"""A connection of the gateway: uvicorn's HTTP/1.1, with what it lacks.

It is the server's side of ``inkstream.api.sse.Connection``. And it lets nobody hold a connection for nothing:
the head of a request has to come in time and may only be so long, and what is left of a body behind a reply
is not waited for either. How long a body may take while it is read is the app's to say.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from inkstream.api.sse import CONNECTION
from inkstream.events import encode

WRITE_BUFFER_BYTES = 4 * 1024  # beyond what the system buffers: some tokens, or one fetch of the log
MOST_HEAD_BYTES = 64 * 1024
MOST_AHEAD = 16  # requests behind one that is being answered; each answer lets in as many as fit into a read
FILES_KEPT_FREE = 128  # for what is no connection: databases, the engine, what the server serves
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Bounds:
    """``connections`` is how many there may be at the same time, 0 for any number."""

    header_seconds: float = 10.0
    connections: int = 0


def connections_possible(wanted: int) -> int:
    """So many connections as are wanted, 0 for all, and as many as there are files for.

    Raises the soft limit of open files to the hard one.
    """
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415  # there is none for Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = max(1, hard - FILES_KEPT_FREE)
    return min(wanted, possible) if wanted else possible


class _Bell:
    """What uvicorn needs of ``asyncio.Event``, without a queue of 0.7 KiB in each reader."""

    __slots__ = ("_has_rung", "_waiting")

    def __init__(self, *, has_rung: bool = False) -> None:
        self._has_rung = has_rung
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    def set(self) -> None:
        self._has_rung = True
        waiting, self._waiting = self._waiting, ()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        self._has_rung = False

    async def wait(self) -> None:
        if not self._has_rung:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting = (*self._waiting, waiter)
            await waiter


class _Pipeline(list[Any]):  # Any: uvicorn's own
    """What uvicorn needs of ``collections.deque``, which takes 0.7 KiB without one request in it."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:  # Any: uvicorn's own
        self.insert(0, request)


class Protocol(HttpToolsProtocol):
    """It writes what uvicorn would write for a part of a body of unknown length: HTTP/1.1's chunks.

    To a reader who asks in HTTP/1.0 it writes the body itself, for which uvicorn has nothing: its end closes.
    """

    # Beside uvicorn's attributes: its dictionary has just so few that all connections share its keys.
    __slots__ = (
        "_awaits_head",
        "_bounds",
        "_deadline",
        "_errors",
        "_has_turned",
        "_head_bytes",
        "_idle_bytes",
        "_written",
        "on_lost",
    )

    def __init__(self, *args: Any, bounds: Bounds, errors: Counter[str], **kwargs: Any) -> None:
        """``errors`` counts, by its code, what is refused here. The rest is uvicorn's own, hence Any."""
        super().__init__(*args, **kwargs)
        self.pipeline = _Pipeline()  # type: ignore[assignment]  # it is only ever used like one
        self._bounds, self._errors = bounds, errors
        self.on_lost: Callable[[], None] | None = None
        self._written = 0
        self._head_bytes = 0  # of the request that is coming
        self._idle_bytes = 0  # since the last of a body: trailers, the extensions of a chunk
        self._awaits_head = True
        self._has_turned = False  # from head to body, or to the next request, with what has come last
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow._is_writable_event = _Bell(has_rung=True)  # type: ignore[assignment]  # it is only ever used like one
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        if 0 < self._bounds.connections < len(self.connections):
            self._refuse(503, "too_many_connections", "there are too many connections. Try again later.")
            return
        self._wait_for_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
        # The request leads back to its connection: they would keep each other until a garbage collection.
        self.scope = self.cycle = None  # type: ignore[assignment]  # as they begin

    # Requests

    def data_received(self, data: bytes) -> None:
        self._has_turned = False
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._has_turned or self.transport.is_closing():
            return
        if self._awaits_head:
            self._head_bytes += len(data)
        if max(self._head_bytes, self._idle_bytes) > MOST_HEAD_BYTES:
            self._refuse(431, "headers_too_large", f"the headers are larger than {MOST_HEAD_BYTES} bytes.")
        elif self._awaits_head and self._is_free:
            self._wait_for_client()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_request", "this is no request of HTTP/1.1.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]  # ours alone

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._awaits_head:  # a trailer is none of the headers by which the request was let in
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._awaits_head, self._has_turned, self._head_bytes, self._idle_bytes = False, True, 0, 0
        self._wait_no_more()
        super().on_headers_complete()
        self.cycle.message_event = _Bell()  # type: ignore[assignment]  # it is only ever used like one
        if len(self.pipeline) > MOST_AHEAD:
            raise BufferError("too many requests wait on this connection")  # the parser stops, and refuses

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaits_head = self._has_turned = True
        self._idle_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_free and not self.transport.is_closing() and (self._head_bytes or not self._awaits_head):
            self._wait_for_client()

    @property
    def _is_free(self) -> bool:
        """Whether no request is being answered: it is the client's turn."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete  # type: ignore[redundant-expr]  # it begins with None

    def _wait_for_client(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._bounds.header_seconds, self._give_up)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._awaits_head and self._head_bytes:
            self._refuse(408, "request_timeout", "the request did not come in time.")
        else:
            self.transport.close()

    @property
    def _is_answering(self) -> bool:
        """Whether what is said now would stand in the middle of an answer, or before an earlier one."""
        return bool(self.pipeline) or (not self._is_free and self.cycle.response_started)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in place of the app, and close."""
        self._errors[code] += 1
        if self._is_answering:
            self.transport.abort()
            return
        body = encode({"error": {"code": code, "message": message}})
        retry = f"retry-after: {RETRY_SECONDS}\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{retry}cache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    # Event streams

    def begin(self) -> None:
        if self.cycle.scope.get("http_version") == "1.0":
            self.cycle.chunked_encoding = False

    def send(self, piece: bytes) -> bool:
        if self.transport.is_closing():  # uvloop raises where asyncio drops what comes too late
            return True
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if self.cycle.chunked_encoding else piece
        self._written += len(chunk)
        self.transport.write(chunk)
        return not self.flow.write_paused

    async def drained(self) -> None:
        await self.flow.drain()

    def backlog(self) -> tuple[int, int]:
        waiting = self.transport.get_write_buffer_size()
        return waiting, self._written - waiting

    def abort(self) -> None:
        self.transport.abort()
