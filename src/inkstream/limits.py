"""How much of the server one principal may use: in a minute, and at the same time.

A token bucket for each name (J. Turner, New directions in communications, 1986). The library ``limits`` has
none that fits: what an answer takes is known when it has ended and may then be more than was left, which
its ``hit`` refuses to count, and its moving window in memory keeps an entry for every token.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inkstream.errors import LimitReached

MOST_BUCKETS = 10_000
DURATIONS = 32
UNKNOWN_SECONDS = 5
LONGEST_RETRY_SECONDS = 120


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


class Quotas:
    """What each principal has under way, and what it may begin. 0 is no limit.

    ``most_runs`` counts answers at the same time, waiting or not. ``tokens_per_minute`` counts those read and
    written, when an answer has ended: one may overdraw, and the next has to wait until that is made up for.
    """

    def __init__(
        self, most_runs: int, tokens_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_runs, self._tokens = most_runs, Rate(tokens_per_minute, clock)
        self.counts_tokens = tokens_per_minute > 0
        self._under_way: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=DURATIONS)

    @property
    def present(self) -> int:
        return self._under_way.total()

    def of(self, principal: str) -> int:
        return self._under_way[principal]

    @contextmanager
    def beginning(self, principal: str) -> Iterator[None]:
        """Counts from here on, so that many which begin at once do not pass together. Raises LimitReached."""
        self._require(principal)
        self.begin(principal)
        try:
            yield
        finally:
            self._leave(principal)

    def begin(self, principal: str) -> None:
        self._under_way[principal] += 1

    def end(self, principal: str, seconds: float) -> None:
        """One is no longer under way. It has lived for so long."""
        self._seconds.append(seconds)
        self._leave(principal)

    def charge(self, principal: str, tokens: int) -> None:
        self._tokens.take(principal, tokens)

    def _leave(self, principal: str) -> None:
        self._under_way[principal] -= 1
        if not self._under_way[principal]:
            del self._under_way[principal]

    def _require(self, principal: str) -> None:
        own = self._under_way[principal]
        if 0 < self._most_runs <= own:
            raise LimitReached(
                f"{own} answers of yours are under way, as many as you may have. Wait for one of them.",
                code="too_many_runs",
                retry_after_seconds=self._until_one_ends(own),
            )
        if seconds := self._tokens.wait_seconds(principal):
            raise LimitReached(
                f"you have used up your tokens. There are more in {seconds} seconds.",
                code="too_many_tokens",
                retry_after_seconds=seconds,
            )

    def _until_one_ends(self, own: int) -> int:
        """If what is under way is anywhere in its life, the first of n ends after a part in n + 1 of it."""
        if not self._seconds:
            return UNKNOWN_SECONDS
        mean = sum(self._seconds) / len(self._seconds)
        return max(1, min(LONGEST_RETRY_SECONDS, math.ceil(mean / (own + 1))))
