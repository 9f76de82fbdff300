"""What the token log costs: ``python bench/log.py [--repeat N] [PART…]``.

Parts, all by default:

- ``step``    every step submits one token of every run in one turn of the loop and waits for the commit.
- ``spread``  every run submits 50 tokens a second, each at its own time: a commit carries what came.
- ``replay``  a reader follows an ended run from the start, out of its pages, after the log was opened anew.
- ``expire``  2,000 runs of 500 events are forgotten in slices, while another run appends every millisecond.
- ``memory``  resident memory for each of 10,000 live runs with tails of all lengths.

CPU is that of the whole process, the log's threads included. What the bench itself costs in ``spread`` (its
ticks) is measured without a log and taken off. The repetitions of all shapes are interleaved; printed are
the median and, in brackets, the least and the most.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop

from inkstream.events import Batch, Draft, Kind, encode
from inkstream.log import Appended, Claim, Entry, NewRun
from inkstream.log.sqlite import SqliteLog

RUNS = (1, 32, 256)
EVENTS = 50_000
SPREAD_SECONDS = 3.0
TICKS_PER_TOKEN = 20
TICK_SECONDS = 0.001
REPLAY_EVENTS = 300_000
EXPIRE_RUNS, EXPIRE_EVENTS, EXPIRE_ROWS = 2000, 500, 64
LIVE_RUNS = 10_000

STARTED = Draft(Kind.STARTED, encode({"model": "qwen2-0.5b", "seed": 7}))
TOKEN = Draft(Kind.TEXT, encode({"text": " token"}), b'[" token",[3950],1,null]')
DONE = Draft(Kind.DONE, encode({"finish": "stop"}))

Figures = dict[str, float]


class Shape(NamedTuple):
    name: str
    measure: Callable[[Path], Coroutine[None, None, Figures]]


class Meter:
    """CPU and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def cpu(self) -> float:
        return time.process_time() - self._cpu

    def wall(self) -> float:
        return time.perf_counter() - self._wall


class Counter:
    """A reader that looks at nothing."""

    def __init__(self) -> None:
        self.bytes = self.batches = 0

    def take(self, batch: Batch) -> bool:
        self.bytes += len(batch.frames)
        self.batches += 1
        return True

    async def ready(self) -> None: ...


async def begin(log: SqliteLog, runs: int) -> list[Claim]:
    claims = []
    for number in range(runs):
        await log.create(NewRun(f"{number:032x}", "local", b"{}"))
        claims.append(await log.claim(f"{number:032x}", 0))
    await step_of(log, claims, 0, STARTED)
    return claims


async def step_of(log: SqliteLog, claims: Sequence[Claim], seq: int, draft: Draft) -> None:
    """Append to all of these runs, a bounded number at a time."""
    for start in range(0, len(claims), 256):
        entries = (Entry(claim, seq, [draft]) for claim in claims[start : start + 256])
        await asyncio.gather(*map(log.append, entries))


# Appending


class Steps:
    """Submits a token of every run, and again as soon as all are committed."""

    def __init__(self, log: SqliteLog, claims: Sequence[Claim], steps: int) -> None:
        self._log, self._claims, self._steps = log, claims, steps
        self._seq = self._open = 0
        self._started = 0.0
        self.latencies: list[float] = []
        self.over = asyncio.get_running_loop().create_future()

    def step(self) -> None:
        self._seq += 1
        self._open = len(self._claims)
        self._started = time.perf_counter()
        for claim in self._claims:
            self._log.submit(Entry(claim, self._seq, (TOKEN,)), self._done)

    def _done(self, outcome: object) -> None:
        assert isinstance(outcome, Appended), outcome
        self._open -= 1
        if self._open:
            return
        self.latencies.append(time.perf_counter() - self._started)
        if self._seq < self._steps:
            self.step()
        else:
            self.over.set_result(None)


