"""Who may use the engine now: first come, first served, as many as it batches.

Of runs under which engines have died, the suspects, one at a time is let in, and only when all others inside
have written something: so the next death names the guilty one. A suspect waits its turn like everybody
else; behind it nobody is let in until it has written something, or is through.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from inkstream.errors import Overloaded

DRAIN_SAMPLES = 32
LONGEST_RETRY_SECONDS = 120


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the queue, then a slot: ``async with`` waits for it, holds it and gives it back."""

    admission: Admission
    on_place: Callable[[int], None]
    is_suspect: bool
    has_written: bool = False
    place: int = 0
    granted: asyncio.Future[None] | None = None  # there is one only while it waits

    async def __aenter__(self) -> Ticket:
        await self.admission.enter(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.admission.leave(self)


class Admission:
    """``bound`` is how many may wait. Nobody is let in while ``slots`` is 0, as it is without an engine."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._slots = 0
        self._waiting: deque[Ticket] = deque()
        self._inside: set[Ticket] = set()
        self._left_at: deque[float] = deque(maxlen=DRAIN_SAMPLES)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def inside(self) -> int:
        return len(self._inside)

    def require_room(self, present: int) -> None:
        """``present`` is how many are here, waiting or not.

        Raises Overloaded with the time after which, at the measured rate, there is room again.
        """
        if present >= self._bound + self._slots:
            raise Overloaded(
                f"{present - len(self._inside)} answers are waiting already, the queue is full."
                " Try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            )

    def retry_after_seconds(self) -> int:
        if len(self._left_at) < 2:
            return 5
        seconds_each = (time.monotonic() - self._left_at[0]) / len(self._left_at)
        return max(1, min(LONGEST_RETRY_SECONDS, math.ceil(seconds_each)))

    def set_slots(self, slots: int) -> None:
        self._slots = slots
        self._let_in()

    def turn(self, on_place: Callable[[int], None], *, is_suspect: bool = False) -> Ticket:
        """To be entered. ``on_place`` hears every change of place: 1 is next, 0 is in."""
        return Ticket(self, on_place, is_suspect)

    async def enter(self, ticket: Ticket) -> None:
        self._waiting.append(ticket)
        self._let_in()
        if ticket in self._inside:
            return
        ticket.granted = asyncio.get_running_loop().create_future()
        try:
            await ticket.granted
        except BaseException:
            self.leave(ticket)
            raise
        finally:
            ticket.granted = None

    def has_written(self, ticket: Ticket) -> None:
        """Its prompt is harmless. Told once or more often."""
        if not ticket.has_written:
            ticket.has_written = True
            self._let_in()

    def leave(self, ticket: Ticket) -> None:
        if ticket in self._inside:
            self._inside.remove(ticket)
            self._left_at.append(time.monotonic())
        else:
            self._waiting.remove(ticket)
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._has_room_for(self._waiting[0]):
            ticket = self._waiting.popleft()
            self._inside.add(ticket)
            self._tell(ticket, 0)
            if ticket.granted is not None and not ticket.granted.done():
                ticket.granted.set_result(None)
        for place, ticket in enumerate(self._waiting, 1):
            self._tell(ticket, place)

    def _has_room_for(self, ticket: Ticket) -> bool:
        undecided = [other for other in self._inside if not other.has_written]
        if undecided and (ticket.is_suspect or any(other.is_suspect for other in undecided)):
            return False
        return len(self._inside) < self._slots

    @staticmethod
    def _tell(ticket: Ticket, place: int) -> None:
        if ticket.place != place:
            ticket.place = place
            ticket.on_place(place)
