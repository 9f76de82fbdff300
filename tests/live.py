"""A whole server in the test's own process: real sockets, the gateway's own protocol class, a scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from inkstream.api import Services, create_app, open_services
from inkstream.api.sse import OpenStreams
from inkstream.config import Settings
from inkstream.engines.scripted import Script, Scripted
from inkstream.gateway import Protocol, Server, listen


@dataclass(frozen=True, slots=True)
class Live:
    url: str
    port: int
    services: Services
    engine: Scripted

    async def until_idle(self) -> None:
        """Wait until no generation holds a slot of the engine and nobody waits for one."""
        admission = self.services.runs.admission
        while self.engine.active or admission.inside or admission.waiting:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(folder: Path, script: Script | None = None, **settings: Any) -> AsyncIterator[Live]:
    streams, engine = OpenStreams(), Scripted(script)
    chosen = Settings(data_dir=folder, port=0, **settings)
    listening = asyncio.Event()
    with listen(chosen) as sock:
        async with open_services(chosen, engine, streams, lambda: None) as services:
            config = uvicorn.Config(
                create_app(services), http=Protocol, lifespan="off", log_config=None, access_log=False
            )
            server = Server(config, streams, listening.set)
            running = asyncio.ensure_future(server.serve(sockets=[sock]))
            await asyncio.wait_for(listening.wait(), 10)
            port = sock.getsockname()[1]
            try:
                yield Live(f"http://127.0.0.1:{port}", port, services, engine)
            finally:
                server.should_exit = True
                await running
    await engine.aclose()


class Proxy:
    """Forwards bytes to a server. ``cut`` breaks a connection off once so much of its reply is through."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self.cuts: list[int] = []
        self.requests: list[bytes] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        finally:
            self._server.close()
            await self._server.wait_closed()

    def cut(self, *after_bytes: int) -> None:
        """Break the next event streams off, each behind so many bytes."""
        self.cuts += after_bytes

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            asking = asyncio.ensure_future(self._ask(reader, up_writer))
            answering = asyncio.ensure_future(self._answer(up_reader, writer))
            await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED)
            for task in (asking, answering):
                task.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)
        finally:
            for side in (writer, up_writer):
                side.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.requests.append(data)
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left: int | None = None
        while data := await reader.read(65536):
            if left is None and b"text/event-stream" in data and self.cuts:
                left = self.cuts.pop(0)
            if left is not None:
                data, left = data[:left], left - len(data)
            writer.write(data)
            await writer.drain()
            if left is not None and left <= 0:
                return
