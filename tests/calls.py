"""Generations as tests look at them: what was taken, and when."""

from __future__ import annotations

import asyncio

import pytest

from inkstream.engines import Chunk, Emitted, Engine, Finish, Progress, Request

NOTHING = Emitted()


class Call:
    """A generation in a task of its own. ``items`` is what was taken, ``late`` what came behind the end."""

    def __init__(self, engine: Engine, request: Request, emitted: Emitted = NOTHING) -> None:
        self.items: list[Chunk | Progress] = []
        self.late: list[Chunk | Progress] = []
        self._is_over = False
        self._news = asyncio.Event()
        self.task = asyncio.create_task(engine.generate(request, emitted, self._take))
        self.task.add_done_callback(lambda _: self._end())

    @property
    def chunks(self) -> list[Chunk]:
        """Those taken, and what came with the end."""
        taken = [item for item in self.items if isinstance(item, Chunk)]
        is_finished = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        last = self.task.result().last if is_finished else None
        return taken if last is None else [*taken, last]

    @property
    def text(self) -> str:
        return text_of(self.chunks)

    async def until(self, items: int = 1) -> None:
        """Wait until so many were taken. Raises what the generation raises; it must not end before."""
        while len(self.items) < items:
            if self.task.done():
                raise AssertionError(f"it ended early: {self.task.result()}")
            self._news.clear()
            await self._news.wait()

    async def until_chunk(self) -> Chunk:
        """Wait for one that is no Progress."""
        while not self.chunks:
            await self.until(len(self.items) + 1)
        return self.chunks[0]

    async def more(self) -> None:
        """Wait for the next."""
        await self.until(len(self.items) + 1)

    async def finish(self) -> Finish:
        return await self.task

    async def cancel(self) -> None:
        """From now on nothing may be taken."""
        self._is_over = True
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        assert self.late == []

    def _take(self, item: Chunk | Progress) -> None:
        (self.late if self._is_over else self.items).append(item)
        self._news.set()

    def _end(self) -> None:
        self._is_over = True
        self._news.set()


async def answered(
    engine: Engine, request: Request, emitted: Emitted = NOTHING
) -> tuple[list[Chunk], Finish]:
    """A whole answer: its chunks, the last one included, and its end."""
    call = Call(engine, request, emitted)
    finish = await call.finish()
    assert call.late == []
    return call.chunks, finish


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def emitted_by(chunks: list[Chunk]) -> Emitted:
    ids = [chunk.ids for chunk in chunks]
    known = None if None in ids else tuple(id for part in ids for id in part or ())
    return Emitted(text_of(chunks), known, sum(chunk.tokens for chunk in chunks))
