"""Answers that are in a data folder's log before the server starts: one event per token, however many."""

from __future__ import annotations

import asyncio
from pathlib import Path

from inkstream.events import Draft, Kind, encode
from inkstream.log import Entry, Log, NewRun
from inkstream.log.sqlite import SqliteLog

AT_ONCE = 256
SEAM = b'["token ",[1],1,null]'
TOKEN = Draft(Kind.TEXT, encode({"text": "token "}), SEAM)
STARTED = Draft(Kind.STARTED, encode({"model": "scripted", "seed": 7}))


async def write_runs(folder: Path, runs: int, tokens: int) -> list[str]:
    """The ids of ``runs`` ended answers of so many tokens each."""
    log = await SqliteLog.open(folder)
    try:
        names = [f"{number:032x}" for number in range(runs)]
        for first in range(0, runs, AT_ONCE):
            await asyncio.gather(*(_write(log, name, tokens) for name in names[first : first + AT_ONCE]))
        return names
    finally:
        await log.aclose()


async def _write(log: Log, name: str, tokens: int) -> None:
    run, _ = await log.create(NewRun(name, "local", b"{}"))
    claim = await log.claim(run.id, 0)
    seq = 0
    for drafts in _entries(tokens):
        appended = await log.append(Entry(claim, seq, drafts))
        assert appended is not None, "nobody else writes here"
        seq = appended.seq
    await log.settle(name)


def _entries(tokens: int) -> list[list[Draft]]:
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "cached_tokens": 0}
    done = Draft(Kind.DONE, encode({"finish": "length", "usage": usage, "timings": {}}))
    whole, rest = divmod(tokens, AT_ONCE)
    return [[STARTED], *[[TOKEN] * AT_ONCE] * whole, [*[TOKEN] * rest, done]]
