"""Whether the wall clock may be believed with what cannot be taken back.

A clock that somebody sets, a battery that is empty or a first answer of NTP makes it leap. What is measured
in a process is measured by the monotonic clock; what is forgotten after so many hours has to ask the wall
clock, and a leap forward would make all of it old at once.
"""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

LEAP_SECONDS = 60.0
DOUBT_SECONDS = 3600.0


def steady_seconds() -> float:
    """Seconds that no one sets, those asleep included where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class WallClock:
    """Asked now and then. For an hour after a leap it does not tell the time."""

    def __init__(self) -> None:
        self._ahead = time.time() - steady_seconds()
        self._doubted_until = 0.0

    def now(self) -> float | None:
        """The Unix time; None while it is not to be believed."""
        wall, steady = time.time(), steady_seconds()
        leap, self._ahead = wall - steady - self._ahead, wall - steady
        if abs(leap) > LEAP_SECONDS:
            self._doubted_until = steady + DOUBT_SECONDS
            logger.warning("the clock has leapt by %.0f s: nothing old is removed for an hour", leap)
        return wall if steady >= self._doubted_until else None
