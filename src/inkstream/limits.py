"""How much somebody may use in a minute.

A token bucket for each name (J. Turner, New directions in communications, 1986), with two properties that
the libraries we looked at do not have together: what is used may be told afterwards, when it is known, and
may then be more than was left; and a bucket is two numbers, however much flows through it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

MOST_BUCKETS = 10_000


class Rate:
    """``per_minute`` flows into every bucket until it holds as much as that; 0 is no limit at all."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._per_second, self._clock = per_minute, per_minute / 60, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what was left, and when that was

    def wait_seconds(self, name: str) -> int:
        """After how many whole seconds there is something to take; 0: there is."""
        if self._most == 0 or (left := self._left(name)) >= 1:
            return 0
        return max(1, math.ceil((1 - left) / self._per_second))

    def take(self, name: str, amount: float = 1) -> None:
        """Take it, whether it is there or not: what is overdrawn has to flow in again first."""
        if self._most == 0:
            return
        left = self._left(name) - amount
        # Behind the others, so that the first ones are those that have rested longest.
        self._buckets.pop(name, None)
        if len(self._buckets) >= MOST_BUCKETS:
            self._forget()
        self._buckets[name] = (left, self._clock())

    def _left(self, name: str) -> float:
        then = self._buckets.get(name)
        if then is None:
            return self._most
        left, at = then
        return min(self._most, left + (self._clock() - at) * self._per_second)

    def _forget(self) -> None:
        """A full bucket is like none. Where all are in use, the one that has rested longest goes."""
        self._buckets = {name: then for name, then in self._buckets.items() if self._left(name) < self._most}
        if len(self._buckets) >= MOST_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
