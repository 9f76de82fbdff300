"""A reader on a bare socket: it cuts its connection at any byte, dawdles, goes back, and comes again."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import h11

from tests.torture.sse import Blocks
from tests.torture.transcript import Received, Transcript

Manner = Literal["steady", "cutting", "slow"]
RETRY_SECONDS = 0.05
SILENCE_SECONDS = 30.0  # the server's heartbeat is far shorter: a connection that is silent longer is dead


@dataclass(slots=True)
class Counts:
    connections: int = 0
    cuts: int = 0
    broken: int = 0


@dataclass(slots=True)
class Reader:
    """Reads one run to its end. ``on_news`` hears each event that was new to this reader."""

    port: int
    run: str
    manner: Manner
    draw: random.Random
    on_news: Callable[[Received], None] = lambda _: None
    counts: Counts = field(default_factory=Counts)
    transcript: Transcript = field(init=False)

    def __post_init__(self) -> None:
        self.transcript = Transcript(self.run)

    async def read(self) -> None:
        """Come back until the run has ended; then there must be nothing more. Never returns before."""
        while not self.transcript.is_ended:
            await self._visit()
        while (status := await self._visit()) != 204:
            if status is not None:
                self.transcript.blame(f"behind its end it was answered with {status}")
                return

    async def _visit(self) -> int | None:
        """One connection, to its end or cut. Returns the reply's status, if one came."""
        self.counts.connections += 1
        status = None
        with suppress(OSError, asyncio.IncompleteReadError):
            status = await self._connect_and_read()
        if status is None:
            await asyncio.sleep(RETRY_SECONDS * self.draw.uniform(0.2, 2))
        return status

    async def _connect_and_read(self) -> int | None:
        sock = socket.socket()
        sock.setblocking(False)
        if self.manner == "slow":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            return await self._exchange(sock)
        finally:
            if self.manner == "cutting":
                # With nothing lingering the close is a reset: the peer learns of it in mid-write.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()

    async def _exchange(self, sock: socket.socket) -> int | None:
        loop, wire, blocks = asyncio.get_running_loop(), h11.Connection(h11.CLIENT), Blocks()
        await loop.sock_sendall(sock, wire.send(self._request()) + wire.send(h11.EndOfMessage()))
        budget = self._byte_budget()
        status: int | None = None
        while budget > 0:
            received = await self._recv(sock, min(budget, self._gulp()))
            budget -= len(received)
            try:
                wire.receive_data(received)
                status, is_over = self._digest(wire, blocks, status)
            except h11.RemoteProtocolError:  # cut off by the other side
                self.counts.broken += 1
                return None
            if is_over:
                return status
            if self.manner == "slow":
                await asyncio.sleep(self.draw.uniform(0, 0.02))
        self.counts.cuts += 1
        return None

    async def _recv(self, sock: socket.socket, most: int) -> bytes:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                return await asyncio.get_running_loop().sock_recv(sock, most)
        except TimeoutError:
            self.transcript.blame(f"its connection was silent for {SILENCE_SECONDS:g} s")
            raise

    def _request(self) -> h11.Request:
        """From behind what we have; sometimes from further back, by either kind of cursor."""
        events = self.transcript.events
        after = len(events)
        if self.manner != "steady" and self.draw.random() < 0.2 and not self.transcript.is_ended:
            after = self.draw.randint(0, after)
        self.transcript.connected(after)
        headers = [("Host", f"127.0.0.1:{self.port}")]
        target = f"/api/runs/{self.run}/events"
        if after and self.draw.random() < 0.5:
            headers.append(("Last-Event-ID", f"{events[after - 1].epoch}:{after}"))
        elif after:
            target += f"?after={after}"
        return h11.Request(method="GET", target=target, headers=headers)

    def _byte_budget(self) -> int:
        """After how many bytes to cut: any number, often a small one, so that heads are hit too."""
        if self.manner != "cutting" or self.transcript.is_ended:
            return 1 << 40
        return int(self.draw.expovariate(1 / self.draw.choice((100, 1000, 8000)))) + 1

    def _gulp(self) -> int:
        return 512 if self.manner == "slow" else 65536

    def _digest(self, wire: h11.Connection, blocks: Blocks, status: int | None) -> tuple[int | None, bool]:
        """What the received bytes say: the status so far, and whether the reply is over."""
        while True:
            match wire.next_event():
                case h11.NEED_DATA:
                    return status, False
                case h11.Response(status_code=code):
                    status = code
                    self._look_at_status(code)
                case h11.Data(data=data):
                    self._hear(blocks, bytes(data), status)
                case _:
                    return status if status == 204 or self.transcript.is_ended else None, True

    def _look_at_status(self, code: int) -> None:
        if code not in (200, 204):
            self.transcript.blame(f"its events were answered with {code}")
        if code == 204 and not self.transcript.is_ended:
            self.transcript.blame("there was said to be nothing more before the end")

    def _hear(self, blocks: Blocks, data: bytes, status: int | None) -> None:
        for block in blocks.feed(data) if status == 200 else ():
            news = self.transcript.take(block, time.monotonic())
            if news is not None:
                self.on_news(news)
