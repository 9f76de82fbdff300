"""Exact percentiles of what was measured, and how rounds are summed up."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

SERIES = ("first", "gaps", "longest")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds, by nearest rank: each is a value that was measured. All are 0 where nothing was."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Percentiles:
        ranked = sorted(values)
        if not ranked:
            return cls(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        p50, p90, p99 = (ranked[ceil(len(ranked) * share) - 1] for share in (0.5, 0.9, 0.99))
        return cls(len(ranked), statistics.fmean(ranked), p50, p90, p99, ranked[-1])


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Tally:
    """What one worker counts in one round.

    ``first`` is each answer's seconds to its first token, ``gaps`` those between two arrivals that brought
    tokens, ``longest`` each answer's longest gap. ``used`` are the tokens that the server itself has reported
    for ``reported`` of the ``answers`` that ended well.
    """

    first: array[float] = field(default_factory=lambda: array("d"))
    gaps: array[float] = field(default_factory=lambda: array("d"))
    longest: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    reported: int = 0
    tokens: int = 0
    events: int = 0
    received_bytes: int = 0
    open: int = 0
    began: float = 0.0
    ended: float = 0.0
    cpu_seconds: float = 0.0

    def counts(self) -> dict[str, Any]:
        names = ("answers", "reported", "tokens", "events", "received_bytes", "open")
        times = ("began", "ended", "cpu_seconds")
        return {name: getattr(self, name) for name in (*names, *times)} | {"errors": dict(self.errors)}

    @classmethod
    def merged(cls, tallies: Sequence[Tally]) -> Tally:
        """All workers' together; their clocks are the system's, so they can be compared."""
        whole = cls()
        for tally in tallies:
            for name in SERIES:
                getattr(whole, name).extend(getattr(tally, name))
            whole.errors += tally.errors
            for name in ("answers", "reported", "tokens", "events", "received_bytes", "open", "cpu_seconds"):
                setattr(whole, name, getattr(whole, name) + getattr(tally, name))
        whole.began = min((tally.began for tally in tallies), default=0.0)
        whole.ended = max((tally.ended for tally in tallies), default=0.0)
        return whole
