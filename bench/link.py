"""What the link costs per chunk: ``python bench/link.py [--runs 32 256] [--seconds 5] [--rounds 3]``.

The scripted engine runs in a process of its own, behind a Host; this process is the gateway. The answers are
paced in step (as a batching engine's are: one frame for all of them), paced each by its own clock, or as fast
as it goes. Printed are medians of the processor time per chunk: of this process, of the engine's process, and
of the same engine in one process without a link, which is the engine's own share.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import statistics
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import uvloop

from inkstream.engines import Chunk, Emitted, Engine, Message, Phase, Progress, Request, Sampling
from inkstream.engines.link import Host, LinkEngine
from inkstream.engines.scripted import Script, Scripted

KEY = "bench"
FORMS = {
    "chunks_per_second": ",.0f",
    "tokens_per_second": ",.0f",
    "tokens_per_chunk": ".2f",
    "gateway": ".2f",
    "host": ".2f",
    "engine": ".2f",
}
spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Case:
    """``rate`` is tokens per second of each run; 0 stands for as fast as it goes."""

    name: str
    runs: int
    rate: float
    seconds: float
    in_step: bool = True

    @property
    def script(self) -> Script:
        tokens = int(self.rate * self.seconds) if self.rate else 20_000_000 // self.runs
        return Script(
            answer_tokens=tokens,
            tokens_per_second=self.rate,
            in_step=self.in_step,
            slots=self.runs,
            context=1 << 30,
        )


@dataclass
class Count:
    chunks: int = 0
    tokens: int = 0

    def take(self, item: Chunk | Progress) -> None:
        self.chunks += 1
        self.tokens += item.tokens if isinstance(item, Chunk) else 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of processor time per chunk."""

    chunks_per_second: float
    tokens_per_second: float
    tokens_per_chunk: float
    gateway: float
    host: float
    engine: float


async def consume(engine: Engine, case: Case) -> tuple[Count, float, float]:
    """All runs to their end, or for the time given: what came, wall and processor seconds."""
    prompt = await engine.render([Message("user", "bench")])
    count = Count()

    async def one(number: int) -> None:
        if case.rate:  # begun at different times of a step
            await asyncio.sleep(number / case.runs / case.rate)
        await engine.generate(
            Request(str(number), prompt, Sampling(temperature=1, seed=number)), Emitted(), count.take
        )

    wall, busy = time.perf_counter(), time.process_time()
    tasks = [asyncio.create_task(one(number)) for number in range(case.runs)]
    done, pending = await asyncio.wait(tasks, timeout=None if case.rate else case.seconds)
    spent = time.perf_counter() - wall, time.process_time() - busy
    for task in pending:
        task.cancel()
    await asyncio.gather(*done, asyncio.gather(*pending, return_exceptions=True))
    return count, *spent


def serve(pipe: Connection, script: Script) -> None:
    async def main() -> None:
        host = Host(KEY)
        host.attach(Scripted(script))
        pipe.send(await host.listen("127.0.0.1", 0))
        await asyncio.to_thread(pipe.recv)
        started = time.process_time()
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)
        pipe.send(time.process_time() - started)
        await host.aclose()

    uvloop.run(main())


async def through_link(pipe: Connection, case: Case) -> tuple[Count, float, float, float]:
    async with LinkEngine(pipe.recv(), KEY) as engine:
        while engine.status.phase is not Phase.READY:
            await engine.status_after(engine.status)
        pipe.send(None)
        pipe.recv()
        count, wall, gateway = await consume(engine, case)
        pipe.send(None)
        return count, wall, gateway, pipe.recv()


async def without_link(case: Case) -> float:
    """The engine's own share per chunk."""
    count, _, busy = await consume(Scripted(case.script), case)
    return busy / count.chunks


def measure(case: Case) -> Cost:
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=serve, args=(theirs, case.script))
    child.start()
    count, wall, gateway, host = uvloop.run(through_link(ours, case))
    child.join()
    gc.collect()
    return Cost(
        chunks_per_second=count.chunks / wall,
        tokens_per_second=count.tokens / wall,
        tokens_per_chunk=count.tokens / count.chunks,
        gateway=gateway / count.chunks * 1e6,
        host=host / count.chunks * 1e6,
        engine=uvloop.run(without_link(case)) * 1e6,
    )


def report(case: Case, costs: list[Cost]) -> str:
    median = {name: statistics.median(getattr(cost, name) for cost in costs) for name in FORMS}
    figures = " | ".join(f"{median[name]:{form}}" for name, form in FORMS.items())
    return f"| {case.runs} {case.name} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(
        "| runs | chunks/s | tokens/s | tokens per chunk | gateway µs | engine process µs | engine alone µs |"
    )
    print("|---|---|---|---|---|---|---|")
    for runs in given.runs:
        in_step = Case("in step", runs, given.rate, given.seconds)
        for case in (
            in_step,
            replace(in_step, name="spread", in_step=False),
            replace(in_step, name="unpaced", rate=0),
        ):
            print(report(case, [measure(case) for _ in range(given.rounds)]), flush=True)


if __name__ == "__main__":
    main()
