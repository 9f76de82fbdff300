"""A histogram as Prometheus reads one, without a lock: it belongs to one event loop.

prometheus-client's own takes a microsecond and a half per value, because threads may share it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

LATENCIES = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 600.0, 1800.0),
)
"""Seconds, from a token to a long answer that waited for its model."""


class Histogram:
    """Counts of values up to each bound, and their sum. ``bounds`` are increasing."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float] = LATENCIES) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> Iterator[tuple[str, int]]:
        """How many values there were up to each bound, in Prometheus' notation of bounds."""
        names = (*map(repr, self._bounds), "+Inf")
        return zip(names, accumulate(self._counts), strict=True)
