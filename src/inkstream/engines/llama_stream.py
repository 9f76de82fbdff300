"""One streamed reply of a llama-server, read as it arrives: no task is woken for an event.

A client of its own, because a general one costs more per event than all else that we do with it
(``bench/llama_stream.py``). It speaks as much HTTP as this needs: one request, one reply, one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools
import orjson

from inkstream.errors import EngineFailed

DATA = b"data: "
END = b"\n\n"
OK = 200

Read = Callable[[Sequence[dict[str, Any]]], bool]
"""Is given the events that came together, and says whether that is all it wants."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``body`` is that of a refusal; events have been read."""

    status: int
    body: bytes


class EventStream(asyncio.Protocol):
    """``ended`` brings the Reply. It raises what ``read`` raised, or OSError for a reply that broke off."""

    def __init__(self, request: bytes, read: Read, silence_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Reply] = self._loop.create_future()
        self._request, self._read = request, read
        self._silence_seconds = silence_seconds
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._body = b""
        self._is_complete = False
        self._heard_at = self._loop.time()
        self._watch = self._loop.call_later(silence_seconds, self._on_silence)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)  # TCP transports carry both directions

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
            self._take_events()
            if self._is_complete:
                self._finish()
        except httptools.HttpParserError as error:
            self.fail(not_llama(error))
        except Exception as error:  # noqa: BLE001 - it belongs to who awaits the end
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        if self._status not in (0, OK):
            self._finish()
        self.fail(ConnectionError(str(exc or "the reply was cut short")))

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # who waited may be gone: then nobody needs to hear of it

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._is_complete = True

    def _take_events(self) -> None:
        """Read what is complete, unless nobody waits any more."""
        if self._status != OK or END not in self._body or self.ended.done():
            return
        *frames, self._body = self._body.split(END)
        events = [_decoded(frame) for frame in frames if frame.startswith(DATA)]
        if events and self._read(events):
            self._finish()

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(Reply(self._status, self._body))

    def _on_silence(self) -> None:
        left = self._heard_at + self._silence_seconds - self._loop.time()
        if left > 0:  # one timer, set again when it rings, instead of one for every event
            self._watch = self._loop.call_later(left, self._on_silence)
        else:
            self.fail(TimeoutError(f"nothing came for {self._silence_seconds:g} s"))


def not_llama(why: Exception) -> EngineFailed:
    error = EngineFailed("What answers at llama.cpp's address is no llama-server.")
    error.__cause__ = why
    return error


def _decoded(frame: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(frame[len(DATA) :])
    except orjson.JSONDecodeError as error:
        raise not_llama(error) from error
    if not isinstance(event, dict):
        raise not_llama(TypeError(f"an event is {event!r}"))
    return event
