"""What an event costs in the token log: ``python bench/log.py [RUNS STEPS]``.

Each step appends one token of every run in one commit, and waits for it. CPU time is that of the process, the
writer's thread included.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from inkstream.events import Draft, Kind, encode
from inkstream.log import Entry, NewRun
from inkstream.log.sqlite import SqliteLog

SHAPES = ((1, 4000), (32, 1000), (256, 200))
TOKEN = Draft(Kind.TEXT, encode({"text": "token "}), b'["token ",[1],1,null]')


async def measure(folder: Path, runs: int, steps: int) -> None:
    log = await SqliteLog.open(folder)
    claims = []
    for number in range(runs):
        run, _ = await log.create(NewRun(f"r{number}", "local", b"{}"))
        claims.append(await log.claim(run.id, 0))
    await log.append([Entry(claim, 0, [Draft(Kind.STARTED, b"{}")]) for claim in claims])
    cpu, wall = time.process_time(), time.perf_counter()
    for seq in range(1, steps + 1):
        await log.append([Entry(claim, seq, [TOKEN]) for claim in claims])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await log.aclose()
    per_event, per_commit = cpu / runs / steps * 1e6, wall / steps * 1e3
    print(f"{runs:4} runs: {per_event:6.1f} µs CPU per event, {per_commit:.2f} ms per commit")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:3]]
    for shape in [(given[0], given[1])] if given else SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(Path(folder), *shape))
