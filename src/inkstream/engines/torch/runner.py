"""Has the device compute the steps that the scheduler plans; here in plain torch, on any device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from inkstream.engines.torch.cache import SCRATCH
from inkstream.engines.torch.drafting import Drafter, Drafting, Lookup, Part, PlainModel, SmallModel
from inkstream.engines.torch.forward import Operations, Weights
from inkstream.engines.torch.plain import Stretch
from inkstream.engines.torch.sampler import RuleTable, draw, told_of
from inkstream.engines.torch.scheduler import Drawn, Likelihood, Limits, Step
from inkstream.engines.torch.speculation import WIDTH

Outcome = Callable[[], Drawn]
"""Waits for a step and tells what it wrote."""

TIMED_TOKENS, TIMED_RUNS = 17, 3


class Runner(Protocol):
    """``ahead`` is how many further steps can be launched before the outcome of one is asked for."""

    ahead: int

    def limits(self, seats: int) -> Limits: ...

    def launch(self, step: Step) -> Outcome: ...

    def seconds(self, rows: int, width: int) -> float:
        """What a step of so many rows takes, measured at the start. Asked only where steps speculate."""
        ...


class PlainRunner:
    """Everything of a step in one forward pass. It is done when ``launch`` returns."""

    ahead = 0

    def __init__(
        self,
        weights: Weights,
        stops: Sequence[int],
        seats: int,
        pages: int,
        drafting: Drafting | None = None,
        operations: Operations | None = None,
    ) -> None:
        self._drafter: Drafter | None = None
        self._width = WIDTH if drafting else 1
        with torch.inference_mode():
            self._models = [PlainModel(weights, pages, operations)]
            self._table = RuleTable(seats, weights.shape.vocabulary, stops, weights.device)
            if drafting and drafting.model:
                self._models.append(PlainModel(drafting.model, pages, operations))
                self._drafter = SmallModel(self._models[1], self._table)
            elif drafting:
                self._drafter = Lookup()
            self._costs = [_cost(model) for model in self._models] if drafting else []

    def limits(self, seats: int) -> Limits:
        return Limits(seats, budget=64, most=512, width=self._width)

    def launch(self, step: Step) -> Outcome:
        with torch.inference_mode():
            seated = ((s.seat, s.rules, s.ids[: s.prompt], s.ids[s.prompt :]) for s in step.seated)
            self._table.set(list(seated))
            drawn = self._compute(step)
        return lambda: drawn

    def seconds(self, rows: int, width: int) -> float:
        """The model reads all of a row's tokens at once, the one that drafts one after the other."""
        (fixed, each), *small = self._costs
        drafting = sum(width * (fixed + each * rows) for fixed, each in small)
        return fixed + each * rows * width + drafting

    def _compute(self, step: Step) -> Drawn:
        fills = [Part(f.sequence, f.start, f.sequence.ids[f.start : f.start + f.count]) for f in step.fills]
        drafts = self._drafter.drafts(step, fills) if self._drafter else [[] for _ in step.rows]
        rows = [Part(s, at, [s.ids[at], *more]) for (s, at), more in zip(step.rows, drafts, strict=True)]
        states = self._models[0].states([*fills, *rows])
        if not step.writers:
            return Drawn([])
        undrafted: list[list[int]] = [[] for fill in step.fills if fill.is_last]
        return self._draw(step, states[list(_writing(step, rows))], undrafted + drafts)

    def _draw(self, step: Step, states: Tensor, drafts: Sequence[list[int]]) -> Drawn:
        """Position by position, for those whose drafts have been what was drawn. The states are those of a
        writer's last token and of its drafts, one writer behind the other.
        """
        logits, writers, starts = self._models[0].logits(states), step.writers, _positions(step)
        first = list(accumulate((len(more) + 1 for more in drafts), initial=0))
        tokens: list[list[int]] = [[] for _ in writers]
        likelihoods: dict[int, list[Likelihood]] = {}
        going, ahead = list(range(len(writers))), 0
        while going:
            rows = logits[[first[at] + ahead for at in going]]
            positions = torch.tensor([starts[at] + ahead for at in going], device=logits.device)
            drawn = draw(rows.clone(), self._table, [writers[at].seat for at in going], positions)
            told = told_of(rows, drawn, [writers[at].rules.likeliest for at in going])
            for row, (at, token) in enumerate(zip(going, drawn.tolist(), strict=True)):
                tokens[at].append(token)
                if row in told:
                    likelihoods.setdefault(at, []).append(told[row])
            going = [at for at in going if drafts[at][ahead : ahead + 1] == tokens[at][-1:]]
            ahead += 1
        return Drawn(tokens, likelihoods, [len(more) for more in drafts] if any(drafts) else ())


def _writing(step: Step, rows: Sequence[Part]) -> Iterator[int]:
    """Which tokens of the batch are followed by one that is drawn."""
    first = 0
    for fill in step.fills:
        first += fill.count
        if fill.is_last:
            yield first - 1
    yield from range(first, first + sum(len(row.ids) for row in rows))


def _positions(step: Step) -> list[int]:
    """Of the last token of each writer."""
    return [f.start + f.count - 1 for f in step.fills if f.is_last] + [at for _, at in step.rows]


def _cost(model: PlainModel) -> tuple[float, float]:
    """Seconds of a pass, and of each token in it."""
    one, many = (min(_timed(model, tokens) for _ in range(TIMED_RUNS)) for tokens in (1, TIMED_TOKENS))
    each = max(many - one, 0.0) / (TIMED_TOKENS - 1)
    return max(one - each, 0.0), each


def _timed(model: PlainModel, tokens: int) -> float:
    started = time.perf_counter()
    model.logits(model.read([0] * tokens, [Stretch(0, 1, [SCRATCH])] * tokens))
    return time.perf_counter() - started
