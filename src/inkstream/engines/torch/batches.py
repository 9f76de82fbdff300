"""What a GPU computes at a time: batches of a fixed size over what lies on the device from step to step.

What changes from step to step lies in buffers: each seat's last token, its position, its pages and rules. So
a batch can be captured once and replayed. A step feeds the next one on the device; the host, one step behind,
says who takes part. Where steps speculate it does not even know how far a row is: a row that has come to its
end is computed as nobody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from inkstream.engines.torch import scheduler
from inkstream.engines.torch.attention import GRAIN, FillAttend, RowAttend, Rows
from inkstream.engines.torch.forward import Layer, Operations, Weights, hidden_states
from inkstream.engines.torch.plain import KeyValues
from inkstream.engines.torch.sampler import RuleTable, to_device
from inkstream.engines.torch.sampling_kernels import Places, draw_ahead, draw_and_move
from inkstream.engines.torch.speculation import WIDTH
from inkstream.engines.torch.speculation_kernels import look_up, settle

ENDS = 32
"""Prompts that can end in one step."""

TIMED_REPLAYS = 3


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """Weights with a cache of their own. Its pages have the numbers that the scheduler gives out.

    ``views`` are the weights as each device that has layers sees them, with the angles on it.
    """

    weights: Weights
    cache: KeyValues
    views: tuple[Weights, ...]

    @classmethod
    def of(cls, weights: Weights, pages: int) -> DeviceModel:
        views = tuple(
            replace(weights, cos=weights.cos.to(device), sin=weights.sin.to(device))
            for device, layers in weights.layers_on.items()
            if layers
        )
        return cls(weights, KeyValues.allocate(weights, pages), views)


@dataclass(frozen=True, slots=True)
class State:
    """What lies on the device from step to step. ``nobody`` is the seat of rows that only fill up a batch.

    ``small`` is the model that drafts, ``history`` the ids of each seat's text, where drafts come from it.
    """

    model: DeviceModel
    operations: Operations
    table: RuleTable
    places: Places
    pages: Tensor
    nobody: int
    small: DeviceModel | None = None
    history: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.pages.device

    @property
    def speculates(self) -> bool:
        return self.small is not None or self.history is not None

    def tensor(self, values: Sequence[Any]) -> Tensor:
        return to_device(torch.tensor(values, dtype=torch.int64), self.device)

    def numbers(self, *size: int, value: int = 0) -> Tensor:
        return torch.full(size, value, dtype=torch.int64, device=self.device)

    def living(self, seats: Tensor, positions: Tensor) -> Tensor:
        """The seats of rows that go on, nobody's for those that are at their end."""
        return torch.where(positions < self.places.ends[seats], seats, self.nobody)

    def logits(self, states: Tensor) -> Tensor:
        return self.operations.linear(states, self.model.weights.head)


@dataclass(frozen=True, slots=True)
class Left:
    """What a batch leaves behind, in the graph's own memory: valid until the next replay.

    Tokens, and the states and positions that they were drawn from, are in the batch's order. Where a row has
    several, ``counts`` is how many of them count and ``drafted`` how many drafts it was given.
    """

    tokens: Tensor
    states: Tensor
    positions: Tensor
    counts: Tensor | None = None
    drafted: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Recorder:
    """What the graphs of a runner have in common: memory, which each may use anew because none is replayed
    beside another, and the stream that they are captured on. torch's own stream for that is of the device
    that captured first."""

    pool: Any
    stream: torch.cuda.Stream

    @classmethod
    def on(cls, device: torch.device) -> Recorder:
        return cls(torch.cuda.graph_pool_handle(), torch.cuda.Stream(device))


class Captured:
    """A computation that is replayed, or computed anew without a ``recorder``. ``seconds`` is what that takes
    on a GPU."""

    def __init__(self, compute: Callable[[], Left], recorder: Recorder | None) -> None:
        """Once without capturing: that compiles kernels and makes libraries allocate what they keep."""
        self._compute, self.seconds = compute, 0.0
        self._graph: Any = None
        self._left = compute()
        if recorder is not None:
            self._capture(recorder)
        if self._left.tokens.device.type == "cuda":
            self.seconds = min(self._timed() for _ in range(TIMED_REPLAYS))

    def __call__(self) -> Left:
        if self._graph is None:
            return self._compute()
        self._graph.replay()
        return self._left

    def _capture(self, recorder: Recorder) -> None:
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=recorder.pool, stream=recorder.stream):
            self._left = self._compute()

    def _timed(self) -> float:
        """Nobody takes part yet: what is read and computed is the same, but for what rows look back at."""
        started = time.perf_counter()
        self()
        torch.cuda.synchronize()
        return time.perf_counter() - started


