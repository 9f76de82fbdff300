"""What the link costs per chunk: ``python bench/link.py [RUNS] [STEPS] [STEPS_PER_SECOND]``.

An engine in its own process yields one chunk per run and step, as a batching engine does. Printed is the
processor time of each process per chunk, and of the same engine consumed without a link, in one process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from multiprocessing.connection import Connection

import uvloop

from inkstream.engines import (
    Capabilities,
    Chunk,
    Emitted,
    Engine,
    Finish,
    Message,
    Phase,
    Progress,
    Prompt,
    Request,
    Sampling,
    Status,
)
from inkstream.engines.link import Host, LinkEngine

KEY = "bench"
READY = Status(Phase.READY)


class Stepper:
    """Yields a token for every run at every step."""

    def __init__(self, runs: int, steps: int, steps_per_second: float) -> None:
        self._runs, self._steps, self._pause = runs, steps, 1 / steps_per_second
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def status(self) -> Status:
        return READY

    async def status_after(self, seen: Status) -> Status:
        never: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        return await never

    def describe(self) -> Capabilities:
        return Capabilities("stepper", "none", "none", 8192, self._runs, "no", False, Sampling())

    async def render(self, messages: Sequence[Message]) -> Prompt:
        return Prompt(1, None)

    async def generate(self, request: Request, emitted: Emitted) -> AsyncGenerator[Chunk | Progress | Finish]:
        for step in range(self._steps):
            await self._next_step()
            yield Chunk(" token", 1, (step,))
        yield Finish("length", 1, self._steps)

    async def _next_step(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if len(self._waiting) == self._runs:
            waiting, self._waiting = self._waiting, []
            loop.call_later(self._pause, _release, waiting)
        await waiter

    async def aclose(self) -> None: ...


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for waiter in waiting:
        waiter.set_result(None)


async def consume(engine: Engine, runs: int) -> int:
    async def one(number: int) -> int:
        request = Request(str(number), Prompt(1, None), Sampling())
        return len([item async for item in engine.generate(request, Emitted()) if isinstance(item, Chunk)])

    return sum(await asyncio.gather(*map(one, range(runs))))


def serve(pipe: Connection, runs: int, steps: int, steps_per_second: float) -> None:
    async def main() -> None:
        host = Host(KEY)
        host.attach(Stepper(runs, steps, steps_per_second))
        pipe.send(await host.listen("127.0.0.1", 0))
        started = time.process_time()
        await asyncio.to_thread(pipe.recv)
        pipe.send(time.process_time() - started)
        await host.aclose()

    uvloop.run(main())


async def through_link(url: str, runs: int) -> tuple[int, float, float]:
    async with LinkEngine(url, KEY) as engine:
        while engine.status != READY:
            await engine.status_after(engine.status)
        wall, busy = time.perf_counter(), time.process_time()
        chunks = await consume(engine, runs)
        return chunks, time.perf_counter() - wall, time.process_time() - busy


async def without_link(runs: int, steps: int, steps_per_second: float) -> float:
    started = time.process_time()
    await consume(Stepper(runs, steps, steps_per_second), runs)
    return time.process_time() - started


def main(runs: int = 32, steps: int = 500, steps_per_second: float = 50) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, runs, steps, steps_per_second)
    )
    child.start()
    chunks, wall, gateway = uvloop.run(through_link(ours.recv(), runs))
    ours.send(None)
    host = ours.recv()
    child.join()
    floor = uvloop.run(without_link(runs, steps, steps_per_second))
    print(
        f"{runs} runs, {chunks / wall:,.0f} chunks/s, {steps / wall:,.0f} steps/s; "
        f"CPU per chunk: gateway {gateway / chunks * 1e6:.1f} µs, host {host / chunks * 1e6:.1f} µs, "
        f"engine without link {floor / chunks * 1e6:.1f} µs"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
