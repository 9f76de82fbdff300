"""Connections that nobody finishes: ``python bench/half_open.py [--connections 10000]``.

A real server (``inkstream serve`` with the scripted engine) is surrounded by connections of four kinds, a
quarter each: such that say nothing, that stop within a head or within a body, and that ask once, read nothing and
stay. All the while a good client asks again and again, each time on a connection of its own. The server is left
to get rid of the crowd, and its memory is compared with what it was before.

Prints the slowest good reply, how long the last connection lived, and the gateway's resident memory before, with
all of them, and after a second crowd of the same size: what the first one has left behind is not taken again.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.torture.server import Server

SECONDS = 10.0
AT_ONCE = 256  # fewer than the server's backlog, so that the crowd does not wait for the kernel
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 120.0
HOST = b"Host: localhost\r\n"
SAID = (
    b"",
    b"GET / HTTP/1.1\r\n" + HOST + b"X-Slow: ",
    b"POST /api/chats HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n{",
    b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times in seconds, memory in MiB. ``standing`` of the connections stood at the same time."""

    connections: int
    standing: int
    slowest_reply: float
    replies: int
    last_gone_after: float
    before: float
    with_all: float
    after: float
    after_again: float


async def main(connections: int) -> Outcome:
    make_room(connections)
    settings = {"engine": "scripted", "header_seconds": str(SECONDS), "body_seconds": str(SECONDS)}
    with tempfile.TemporaryDirectory() as folder:
        async with Server(Path(folder), settings) as server:
            return await measured(server, connections)


def make_room(connections: int) -> None:
    """Files for that many connections, here and, since it is inherited, in the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1024
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{connections} connections need {wanted} open files; the hard limit is {hard}.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def measured(server: Server, connections: int) -> Outcome:
    gateway = server.target("gateway")
    assert gateway is not None
    with gateway:
        files, before = len(files_of(gateway.pid)), memory(server)
        asked_for: list[float] = []
        asking = asyncio.create_task(ask_on_and_on(server.port, asked_for))
        crowd = await standing_crowd(server.port, connections)
        standing, with_all = len(files_of(gateway.pid)) - files, memory(server)
        last_gone = await until_gone(crowd)
        after = memory(server)
        await until_gone(await standing_crowd(server.port, connections))
        asking.cancel()
        await asyncio.wait((asking,))
    return Outcome(
        *(connections, standing, max(asked_for), len(asked_for), last_gone, before, with_all, after),
        memory(server),
    )


def files_of(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


def memory(server: Server) -> float:
    return server.memory_bytes("gateway") / 2**20


# The crowd


async def standing_crowd(port: int, connections: int) -> list[socket.socket]:
    """Sockets that have said what they ever will."""
    crowd: list[socket.socket] = []
    for start in range(0, connections, AT_ONCE):
        some = range(start, min(start + AT_ONCE, connections))
        crowd += await asyncio.gather(*(connected(port, SAID[n % len(SAID)]) for n in some))
    return crowd


async def connected(port: int, said: bytes) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, said)
    return sock


async def until_gone(crowd: Sequence[socket.socket]) -> float:
    """Wait until the server has closed every one. Returns the seconds that this took."""
    begun = time.monotonic()
    await asyncio.wait_for(all_closed(crowd), PATIENCE_SECONDS)
    return time.monotonic() - begun


async def all_closed(crowd: Sequence[socket.socket]) -> None:
    async with AsyncExitStack() as stack:
        for sock in crowd:
            stack.callback(sock.close)
        await asyncio.gather(*map(closed, crowd))


async def closed(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while await loop.sock_recv(sock, 4096):
            pass
    except ConnectionResetError:
        pass


async def ask_on_and_on(port: int, seconds: list[float]) -> None:
    """A good client, who has to make a new connection each time."""
    while True:
        begun = time.monotonic()
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as http:
            reply = await http.get(f"http://127.0.0.1:{port}/api/chats")
        assert reply.status_code == 200, reply.text
        seconds.append(time.monotonic() - begun)
        await asyncio.sleep(PAUSE_SECONDS)


def report(outcome: Outcome) -> str:
    told = asdict(outcome)
    return "\n".join(f"{name.replace('_', ' '):18} {value:10.2f}" for name, value in told.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000, help="how many (%(default)s)")
    print(report(asyncio.run(main(parser.parse_args().connections))))
