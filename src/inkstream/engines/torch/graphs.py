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
from inkstream.engines.torch.forward import Operations, Weights, hidden_states
from inkstream.engines.torch.kernels import FusedOperations
from inkstream.engines.torch.plain import KeyValues
from inkstream.engines.torch.rules import Kind
from inkstream.engines.torch.runner import Outcome
from inkstream.engines.torch.sampler import RuleTable, draw, to_device
from inkstream.engines.torch.sampling_kernels import Places, draw_and_move
from inkstream.engines.torch.scheduler import Limits, Step

FILL_SIZES = (64, 128, 256, 512, 1024, 2048)
BUDGET_BESIDE_ROWS = 256
"""Tokens that are read in about the time of one step of a full batch."""

ENDS = 32
"""Prompts that can end in one step."""


@dataclass(frozen=True, slots=True)
class Options:
    """Levers for a benchmark. ``share`` hears how much of the capturing is done."""

    captures: bool = True
    operations: Operations | None = None
    share: Callable[[float], None] = lambda share: None


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
            self._fills, self._rows = self._batches(seats, options)

    def limits(self, seats: int) -> Limits:
        return Limits(seats, BUDGET_BESIDE_ROWS, FILL_SIZES[-1], GRAIN, ENDS)

    def launch(self, step: Step) -> Outcome:
        with torch.inference_mode():
            state = self._state
            seated = ((s.seat, s.rules, s.ids[: s.prompt], s.ids[s.prompt :]) for s in step.seated)
            state.table.set(list(seated))
            self._place(step.placed)
            drawn: list[Tensor] = []
            if step.fills:
                drawn.append(self._read(step.fills))
            if step.rows:
                drawn.append(self._write([sequence for sequence, _ in step.rows]))
            return _fetched(drawn)

    def _batches(self, seats: int, options: Options) -> tuple[dict[int, _FillBatch], dict[int, _RowBatch]]:
        """Largest first, so that smaller graphs fit into the memory of larger ones."""
        pool = torch.cuda.graph_pool_handle() if options.captures else None
        fills: dict[int, _FillBatch] = {}
        rows: dict[int, _RowBatch] = {}
        sizes = row_sizes(seats)
        for size in reversed(FILL_SIZES):
            fills[size] = _FillBatch(self._state, size, pool)
            options.share(len(fills) / (len(FILL_SIZES) + len(sizes)))
        for size in reversed(sizes):
            rows[size] = _RowBatch(self._state, size, pool)
            options.share((len(fills) + len(rows)) / (len(FILL_SIZES) + len(sizes)))
        return fills, rows

    def _place(self, placed: Sequence[tuple[int, int, int]]) -> None:
        if placed:
            seats, at, pages = self._state.tensor(placed).unbind(1)
            self._state.pages.index_put_((seats, at), pages.to(torch.int32))

    def _read(self, fills: Sequence[scheduler.Fill]) -> Tensor:
        padded = sum(-(-fill.count // GRAIN) * GRAIN for fill in fills)
        batch = self._fills[min(size for size in FILL_SIZES if size >= padded)]
        drawn = batch.run(fills)
        ended = [fill.sequence for fill in fills if fill.is_last]
        return self._with_wide(drawn, ended)

    def _write(self, sequences: Sequence[scheduler.Sequence]) -> Tensor:
        batch = self._rows[min(size for size in self._rows if size >= len(sequences))]
        return self._with_wide(batch.run([sequence.seat for sequence in sequences]), sequences)

    def _with_wide(self, drawn: _Drawn, sequences: Sequence[scheduler.Sequence]) -> Tensor:
        """Rows whose rules need all logits sorted are drawn here, one kernel after the other."""
        tokens = drawn.tokens[: len(sequences)]
        wide = [at for at, sequence in enumerate(sequences) if sequence.rules.kind is Kind.WIDE]
        if not wide:
            return tokens
        state, rows = self._state, self._state.tensor(wide)
        seats = [sequences[at].seat for at in wide]
        logits = state.operations.linear(drawn.states[rows], state.weights.head)
        positions = drawn.positions[rows]
        chosen = draw(logits, state.table, seats, positions)
        tokens[rows] = chosen
        state.places.tokens[state.tensor(seats)] = chosen
        state.places.positions[state.tensor(seats)] = positions + 1
        return tokens


class _FillBatch:
    """Up to ``size`` tokens of prompts, each fill padded to whole grains."""

    def __init__(self, state: _State, size: int, pool: Any) -> None:
        self._state, self._size = state, size
        device = state.weights.device
        self._tokens = torch.zeros(3, size, dtype=torch.int64, device=device)
        self._ends = torch.zeros(2, ENDS, dtype=torch.int64, device=device)
        ids, positions, seats = self._tokens
        positions.fill_(-1)
        seats.fill_(state.nobody)
        self._ends[1].fill_(state.nobody)
        self._attend = FillAttend(state.weights, state.cache, Rows(seats, positions, state.pages))
        self._replay = _captured(self._compute, pool)

    def run(self, fills: Sequence[scheduler.Fill]) -> _Drawn:
        ids: list[int] = []
        positions: list[int] = []
        seats: list[int] = []
        ends: list[tuple[int, int]] = []
        for fill in fills:
            padding = -fill.count % GRAIN
            end = fill.start + fill.count
            if fill.is_last:
                ends.append((len(ids) + fill.count - 1, fill.sequence.seat))
            ids += fill.sequence.ids[fill.start : end] + [0] * padding
            positions += chain(range(fill.start, end), [-1] * padding)
            seats += [fill.sequence.seat] * (fill.count + padding)
        missing = self._size - len(ids)
        nobody = self._state.nobody
        tokens = [ids + [0] * missing, positions + [-1] * missing, seats + [nobody] * missing]
        self._tokens.copy_(self._state.tensor(tokens))
        ends += [(0, nobody)] * (ENDS - len(ends))
        self._ends.copy_(self._state.tensor(ends).T)
        return self._replay()

    def _compute(self) -> _Drawn:
        state = self._state
        ids, positions, _ = self._tokens
        at, seats = self._ends
        states = hidden_states(state.weights, state.operations, ids, self._attend)[at]
        return _drawn(state, states, seats, positions[at])


class _RowBatch:
    """The next token of up to ``size`` rows. Which rows these are is uploaded only where it has changed."""

    def __init__(self, state: _State, size: int, pool: Any) -> None:
        self._state, self._size = state, size
        device = state.weights.device
        self._members: list[int] = []
        self._seats = torch.full((size,), state.nobody, dtype=torch.int64, device=device)
        self._positions = torch.zeros(size, dtype=torch.int64, device=device)
        self._attend = RowAttend(state.weights, state.cache, Rows(self._seats, self._positions, state.pages))
        self._replay = _captured(self._compute, pool)

    def run(self, seats: list[int]) -> _Drawn:
        if seats != self._members:
            self._members = seats
            padding = [self._state.nobody] * (self._size - len(seats))
            self._seats.copy_(self._state.tensor(seats + padding))
        return self._replay()

    def _compute(self) -> _Drawn:
        state = self._state
        torch.index_select(state.places.positions, 0, self._seats, out=self._positions)
        ids = state.places.tokens[self._seats]
        states = hidden_states(state.weights, state.operations, ids, self._attend)
        return _drawn(state, states, self._seats, self._positions)


def _drawn(state: _State, states: Tensor, seats: Tensor, positions: Tensor) -> _Drawn:
    logits = state.operations.linear(states, state.weights.head)
    tokens = draw_and_move(logits, state.table, seats, positions, state.places, state.nobody)
    return _Drawn(tokens, states, positions)


def row_sizes(seats: int) -> list[int]:
    """Sizes of batches: a step takes the next larger one, which costs little where they lie close."""
    sizes = [1, 2, 4, 8, *range(16, 64, 8), *range(64, 257, 16), *range(288, 4097, 32)]
    return [size for size in sizes if size < seats] + [seats]


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


def _fetched(drawn: Sequence[Tensor]) -> Outcome:
    """Bring the tokens to the host without waiting for them."""
    hosts = []
    for tokens in drawn:
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        hosts.append(host.copy_(tokens, non_blocking=True))
    done = torch.cuda.Event()
    done.record()

    def outcome() -> list[int]:
        done.synchronize()
        return [token for host in hosts for token in host.tolist()]

    return outcome
