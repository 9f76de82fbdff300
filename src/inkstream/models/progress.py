"""What is told about a download while it runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

REPORT_SECONDS = 0.2
SPEED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Download:
    """How far a download has come. ``share`` is 0…1; what is not known is None.

    ``note`` says in English (``en``) and Chinese (``zh``) what it is waiting for, where it is: an answer, a
    retry, another process.
    """

    file: str
    source: str
    done_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    share: float | None
    note: dict[str, str] | None = None


OnProgress = Callable[[Download], None]


class Meter:
    """Turns counts of bytes into ``Download``s, at most five a second; notes and the end are told at once."""

    def __init__(
        self, on_progress: OnProgress, file: str, source: str = "", total: int | None = None
    ) -> None:
        self._on_progress = on_progress
        self._file = file
        self._source = source
        self._total = total
        self._base = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._reported_at = float("-inf")
        self._done = 0

    def start(self, done: int) -> None:
        """``done`` bytes are there to begin with, or again after a step back: they say nothing of speed."""
        self._samples.clear()
        self._done = self._base + done
        self._report(time.monotonic(), None)

    def at(self, done: int) -> None:
        now = time.monotonic()
        self._done = self._base + done
        self._samples.append((now, self._done))
        while now - self._samples[0][0] > SPEED_SECONDS:
            self._samples.popleft()
        if self._done == self._total or now - self._reported_at >= REPORT_SECONDS:
            self._report(now, None)

    def note(self, en: str, zh: str) -> None:
        self._report(time.monotonic(), {"en": en, "zh": zh})

    def next_part(self, size: int) -> None:
        """A part of that size is there; what follows is counted on top of it."""
        self._base += size

    def _report(self, now: float, note: dict[str, str] | None) -> None:
        self._reported_at = now
        speed = self._speed()
        left = self._total - self._done if self._total is not None else None
        self._on_progress(
            Download(
                file=self._file,
                source=self._source,
                done_bytes=self._done,
                total_bytes=self._total,
                bytes_per_second=speed,
                seconds_left=left / speed if left is not None and speed else None,
                share=min(self._done / self._total, 1.0) if self._total else None,
                note=note,
            )
        )

    def _speed(self) -> float | None:
        if len(self._samples) < 2:
            return None
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else None
