"""A whole server in the test's own process: real sockets, the gateway's server class, a scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstream.api import Services, create_app, open_services
from inkstream.api.sse import OpenStreams
from inkstream.config import Settings
from inkstream.engines import Chunk, Emitted, Finish, Progress, Request, Take
from inkstream.engines.scripted import Script, Scripted
from inkstream.errors import EngineLost
from inkstream.gateway import Server, listen, server_config
from inkstream.log import Run
from tests.waiting import until


class Asked(Scripted):
    """A scripted engine that remembers what it was asked. It dies ``deaths`` times, each behind some text."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__(script)
        self.requests: list[Request] = []
        self.deaths = 0

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        self.requests.append(request)
        if not self.deaths:
            return await super().generate(request, emitted, take)
        self.deaths -= 1
        has_text = asyncio.Event()

        def take_one(item: Chunk | Progress) -> None:
            take(item)
            has_text.set()

        writing = asyncio.ensure_future(super().generate(request, emitted, take_one))
        await has_text.wait()
        writing.cancel()
        await asyncio.wait([writing])
        raise EngineLost("the engine has died")


@dataclass(frozen=True, slots=True)
class Live:
    url: str
    port: int
    services: Services
    engine: Asked

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def until_idle(self) -> None:
        """Wait until every run has ended and no generation holds a slot of the engine."""
        await self.until(lambda: not (self.engine.active or self.services.runs._drives))

    async def until_ended(self, run: str) -> Run:
        """Wait for a run's end without being a reader of it."""
        async with asyncio.timeout(10):
            while not (found := await self.services.runs.get("local", run)).state.is_terminal:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return found


@asynccontextmanager
async def serving(folder: Path, script: Script | None = None, **settings: Any) -> AsyncIterator[Live]:
    chosen = Settings(data_dir=folder, port=0, **settings)
    streams, engine = OpenStreams(chosen.heartbeat_seconds, chosen.patience_seconds), Asked(script)
    listening = asyncio.Event()
    with listen(chosen) as sock:
        async with open_services(chosen, engine, streams, lambda: None) as services:
            config = server_config(create_app(services), chosen, services.errors)
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
    """Forwards bytes to a server. ``cut`` breaks the next event streams off, ``drop`` all that is open."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.streamed_bytes = 0  # of the last event stream, behind its headers
        self._port = port
        self._cuts: list[int] = []
        self._clients: set[asyncio.StreamWriter] = set()

    def cut(self, *after_bytes: int) -> None:
        """Reset the next event streams' connections, each so many bytes behind its headers."""
        self._cuts += after_bytes

    def drop(self) -> None:
        """Reset every connection that is open."""
        for client in self._clients:
            client.transport.abort()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except ConnectionError:
            writer.transport.abort()
            return
        self._clients.add(writer)
        directions = [
            asyncio.ensure_future(_forward(reader, up_writer)),
            asyncio.ensure_future(self._answer(up_reader, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._clients.discard(writer)
            writer.transport.abort()
            up_writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left: int | None = None
        is_stream = False
        while data := await reader.read(65536):
            head, blank, body = data.partition(b"\r\n\r\n")
            if b"text/event-stream" in head:
                is_stream, self.streamed_bytes = True, 0
                left = self._cuts.pop(0) if self._cuts else None
                writer.write(head + blank)
                data = body
            if is_stream:
                self.streamed_bytes += len(data)
            writer.write(data if left is None else data[:left])
            await writer.drain()
            if left is not None and (left := left - len(data)) <= 0:
                return


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
