"""Rows of the scheduler and the GPU alone: speed, first token, a long prompt beside others, the floor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from inkstream.engines.torch.model import take_weights
from inkstream.engines.torch.rules import Rules
from torch_table.driving import greedy, mixed, percentile, wait
from torch_table.place import Place
from torch_table.weights import pretrained

Figures = dict[str, Any]

COPIED_BYTES, COPIES = 4 << 30, 5
COMPARED = 64
"""Prompts whose tokens are held against transformers'."""


def speed(place: Place) -> Iterator[Figures]:
    """Tokens per second by number of streams, all greedy and half of them drawn."""
    bench, scale = place.bench, place.scale
    yield {"seconds_to_start": bench.seconds_to_start}
    for count in scale.sizes:
        for name, rules in (("greedy", greedy), ("mixed", mixed)):
            run = bench.median(lambda: place.prompts(count), scale.new, rules, scale.rounds)  # noqa: B023 - called at once
            yield {f"{count} {name}": run}


def floor(place: Place) -> Iterator[Figures]:
    """What a step cannot be faster than: the weights, read once, at the speed of a copy."""
    size = COPIED_BYTES if place.is_gpu else COPIED_BYTES >> 6
    source = torch.randint(0, 127, (size,), dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    target.copy_(source)
    wait(place.device)
    started = time.perf_counter()
    for _ in range(COPIES):
        target.copy_(source)
    wait(place.device)
    bandwidth = 2 * size * COPIES / (time.perf_counter() - started)
    weights = place.weights
    matrices = sum(matrix.bytes for layer in weights.layers for matrix in layer.matrices)
    read = matrices + weights.head.bytes
    yield {"bytes_per_second": bandwidth, "weights_bytes": read, "step_ms": 1e3 * read / bandwidth}


def first_token(place: Place) -> Iterator[Figures]:
    """Of a prompt that finds the device idle."""
    bench = place.bench
    runs = [bench.generate(place.prompts(1), 8, greedy) for _ in range(place.scale.firsts + 1)][1:]
    firsts = [run["first_ms_p50"] for run in runs]
    yield {"ms_p50": percentile(firsts, 0.5), "ms_p95": percentile(firsts, 0.95)}


def long_prompt(place: Place) -> Iterator[Figures]:
    """Gaps between the steps of those who write, before a long prompt arrives and while it is read."""
    bench, scale = place.bench, place.scale
    for ids in place.prompts(scale.beside_long):
        bench.add(ids, 2 * scale.steps_before_long, Rules())
    (long,) = place.prompts(1, scale.long_prompt)
    ends: list[float] = []
    newcomer, read = None, 0
    for step in bench.steps():
        ends.append(time.perf_counter())
        if len(ends) == scale.steps_before_long:
            newcomer = bench.add(long, 8, Rules())
        if newcomer and not read and any(answer is newcomer for answer, _ in step):
            read = len(ends)
    gaps = [b - a for a, b in pairwise(ends)]
    arrived = scale.steps_before_long
    before, during = gaps[arrived // 2 : arrived - 1], gaps[arrived - 1 : read]
    median = statistics.median(before)
    yield {
        "median_before_ms": 1e3 * median,
        "median_during_ms": 1e3 * statistics.median(during),
        "p99_during_ms": 1e3 * percentile(during, 0.99),
        "p99_to_median_before": percentile(during, 0.99) / median,
        "steps_during": len(during),
        "first_token_ms": 1e3 * (ends[read - 1] - ends[arrived - 1]),
    }


def equality(place: Place) -> Iterator[Figures]:
    """Our tokens against transformers' logits over the same ids: many prompts, the first token from reading
    them and the second from writing. One long answer of random weights would say one token over and over."""
    scale, device = place.scale, place.device
    model = pretrained(scale.half, device)
    bench = place.bench_of(take_weights(pretrained(scale.half, device), device), COMPARED)
    answers = [bench.add(ids, 2, Rules()) for ids in place.prompts(COMPARED)]
    for _ in bench.steps():
        pass
    with torch.inference_mode():
        whole = torch.tensor([answer.ids for answer in answers], device=device)
        logits = model(whole).logits[:, scale.prompt - 1 : -1].float()
    chosen = logits.gather(2, whole[:, scale.prompt :].unsqueeze(2)).squeeze(2)
    likeliest = logits.max(dim=-1)
    yield {
        "agreement": float((likeliest.indices == whole[:, scale.prompt :]).float().mean()),
        "worst_shortfall": float((likeliest.values - chosen).max()),
        "largest_logit": float(likeliest.values.max()),
        "different_tokens": len(set(whole[:, scale.prompt :].flatten().tolist())),
    }
