"""Has a GPU compute the steps: captured once for each size of a batch, then replayed.

A replay costs the host a few microseconds, where launching the same kernels one by one costs it more than the
GPU needs for them. So what changes from step to step lies in buffers: each seat's last token, its position,
its pages and rules. A step feeds the next one on the device; the host, one step behind, says who takes part.

Everything happens in the order of one stream. That is why a seat or a page can be given to somebody else
while a step of its former holder is still under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from inkstream.engines.torch import scheduler
from inkstream.engines.torch.attention import GRAIN, FillAttend, RowAttend, Rows
from inkstream.engines.torch.cache import pages_for
from inkstream.engines.torch.forward import Layer, Operations, Weights, hidden_states
from inkstream.engines.torch.kernels import FusedOperations
from inkstream.engines.torch.plain import KeyValues
from inkstream.engines.torch.rules import Kind
from inkstream.engines.torch.runner import Outcome
from inkstream.engines.torch.sampler import RuleTable, draw, to_device
from inkstream.engines.torch.sampling_kernels import Places, draw_and_move
from inkstream.engines.torch.scheduler import Limits, Step

FILL_SIZES = (64, 128, 256, 512, 1024, 2048)
MIXED_FILL = 128
"""Tokens that are read together with rows, so that the weights are read once for both. With a few thousand
tokens before them they double the time of a step of 32 rows (bench/torch.md)."""

ENDS = 32
"""Prompts that can end in one step."""


@dataclass(frozen=True, slots=True)
class Options:
    """Levers for a benchmark. ``captured`` hears how many graphs of how many there are."""

    captures: bool = True
    operations: Operations | None = None
    captured: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, slots=True)
class _State:
    """What lies on the device from step to step. ``nobody`` is the seat of rows that only fill up a batch."""

    weights: Weights
    operations: Operations
    cache: KeyValues
    table: RuleTable
    places: Places
    pages: Tensor
    nobody: int

    def tensor(self, values: Sequence[Any]) -> Tensor:
        return to_device(torch.tensor(values, dtype=torch.int64), self.weights.device)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a batch leaves behind for its writers, in the graph's own memory: valid until the next replay."""

    tokens: Tensor
    states: Tensor
    positions: Tensor


