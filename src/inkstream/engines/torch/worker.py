"""The thread that drives the device. The event loop hears of each step once, for all sequences together."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from inkstream.engines.torch.runner import Outcome, Runner
from inkstream.engines.torch.scheduler import Scheduler, Sequence, Step, Written
from inkstream.engines.torch.thrift import Thrift


@dataclass(frozen=True, slots=True)
class News:
    """What one step brought: tokens, and the share read of prompts still unread."""

    written: list[Written]
    read: list[tuple[Sequence, float]] = field(default_factory=list)


class Worker:
    """``tell`` is called in the thread with the news of each step, or with the error that ended the work."""

    def __init__(
        self, scheduler: Scheduler, runner: Runner, tell: Callable[[News | BaseException], None]
    ) -> None:
        self._scheduler, self._runner, self._tell = scheduler, runner, tell
        self._thrift = Thrift(scheduler)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._in_flight: deque[tuple[Step, Outcome]] = deque()
        self._thread = threading.Thread(target=self._work, name="torch-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, sequence: Sequence) -> None:
        self._orders.put(lambda: self._scheduler.add(sequence))

    def cancel(self, sequence: Sequence) -> None:
        self._orders.put(lambda: self._scheduler.cancel(sequence))

    def stop(self) -> None:
        """Return when the thread has ended, after the steps that the device already has."""
        self._orders.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        try:
            while self._obey():
                self._step()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._tell(error)

    def _obey(self) -> bool:
        """Carry out what was ordered; wait for orders where there is nothing else to do."""
        while self._is_idle or not self._orders.empty():
            order = self._orders.get()
            if order is None:
                return False
            order()
        return True

    @property
    def _is_idle(self) -> bool:
        return not (self._in_flight or self._scheduler.running or self._scheduler.waiting)

    def _step(self) -> None:
        """Launch a step, so that the device has work, then look at the outcome of one before it."""
        step = self._scheduler.plan()
        outcome = None if step is None else self._launched(step)
        if step is not None and outcome is not None:
            self._in_flight.append((step, outcome))
        if self._in_flight and (outcome is None or len(self._in_flight) > self._runner.ahead):
            done, outcome = self._in_flight.popleft()
            written = self._scheduler.receive(done, outcome())
            read = [
                (f.sequence, (f.start + f.count) / f.sequence.goal)
                for f in done.fills
                if not f.is_last and f.sequence.seat >= 0
            ]
            self._tell(News(written, read))

    def _launched(self, step: Step) -> Outcome | None:
        """None where there was no memory for it: it will be planned anew, smaller."""
        try:
            outcome = self._runner.launch(step)
        except (RuntimeError, MemoryError) as error:
            self._thrift.failed(step, error)
            return None
        self._thrift.fitted()
        return outcome
