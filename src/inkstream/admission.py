"""Who may use the engine now: principals take turns, as many runs as it batches.

Whoever has fewest runs inside is next, so that slots are shared equally however long answers are and however
many somebody asks for at once (max-min fairness); between equals, whoever has been without a turn for
longest. The runs of one principal go in in the order in which they came.

Of runs under which engines have died, the suspects, one at a time is let in, and only when all others inside
have written something: so the next death names the guilty one. A suspect waits its turn like everybody
else; behind it nobody is let in until it has written something, or is through.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inkstream.errors import Overloaded

DRAIN_SAMPLES = 32
LONGEST_RETRY_SECONDS = 120
MOST_KEPT_FREE = 16


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the queue, then a slot: ``async with`` waits for it, holds it and gives it back."""

    admission: Admission
    principal: str
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
        self._kept_free = min(bound // 8, MOST_KEPT_FREE)
        self._slots = 0
        self._queues: dict[str, deque[Ticket]] = {}  # by principal, none of them empty
        self._turns: dict[str, int] = {}  # of each of them: since when it has been without
        self._turn = itertools.count()
        self._inside: set[Ticket] = set()
        self._inside_of: Counter[str] = Counter()
        self._left_at: deque[float] = deque(maxlen=DRAIN_SAMPLES)
        self._tells_places = False
        self._is_held = False
        self._left = asyncio.Event()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def inside(self) -> int:
        return len(self._inside)

    def require_room(self, present: int, own: int) -> None:
        """``present`` is how many are here, waiting or not, and ``own`` how many of them are the caller's.

        The last places, an eighth of the queue and at most 16, are kept for those who have nothing here: one
        who asks for many answers does not keep the others out. Raises Overloaded with the time after which,
        at the measured rate, there is room again.
        """
        kept_free = self._kept_free if own else 0
        if present >= self._bound + self._slots - kept_free:
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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody in while the block runs; whoever is inside stays."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._let_in()

    async def somebody_left(self) -> None:
        """Wait until one of those inside has left."""
        await self._left.wait()

    def turn(self, principal: str, on_place: Callable[[int], None], *, is_suspect: bool = False) -> Ticket:
        """To be entered. ``on_place`` hears of its place when that changes: 1 is next, 0 is in."""
        return Ticket(self, principal, on_place, is_suspect)

    async def enter(self, ticket: Ticket) -> None:
        if ticket.principal not in self._queues:
            self._queues[ticket.principal] = deque()
            self._turns[ticket.principal] = next(self._turn)
        self._queues[ticket.principal].append(ticket)
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
            self._inside_of[ticket.principal] -= 1
            if not self._inside_of[ticket.principal]:
                del self._inside_of[ticket.principal]
            self._left_at.append(time.monotonic())
            self._left.set()
            self._left = asyncio.Event()
            if ticket.principal in self._turns:  # its turn is over only now
                self._turns[ticket.principal] = next(self._turn)
        else:
            self._queues[ticket.principal].remove(ticket)
            self._forget_if_through(ticket.principal)
        self._let_in()

    def _let_in(self) -> None:
        while self._queues and self._has_room_for(ticket := self._queues[self._next()][0]):
            self._admit(ticket)
        if self._queues and not self._tells_places:
            # Once for all that happens in this turn of the loop: each may move everybody.
            self._tells_places = True
            asyncio.get_running_loop().call_soon(self._tell_places)

    def _next(self) -> str:
        return min(self._queues, key=lambda principal: (self._inside_of[principal], self._turns[principal]))

    def _admit(self, ticket: Ticket) -> None:
        principal = ticket.principal
        self._queues[principal].popleft()
        self._inside.add(ticket)
        self._inside_of[principal] += 1
        self._turns[principal] = next(self._turn)
        self._forget_if_through(principal)
        self._tell(ticket, 0)
        ticket.on_place = _nobody_hears  # else it and whoever holds it would keep each other
        if ticket.granted is not None and not ticket.granted.done():
            ticket.granted.set_result(None)

    def _forget_if_through(self, principal: str) -> None:
        if not self._queues[principal]:
            del self._queues[principal], self._turns[principal]

    def _has_room_for(self, ticket: Ticket) -> bool:
        undecided = [other for other in self._inside if not other.has_written]
        if undecided and (ticket.is_suspect or any(other.is_suspect for other in undecided)):
            return False
        return len(self._inside) < self._slots and not self._is_held

    def _tell_places(self) -> None:
        self._tells_places = False
        for place, ticket in enumerate(self._in_turn(), 1):
            self._tell(ticket, place)

    def _in_turn(self) -> Iterator[Ticket]:
        """Those who wait, in the order in which they would be let in if nobody left."""
        turn = itertools.count(max(self._turns.values(), default=0) + 1)
        heap = [(self._inside_of[p], self._turns[p], iter(queue)) for p, queue in self._queues.items()]
        heapq.heapify(heap)  # no two have the same turn, so that nothing else is compared
        while heap:
            inside, _, queue = heap[0]
            if (ticket := next(queue, None)) is None:
                heapq.heappop(heap)
                continue
            heapq.heapreplace(heap, (inside + 1, next(turn), queue))
            yield ticket

    @staticmethod
    def _tell(ticket: Ticket, place: int) -> None:
        if ticket.place != place:
            ticket.place = place
            ticket.on_place(place)


def _nobody_hears(_: int) -> None: ...
