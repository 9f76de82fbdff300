"""The conductor: load processes, the server's costs, the machine's jitter; round by round."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from inkstream.bench.dialect import path_of
from inkstream.bench.load import Share, Unreachable, beside, tell
from inkstream.bench.machine import Machine, Use, family, listeners, use_of
from inkstream.bench.plan import Plan
from inkstream.bench.result import Figures, Result
from inkstream.bench.stats import Percentiles, Tally

SAMPLE_SECONDS = 0.5
LINE_BYTES = 1 << 20
WARM_UP_TOKENS = 4
OURS = "inkstream.bench."


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the measurement is, a few times a second. ``round`` 0 is the warming up."""

    round: int
    streams: int
    rate: float
    counts: Tally


async def measure(plan: Plan, on_progress: Callable[[Progress], None] = lambda _: None) -> Result:
    """Run every load of the plan ``rounds`` times, the loads taking turns, behind one answer to warm up.

    Raises Unreachable if the server cannot be asked at all; what fails later is counted.
    """
    loads = [0] if plan.rate else list(plan.streams)
    machine = Machine.here()
    if plan.warm_up:
        await _warm_up(plan, on_progress)
    rounds = []
    for number in range(1, plan.rounds + 1):
        for streams in loads:
            rounds.append(await _round(plan, streams, number, on_progress))
    return Result(plan, path_of(plan)[0], machine, tuple(rounds))


async def _warm_up(plan: Plan, on_progress: Callable[[Progress], None]) -> None:
    """One short answer, counted nowhere. Raises Unreachable if it does not come."""
    warm = replace(plan, streams=(1,), tokens=WARM_UP_TOKENS, rate=0.0, duration=0.0, ramp=0.0, workers=1)
    figures = await _round(warm, 1, 0, on_progress)
    for kind in figures.errors:
        raise Unreachable(
            f"{plan.url} gives no answer as {path_of(plan)[0]!r}: {kind}. Is --api right, and --key?"
        )


async def _round(plan: Plan, streams: int, number: int, on_progress: Callable[[Progress], None]) -> Figures:
    def progress(counts: Tally) -> None:
        on_progress(Progress(number, streams, plan.rate, counts))

    async with contextlib.AsyncExitStack() as stack:
        crew = [
            await stack.enter_async_context(_Worker.started(plan, s)) for s in _shares(plan, streams, number)
        ]
        await asyncio.gather(*(worker.ready() for worker in crew))
        roots = plan.pids or listeners(plan.address.hostname or "", _port(plan))
        jitter = await stack.enter_async_context(_jitter())
        meter = Meter(roots)
        for worker in crew:
            worker.go()
        async with beside(_watch(crew, meter, progress)):
            tally = Tally.merged(await asyncio.gather(*(worker.finished() for worker in crew)))
        used = meter.used()
        return Figures.of(tally, streams, plan.rate, await jitter(), used)


def _shares(plan: Plan, streams: int, number: int) -> list[Share]:
    """Streams and arrivals dealt out evenly: Poisson arrivals of several workers are Poisson together."""
    crew = plan.workers if plan.rate else min(plan.workers, streams)
    return [
        Share(
            streams=streams // crew + (at < streams % crew),
            rate=plan.rate / crew,
            nonce=f"{plan.seed}-{number}-{streams}-{at}",
            seed=hash((plan.seed, number, streams, at)),
        )
        for at in range(crew)
    ]


def _port(plan: Plan) -> int:
    return plan.address.port or (443 if plan.address.scheme == "https" else 80)


async def _watch(crew: list[_Worker], meter: Meter, progress: Callable[[Tally], None]) -> None:
    while True:
        progress(Tally.merged([worker.counts for worker in crew]))
        await asyncio.sleep(SAMPLE_SECONDS)
        meter.sample()


class Meter:
    """What processes and their descendants use from now on. One that ends counts up to its last sample."""

    def __init__(self, roots: tuple[int, ...]) -> None:
        self._roots = roots
        self._first = {use.pid: use for use in self._look()}
        self._last = dict(self._first)
        self._rss = {pid: use.rss_bytes for pid, use in self._first.items()}

    def sample(self) -> None:
        for use in self._look():
            self._last[use.pid] = use
            self._rss[use.pid] = max(self._rss.get(use.pid, 0), use.rss_bytes)

    def used(self) -> tuple[Use, ...]:
        """CPU since the beginning, and the most memory that was seen."""
        self.sample()
        nothing = Use(0, "", 0.0, 0)
        return tuple(
            replace(
                use,
                cpu_seconds=round(use.cpu_seconds - self._first.get(pid, nothing).cpu_seconds, 6),
                rss_bytes=self._rss[pid],
            )
            for pid, use in self._last.items()
        )

    def _look(self) -> list[Use]:
        if not self._roots:
            return []
        uses = [use for pid in family(self._roots) if (use := use_of(pid)) is not None]
        # A server in the process that measures has our own processes for children.
        return [use for use in uses if not use.name.startswith(OURS)]


@dataclass(slots=True)
class _Worker:
    """A load process, from this side."""

    process: Process
    counts: Tally = field(default_factory=Tally)

    @classmethod
    @asynccontextmanager
    async def started(cls, plan: Plan, share: Share) -> AsyncIterator[_Worker]:
        async with _child("inkstream.bench.worker") as process:
            assert process.stdin is not None
            process.stdin.write(tell(plan, share))
            yield cls(process)

    async def ready(self) -> None:
        await self._hear()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def finished(self) -> Tally:
        assert self.process.stdout is not None
        while "done" not in (message := await self._hear()):
            self.counts = _tally(message["counts"])
        tally = _tally(message["done"])
        for name, size in message["series"].items():
            getattr(tally, name).frombytes(await self.process.stdout.readexactly(size))
        return tally

    async def _hear(self) -> dict[str, Any]:
        """Raises Unreachable."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        message: dict[str, Any] = orjson.loads(line) if line else {"failed": "a load process died."}
        if "failed" in message:
            raise Unreachable(message["failed"])
        return message


def _tally(counts: dict[str, Any]) -> Tally:
    return Tally(**counts | {"errors": Counter(counts["errors"])})


@asynccontextmanager
async def _jitter() -> AsyncIterator[Callable[[], Awaitable[Percentiles]]]:
    async with _child("inkstream.bench.jitter") as process:

        async def found() -> Percentiles:
            out, _ = await process.communicate(b"")  # without input it would leave stdin open
            return Percentiles(**orjson.loads(out))

        yield found


@asynccontextmanager
async def _child(module: str) -> AsyncIterator[Process]:
    """A process of ours, ended with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
