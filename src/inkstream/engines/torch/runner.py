"""Has the device compute the steps that the scheduler plans; here in plain torch, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from inkstream.engines.torch.forward import Weights, hidden_states
from inkstream.engines.torch.plain import KeyValues, PlainAttend, PlainOperations, Stretch
from inkstream.engines.torch.sampler import RuleTable, draw
from inkstream.engines.torch.scheduler import Limits, Step

Outcome = Callable[[], Sequence[int]]
"""Waits for a step and tells the tokens of its writers, in their order."""


class Runner(Protocol):
    """``ahead`` is how many further steps can be launched before the outcome of one is asked for."""

    ahead: int

    def limits(self, seats: int) -> Limits: ...

    def launch(self, step: Step) -> Outcome: ...


class PlainRunner:
    """Everything of a step in one forward pass. It is done when ``launch`` returns."""

    ahead = 0

    def __init__(self, weights: Weights, stops: Sequence[int], seats: int, pages: int) -> None:
        self._weights, self._operations = weights, PlainOperations()
        with torch.inference_mode():
            self._cache = KeyValues.allocate(weights, pages)
            self._table = RuleTable(seats, weights.shape.vocabulary, stops, weights.device)

    def limits(self, seats: int) -> Limits:
        return Limits(seats, budget=64, most=512)

    def launch(self, step: Step) -> Outcome:
        with torch.inference_mode():
            seated = ((s.seat, s.rules, s.ids[: s.prompt], s.ids[s.prompt :]) for s in step.seated)
            self._table.set(list(seated))
            tokens = self._compute(step)
        return lambda: tokens

    def _compute(self, step: Step) -> list[int]:
        parts = [(fill.sequence, fill.start, fill.count) for fill in step.fills]
        parts += [(sequence, start, 1) for sequence, start in step.rows]
        ids = [id for sequence, start, count in parts for id in sequence.ids[start : start + count]]
        stretches = [Stretch(start, count, sequence.pages) for sequence, start, count in parts]
        weights = self._weights
        attend = PlainAttend(weights, self._cache, stretches)
        states = hidden_states(weights, self._operations, self._tensor(ids), attend)
        ends = _ends(step)
        if not ends:
            return []
        logits = self._operations.linear(states[self._tensor([at for at, _ in ends])], weights.head)
        seats = [sequence.seat for sequence in step.writers]
        drawn: list[int] = draw(logits, self._table, seats, self._tensor([p for _, p in ends])).tolist()
        return drawn

    def _tensor(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._weights.device)


def _ends(step: Step) -> list[tuple[int, int]]:
    """Where in the batch, and at which position, the tokens are from which the writers go on."""
    ends, first = [], 0
    for fill in step.fills:
        first += fill.count
        if fill.is_last:
            ends.append((first - 1, fill.start + fill.count - 1))
    return ends + [(first + at, position) for at, (_, position) in enumerate(step.rows)]
