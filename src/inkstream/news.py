"""What starts and ends and how the engine fares, for those who listen: each hears of his own runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from inkstream.engines import Status
from inkstream.log import Run

BACKLOG = 256

Listener = asyncio.Queue[Run | Status | None]


class News:
    def __init__(self) -> None:
        self._listeners: dict[Listener, str] = {}

    @contextmanager
    def heard_by(self, principal: str) -> Iterator[Listener]:
        """Whoever leaves his queue full gets None instead of what was in it, and must listen anew."""
        queue = Listener(BACKLOG)
        self._listeners[queue] = principal
        try:
            yield queue
        finally:
            self._listeners.pop(queue, None)

    def tell(self, news: Run | Status) -> None:
        for queue, principal in list(self._listeners.items()):
            if isinstance(news, Status) or news.principal == principal:
                self._put(queue, news)

    def _put(self, queue: Listener, news: Run | Status) -> None:
        try:
            queue.put_nowait(news)
        except asyncio.QueueFull:
            del self._listeners[queue]
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
