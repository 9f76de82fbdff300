"""By which rules the tokens of one request are drawn, and what that costs. ``sampler`` says how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

NARROW = 64
"""Candidates that a row with a top_k up to this is drawn from: few enough to be sorted in one kernel."""


class Kind(IntEnum):
    """What a row needs: the largest logit, noise on all, the best candidates, or all of them sorted."""

    GREEDY = 0
    OPEN = 1
    NARROW = 2
    WIDE = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """Every choice made. ``seed`` is any whole number. Temperature 0 takes the likeliest token.

    ``min_length`` is the number of ids, the prompt's included, before which the answer does not end.
    ``likeliest`` is how many tokens are told beside each that is drawn, with all their chances; None for none
    of them, not even of its own.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    seed: int = 0
    min_length: int = 0
    bias: tuple[tuple[int, float], ...] = ()
    likeliest: int | None = None

    @property
    def kind(self) -> Kind:
        if self.bias:
            return Kind.WIDE
        if self.temperature == 0:
            return Kind.GREEDY
        if 0 < self.top_k <= NARROW:
            return Kind.NARROW
        is_open = self.top_k <= 0 and self.top_p >= 1 and self.min_p <= 0
        return Kind.OPEN if is_open else Kind.WIDE

    @property
    def needs_counts(self) -> bool:
        """It must be known how often each token was there."""
        return self.repetition != 1 or self.presence != 0 or self.frequency != 0

    @property
    def reals(self) -> tuple[float, ...]:
        """For the device: temperature, top_p, logarithm of min_p, the three penalties."""
        top_p = self.top_p if self.top_p < 1 else math.inf
        log_min_p = math.log(self.min_p) if self.min_p > 0 else -math.inf
        return (self.temperature, top_p, log_min_p, self.repetition, self.presence, self.frequency)

    @property
    def wholes(self) -> tuple[int, ...]:
        """For the device: kind, top_k, seed, min_length, whether counts are needed."""
        seed = (self.seed + (1 << 63)) % (1 << 64) - (1 << 63)
        return (self.kind, self.top_k, seed, self.min_length, self.needs_counts)
