"""A thread that does one thing after the other and tells the event loop, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Writer:
    """One thread's worth of a database. It must be started before, and is asked nothing behind, its stop.

    An executor would cost two futures, two locks and two wake-ups for each call; a commit has time for none.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        # Any: each call has a result of its own.
        self._calls: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._is_stopped = False
        # A daemon: a process that ends without closing its files must not hang on it.
        self._thread = Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, call: Callable[[], T], told: Callable[[T | Exception], None]) -> None:
        """Have the thread call it; ``told`` is called on the loop with the result or what was raised."""
        if self._is_stopped:
            raise RuntimeError(f"the thread {self._thread.name!r} is stopped")

        self._calls.put((call, told))

    async def ask(self, call: Callable[[], T], then: Callable[[T | Exception], None] | None = None) -> T:
        """Have the thread call it, and wait. Raises what it raises.

        A caller that is cancelled leaves the call to finish; ``then`` hears of it in any case, and first.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self.do(call, partial(_answered, answer, then))
        try:
            return await answer
        finally:
            del answer  # an error would keep itself, by its traceback and this frame

    async def stop(self) -> None:
        """Finish what was asked for and end the thread."""
        self._is_stopped = True
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            call, told = asked
            try:
                result = call()
            except Exception as error:  # noqa: BLE001  # it is handed on
                result = error
            self._loop.call_soon_threadsafe(told, result)
            # An error's traceback leads to this frame, and what is told leads to the error.
            del asked, call, told, result


def resolve(answer: asyncio.Future[T], result: T | Exception) -> None:
    """Hand on what was returned or raised, if anybody still waits for it."""
    if answer.done():  # its caller was cancelled
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _answered(
    answer: asyncio.Future[T], then: Callable[[T | Exception], None] | None, result: T | Exception
) -> None:
    if then is not None:
        then(result)
    resolve(answer, result)
