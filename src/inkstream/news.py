"""What happens on the server as a whole, told to everybody who listens: runs, conversations, the engine.

It is told once and kept nowhere: who was away asks for what there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from inkstream.engines import Status
from inkstream.history import Changed
from inkstream.log import Run

BACKLOG = 256

Item = Run | Changed | Status
Listener = asyncio.Queue[Item | None]


class News:
    def __init__(self) -> None:
        self._listeners: dict[Listener, str] = {}

    @contextmanager
    def listen(self, principal: str) -> Iterator[Listener]:
        """What happens from now on, as far as it concerns the principal.

        A listener that leaves its queue full gets None instead of what was in it, and must listen anew.
        """
        queue = Listener(BACKLOG)
        self._listeners[queue] = principal
        try:
            yield queue
        finally:
            self._listeners.pop(queue, None)

    def tell(self, item: Item) -> None:
        whose = None if isinstance(item, Status) else item.principal
        for queue, principal in list(self._listeners.items()):
            if whose in (None, principal):
                self._put(queue, item)

    def _put(self, queue: Listener, item: Item) -> None:
        try:
            queue.put_nowait(item)
        except asyncio.QueueFull:
            del self._listeners[queue]
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
