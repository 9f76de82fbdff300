"""One load process: ``python -m inkstream.bench.worker``. It is told by JSON lines and tells by JSON lines.

    stdin     {"plan": …, "share": …}, then, when all workers are ready, an empty line
    stdout    {"ready": true} · {"counts": …} now and then · {"done": counts, "series": {name: bytes}},
              behind which those bytes follow · {"failed": message}

It ends when its standard input ends: a bench that dies leaves no load behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from inkstream.bench.load import Load, beside, told
from inkstream.bench.machine import allow_many_files
from inkstream.bench.stats import SERIES, Tally
from inkstream.errors import InkstreamError

TELL_SECONDS = 0.5


def main() -> None:
    allow_many_files()
    load = Load(*told(sys.stdin.buffer.readline()))
    try:
        run_fast(lambda: _work(load))
    except InkstreamError as error:
        _tell({"failed": error.message})


async def _work(load: Load) -> None:
    await load.prepare()
    _tell({"ready": True})
    await asyncio.to_thread(sys.stdin.buffer.readline)
    _end_with_the_parent()
    # With thousands of answers a collection takes milliseconds, and would be measured as the server's.
    gc.freeze()
    gc.disable()
    async with beside(_tell_now_and_then(load.tally)):
        tally = await load.run()
    _finish(tally)


async def _tell_now_and_then(tally: Tally) -> None:
    while True:
        _tell({"counts": tally.counts()})
        await asyncio.sleep(TELL_SECONDS)


def _finish(tally: Tally) -> None:
    series = {name: getattr(tally, name).tobytes() for name in SERIES}
    _tell({"done": tally.counts(), "series": {name: len(raw) for name, raw in series.items()}})
    for raw in series.values():
        sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_parent() -> None:
    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # unbuffered: its lock would stop the interpreter from shutting down
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_fast(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on the quickest event loop that there is. An interrupt ends it quietly: the parent has it too."""
    try:
        import uvloop  # noqa: PLC0415  # there is none for Windows

        new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        new_loop = asyncio.new_event_loop
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())


if __name__ == "__main__":
    main()
