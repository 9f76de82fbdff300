"""Connections that nobody finishes: ``python bench/half_open.py [--connections 10000]``.

A real server (``inkstream serve`` with the scripted engine) is surrounded by connections of three kinds, a
third each: such that say nothing, that stop within a head, and that stop within a body. All the while a good
client asks again and again, each time on a connection of its own. The server is left to get rid of the crowd,
and its memory is compared with what it was before.

Prints the median and the slowest good reply, how long the last connection lived, and the gateway's resident
memory before, with all of them, without them, and after a second crowd of the same size: what the first one
has left behind is not taken again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.torture.server import Server

LIFE_SECONDS = 30.0
AT_ONCE = 256  # fewer than the server's backlog, so that the crowd does not wait for the kernel
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 120.0
HOST = b"Host: localhost\r\n"
SAID = (
    b"",
    b"GET / HTTP/1.1\r\n" + HOST + b"X-Slow: ",
    b"POST /api/chats HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n{",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times in seconds, memory in MiB. ``standing`` of the connections stood at the same time.

    ``cpu_milliseconds`` is what the gateway spent on each connection, the good replies included.
    """

    connections: int
    standing: int
    replies: int
    median_reply: float
    slowest_reply: float
    last_gone_after: float
    cpu_milliseconds: float
    before: float
    with_all: float
    after: float
    after_again: float


async def main(connections: int, life_seconds: float = LIFE_SECONDS) -> Outcome:
    """The server gives each connection that long to finish what it says."""
    make_room(connections)
    seconds = str(life_seconds)
    settings = {"engine": "scripted", "header_seconds": seconds, "body_seconds": seconds}
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
        cpu = cpu_seconds(gateway.pid)
        asked_for: list[float] = []
        asking = asyncio.create_task(ask_on_and_on(server.port, asked_for))
        crowd = await standing_crowd(server.port, connections)
        await good_reply_seconds(server.port)  # behind them: all have been accepted
        standing, with_all = len(files_of(gateway.pid)) - files, memory(server)
        last_gone = await until_gone(crowd)
        after = memory(server)
        await until_gone(await standing_crowd(server.port, connections))
        cpu = cpu_seconds(gateway.pid) - cpu
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    return Outcome(
        *(connections, standing, len(asked_for), statistics.median(asked_for), max(asked_for)),
        *(last_gone, 1000 * cpu / (2 * connections), before, with_all, after),
        memory(server),
    )


def files_of(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


def cpu_seconds(pid: int) -> float:
    """Of a process: user's and system's; see proc(5), ``/proc/pid/stat``."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


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
    while True:
        seconds.append(await good_reply_seconds(port))
        await asyncio.sleep(PAUSE_SECONDS)


async def good_reply_seconds(port: int) -> float:
    """What a good client waits, who makes a connection of its own."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        writer.write(b"GET /api/chats HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        reply = await reader.read()
    assert b" 200 OK" in reply, reply
    return time.monotonic() - begun


def report(outcome: Outcome) -> str:
    told = asdict(outcome)
    return "\n".join(f"{name.replace('_', ' '):18} {value:12.3f}" for name, value in told.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000, help="how many")
    print(report(asyncio.run(main(parser.parse_args().connections))))