class GraphRunner:
    """``ahead`` 1: while the host looks at the tokens of one step, the GPU has the next one."""

    ahead = 1

    def __init__(
        self,
        weights: Weights,
        stops: Sequence[int],
        seats: int,
        pages: int,
        context: int,
        options: Options | None = None,
    ) -> None:
        """Captures every size of batch, which takes some seconds."""
        options = options or Options()
        device = weights.device
        with torch.inference_mode():
            self._state = _State(
                weights,
                options.operations or FusedOperations(),
                KeyValues.allocate(weights, pages),
                RuleTable(seats + 1, weights.shape.vocabulary, stops, device),
                Places(*(torch.zeros(seats + 1, dtype=torch.int64, device=device) for _ in range(2))),
                torch.zeros(seats + 1, pages_for(context), dtype=torch.int32, device=device),
                nobody=seats,
            )
            self._batch_of = self._batches(seats, options)

    def limits(self, seats: int) -> Limits:
        return Limits(seats, MIXED_FILL, FILL_SIZES[-1], GRAIN, ENDS)

    def launch(self, step: Step) -> Outcome:
        with torch.inference_mode():
            state = self._state
            seated = ((s.seat, s.rules, s.ids[: s.prompt], s.ids[s.prompt :]) for s in step.seated)
            state.table.set(list(seated))
            self._place(step.placed)
            rows = [sequence for sequence, _ in step.rows]
            fills = sum(-(-fill.count // GRAIN) * GRAIN for fill in step.fills)
            if rows and fills > MIXED_FILL:
                return _fetched([self._run(step.fills, [], fills), self._run([], rows, 0)])
            return _fetched([self._run(step.fills, rows, fills)])

    def _batches(self, seats: int, options: Options) -> dict[tuple[int, int], _Batch]:
        """Largest first, so that smaller graphs fit into the memory of larger ones."""
        pool = torch.cuda.graph_pool_handle() if options.captures else None
        sizes = sorted(batch_sizes(seats), key=sum, reverse=True)
        batches = {}
        for fills, rows in sizes:
            batches[fills, rows] = _Batch(self._state, fills, rows, pool)
            options.captured(len(batches), len(sizes))
        return batches

    def _place(self, placed: Sequence[tuple[int, int, int]]) -> None:
        if placed:
            seats, at, pages = self._state.tensor(placed).unbind(1)
            self._state.pages.index_put_((seats, at), pages.to(torch.int32))

    def _run(
        self, fills: Sequence[scheduler.Fill], rows: Sequence[scheduler.Sequence], fill_tokens: int
    ) -> tuple[Tensor, Sequence[int]]:
        """The batch's tokens, and which of them the writers' are."""
        fitting = [
            (room, places)
            for room, places in self._batch_of
            if room >= fill_tokens and places >= len(rows) and bool(room) == bool(fill_tokens)
        ]
        batch = self._batch_of[min(fitting, key=sum)]
        drawn = batch.run(fills, [sequence.seat for sequence in rows])
        ended = [fill.sequence for fill in fills if fill.is_last]
        at = [*range(len(ended)), *range(batch.ends, batch.ends + len(rows))]
        self._draw_wide(drawn, at, [*ended, *rows])
        return drawn.tokens, at

    def _draw_wide(self, drawn: _Drawn, at: Sequence[int], sequences: Sequence[scheduler.Sequence]) -> None:
        """Rows whose rules need all logits sorted are drawn here, one kernel after the other."""
        wide = [(place, s.seat) for place, s in zip(at, sequences, strict=True) if s.rules.kind is Kind.WIDE]
        if not wide:
            return
        state = self._state
        rows, seats = state.tensor(wide).unbind(1)
        logits = state.operations.linear(drawn.states[rows], state.weights.head)
        positions = drawn.positions[rows]
        tokens = draw(logits, state.table, [seat for _, seat in wide], positions)
        drawn.tokens[rows] = tokens
        state.places.tokens[seats] = tokens
        state.places.positions[seats] = positions + 1


class _Batch:
    """Up to ``fills`` tokens of prompts, each fill padded to whole grains, and up to ``rows`` rows.

    What it computes is drawn for: the ends of fills first, then the rows.
    """

    def __init__(self, state: _State, fills: int, rows: int, pool: Any) -> None:
        self._state, self._fills, self._rows = state, fills, rows
        self.ends = min(ENDS, fills // GRAIN)
        device = state.weights.device

        def numbers(*size: int, value: int = 0) -> Tensor:
            return torch.full(size, value, dtype=torch.int64, device=device)

        self._members: list[int] = []
        self._ids, self._at = numbers(fills), numbers(self.ends)
        self._fill_seats, self._fill_positions = numbers(fills, value=state.nobody), numbers(fills, value=-1)
        self._end_seats = numbers(self.ends, value=state.nobody)
        self._row_seats, self._row_positions = numbers(rows, value=state.nobody), numbers(rows)
        weights, cache, pages = state.weights, state.cache, state.pages
        self._fill_attend = FillAttend(weights, cache, Rows(self._fill_seats, self._fill_positions, pages))
        self._row_attend = RowAttend(weights, cache, Rows(self._row_seats, self._row_positions, pages))
        self._replay = _captured(self._compute, pool)

    def run(self, fills: Sequence[scheduler.Fill], rows: list[int]) -> _Drawn:
        if self._fills:
            self._set_fills(fills)
        if rows != self._members:
            self._members = rows
            self._upload([self._row_seats], [rows + [self._state.nobody] * (self._rows - len(rows))])
        return self._replay()

    def _set_fills(self, fills: Sequence[scheduler.Fill]) -> None:
        ids: list[int] = []
        positions: list[int] = []
        seats: list[int] = []
        at: list[int] = []
        end_seats: list[int] = []
        for fill in fills:
            padding = -fill.count % GRAIN
            end = fill.start + fill.count
            if fill.is_last:
                at.append(len(ids) + fill.count - 1)
                end_seats.append(fill.sequence.seat)
            ids += fill.sequence.ids[fill.start : end] + [0] * padding
            positions += chain(range(fill.start, end), [-1] * padding)
            seats += [fill.sequence.seat] * (fill.count + padding)
        missing, absent, nobody = self._fills - len(ids), self.ends - len(at), self._state.nobody
        self._upload(
            [self._ids, self._fill_positions, self._fill_seats],
            [ids + [0] * missing, positions + [-1] * missing, seats + [nobody] * missing],
        )
        self._upload([self._at, self._end_seats], [at + [0] * absent, end_seats + [nobody] * absent])

    def _upload(self, targets: Sequence[Tensor], values: Sequence[list[int]]) -> None:
        for target, source in zip(targets, self._state.tensor(values), strict=True):
            target.copy_(source)

    def _compute(self) -> _Drawn:
        state = self._state
        torch.index_select(state.places.positions, 0, self._row_seats, out=self._row_positions)
        ids = torch.cat([self._ids, state.places.tokens[self._row_seats]])
        states = hidden_states(state.weights, state.operations, ids, self._attend)
        states = torch.cat([states[self._at], states[self._fills :]])
        seats = torch.cat([self._end_seats, self._row_seats])
        positions = torch.cat([self._fill_positions[self._at], self._row_positions])
        logits = state.operations.linear(states, state.weights.head)
        tokens = draw_and_move(logits, state.table, seats, positions, state.places, state.nobody)
        return _Drawn(tokens, states, positions)

    def _attend(self, layer: int, weights: Layer, qkv: Tensor) -> Tensor:
        if not self._rows:
            return self._fill_attend(layer, weights, qkv)
        if not self._fills:
            return self._row_attend(layer, weights, qkv)
        fills = self._fill_attend(layer, weights, qkv[: self._fills])
        return torch.cat([fills, self._row_attend(layer, weights, qkv[self._fills :])])


def batch_sizes(seats: int) -> list[tuple[int, int]]:
    """(tokens of fills, rows). A step takes the next larger size, which costs little where they lie close."""
    rows = [1, 2, 4, 8, *range(16, 64, 8), *range(64, 257, 16), *range(288, 4097, 32)]
    beside_fills = [8, 32, 64, 128, 192, *range(256, 4097, 128)]
    return [
        *((fills, 0) for fills in FILL_SIZES),
        *((0, size) for size in (*(size for size in rows if size < seats), seats)),
        *((MIXED_FILL, size) for size in (*(size for size in beside_fills if size < seats), seats)),
    ]


def _captured(compute: Callable[[], _Drawn], pool: Any) -> Callable[[], _Drawn]:
    """Once without capturing: that compiles kernels and makes libraries allocate what they keep."""
    compute()
    if pool is None:
        return compute
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        drawn = compute()

    def replay() -> _Drawn:
        graph.replay()
        return drawn

    return replay


def _fetched(batches: Sequence[tuple[Tensor, Sequence[int]]]) -> Outcome:
    """Bring the tokens to the host without waiting for them."""
    hosts = []
    for tokens, at in batches:
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        hosts.append((host.copy_(tokens, non_blocking=True), at))
    done = torch.cuda.Event()
    done.record()

    def outcome() -> list[int]:
        done.synchronize()
        return [token for host, at in hosts for token in _picked(host.tolist(), at)]

    return outcome


def _picked(tokens: list[int], at: Sequence[int]) -> list[int]:
    return [tokens[place] for place in at]
