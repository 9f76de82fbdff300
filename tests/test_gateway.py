"""The server class of the gateway, on sockets of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from inkstream.api.sse import CONNECTION, HEADERS, OpenStreams
from inkstream.config import Settings
from inkstream.gateway import Server, server_config

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close with nothing lingering resets the connection


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


async def test_a_piece_for_a_reader_that_has_just_gone_is_dropped() -> None:
    sent: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        connection, lost = scope["extensions"][CONNECTION], asyncio.Event()
        connection.on_lost = lost.set
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await lost.wait()
        try:
            sent.set_result(connection.send(b"late"))
        except RuntimeError as error:
            sent.set_exception(error)

    listening = asyncio.Event()
    server = Server(server_config(app, Settings(), Counter()), OpenStreams(1, 1), listening.set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await listening.wait()
        try:
            await come_and_go(listener.getsockname()[1])
            async with asyncio.timeout(10):
                assert await sent
        finally:
            server.should_exit = True
            await serving


async def come_and_go(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"first")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
