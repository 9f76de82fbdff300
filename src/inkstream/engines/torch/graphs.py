"""Has a GPU compute the steps: captured once for each size of a batch, then replayed.

A replay costs the host a few microseconds, where launching the same kernels one by one costs it more than the
GPU needs for them. ``batches`` has what is captured.

Everything happens in the order of one stream. That is why a seat or a page can be given to somebody else
while a step of its former holder is still under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from inkstream.engines.torch import scheduler
from inkstream.engines.torch.attention import GRAIN
from inkstream.engines.torch.batches import ENDS, Batch, DeviceModel, DraftedBatch, Left, Recorder, State
from inkstream.engines.torch.cache import pages_for
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Linear, Operations, Weights, current
from inkstream.engines.torch.kernels import FusedOperations
from inkstream.engines.torch.outcomes import Part, fetched
from inkstream.engines.torch.rules import Kind
from inkstream.engines.torch.runner import Outcome
from inkstream.engines.torch.sampler import RuleTable, draw
from inkstream.engines.torch.sampling_kernels import Places
from inkstream.engines.torch.scheduler import Limits, Step
from inkstream.engines.torch.speculation import WIDTH

FILL_SIZES = (64, 128, 256, 512, 1024, 2048)
MIXED_FILL = 128
"""Tokens that are read together with rows, so that the weights are read once for both. With a few thousand
tokens before them they double the time of a step of 32 rows (bench/torch.md)."""

DRAFTED_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
"""Rows of steps that speculate. More of them compute more than they read: drafts would only cost."""


@dataclass(frozen=True, slots=True)
class Options:
    """Levers for a benchmark, and with what steps speculate. ``captured`` hears how many graphs of how many
    there are."""

    captures: bool = True
    operations: Operations | None = None
    drafting: Drafting | None = None
    captured: Callable[[int, int], None] = lambda done, total: None


class GraphRunner:
    """``ahead`` 1: while the host looks at the tokens of one step, the GPU has the next one.

    Where layers lie on several GPUs nothing is captured: torch keeps the memory of a graph on one of them.
    """

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
        if len(list(weights.stages())) > 1:
            options = replace(options, captures=False)
        with torch.inference_mode(), current(weights.device):
            self._state = _state(weights, stops, seats, pages, context, options)
            self._batch_of: dict[tuple[int, int], Batch] = {}
            self._drafted_of: dict[int, DraftedBatch] = {}
            self._capture(seats, options)

    def limits(self, seats: int) -> Limits:
        width = WIDTH if self._state.speculates else 1
        return Limits(seats, MIXED_FILL, FILL_SIZES[-1], GRAIN, ENDS, width)

    def launch(self, step: Step) -> Outcome:
        with torch.inference_mode(), current(self._state.device):
            self._seat(step.seated)
            self._place(step.placed)
            rows = [sequence for sequence, _ in step.rows]
            fills = sum(-(-fill.count // GRAIN) * GRAIN for fill in step.fills)
            if step.width > 1:
                parts = [self._run_drafted(rows)]
            elif rows and fills > MIXED_FILL:
                parts = [self._run(step.fills, [], fills), self._run([], rows, 0)]
            else:
                parts = [self._run(step.fills, rows, fills)]
            return fetched(parts, self._state)

    def seconds(self, rows: int, width: int) -> float:
        sizes = {rows: batch for (fills, rows), batch in self._batch_of.items() if not fills}
        timed: dict[int, Batch] | dict[int, DraftedBatch] = sizes if width == 1 else self._drafted_of
        return min((batch.seconds for size, batch in timed.items() if size >= rows), default=math.inf)

    def _capture(self, seats: int, options: Options) -> None:
        """Largest first, so that smaller graphs fit into the memory of larger ones."""
        recorder = Recorder.on(self._state.device) if options.captures else None
        drafted = _up_to(DRAFTED_SIZES, seats) if self._state.speculates else []
        sizes = sorted(batch_sizes(seats), key=sum, reverse=True)
        total = len(sizes) + len(drafted)
        for rows in sorted(drafted, reverse=True):
            self._drafted_of[rows] = DraftedBatch(self._state, rows, recorder)
            options.captured(len(self._drafted_of), total)
        for fills, rows in sizes:
            self._batch_of[fills, rows] = Batch(self._state, fills, rows, recorder)
            options.captured(len(self._drafted_of) + len(self._batch_of), total)

    def _seat(self, seated: Sequence[scheduler.Sequence]) -> None:
        if not seated:
            return
        state = self._state
        state.table.set([(s.seat, s.rules, s.ids[: s.prompt], s.ids[s.prompt :]) for s in seated])
        seats, ends = state.tensor([(s.seat, s.limit - 1) for s in seated]).unbind(1)
        state.places.ends.index_copy_(0, seats, ends)
        if state.history is not None:
            for sequence in seated:
                ids = state.tensor(sequence.ids).to(torch.int32)
                state.history[sequence.seat, : len(sequence.ids)] = ids

    def _place(self, placed: Sequence[tuple[int, int, int]]) -> None:
        if placed:
            seats, at, pages = self._state.tensor(placed).unbind(1)
            self._state.pages.index_put_((seats, at), pages.to(torch.int32))

    def _run(
        self, fills: Sequence[scheduler.Fill], rows: Sequence[scheduler.Sequence], fill_tokens: int
    ) -> Part:
        fitting = [
            (room, places)
            for room, places in self._batch_of
            if room >= fill_tokens and places >= len(rows) and bool(room) == bool(fill_tokens)
        ]
        batch = self._batch_of[min(fitting, key=sum)]
        left = batch.run(fills, [sequence.seat for sequence in rows])
        ended = [fill.sequence for fill in fills if fill.is_last]
        at = [*range(len(ended)), *range(batch.ends, batch.ends + len(rows))]
        self._draw_wide(left, at, [*ended, *rows])
        return Part(left, at, [*ended, *rows], 1)

    def _run_drafted(self, rows: Sequence[scheduler.Sequence]) -> Part:
        size = min(size for size in self._drafted_of if size >= len(rows))
        left = self._drafted_of[size].run([sequence.seat for sequence in rows])
        at = [row * WIDTH for row in range(len(rows))]
        self._draw_wide(left, at, rows)
        return Part(left, at, rows, WIDTH)

    def _draw_wide(self, left: Left, at: Sequence[int], sequences: Sequence[scheduler.Sequence]) -> None:
        """Rows whose rules need all logits sorted are drawn here, one kernel after the other."""
        wide = [(place, s.seat) for place, s in zip(at, sequences, strict=True) if s.rules.kind is Kind.WIDE]
        if not wide:
            return
        state = self._state
        rows, seats = state.tensor(wide).unbind(1)
        positions = left.positions[rows]
        tokens = draw(state.logits(left.states[rows]), state.table, [seat for _, seat in wide], positions)
        left.tokens[rows] = tokens
        state.places.tokens[seats] = tokens
        state.places.positions[seats] = positions + 1
        if state.history is not None:
            state.history.index_put_((seats, positions + 1), tokens.to(torch.int32))


def batch_sizes(seats: int) -> list[tuple[int, int]]:
    """(tokens of fills, rows). A step takes the next larger size, which costs little where they lie close."""
    rows = [1, 2, 4, 8, *range(16, 64, 8), *range(64, 257, 16), *range(288, 4097, 32)]
    beside_fills = [8, 32, 64, 128, 192, *range(256, 4097, 128)]
    return [
        *((fills, 0) for fills in FILL_SIZES),
        *((0, size) for size in _up_to(rows, seats)),
        *((MIXED_FILL, size) for size in _up_to(beside_fills, seats)),
    ]


def _up_to(sizes: Sequence[int], seats: int) -> list[int]:
    """Those below, and as many as there are seats, unless the sizes end before."""
    below = [size for size in sizes if size < seats]
    return below if seats > sizes[-1] else [*below, seats]


def _state(
    weights: Weights, stops: Sequence[int], seats: int, pages: int, context: int, options: Options
) -> State:
    device, drafting = weights.device, options.drafting
    small = drafting.model if drafting else None

    # A row that is at its end may be computed once more: what it would write lies behind the context.
    history = torch.zeros(seats + 1, context + 2 * WIDTH, dtype=torch.int32, device=device)
    return State(
        DeviceModel.of(weights, pages),
        options.operations or FusedOperations(),
        RuleTable(seats + 1, weights.shape.vocabulary, stops, device),
        Places(*(torch.zeros(seats + 1, dtype=torch.int64, device=device) for _ in range(3))),
        torch.zeros(seats + 1, pages_for(context), dtype=torch.int32, device=device),
        nobody=seats,
        small=DeviceModel.of(_fitted(small, weights.shape.vocabulary), pages) if small else None,
        history=history if drafting and small is None else None,
    )


def _fitted(small: Weights, vocabulary: int) -> Weights:
    """Padding of its vocabulary that the large model does not have is no draft."""
    return replace(small, head=Linear(small.head.weight[:vocabulary]))
