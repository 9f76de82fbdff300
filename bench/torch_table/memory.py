"""Rows about memory: quantised weights, and seven billion parameters in 24 GiB."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.memory import free_bytes
from inkstream.engines.torch.quantized import quantizer
from torch_table.core import Figures
from torch_table.driving import Bench, greedy, mixed
from torch_table.place import Place
from torch_table.weights import drawn

QUANTISED_SIZES = (1, 32)


def quantised(place: Place) -> Iterator[Figures]:
    """Memory of Qwen2-0.5B's shape, whole and in the layers, and tokens per second."""
    whole: Figures = {}
    for name in ("", "nf4", "int8"):
        place.clear()
        before = _allocated(place)
        weights = drawn(place.scale.half, place.device, quantizer(name, place.device))
        place.clear()
        taken = _bytes(weights)
        figures: Figures = {**taken, "allocated_bytes": _allocated(place) - before}
        whole = whole or taken
        figures |= {f"{part}_share": taken[part] / whole[part] for part in whole}
        yield {name or "bf16": figures}
        figures |= _speeds(place, place.bench_of(weights, max(QUANTISED_SIZES)))
        yield {name or "bf16": figures}
        del weights


def capped(place: Place) -> Iterator[Figures]:
    """The shape of Qwen2-7B with whole contexts, in a part of the device's memory."""
    place.clear()
    with _limited(place):
        for name in ("", "nf4"):
            yield {name or "bf16": _in_little_memory(place, name)}
            place.clear()


@contextmanager
def _limited(place: Place) -> Iterator[None]:
    """Allocations beyond the cap fail as they would on a smaller device."""
    if not place.is_gpu:
        yield
        return
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(place.scale.capped_bytes / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _in_little_memory(place: Place, quantization: str) -> Figures:
    scale, started = place.scale, time.perf_counter()
    free = free_bytes(place.device)
    weights = drawn(scale.seven, place.device, quantizer(quantization, place.device))
    place.clear()
    streams, length = scale.capped_streams, scale.capped_prompt + scale.new
    bench = Bench(weights, streams, streams * length, scale.context)
    figures: Figures = {
        "free_bytes": free,
        **_bytes(weights),
        "seconds_to_start": time.perf_counter() - started,
    }
    if place.is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for name, rules in (("greedy", greedy), ("mixed", mixed)):
        figures[name] = bench.generate(place.prompts(streams, scale.capped_prompt), scale.new, rules)
    figures["alone, short prompt"] = bench.generate(place.prompts(1), scale.new, greedy)
    figures["peak_bytes"] = torch.cuda.max_memory_reserved() if place.is_gpu else 0
    figures["preemptions"] = bench.scheduler.preemptions
    return figures


def _speeds(place: Place, bench: Bench) -> dict[str, Any]:
    scale = place.scale
    sizes = [min(size, scale.seats) for size in QUANTISED_SIZES]
    return {
        str(count): bench.median(lambda: place.prompts(count), scale.new, greedy, scale.rounds)  # noqa: B023
        for count in sizes
    }


def _bytes(weights: Weights) -> dict[str, int]:
    """Of the matrices of the layers, and of all there is; a head that is the embedding is there once."""
    layers = sum(matrix.bytes for layer in weights.layers for matrix in layer.matrices)
    is_tied = weights.head.weight is weights.embedding
    rest = weights.embedding.nbytes + (0 if is_tied else weights.head.bytes)
    return {"layers_bytes": layers, "whole_bytes": layers + rest}


def _allocated(place: Place) -> int:
    return int(torch.cuda.memory_allocated()) if place.is_gpu else 0
