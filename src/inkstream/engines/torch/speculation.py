"""Guessing tokens ahead, so that one pass of the model confirms several. Pure logic, without torch.

A pass over a few tokens of a row costs little more than over one: the weights are read once either way. So
tokens are guessed (drafted), by a smaller model or from what was said before, and the model is run over all
of them. Of each position its own token is drawn, which depends on seed and position alone; drafts count as
long as they are those tokens. So what is written is what would have been written without (speculative
decoding, Leviathan et al. 2023; here no token needs to be rejected by chance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

WIDTH = 8
"""Tokens of a row in one pass, its last one and seven drafts: a block of the attention over prompts."""

LONGEST, SHORTEST = 3, 2
"""Tokens that must have been there before, for what came behind them to be a draft."""

OPENS, CLOSES = 1.1, 0.95
"""A step with drafts must be so many times as good as one without. Between the two all stays as it is."""

MEMORY = 256
"""Drafts over which the accepted share is averaged."""

PROBE = 64
"""Steps without drafts, after which one with drafts tells whether they have become better."""


def lookup(ids: Sequence[int], most: int) -> list[int]:
    """Drafts: what came behind the latest place where the text had been as it ends now (prompt lookup).

    Where that is less than ``most``, the text is taken to go on in the same circle.
    """
    last = len(ids) - 1
    for length in range(LONGEST, SHORTEST - 1, -1):
        tail = ids[len(ids) - length :]
        for end in range(last - 1, length - 2, -1):
            if ids[end] == ids[last] and ids[end - length + 1 : end + 1] == tail:
                return [ids[end + 1 + at % (last - end)] for at in range(most)]
    return []


class Gate:
    """Whether to speculate, step by step: as long as it is faster, by measured times and accepted drafts.

    ``seconds`` tells what a step takes with so many rows of such a width, infinity where there is none.
    """

    def __init__(self, width: int, seconds: Callable[[int, int], float]) -> None:
        self._width, self._seconds = width, seconds
        self._speed_of: dict[int, float] = {}
        self._share = 0.5
        self._is_open = True
        self._shut_steps = 0

    def width(self, rows: int) -> int:
        """For the next step of so many rows; 1 is without drafts."""
        gain = self.gain(rows)
        if not gain:
            return 1
        self._is_open = gain > (CLOSES if self._is_open else OPENS)
        if self._is_open or self._shut_steps >= PROBE:
            self._shut_steps = 0
            return self._width
        self._shut_steps += 1
        return 1

    def gain(self, rows: int) -> float:
        """Tokens a second with drafts, divided by those without."""
        return (1 + self._share * (self._width - 1)) * self._speed(rows)

    def learn(self, drafted: int, accepted: int) -> None:
        """What came of a step."""
        if drafted:
            self._share += (accepted / drafted - self._share) * min(1.0, drafted / MEMORY)

    def _speed(self, rows: int) -> float:
        """Steps a second with drafts, divided by those without."""
        if rows not in self._speed_of:
            self._speed_of[rows] = self._seconds(rows, 1) / self._seconds(rows, self._width)
        return self._speed_of[rows]
