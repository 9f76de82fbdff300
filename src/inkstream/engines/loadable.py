"""What engines share that take their time to load: somebody waits for them, or only watches how it goes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Self

from inkstream.engines import Phase, Status
from inkstream.errors import InkstreamError


class Loadable(ABC):
    """``async with engine`` waits until it is loaded, ``async with engine.loading()`` does not."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            await self.load()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def loading(self) -> AsyncGenerator[Self]:
        """The engine loads while the block runs, and is closed at its end; ``status`` tells of a failure."""
        task = asyncio.create_task(self._load_quietly())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.aclose()
            if not task.cancelled():
                task.result()

    async def load(self) -> None:
        """Raises what ``_load`` does; ``status`` tells of it too."""
        try:
            await self._load()
        except InkstreamError as error:
            self._set(Status(Phase.GIVEN_UP, code=error.code, message=error.message))
            raise

    async def _load_quietly(self) -> None:
        with suppress(InkstreamError):
            await self.load()

    @abstractmethod
    async def _load(self) -> None: ...

    @abstractmethod
    async def aclose(self) -> None:
        """Generations that still run raise EngineLost."""

    @property
    def status(self) -> Status:
        return self._status

    async def status_after(self, seen: Status) -> Status:
        while self._status == seen:
            await self._changed.wait()
        return self._status

    def _set(self, status: Status) -> None:
        """A status that gives the engine up is the last one."""
        if status == self._status or self._status.phase is Phase.GIVEN_UP:
            return
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()
