"""What happened to one run in this process, and when: for its readers, for counting and for tracing.

It is written a few times for each run; for its tokens there is one addition. Times are Unix times in seconds,
because a run may have been created by another process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import orjson

from inkstream.errors import InkstreamError
from inkstream.events import Draft, Kind

STALL_SECONDS = 2.0
NO_TIMINGS: Mapping[str, float] = MappingProxyType({})  # one for all: there may be thousands of attempts


@dataclass(slots=True)
class Attempt:
    """One engine, asked once. None stands for what it has not come to.

    ``outcome`` is ``finished``, the code of its error, or ``cut``: somebody has broken it off. ``behind`` is
    how many tokens earlier attempts have left to it; ``timings`` are the engine's own.
    """

    epoch: int
    queued_at: float
    asked_at: float | None = None
    first_text_at: float | None = None
    ended_at: float | None = None
    behind: int = 0
    timings: Mapping[str, float] = field(default_factory=lambda: NO_TIMINGS)
    outcome: str = "cut"
    ahead: float = 0.0  # see Timeline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            self.outcome = "finished"
        elif isinstance(error, InkstreamError):
            self.outcome = error.code
        self.ended_at = time.monotonic() + self.ahead


@dataclass(slots=True)
class Ending:
    """The terminal event: ``payload`` as its readers see it, and how long it took to become durable."""

    kind: Kind
    payload: dict[str, Any]
    asked_at: float
    at: float


@dataclass(slots=True)
class Timeline:
    """``was_begun``: its first token may have come in another process, whose clock is not known here.

    ``model`` and ``prompt_tokens`` are known once the run is pinned. ``tokens`` are those written here,
    ``readers`` those who follow it now.
    """

    run: str
    principal: str
    created_at: float
    was_begun: bool = False
    model: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    readers: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    ending: Ending | None = None
    # The wall clock as it is now, gone on with by one that never leaps: differences are durations.
    _ahead: float = field(default_factory=lambda: time.time() - time.monotonic())
    _seen_tokens: int = 0
    _seen_at: float = 0.0

    def now(self) -> float:
        """The Unix time, whatever becomes of the wall clock in the meantime."""
        return time.monotonic() + self._ahead

    def attempt(self, epoch: int) -> Attempt:
        """To be entered at once: a generator would take as much again as all that is written down."""
        attempt = Attempt(epoch, self.now(), ahead=self._ahead)
        self.attempts.append(attempt)
        return attempt

    def has_text(self) -> None:
        """There is text of the present attempt. Told once or more often."""
        attempt = self.attempts[-1]
        if attempt.first_text_at is None:
            attempt.first_text_at = self.now()

    def end(self, draft: Draft, asked_at: float) -> None:
        """The terminal event is durable; that was asked for at ``asked_at``."""
        self.ending = Ending(draft.kind, orjson.loads(draft.data), asked_at, self.now())

    @property
    def age_seconds(self) -> float:
        return self.now() - self.created_at

    @property
    def first_text_at(self) -> float | None:
        """When the answer began; None also where another process may have seen that."""
        if self.was_begun:
            return None
        return next((a.first_text_at for a in self.attempts if a.first_text_at is not None), None)

    def timings(self, completion_tokens: int) -> dict[str, float]:
        """Seconds since the run was created, beside what the engine measured, and the speed of its last part.

        An engine measures what it was asked for, which behind a seam is not the whole answer.
        """
        now, last = self.now(), self.attempts[-1]
        timings = {**last.timings, "total_seconds": now - self.created_at}
        if self.first_text_at is not None:
            timings["first_token_seconds"] = self.first_text_at - self.created_at
            timings["writing_seconds"] = now - self.first_text_at
        if seconds := last.timings.get("decode_seconds"):
            timings["tokens_per_second"] = (completion_tokens - last.behind) / seconds
        return {name: round(max(0.0, value), 4) for name, value in timings.items()}

    def begins_to_stall(self) -> bool:
        """To be asked about once a second: whether the answer has stood still for ``STALL_SECONDS``.

        True once for each such pause. Waiting for the first token is none.
        """
        if not self.tokens:
            return False
        now = asyncio.get_running_loop().time()
        if self.tokens != self._seen_tokens:
            self._seen_tokens, self._seen_at = self.tokens, now
            return False
        if now - self._seen_at < STALL_SECONDS:
            return False
        self._seen_at = float("inf")
        return True
