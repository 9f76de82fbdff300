"""A thread that does one thing after the other and tells the event loop, in the same order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Writer:
    """An executor would cost a future, a lock and two wake-ups for each call; a commit has time for none."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon: a process that ends without closing its log must not hang on it.
        self._thread = Thread(target=self._work, name="log-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, call: Callable[[], T], told: Callable[[T | Exception], None]) -> None:
        """Have the thread call it; ``told`` is called on the loop with the result or what was raised."""

        def answered() -> None:
            result: T | Exception
            try:
                result = call()
            except Exception as error:  # noqa: BLE001  # it is handed on
                result = error
            self._loop.call_soon_threadsafe(told, result)

        self._calls.put(answered)

    async def stop(self) -> None:
        """Finish what was asked for and end the thread."""
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
