"""Following a run from a test, batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine

from inkstream.events import Batch, Event, Note
from inkstream.log import Reader

Items = list[Event | Note]


class Inbox:
    """A reader that takes everything at once."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch | None] = asyncio.Queue()

    def take(self, batch: Batch) -> bool:
        self.batches.put_nowait(batch)
        return True

    async def ready(self) -> None:
        """It always is."""


async def batches(follow: Callable[[Reader], Coroutine[None, None, None]]) -> AsyncGenerator[Items]:
    """What ``follow`` gives to a reader, until it ends or the generator is closed; then its error."""
    inbox = Inbox()
    following = asyncio.ensure_future(follow(inbox))
    following.add_done_callback(lambda _: inbox.batches.put_nowait(None))
    try:
        while (batch := await inbox.batches.get()) is not None:
            yield [*batch.notes, *batch.events]
        following.result()
    finally:
        following.cancel()
        await asyncio.wait((following,))
