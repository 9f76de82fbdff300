"""When the tokens of answers are due: in steps at a common pace, or as fast as it goes.

One timer serves everybody who has joined, in one pass: a token wakes no task. An answer that is over, or
whose caller has gone, is dropped in the next pass.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

EARLY_SECONDS = 0.001
"""uvloop counts whole milliseconds, so a timer may ring this much before its time."""

TURN_SECONDS = 0.001
"""How long unpaced answers may keep the event loop to themselves."""


class Paced(Protocol):
    @property
    def is_over(self) -> bool: ...

    def advance(self, tokens: int) -> None:
        """Give up to so many tokens now."""
        ...


class Steps:
    """A token for each in every step. Those who join later fall in with the steps of the others."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._early = min(EARLY_SECONDS, 0.5 / per_second)
        self._reached: dict[Paced, int] = {}
        self._origin = 0.0

    def join(self, answer: Paced) -> None:
        now = time.monotonic()
        if not self._reached:
            self._origin = now
            self._ring_at(1, now)
        self._reached[answer] = int((now - self._origin) * self._rate)

    def _ring_at(self, step: int, now: float) -> None:
        asyncio.get_running_loop().call_later(self._origin + step / self._rate - now, self._step)

    def _step(self) -> None:
        now = time.monotonic()
        step = int((now + self._early - self._origin) * self._rate)
        for answer, reached in list(self._reached.items()):
            if answer.is_over:
                del self._reached[answer]
            elif step > reached:
                self._reached[answer] = step
                answer.advance(step - reached)
        if self._reached:
            self._ring_at(step + 1, now)


class Turns:
    """A slice of tokens for each in turn, without a pause but for whatever else the event loop has to do."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._waiting: deque[Paced] = deque()

    def join(self, answer: Paced) -> None:
        if not self._waiting:
            self._turn_soon()
        self._waiting.append(answer)

    def _turn_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        until = time.monotonic() + TURN_SECONDS
        for _ in range(len(self._waiting)):
            answer = self._waiting.popleft()
            if not answer.is_over:
                self._waiting.append(answer)
                answer.advance(self._tokens)
            if time.monotonic() > until:
                break
        if self._waiting:
            self._turn_soon()
