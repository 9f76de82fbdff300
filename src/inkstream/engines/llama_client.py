"""The way to a llama-server: its calls and streams, and our errors in place of its own.

Knows HTTP, nothing of prompts or sampling.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from inkstream.config import LOOPBACK
from inkstream.errors import EngineError, EngineFailed, EngineLost

DATA = b"data: "
CALL_SECONDS = 30.0
STREAM_SECONDS = 300.0
"""The longest silence in a stream: a slow machine reads a block of a prompt for minutes."""


class LlamaClient:
    """``on_lost`` is called whenever the server does not answer. All calls raise EngineLost, EngineFailed."""

    def __init__(self, url: str, key: str, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"content-type": "application/json"}
            | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(CALL_SECONDS, connect=5.0),
            # The server closes idle connections after 5 s: ours must be gone before, or a request meets that.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
            trust_env=urlsplit(url).hostname not in LOOPBACK,
        )

    async def get(self, path: str) -> Any:
        async with self._translated():
            return _decode(_checked(await self._http.get(path)).content)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        async with self._translated():
            return _decode(_checked(await self._http.post(path, content=_encode(body))).content)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """The events of the reply, as many at a time as have come: a slow consumer gets larger batches.

        What waits here is bounded by the length of the reply.
        """
        timeout = httpx.Timeout(STREAM_SECONDS, connect=5.0)
        async with (
            self._translated(),
            self._http.stream("POST", path, content=_encode(body), timeout=timeout) as response,
        ):
            if response.status_code != httpx.codes.OK:
                await response.aread()
            inbox = _Inbox()
            reading = asyncio.create_task(inbox.fill(_checked(response).aiter_bytes()))
            try:
                while frames := await inbox.take():
                    yield [_decode(frame[len(DATA) :]) for frame in frames]
                await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def aclose(self) -> None:
        """Streams that are still read raise EngineLost."""
        await self._http.aclose()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        if self._http.is_closed:
            raise EngineLost("llama.cpp was closed.")
        try:
            yield
        except (httpx.TransportError, httpx.StreamError) as error:
            self._on_lost()
            raise EngineLost(f"llama.cpp does not answer: {type(error).__name__} {error}".rstrip()) from error


class _Inbox:
    """Frames of a stream between the task that reads them and the consumer. An empty take is the end."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._ended = False
        self._changed = asyncio.Event()

    async def fill(self, blocks: AsyncIterator[bytes]) -> None:
        rest = b""
        try:
            async for block in blocks:
                *frames, rest = (rest + block).split(b"\n\n")
                self._frames += [frame for frame in frames if frame.startswith(DATA)]
                self._changed.set()
        finally:
            self._ended = True
            self._changed.set()

    async def take(self) -> list[bytes]:
        while not self._frames and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        frames, self._frames = self._frames, []
        return frames


def failure(error: dict[str, Any]) -> EngineError:
    """What the server calls an error, be it a reply or an event of a stream."""
    status, message = error.get("code", 500), error.get("message", "")
    if error.get("type") == "exceed_context_size_error":
        return EngineFailed(f"llama.cpp: {message}", code="prompt_too_long")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return EngineFailed(f"llama.cpp refuses our key: {message}", code="engine_refused")
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        return EngineLost(f"llama.cpp is not ready: {message}")
    return EngineFailed(f"llama.cpp: {message}", retryable=status >= 500)


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code == httpx.codes.OK:
        return response
    try:
        raise failure({"code": response.status_code} | orjson.loads(response.content)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise failure({"code": response.status_code, "message": response.text[:200]}) from None


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise EngineFailed(f"The text cannot be sent to llama.cpp: {error}.", code="bad_prompt") from error


def _decode(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise EngineFailed("What answers at llama.cpp's address is no llama-server.") from error
