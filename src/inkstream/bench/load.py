"""What one worker does in one round: its share of the streams, or of the arrivals."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from time import perf_counter, process_time
from typing import Any

import orjson

from inkstream.bench.client import Address, Answer, Book, Exchange
from inkstream.bench.dialect import dialect_of
from inkstream.bench.plan import Plan
from inkstream.bench.stats import Tally
from inkstream.errors import InkstreamError

LOOK_SECONDS = 0.25
PREPARED = 512  # where nobody knows how many answers there will be
PREPARING = 32
CONNECTING = 256
"""Connections being made at once: more than a server's backlog holds would wait a second for a second try."""


class Unreachable(InkstreamError):
    """The server cannot be asked at all."""

    code = "unreachable"


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part. ``rate`` is its arrivals per second; ``nonce`` sets its questions apart."""

    streams: int
    rate: float
    nonce: str
    seed: int


def tell(plan: Plan, share: Share) -> bytes:
    """The line by which a worker is told its part."""
    return orjson.dumps({"plan": asdict(plan), "share": asdict(share)}) + b"\n"


def told(line: bytes) -> tuple[Plan, Share]:
    part = orjson.loads(line)
    tuples = {name: tuple(part["plan"][name]) for name in ("streams", "pids")}
    return Plan(**part["plan"] | tuples), Share(**part["share"])


class Load:
    """``prepare``, then ``run`` once. Raises Unreachable."""

    def __init__(self, plan: Plan, share: Share) -> None:
        self._plan, self._share = plan, share
        self.tally = Tally()
        self._dialect = dialect_of(plan, share.nonce)
        self._book = Book(self._dialect, self.tally)
        self._connecting = asyncio.Semaphore(CONNECTING)
        self._address: Address

    async def prepare(self) -> None:
        self._address = await resolved(self._plan)
        limit = asyncio.Semaphore(PREPARING)

        async def ask(request: bytes) -> None:
            async with limit:
                await self._prepare(request)

        await asyncio.gather(*map(ask, self._dialect.preparations(self._expected())))

    def _expected(self) -> int:
        """About how many answers will be asked for."""
        if self._plan.rate:
            return max(1, round(self._share.rate * self._plan.duration))
        return self._share.streams if not self._plan.duration else max(self._share.streams, PREPARED)

    async def _prepare(self, request: bytes) -> None:
        exchange = Exchange(request)
        await self._exchange(exchange)
        allow = exchange.headers.get(b"allow", b"").decode()
        try:
            self._dialect.prepared(exchange.status, allow, exchange.body)
        except (ValueError, KeyError) as error:
            said = exchange.body[:200].decode(errors="replace")
            raise Unreachable(
                f"{self._plan.url} cannot be measured: {error} {said}. Is --api right?"
            ) from error

    async def _exchange(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._plan.timeout):
                await self._address.connect(lambda: exchange)
                await exchange.over
        except TimeoutError as error:
            raise Unreachable(f"{self._plan.url} is silent.") from error
        except OSError as error:
            raise Unreachable(f"{self._plan.url} does not answer: {error.strerror or error}.") from error
        if exchange.failure:
            raise Unreachable(f"{self._plan.url} does not answer: {exchange.failure}.")

    async def run(self) -> Tally:
        self.tally.began, busy = perf_counter(), process_time()
        async with beside(self._watch()):
            await (self._open_loop() if self._plan.rate else self._closed_loop())
        self.tally.ended, self.tally.cpu_seconds = perf_counter(), process_time() - busy
        return self.tally

    async def _closed_loop(self) -> None:
        pause = self._plan.ramp / self._share.streams
        async with asyncio.TaskGroup() as group:
            for number in range(self._share.streams):
                group.create_task(self._repeat(number * pause))

    async def _repeat(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            await self._ask(perf_counter)
            if perf_counter() - self.tally.began >= self._plan.duration:
                return

    async def _open_loop(self) -> None:
        """Begin answers at their moments, whatever has become of the earlier ones."""
        async with asyncio.TaskGroup() as group:
            for due in self._arrivals():
                await asyncio.sleep(max(0.0, due - perf_counter()))
                group.create_task(self._ask(lambda due=due: min(due, perf_counter())))  # type: ignore[misc]

    def _arrivals(self) -> Iterator[float]:
        draw, due = random.Random(self._share.seed), self.tally.began
        while (due := due + draw.expovariate(self._share.rate)) < self.tally.began + self._plan.duration:
            yield due

    async def _ask(self, clock: Callable[[], float]) -> None:
        """Latency counts from the clock: from the scheduled arrival in an open loop, else from now."""
        async with self._connecting:
            answer = Answer(self._book, clock())
            try:
                await self._address.connect(lambda: answer)
            except OSError as error:
                answer.finish("refused" if isinstance(error, ConnectionRefusedError) else "no connection")
        await answer.over

    async def _watch(self) -> None:
        """Give up answers of which nothing has come for too long; one timer for all of them."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.tally.open = len(self._book.open)
            late = perf_counter() - self._plan.timeout
            for answer in [answer for answer in self._book.open if answer.heard_at < late]:
                answer.finish("timeout")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that never ends, for as long as the block. Raises what it has raised."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def resolved(plan: Plan) -> Address:
    """Raises Unreachable."""
    where = plan.address
    assert where.hostname is not None
    is_tls = where.scheme == "https"
    port = where.port or (443 if is_tls else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(where.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"{where.hostname} is not known: {error.strerror}.") from error
    return Address(
        str(found[0][4][0]), port, ssl.create_default_context() if is_tls else None, where.hostname
    )
