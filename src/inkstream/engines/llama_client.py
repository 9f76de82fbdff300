"""The way to a llama-server: its calls and streams, and our errors in place of its own.

Knows HTTP, nothing of prompts or sampling.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from inkstream.engines.llama_stream import EventStream, Read, not_llama
from inkstream.errors import EngineError, EngineFailed, EngineLost

CALL_SECONDS = 30.0
CONNECT_SECONDS = 5.0
STREAM_SECONDS = 300.0
"""The longest silence in a stream: a slow machine reads a block of a prompt for minutes."""


class LlamaClient:
    """``on_lost`` is called whenever the server does not answer. All calls raise EngineLost, EngineFailed.

    The server is reached past every proxy: they hold back streams, and most servers are on this machine.
    """

    def __init__(self, url: str, key: str, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._url = urlsplit(url)
        self._tls = httpx.create_ssl_context() if self._url.scheme == "https" else None
        self._headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {key}"} if key else {}
        )
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=self._headers,
            timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
            # The server closes idle connections after 5 s: ours must be gone before, or a request meets that.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
            verify=self._tls or False,
            trust_env=False,
        )
        self._streams: set[EventStream] = set()

    async def get(self, path: str) -> Any:
        async with self._translated():
            response = await self._http.get(path)
        return _content(response.status_code, response.content)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        async with self._translated():
            response = await self._http.post(path, content=_encode(body))
        return _content(response.status_code, response.content)

    async def stream(self, path: str, body: dict[str, Any], read: Read) -> None:
        """``read`` is given the events of the reply as they come, until it says that it has enough.

        The connection ends with the call, and with it the server's work.
        """
        request = self._request(path, _encode(body))
        async with self._translated(), self._connected(request, read) as stream:
            reply = await stream.ended
        if reply.status != httpx.codes.OK:
            _content(reply.status, reply.body)

    async def aclose(self) -> None:
        """Streams that are still read raise EngineLost."""
        for stream in self._streams:
            stream.fail(ConnectionError("it was closed"))
        await self._http.aclose()

    @asynccontextmanager
    async def _connected(self, request: bytes, read: Read) -> AsyncIterator[EventStream]:
        host, port = self._url.hostname or "", self._url.port or (443 if self._tls else 80)
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, stream = await asyncio.get_running_loop().create_connection(
                lambda: EventStream(request, read, STREAM_SECONDS), host, port, ssl=self._tls
            )
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            transport.abort()

    def _request(self, path: str, body: bytes) -> bytes:
        address = self._url.netloc.rpartition("@")[2]
        headers = self._headers | {"host": address, "content-length": str(len(body)), "connection": "close"}
        lines = [f"POST {self._url.path.rstrip('/')}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        if self._http.is_closed:
            raise EngineLost("llama.cpp was closed.")
        try:
            yield
        except (httpx.TransportError, httpx.StreamError, OSError) as error:
            self._on_lost()
            raise EngineLost(f"llama.cpp does not answer: {type(error).__name__} {error}".rstrip()) from error


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


def _content(status: int, body: bytes) -> Any:
    if status == httpx.codes.OK:
        return _decode(body)
    try:
        raise failure({"code": status} | orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise failure({"code": status, "message": body[:200].decode(errors="replace")}) from None


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise EngineFailed(f"The text cannot be sent to llama.cpp: {error}.", code="bad_prompt") from error


def _decode(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise not_llama(error) from error
