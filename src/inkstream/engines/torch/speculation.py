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

OPENS, CLOSES = 1.05, 0.95
"""A step with drafts must be so many times as good as one without. Between the two all stays as it is."""

MEMORY_ROWS, MEMORY_STEPS = 10, 4
"""Over how many is averaged, at least, how many tokens a row gets in a step with drafts. Texts begin to
repeat themselves and cease to: a longer memory misses more than it saves."""

PROBES = 0.04
"""The share of the time in which drafts are tried that do not pay, to see whether they do again."""


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
    """Whether to speculate, step by step: as long as it is faster, by measured times and what came of drafts.

    ``seconds`` tells what a step takes with so many rows of such a width, infinity where there is none. A row
    that is given no drafts takes as long, so it is tokens that are counted and not the accepted share.
    """

    def __init__(self, width: int, seconds: Callable[[int, int], float]) -> None:
        self._width, self._seconds = width, seconds
        self._speed_of: dict[int, float] = {}
        self._tokens = (1 + width) / 2  # of a row in a step with drafts
        self._is_open = True
        self._shut_steps = 0

    def width(self, rows: int) -> int:
        """For the next step of so many rows; 1 is without drafts."""
        gain = self.gain(rows)
        if not gain:
            return 1
        self._is_open = gain > (CLOSES if self._is_open else OPENS)
        if self._is_open or self._shut_steps * PROBES >= 1 / self._speed(rows) - 1:
            self._shut_steps = 0
            return self._width
        self._shut_steps += 1
        return 1

    def gain(self, rows: int) -> float:
        """Tokens a second with drafts, divided by those without."""
        return self._tokens * self._speed(rows)

    def learn(self, rows: int, tokens: int) -> None:
        """What came of a step with drafts: so many rows wrote so many tokens."""
        self._tokens += (tokens / rows - self._tokens) * min(1 / MEMORY_STEPS, rows / MEMORY_ROWS)

    def _speed(self, rows: int) -> float:
        """Steps a second with drafts, divided by those without."""
        if rows not in self._speed_of:
            self._speed_of[rows] = self._seconds(rows, 1) / self._seconds(rows, self._width)
        return self._speed_of[rows]
