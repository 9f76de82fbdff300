"""How late this machine's timers are on an idle loop: ``python -m inkstream.bench.jitter``.

A process of its own beside the load, on the same kind of event loop. Latency up to what it finds is the
machine's, and nobody's fault. It runs until its standard input ends, then prints what it has found.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from dataclasses import asdict
from time import perf_counter

import orjson

from inkstream.bench.stats import Percentiles
from inkstream.bench.worker import run_fast

PERIOD_SECONDS = 0.01


async def _measure() -> None:
    late = array("d")
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.buffer.read))
    due = perf_counter()
    while not ended.done():
        due = max(due + PERIOD_SECONDS, perf_counter())
        await asyncio.sleep(due - perf_counter())
        late.append(max(0.0, perf_counter() - due))
    sys.stdout.buffer.write(orjson.dumps(asdict(Percentiles.of(late))))


if __name__ == "__main__":
    run_fast(_measure)
