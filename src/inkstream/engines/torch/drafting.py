"""Where drafts come from, in plain torch: from a smaller model, or from the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from inkstream.engines.torch import scheduler
from inkstream.engines.torch.forward import Operations, Weights, hidden_states
from inkstream.engines.torch.plain import KeyValues, PlainAttend, PlainOperations, Stretch
from inkstream.engines.torch.rules import Kind
from inkstream.engines.torch.sampler import RuleTable, draw
from inkstream.engines.torch.scheduler import Step
from inkstream.engines.torch.speculation import lookup


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a text that is read: whose it is, from which position on, and its ids."""

    sequence: scheduler.Sequence
    start: int
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Drafting:
    """That steps speculate, and with what: a smaller model, or None for what the text itself has said."""

    name: str
    model: Weights | None = None

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values of one token."""
        return self.model.shape.cache_bytes(self.model.dtype) if self.model else 0


class PlainModel:
    """Weights with a cache of their own. Its pages have the numbers that the scheduler gives out."""

    def __init__(self, weights: Weights, pages: int, operations: Operations | None = None) -> None:
        self.weights = weights
        self._operations = operations or PlainOperations()
        self._cache = KeyValues.allocate(weights, pages)

    def states(self, parts: Sequence[Part]) -> Tensor:
        """Those of all tokens of the parts, one part behind the other."""
        return self.read(
            [id for part in parts for id in part.ids],
            [Stretch(part.start, len(part.ids), part.sequence.pages) for part in parts],
        )

    def read(self, ids: Sequence[int], stretches: Sequence[Stretch]) -> Tensor:
        attend = PlainAttend(self.weights, self._cache, stretches)
        numbers = torch.tensor(ids, dtype=torch.int64, device=self.weights.device)
        return hidden_states(self.weights, self._operations, numbers, attend)

    def logits(self, states: Tensor) -> Tensor:
        return self._operations.linear(states, self.weights.head)


class Drafter(Protocol):
    def drafts(self, step: Step, fills: Sequence[Part]) -> list[list[int]]:
        """For each row of the step as many as it may have, or fewer."""
        ...


class Lookup:
    """Drafts are what was said before."""

    def drafts(self, step: Step, fills: Sequence[Part]) -> list[list[int]]:
        rows = zip(step.rows, _most(step), strict=True)
        return [lookup(sequence.ids, most) if most else [] for (sequence, _), most in rows]


class SmallModel:
    """Drafts are what a smaller model would say, drawn by the same rules and with the same noise.

    It reads whatever the large one reads, in steps without drafts too: it must know what it goes on from.
    Its vocabulary may be padded differently.
    """

    def __init__(self, model: PlainModel, table: RuleTable) -> None:
        self._model, self._table = model, table

    def drafts(self, step: Step, fills: Sequence[Part]) -> list[list[int]]:
        most, drafts = _most(step), [list[int]() for _ in step.rows]
        rows = [Part(sequence, at, sequence.ids[at : at + 1]) for sequence, at in step.rows]
        going = list(range(len(rows)))
        states = self._model.states([*fills, *rows])[sum(len(fill.ids) for fill in fills) :]
        while more := [row for row, at in enumerate(going) if len(drafts[at]) < most[at]]:
            going, states = [going[row] for row in more], states[more]
            behind = [rows[at].start + len(drafts[at]) for at in going]
            for at, token in zip(going, self._drawn(states, [rows[at] for at in going], behind), strict=True):
                drafts[at].append(token)
            # The last draft is read, too: it may be right, and then it is what the next one goes on from.
            parts = [
                Part(rows[at].sequence, rows[at].start + len(drafts[at]), drafts[at][-1:]) for at in going
            ]
            states = self._model.states(parts)
        return drafts

    def _drawn(self, states: Tensor, rows: Sequence[Part], positions: Sequence[int]) -> list[int]:
        vocabulary = self._table.counts.shape[1]
        logits = self._model.logits(states)[:, :vocabulary].float()
        logits = functional.pad(logits, (0, vocabulary - logits.shape[1]), value=-torch.inf)
        seats = [row.sequence.seat for row in rows]
        at = torch.tensor(positions, dtype=torch.int64, device=logits.device)
        tokens: list[int] = draw(logits, self._table, seats, at, is_draft=True).tolist()
        return tokens


def _most(step: Step) -> list[int]:
    """Drafts that a row may have. The answer's last token is never read, and rows whose draw sorts all
    logits gain nothing: that costs more than a draft saves.
    """
    return [
        0 if sequence.rules.kind is Kind.WIDE else min(step.width - 1, sequence.limit - 2 - at)
        for sequence, at in step.rows
    ]
