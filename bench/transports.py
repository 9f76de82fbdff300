"""Four ways to bring tokens to a page, measured side by side: polling, WebSocket, SSE, plain chunked HTTP.

One uvicorn process serves all four from raw ASGI code, so that what differs is the transport alone. Each
stream gets the same tokens at the same pace; this process reads them over loopback sockets and counts every
byte in both directions above TCP. Requests carry the headers of a browser, because polling repeats them.

    python bench/transports.py [--streams 32] [--rate 50] [--seconds 5] [--rounds 5]

Prints a Markdown table of medians. Latency is from a token's making to its arrival. CPU is the server's, less
what making the tokens costs; extra bytes are all those that are not the token's own JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import astuple, dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn

TEXT = "流式"
HEADERS = (
    "Host: 127.0.0.1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0 Safari/537.36\r\n"
    "Accept-Language: zh-CN,zh;q=0.9,en;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Referer: http://127.0.0.1:8000/\r\n"
    "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
)
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def token(number: int) -> str:
    return json.dumps({"n": number, "made": time.monotonic(), "text": TEXT}, ensure_ascii=False)


async def tokens(rate: float, seconds: float) -> AsyncIterator[str]:
    """Paced by the clock, not by the sleep: a late token does not delay those behind it."""
    start = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        yield token(number)


@dataclass
class Server:
    """The ASGI application. ``polled`` holds what pollers have not fetched yet, per stream."""

    rate: float
    seconds: float
    polled: dict[str, list[str]] = field(default_factory=dict)
    makers: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.websocket(receive, send)
        elif scope["type"] == "http":
            routes = {
                "/sse": self.sse,
                "/chunked": self.chunked,
                "/poll": self.poll,
                "/none": self.none,
                "/cpu": self.cpu,
            }
            await routes[scope["path"]](scope, send)

    async def websocket(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        async for text in tokens(self.rate, self.seconds):
            await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})

    async def none(self, _: Scope, send: Send) -> None:
        """What the tokens cost before anybody sends them."""
        async for _text in tokens(self.rate, self.seconds):
            pass
        await _start(send, b"text/plain", (b"content-length", b"0"))
        await _body(send, b"", more=False)

    async def sse(self, _: Scope, send: Send) -> None:
        await _start(send, b"text/event-stream; charset=utf-8")
        number = 0
        async for text in tokens(self.rate, self.seconds):
            number += 1
            await _body(send, f"id: 1:{number}\nevent: text\ndata: {text}\n\n".encode(), more=True)
        await _body(send, b"", more=False)

    async def chunked(self, _: Scope, send: Send) -> None:
        await _start(send, b"application/x-ndjson")
        async for text in tokens(self.rate, self.seconds):
            await _body(send, f"{text}\n".encode(), more=True)
        await _body(send, b"", more=False)

    async def poll(self, scope: Scope, send: Send) -> None:
        stream = parse_qs(scope["query_string"].decode())["stream"][0]
        if stream not in self.polled:
            self.polled[stream] = []
            self.makers.add(asyncio.create_task(self._make(stream)))
        fresh, self.polled[stream] = self.polled[stream], []
        body = ("[" + ",".join(fresh) + "]").encode()
        await _start(send, b"application/json", (b"content-length", str(len(body)).encode()))
        await _body(send, body, more=False)

    async def _make(self, stream: str) -> None:
        async for text in tokens(self.rate, self.seconds):
            self.polled[stream].append(text)

    async def cpu(self, _: Scope, send: Send) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        body = json.dumps(used.ru_utime + used.ru_stime).encode()
        await _start(send, b"application/json", (b"content-length", str(len(body)).encode()))
        await _body(send, body, more=False)


async def _start(send: Send, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), (b"cache-control", b"no-store"), *more]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _body(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


@dataclass
class Wire:
    """One client connection that counts what goes through it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    count: int = 0

    @classmethod
    async def open(cls, port: int) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def get(self, path: str, more: str = "Accept: */*\r\n") -> None:
        request = f"GET {path} HTTP/1.1\r\n{HEADERS}{more}\r\n".encode()
        self.count += len(request)
        self.writer.write(request)

    async def line(self) -> bytes:
        line = await self.reader.readline()
        self.count += len(line)
        return line

    async def exactly(self, size: int) -> bytes:
        self.count += size
        return await self.reader.readexactly(size)

    async def head(self) -> dict[bytes, bytes]:
        headers = {}
        while (line := await self.line()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return headers


@dataclass
class Reading:
    """What one client saw."""

    latencies: list[float] = field(default_factory=list)
    payload: int = 0
    wire: int = 0
    requests: int = 1

    def add(self, text: bytes) -> None:
        arrived = time.monotonic()
        self.latencies.append(arrived - json.loads(text)["made"])
        self.payload += len(text)


async def read_chunks(port: int, path: str, prefix: bytes) -> Reading:
    """SSE and NDJSON: chunked transfer, one line per token that begins with ``prefix``."""
    wire, reading = await Wire.open(port), Reading()
    wire.get(path)
    await wire.head()
    while size := int(await wire.line(), 16):
        for line in (await wire.exactly(size + 2)).splitlines():
            if line and line.startswith(prefix):
                reading.add(line.removeprefix(prefix))
    return _close(wire, reading)


async def read_websocket(port: int) -> Reading:
    wire, reading = await Wire.open(port), Reading()
    key = base64.b64encode(os.urandom(16)).decode()
    wire.get("/ws", f"{UPGRADE}Sec-WebSocket-Key: {key}\r\n")
    await wire.head()
    while (await wire.exactly(1))[0] & 0x0F == 1:  # a text frame; a server never masks
        size = (await wire.exactly(1))[0]
        if size == 126:
            size = int.from_bytes(await wire.exactly(2), "big")
        reading.add(await wire.exactly(size))
    return _close(wire, reading)


async def read_polling(port: int, interval: float, wanted: int) -> Reading:
    """One kept-alive connection, as a browser would; the pause is from answer to next request."""
    wire, reading, stream = await Wire.open(port), Reading(requests=0), uuid.uuid4().hex
    while len(reading.latencies) < wanted:
        wire.get(f"/poll?stream={stream}")
        reading.requests += 1
        body = await wire.exactly(int((await wire.head())[b"content-length"]))
        for item in json.loads(body):
            reading.add(json.dumps(item, ensure_ascii=False).encode())
        await asyncio.sleep(interval)
    return _close(wire, reading)


def _close(wire: Wire, reading: Reading) -> Reading:
    wire.writer.close()
    reading.wire = wire.count
    return reading


async def server_cpu(port: int) -> float:
    wire = await Wire.open(port)
    wire.get("/cpu")
    cpu = float(await wire.exactly(int((await wire.head())[b"content-length"])))
    wire.writer.close()
    return cpu


@dataclass(frozen=True)
class Figures:
    """One round of one way, as the table has it."""

    p50_ms: float
    p99_ms: float
    cpu_us: float
    extra_bytes: float
    requests: float


@dataclass(frozen=True)
class Bench:
    port: int
    streams: int
    tokens: int

    async def run(self, rounds: int) -> None:
        """The ways take turns, so that a busy neighbour meets all of them; the table has the medians."""
        ways: dict[str, Callable[[], Awaitable[Reading]]] = {
            "polling every 1 s": lambda: read_polling(self.port, 1.0, self.tokens),
            "polling every 100 ms": lambda: read_polling(self.port, 0.1, self.tokens),
            "WebSocket": lambda: read_websocket(self.port),
            "SSE": lambda: read_chunks(self.port, "/sse", b"data: "),
            "chunked (NDJSON)": lambda: read_chunks(self.port, "/chunked", b""),
        }
        figures: dict[str, list[Figures]] = {name: [] for name in ways}
        making = []
        for _ in range(rounds):
            making.append((await self.measure(self.wait_for_nothing))[1])
            for name, read in ways.items():
                figures[name].append(self.figures(*await self.measure(read)))
        _print_table(figures, statistics.median(making) * 1e6)

    async def measure(self, read: Callable[[], Awaitable[Reading]]) -> tuple[list[Reading], float]:
        """All streams at once, and the server's CPU seconds per token meanwhile."""
        before = await server_cpu(self.port)
        readings = await asyncio.gather(*(read() for _ in range(self.streams)))
        return readings, (await server_cpu(self.port) - before) / (self.streams * self.tokens)

    async def wait_for_nothing(self) -> Reading:
        wire = await Wire.open(self.port)
        wire.get("/none")
        await wire.head()
        return _close(wire, Reading())

    def figures(self, readings: list[Reading], cpu: float) -> Figures:
        latencies = sorted(latency * 1000 for reading in readings for latency in reading.latencies)
        assert len(latencies) == self.streams * self.tokens, "tokens were lost"
        return Figures(
            p50_ms=statistics.median(latencies),
            p99_ms=latencies[int(len(latencies) * 0.99)],
            cpu_us=cpu * 1e6,
            extra_bytes=sum(reading.wire - reading.payload for reading in readings) / len(latencies),
            requests=sum(reading.requests for reading in readings) / self.streams,
        )


def _print_table(figures: dict[str, list[Figures]], making_us: float) -> None:
    print(f"Making a token costs the server {making_us:.0f} µs, which is left out below.\n")
    print("| way | p50, ms | p99, ms | server CPU, µs per token | extra bytes per token | requests |")
    print("|---|---|---|---|---|---|")
    for name, rounds in figures.items():
        p50, p99, cpu, extra, requests = (
            statistics.median(f) for f in zip(*map(astuple, rounds), strict=True)
        )
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {cpu - making_us:.0f} | {extra:.0f} | {requests:.0f} |")


def serve(fd: int, rate: float, seconds: float) -> None:
    uvicorn.run(Server(rate, seconds), fd=fd, log_level="error", ws="websockets-sansio")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.rate, given.seconds)
        return
    pace = f"{given.rate:g} tokens/s each, for {given.seconds:g} s"
    print(f"{given.streams} streams, {pace}, {given.rounds} rounds.")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    # The server inherits a socket that listens already: nobody has to wait for it.
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        fd = listening.fileno()
        command = [sys.executable, __file__, *sys.argv[1:], "--serve", str(fd)]
        with subprocess.Popen(command, pass_fds=[fd]) as server:
            try:
                tokens_each = int(given.rate * given.seconds)
                asyncio.run(Bench(listening.getsockname()[1], given.streams, tokens_each).run(given.rounds))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