class Pass:
    """One model's way over a batch: the tokens of fills first, then one of each row."""

    def __init__(self, state: State, model: DeviceModel, fills: Rows | None, rows: Rows | None) -> None:
        self._state, self._weights = state, model.weights
        self._fills = 0 if fills is None else fills.seats.shape[0]
        self._mirrors: list[tuple[Tensor, Tensor]] = []
        self._attends: dict[torch.device, tuple[FillAttend | None, RowAttend | None]] = {}
        for view in model.views:
            here = [self._mirrored(each, view.device) if each else None for each in (fills, rows)]
            self._attends[view.device] = (
                FillAttend(view, model.cache, here[0]) if here[0] else None,
                RowAttend(view, model.cache, here[1]) if here[1] else None,
            )

    def __call__(self, ids: Tensor) -> Tensor:
        for mirror, source in self._mirrors:
            mirror.copy_(source)
        return hidden_states(self._weights, self._state.operations, ids, self._attend)

    def _mirrored(self, rows: Rows, device: torch.device) -> Rows:
        """Where the tokens belong, as it lies on another device; it is brought there for each pass."""
        if device == rows.seats.device:
            return rows
        sources = [getattr(rows, field.name) for field in fields(rows)]
        mirrors = [torch.empty_like(source, device=device) for source in sources]
        self._mirrors += zip(mirrors, sources, strict=True)
        return Rows(*mirrors)

    def _attend(self, layer: int, weights: Layer, qkv: Tensor) -> Tensor:
        fills, rows = self._attends[qkv.device]
        if fills is None or rows is None:
            attend = fills or rows
            assert attend is not None
            return attend(layer, weights, qkv)
        return torch.cat(
            [fills(layer, weights, qkv[: self._fills]), rows(layer, weights, qkv[self._fills :])]
        )


