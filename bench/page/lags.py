"""How late text is in view, from what the page says of arrivals and of what it shows."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

BIN_MS = 100


class Sample(TypedDict):
    """How much has arrived and how much is in view, in UTF-16 units, at a time in milliseconds."""

    now: float
    arrived: int
    shown: int


@dataclass(frozen=True, slots=True)
class Lags:
    """Milliseconds. ``gap`` is the longest between two arrivals, by which steady ones are told from others.

    ``evenness`` is the variation of text per 100 ms, ``paint`` the most at once in UTF-16 units.
    """

    p95: float
    longest: float
    gap: float
    tail: float
    evenness: float
    paint: int


def lags_of(samples: Sequence[Sample]) -> Lags:
    """Raises ValueError where nothing came bit by bit."""
    shows = _growing(samples, "shown")
    arrivals = _growing(samples, "arrived")
    if len(shows) < 2 or not arrivals:
        raise ValueError(f"{len(arrivals)} arrivals and {len(shows)} paints say nothing")
    lags = sorted(_per_unit(arrivals, shows))
    return Lags(
        p95=lags[int(len(lags) * 0.95)],
        longest=lags[-1],
        gap=max((after[0] - before[0] for before, after in pairwise(arrivals)), default=0.0),
        tail=shows[-1][0] - arrivals[-1][0],
        evenness=_evenness(shows, arrivals[0][0], arrivals[-1][0]),
        paint=max(after[1] - before[1] for before, after in pairwise(shows)),
    )


def _growing(samples: Sequence[Sample], key: str) -> list[tuple[float, int]]:
    """When there was how much, without what repeats."""
    grown: list[tuple[float, int]] = []
    for sample in samples:
        length = sample["arrived"] if key == "arrived" else sample["shown"]
        if length > (grown[-1][1] if grown else 0):
            grown.append((sample["now"], length))
    return grown


def _per_unit(arrivals: list[tuple[float, int]], shows: list[tuple[float, int]]) -> list[float]:
    lengths = [length for _, length in shows]
    lags: list[float] = []
    before = 0
    for at, length in arrivals:
        for unit in range(before, length):
            shown = bisect_left(lengths, unit + 1)
            if shown < len(shows):
                lags.append(max(0.0, shows[shown][0] - at))
        before = length
    return lags


def _evenness(shows: list[tuple[float, int]], start: float, end: float) -> float:
    bins = [0] * max(1, int((end - start) / BIN_MS))
    before = 0
    for at, length in shows:
        number = int((at - start) / BIN_MS)
        if 0 <= number < len(bins):
            bins[number] += length - before
        before = length
    # How it begins and ends is another question.
    middle = bins[5:-5]
    return statistics.pstdev(middle) / statistics.mean(middle) if len(middle) > 1 and any(middle) else 0.0