async def in_step(runs: int, readers: int, folder: Path) -> Figures:
    log = await SqliteLog.open(folder)
    claims = await begin(log, runs)
    followers = [asyncio.create_task(log.follow(c.run, 1, Counter())) for c in claims for _ in range(readers)]
    await log.renew()
    steps = Steps(log, claims, max(200, EVENTS // runs // (10 if runs == 1 else 1)))
    meter = Meter()
    steps.step()
    await steps.over
    cpu, wall = meter.cpu(), meter.wall()
    await log.aclose()
    await asyncio.gather(*followers)
    commits = len(steps.latencies)
    return {
        "µs CPU/event": cpu / commits / runs * 1e6,
        "commits/s": commits / wall,
        **latency(steps.latencies),
    }


async def spread(runs: int, folder: Path) -> Figures:
    log = await SqliteLog.open(folder)
    claims = await begin(log, runs)
    latencies: list[float] = []

    def submit(number: int, seq: int) -> None:
        at = time.perf_counter()
        log.submit(Entry(claims[number], seq, (TOKEN,)), lambda _: latencies.append(time.perf_counter() - at))

    cpu = await ticked(runs, submit)
    await log.aclose()
    idle = await ticked(runs, lambda number, seq: None)
    return {
        "µs CPU/event": (cpu - idle) / len(latencies) * 1e6,
        **latency(latencies),
    }


async def ticked(runs: int, submit: Callable[[int, int], None]) -> float:
    """Give every run its tick in each round; return the CPU time of all of it."""
    due = [range(tick, runs, TICKS_PER_TOKEN) for tick in range(TICKS_PER_TOKEN)]
    loop, meter = asyncio.get_running_loop(), Meter()
    start = loop.time()
    for tick in range(round(SPREAD_SECONDS / TICK_SECONDS)):
        await asyncio.sleep(max(0.0, start + tick * TICK_SECONDS - loop.time()))
        for number in due[tick % TICKS_PER_TOKEN]:
            submit(number, tick // TICKS_PER_TOKEN + 1)
    await asyncio.sleep(0.1)
    return meter.cpu()


def latency(seconds: list[float]) -> Figures:
    ordered = sorted(seconds)
    return {
        "p50 ms": ordered[len(ordered) // 2] * 1e3,
        "p99 ms": ordered[len(ordered) * 99 // 100] * 1e3,
        "max ms": ordered[-1] * 1e3,
    }


# Replay, expiry, memory


async def write_run(log: SqliteLog, claim: Claim, events: int, per_append: int) -> None:
    for seq in range(1, events, per_append):
        await log.append(Entry(claim, seq, [TOKEN] * per_append))


async def replay(folder: Path) -> Figures:
    log = await SqliteLog.open(folder)
    [claim] = await begin(log, 1)
    await write_run(log, claim, REPLAY_EVENTS, 8)
    last = await log.get(claim.run)
    assert last is not None
    await log.append(Entry(claim, last.last_seq, [DONE]))
    await log.aclose()
    log = await SqliteLog.open(folder)
    counter, meter = Counter(), Meter()
    await log.follow(claim.run, 0, counter)
    cpu, wall = meter.cpu(), meter.wall()
    await log.aclose()
    return {
        "events/s": (last.last_seq + 1) / wall,
        "ns CPU/event": cpu / last.last_seq * 1e9,
        "MB/s": counter.bytes / wall / 1e6,
        "KiB/batch": counter.bytes / counter.batches / 1024,
    }


async def expire(folder: Path) -> Figures:
    log = await SqliteLog.open(folder)
    claims = await begin(log, EXPIRE_RUNS)
    for seq in range(1, EXPIRE_EVENTS - 1):
        await step_of(log, claims, seq, TOKEN)
    await step_of(log, claims, EXPIRE_EVENTS - 1, DONE)
    for claim in claims:
        await log.settle(claim.run)
    await log.create(NewRun("live", "local", b"{}"))
    live = await log.claim("live", 0)
    await log.append(Entry(live, 0, [STARTED]))
    waits: list[float] = []
    appending = asyncio.create_task(_append_every_tick(log, live, waits))
    await asyncio.sleep(0.2)
    slices = await _expire_all(log)
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    await log.aclose()
    wall, cpu = (latency(list(times)) for times in zip(*slices, strict=True))
    return {
        "slices": len(slices),
        **{f"slice {name}": value for name, value in wall.items()},
        "slice max ms of CPU": cpu["max ms"],
        **{f"append {name}": value for name, value in latency(waits).items()},
    }


async def _expire_all(log: SqliteLog) -> list[tuple[float, float]]:
    """Wall and CPU time of every slice on the writer's thread."""
    slices = []
    timed = log._store.expire

    def expire_timed(before: float, limit: int) -> int:
        started, busy = time.perf_counter(), time.thread_time()
        rows = timed(before, limit)
        slices.append((time.perf_counter() - started, time.thread_time() - busy))
        return rows

    log._store.expire = expire_timed  # type: ignore[method-assign]  # only the thread itself can tell
    while await log.expire(time.time() + 1, EXPIRE_ROWS):
        pass
    return slices


async def _append_every_tick(log: SqliteLog, claim: Claim, waits: list[float]) -> None:
    seq = 1
    while True:
        started = time.perf_counter()
        await log.append(Entry(claim, seq, [TOKEN]))
        waits.append(time.perf_counter() - started)
        seq += 1
        await asyncio.sleep(TICK_SECONDS)


async def memory(folder: Path) -> Figures:
    log = await SqliteLog.open(folder)
    await log.create(NewRun("first", "local", b"{}"))
    before = _resident()
    claims = await begin(log, LIVE_RUNS)
    idle = _resident()
    for seq in range(1, 2 * 40):
        due = [claim for number, claim in enumerate(claims) if number % 40 + 40 >= seq]
        await step_of(log, due, seq, TOKEN)
    full = _resident()
    await log.aclose()
    return {
        "KiB/run without tail": (idle - before) / LIVE_RUNS / 1024,
        "KiB/run with tail": (full - before) / LIVE_RUNS / 1024,
    }


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# Printing


SHAPES: dict[str, list[Shape]] = {
    "step": [
        *(Shape(f"{runs} runs in step", partial(in_step, runs, 0)) for runs in RUNS),
        Shape("256 runs in step, a reader each", partial(in_step, 256, 1)),
    ],
    "spread": [Shape(f"{runs} runs spread", partial(spread, runs)) for runs in RUNS],
    "replay": [Shape(f"replay of {REPLAY_EVENTS:,} events", replay)],
    "expire": [Shape(f"expiry of {EXPIRE_RUNS:,} runs × {EXPIRE_EVENTS}", expire)],
    "memory": [Shape(f"{LIVE_RUNS:,} live runs", memory)],
}


def measure(shape: Shape) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(shape.measure(Path(folder)))


def show(shape: Shape, repeated: list[Figures]) -> None:
    print(shape.name)
    for name in repeated[0]:
        values = [figures[name] for figures in repeated]
        print(f"  {statistics.median(values):>14,.2f} {name:<22} [{min(values):,.2f} – {max(values):,.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the token log costs.")
    parser.add_argument("parts", nargs="*", choices=[*SHAPES, []])
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    shapes = [shape for part in given.parts or SHAPES for shape in SHAPES[part]]
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()},"
        f" SQLite {sqlite3.sqlite_version}, {given.repeat} repetitions"
    )
    repeated: dict[Shape, list[Figures]] = {shape: [] for shape in shapes}
    for _ in range(given.repeat):
        for shape in shapes:
            repeated[shape].append(measure(shape))
    for shape, figures in repeated.items():
        show(shape, figures)


if __name__ == "__main__":
    main()
