"""What the tests of the log build their little worlds from."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from inkstream.events import Batch, Draft, Event, Kind, Note, encode
from inkstream.log import Appended, Claim, Entry, Log, NewRun
from inkstream.log.sqlite import SqliteLog

STARTED = Draft(Kind.STARTED, b'{"model":"m","seed":1}')
DONE = Draft(Kind.DONE, b'{"finish":"stop"}')
STOPPED = Draft(Kind.STOPPED, b"{}")


@asynccontextmanager
async def sqlite_log(folder: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(folder)
    try:
        yield log
    finally:
        await log.aclose()


def text(piece: str) -> Draft:
    return Draft(Kind.TEXT, encode({"text": piece}), piece.encode())


async def begin(log: Log, run: str = "r1") -> Claim:
    await log.create(NewRun(run, "local", b"record"))
    return await log.claim(run, 0)


async def append(log: Log, claim: Claim, at: int, *events: Draft) -> Appended | None:
    return await log.append(Entry(claim, at, events))


class Listener:
    """A reader that keeps what it is given, and is ready as long as it has room for another batch."""

    def __init__(self, room: float = math.inf) -> None:
        self.batches: list[Batch] = []
        self.room = room
        self._bell = asyncio.Event()

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch.events]

    @property
    def notes(self) -> list[Note]:
        return [note for batch in self.batches for note in batch.notes]

    def take(self, batch: Batch) -> bool:
        self.batches.append(batch)
        self.room -= 1
        self.ring()
        return self.room > 0

    async def ready(self) -> None:
        await self.until(lambda: self.room > 0)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._bell.wait()

    def ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()


@asynccontextmanager
async def following(log: Log, claim: Claim, *listeners: Listener) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Readers that have all there is of a run with no note, and wait for more; they have been given one."""
    tasks = [asyncio.create_task(log.follow(claim.run, 0, listener)) for listener in listeners]
    log.note(claim, "hello", b"{}")
    for listener in listeners:
        await listener.until(lambda: bool(listener.notes))  # noqa: B023  # it is asked at once
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def everything(log: Log, run: str, after: int = 0) -> list[Event]:
    listener = Listener()
    await log.follow(run, after, listener)
    assert b"".join(event.frame for event in listener.events) == b"".join(
        batch.frames[sum(len(note.frame) for note in batch.notes) :] for batch in listener.batches
    )
    return listener.events


async def fill(log: Log, claim: Claim, at: int, size: int) -> int:
    """Append that many bytes, token by token; return the last number."""
    for seq in itertools.count(at):
        if size <= 0:
            return seq
        piece = text(f"{claim.run}:{seq} " + 100 * ".")
        size -= len(piece.data) + len(piece.seam)
        assert await append(log, claim, seq, piece) == Appended(seq + 1, False)
    raise AssertionError("unreachable")
