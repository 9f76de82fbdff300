"""What each lever is worth, one left out at a time; and what sampling and attention take by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inkstream.engines.torch.forward import Linear, Weights
from inkstream.engines.torch.plain import PlainOperations
from inkstream.engines.torch.rules import Rules
from torch_table.compiled import CompiledOperations
from torch_table.core import Figures
from torch_table.driving import QWEN2, greedy
from torch_table.place import Place

REPLAYS = 50

SAMPLED = {
    "greedy": Rules(),
    "greedy with penalties": Rules(repetition=1.1, presence=0.2),
    "noise on all": Rules(temperature=1.0),
    "as Qwen2 recommends": QWEN2,
}


def levers(place: Place) -> Iterator[Figures]:
    """Everything, then one lever less at a time."""
    yield {"all": _variant(place, place.weights)}
    yield {"projections apart": _variant(place, _apart(place.weights))}
    yield {"no fused operations": _variant(place, place.weights, operations=PlainOperations())}
    if place.is_gpu:
        from inkstream.engines.torch.kernels import FusedOperations  # noqa: PLC0415 - Triton is there with CUDA

        operations = FusedOperations(few_rows=0)
        yield {"no products of a vector": _variant(place, place.weights, operations=operations)}
        yield {"no graphs": _variant(place, place.weights, captures=False)}


def compiled(place: Place) -> Iterator[Figures]:
    """torch.compile in the place of our kernels."""
    yield {"compiled": _variant(place, place.weights, operations=CompiledOperations())}


def attention(place: Place) -> Iterator[Figures]:
    """A step of rows that are as long as they are, and of rows that fill the window: what attention that
    reads the whole window would cost everybody."""
    if not place.is_gpu:
        return
    lengths = {"own length, ms": place.scale.prompt, "whole window, ms": place.scale.context - 8}
    for rows in place.scale.lever_sizes:
        yield {str(rows): {name: _looking(place, rows, length) for name, length in lengths.items()}}


def _looking(place: Place, rows: int, position: int) -> float:
    """Every row has pages of its own, as far as there are any: what is in the GPU's cache costs nothing."""
    runner: Any = place.bench.runner
    state, batch = runner._state, runner._batch_of[0, rows]

    def replay() -> None:
        state.places.positions.fill_(position)
        batch._replay()

    with torch.inference_mode():
        pages = torch.arange(state.pages.numel(), device=place.device) % (place.bench.pages - 1) + 1
        state.pages.copy_(pages.view_as(state.pages))
        batch.run([], list(range(rows)))
        return _milliseconds(replay)


def sampler(place: Place) -> Iterator[Figures]:
    """Drawing alone, captured, by kind of rules, beside the whole step."""
    if not place.is_gpu:
        return
    for rows in (*place.scale.lever_sizes, place.scale.seats):
        runner: Any = place.bench.runner
        figures = {f"{name}, ms": _drawing(place, rows, rules) for name, rules in SAMPLED.items()}
        yield {str(rows): {**figures, "whole step, greedy, ms": 1e3 * runner._batch_of[0, rows].seconds}}
    place.clear()


def _drawing(place: Place, rows: int, rules: Rules) -> float:
    from inkstream.engines.torch.sampling_kernels import (  # noqa: PLC0415 - Triton is there with CUDA alone
        draw_and_move,
    )

    runner: Any = place.bench.runner
    state = runner._state
    with torch.inference_mode():
        seats = torch.arange(rows, device=place.device)
        positions = torch.full_like(seats, place.scale.prompt)
        logits = torch.randn(rows, state.table.counts.shape[1], device=place.device).to(torch.bfloat16)
        state.table.set([(seat, replace(rules, seed=seat), [7], [8]) for seat in range(rows)])
        draw = partial(draw_and_move, logits, state.table, seats, positions, state.places, state.nobody)
        return _milliseconds(_captured(draw))


@dataclass(frozen=True, slots=True)
class _Apart(Linear):
    """The same outputs, by one product for each of the matrices that are joined elsewhere."""

    parts: tuple[Linear, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)


def _apart(weights: Weights) -> Weights:
    shape = weights.shape
    heads = (shape.heads, shape.key_heads, shape.key_heads)

    def cut(linear: Linear, sizes: list[int]) -> Linear:
        biases = (None,) * len(sizes) if linear.bias is None else linear.bias.split(sizes)
        parts = tuple(Linear(w, b) for w, b in zip(linear.weight.split(sizes), biases, strict=True))
        return _Apart(linear.weight, linear.bias, parts)

    layers = tuple(
        replace(
            layer,
            qkv=cut(layer.qkv, [count * shape.head_width for count in heads]),
            gate_up=cut(layer.gate_up, [layer.gate_up.weight.shape[0] // 2] * 2),
        )
        for layer in weights.layers
    )
    return replace(weights, layers=layers)


def _variant(place: Place, weights: Weights, **options: Any) -> Figures:
    scale = place.scale
    bench = place.bench_of(weights, max(scale.lever_sizes), **options)
    figures: Figures = {"seconds_to_start": bench.seconds_to_start}
    for count in scale.lever_sizes:
        figures[str(count)] = bench.median(lambda: place.prompts(count), scale.new, greedy, scale.rounds)  # noqa: B023
    return figures


def _captured(compute: Callable[[], object]) -> Callable[[], None]:
    compute()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    replay: Callable[[], None] = graph.replay
    return replay


def _milliseconds(compute: Callable[[], object]) -> float:
    """By the device's own clock, on average."""
    compute()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(REPLAYS):
        compute()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / REPLAYS
