"""Rows about guessing ahead: what a step with drafts costs, and what they bring."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import torch_speculation
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.speculation import WIDTH
from torch_table.core import Figures
from torch_table.driving import greedy
from torch_table.place import Place

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


def guesses(place: Place) -> Iterator[Figures]:
    """Steps with drafts beside steps without, and from how many tokens a row on they are worth it. The model
    itself as the one that drafts is always right, and as slow as one can be."""
    scale, weights = place.scale, place.weights
    kinds: dict[str, Weights | None] = {"ngram": None, "the model itself": weights}
    for name, small in kinds.items():
        bench = place.bench_of(weights, max(scale.lever_sizes), drafting=Drafting(name, small))
        figures: Figures = {}
        for rows in (count for count in ROWS if count <= max(scale.lever_sizes)):
            plain, drafted = bench.runner.seconds(rows, 1), bench.runner.seconds(rows, WIDTH)
            figures[f"{rows} rows"] = {
                "plain_ms": 1e3 * plain, "drafted_ms": 1e3 * drafted, "worth_from_tokens": drafted / plain
            }  # fmt: skip
        for count in scale.lever_sizes:
            figures[str(count)] = bench.generate(place.prompts(count), scale.new, greedy)
        figures["accepted_share"] = bench.scheduler.accepted / max(bench.scheduler.drafted, 1)
        yield {name: figures}


def real_guesses(place: Place) -> Iterator[Figures]:
    """Real weights on texts that repeat themselves, alone, with what the text has said as drafts."""
    if place.real is None:
        yield {"left out": "there is no --real checkpoint"}
        return
    place.clear()
    results: dict[str, Any] = asyncio.run(torch_speculation.measure(place.real, None))
    yield results
