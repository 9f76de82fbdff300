"""What bench/page makes of what it was told, on streams whose figures are known."""

from __future__ import annotations

from typing import Any

import pytest

from page.corpus import CHARACTERS_PER_TOKEN, counted, mixed
from page.lags import Sample, lags_of
from page.tasks import Task, Trace
from page.where import causes


def sample(now: float, arrived: int, shown: int) -> Sample:
    return {"now": now, "arrived": arrived, "shown": shown}


def test_lags_are_from_arrival_to_view_for_each_unit() -> None:
    lags = lags_of(
        [
            sample(0, 10, 0),
            sample(20, 10, 5),
            sample(40, 10, 10),
            sample(100, 30, 10),
            sample(130, 30, 30),
        ]
    )
    assert (lags.longest, lags.tail, lags.gap, lags.paint) == (40, 30, 100, 20)
    assert lags.p95 == 40


def test_an_even_flow_varies_by_nothing_and_lumps_by_much() -> None:
    flow = [sample(at * 20.0, at * 4 + 4, at * 4 + 4) for at in range(200)]
    lumps = [sample(at * 500.0, at * 100 + 100, at * 100 + 100) for at in range(20)]
    assert lags_of(flow).evenness == pytest.approx(0)
    assert lags_of(lumps).evenness > 1.5


def test_too_little_says_nothing() -> None:
    with pytest.raises(ValueError, match="0 paints"):
        lags_of([sample(0, 1, 0), sample(1, 2, 0)])


def test_a_key_costs_what_runs_until_its_paint() -> None:
    trace = Trace(
        tasks=[Task(0, 4, 3), Task(10, 2, 1.5), Task(20, 8, 6), Task(40, 9, 9)],
        marks=[("bench.painted", 27), ("bench.key", 11), ("bench.key", 60)],
    )
    assert trace.cpu_per_key() == [7.5]
    assert trace.longest_ms == 9


def test_what_an_event_takes_is_without_what_is_inside_of_it() -> None:
    def event(name: str, at: int, length: int) -> dict[str, Any]:
        return {"name": name, "ts": at, "dur": length, "tdur": length}

    found = causes(
        [
            event("Layout", 2_000, 3_000),
            event("RunTask", 1_000, 9_000),
            event("RunTask", 10_000, 1_000),
            event("Style", 2_500, 1_000),
            event("Layout", 6_000, 500),
        ]
    )
    assert {name: (cause.ms, cause.count) for name, cause in found.items()} == {
        "RunTask": (6.5, 2),
        "Layout": (2.5, 2),
        "Style": (1.0, 1),
    }
    assert found["Layout"].longest_ms == 3


def test_the_corpus_has_the_length_that_was_asked_for() -> None:
    assert len(mixed(2_000)) == 2_000 * CHARACTERS_PER_TOKEN
    words = counted(500).split()
    assert len(set(words)) == len(words)
