"""What the log counts for those who operate it."""

from __future__ import annotations

from dataclasses import dataclass, field

from inkstream.histogram import Histogram

TIMED_EACH = 16
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class LogTally:
    """``seconds`` has the first of every ``TIMED_EACH`` commits, from being asked for to being answered.

    What readers were given from the store, because they were behind, is ``replayed``.
    """

    commits: int = 0
    replayed_events: int = 0
    replayed_bytes: int = 0
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))

    def is_timed(self) -> bool:
        """One more commit. Whether to tell how long it takes."""
        self.commits += 1
        return self.commits % TIMED_EACH == 1
