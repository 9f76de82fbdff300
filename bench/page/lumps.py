"""A way to the server that brings streams in lumps, or breaks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Lumps:
    """Forwards bytes. What the server sends goes on every ``every_seconds``, at once where that is 0."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.every_seconds = 0.0
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection that is open now."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Lumps]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # the server is being started again
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        directions = [
            asyncio.ensure_future(self._forward(reader, up_writer, in_lumps=False)),
            asyncio.ensure_future(self._forward(up_reader, writer, in_lumps=True)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for end in (writer, up_writer):
                end.transport.abort()
            self._writers -= {writer, up_writer}

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, in_lumps: bool
    ) -> None:
        clock = asyncio.get_running_loop().time
        while data := await reader.read(65536):
            if in_lumps and self.every_seconds:
                lump_ends = clock() // self.every_seconds * self.every_seconds + self.every_seconds
                await asyncio.sleep(lump_ends - clock())
            writer.write(data)
            await writer.drain()