class Batch:
    """Up to ``fills`` tokens of prompts, each fill padded to whole grains, and up to ``rows`` rows.

    What it computes is drawn for: the ends of fills first, then the rows.
    """

    def __init__(self, state: State, fills: int, rows: int, recorder: Recorder | None) -> None:
        self._state, self._fills, self._rows = state, fills, rows
        self.ends = min(ENDS, fills // GRAIN)
        numbers, nobody = state.numbers, state.nobody
        self._members: list[int] = []
        self._ids, self._at = numbers(fills), numbers(self.ends)
        self._fill_seats, self._fill_positions = numbers(fills, value=nobody), numbers(fills, value=-1)
        self._end_seats = numbers(self.ends, value=nobody)
        self._row_seats, self._row_positions = numbers(rows, value=nobody), numbers(rows)
        self._living = numbers(rows, value=nobody) if state.speculates else self._row_seats
        read = Rows(self._fill_seats, self._fill_positions, state.pages) if fills else None
        written = Rows(self._living, self._row_positions, state.pages) if rows else None
        self._pass = Pass(state, state.model, read, written)
        self._small_pass = Pass(state, state.small, read, written) if state.small else None
        self._replay = Captured(self._compute, recorder)

    @property
    def seconds(self) -> float:
        return self._replay.seconds

    def run(self, fills: Sequence[scheduler.Fill], rows: list[int]) -> Left:
        if self._fills:
            self._set_fills(fills)
        if rows != self._members:
            self._upload([self._row_seats], [rows + [self._state.nobody] * (self._rows - len(rows))])
            self._members = rows
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

    def _compute(self) -> Left:
        state = self._state
        places = state.places
        if state.speculates:
            self._living.copy_(state.living(self._row_seats, places.positions[self._row_seats]))
        torch.index_select(places.positions, 0, self._living, out=self._row_positions)
        ids = torch.cat([self._ids, places.tokens[self._living]])
        states = self._pass(ids)
        if self._small_pass:
            self._small_pass(ids)
        states = torch.cat([states[self._at], states[self._fills :]])
        seats = torch.cat([self._end_seats, self._living])
        positions = torch.cat([self._fill_positions[self._at], self._row_positions])
        tokens = draw_and_move(state.logits(states), state.table, seats, positions, places, state.nobody)
        if state.history is not None:
            state.history.index_put_((seats, positions + 1), tokens.to(torch.int32))
        return Left(tokens, states, positions)


class DraftedBatch:
    """Up to ``rows`` rows, each with its last token and drafts behind it. What it leaves is row by row.

    A row is a block of the attention over prompts: it looks back at what it has, drafts included.
    """

    def __init__(self, state: State, rows: int, recorder: Recorder | None) -> None:
        assert WIDTH == GRAIN
        self._state, self._rows = state, rows
        numbers, nobody = state.numbers, state.nobody
        self._members: list[int] = []
        self._row_seats = numbers(rows, value=nobody)
        self._seats, self._positions = numbers(rows * WIDTH, value=nobody), numbers(rows * WIDTH, value=-1)
        self._pass = Pass(state, state.model, Rows(self._seats, self._positions, state.pages), None)
        self._guesses = [_Guess(state, rows, ahead) for ahead in range(WIDTH)] if state.small else []
        self._replay = Captured(self._compute, recorder)

    @property
    def seconds(self) -> float:
        return self._replay.seconds

    def run(self, rows: list[int]) -> Left:
        if rows != self._members:
            padded = rows + [self._state.nobody] * (self._rows - len(rows))
            self._row_seats.copy_(self._state.tensor(padded))
            self._members = rows
        return self._replay()

    def _compute(self) -> Left:
        state = self._state
        places = state.places
        seats = state.living(self._row_seats, places.positions[self._row_seats])
        last = places.positions[seats]
        drafts = self._drafts(seats, last)
        ids = torch.cat([places.tokens[seats].unsqueeze(1), drafts.clamp(min=0)], dim=1)
        positions = last.unsqueeze(1) + torch.arange(WIDTH, device=last.device)
        is_read = positions < places.ends[seats].unsqueeze(1)
        is_read[:, 1:] &= drafts >= 0
        self._positions.copy_(torch.where(is_read, positions, -1).view(-1))
        self._seats.view(-1, WIDTH).copy_(seats.unsqueeze(1))
        states = self._pass(ids.view(-1))
        flat = positions.view(-1)
        tokens = draw_ahead(state.logits(states), state.table, self._seats, flat, drafts)
        counts = settle(tokens, drafts, state.table, seats, last, places, state.history, state.nobody)
        return Left(tokens, states, flat, counts, is_read[:, 1:].sum(dim=1))

    def _drafts(self, seats: Tensor, last: Tensor) -> Tensor:
        """(rows, WIDTH - 1), -1 where there is none."""
        state = self._state
        if state.history is not None:
            return look_up(state.history, seats, last)
        tokens = [state.places.tokens[seats]]
        for guess in self._guesses:
            tokens.append(guess(tokens[-1], seats, last))
        return torch.stack(tokens[1:WIDTH], dim=1)


class _Guess:
    """The small model's step ``ahead`` of the last token: it reads the token before and draws the next one.

    The last draft is read, too: it may be right, and then it is what the next step goes on from.
    """

    def __init__(self, state: State, rows: int, ahead: int) -> None:
        assert state.small is not None
        self._state, self._small, self._ahead = state, state.small, ahead
        self._seats, self._positions = state.numbers(rows, value=state.nobody), state.numbers(rows)
        self._pass = Pass(state, state.small, None, Rows(self._seats, self._positions, state.pages))

    def __call__(self, tokens: Tensor, seats: Tensor, last: Tensor) -> Tensor:
        state = self._state
        positions = last + self._ahead
        self._seats.copy_(state.living(seats, positions))
        self._positions.copy_(positions.where(self._seats != state.nobody, 0))
        states = self._pass(tokens)
        logits = state.operations.linear(states, self._small.weights.head)
        return draw_ahead(logits, state.table, seats, positions)
