"""Stop strings: where an answer ends because of what it says.

The matcher decides as if it saw one character at a time, so its verdict does not depend on how the text
was cut into chunks, nor on a seam: the string whose last character comes first ends the answer, and the
longest of those that end there. Text that may still become a stop string is held back, nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class StopMatcher:
    """``visible`` is text that readers have already seen: matches may begin in it, but must end behind it."""

    def __init__(self, stops: Sequence[str], visible: str = "") -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._reach = max(map(len, self._stops), default=1) - 1
        # Almost no token has anything of a stop string in it, and these two see that at once.
        self._any = re.compile("|".join(map(re.escape, self._stops)))
        self._opening = re.compile("|".join({re.escape(stop[0]) for stop in self._stops}))
        self._seen = self._tail(visible)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Take new text, return what may be shown now. After a match everything returned is ``""``."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        window, seen = self._seen + self._held + text, len(self._seen)
        self.matched, start = self._first_match(window, seen)
        if self.matched is None:
            start = self._partial_start(window)
        cut = max(start, seen)
        self._held = window[cut:]
        self._seen = self._tail(window[:cut])
        return window[seen:cut]

    def flush(self) -> str:
        """The generation has ended: what was held back is text after all, unless a stop string matched."""
        held, self._held = self._held, ""
        return "" if self.matched is not None else held

    def _first_match(self, window: str, seen: int) -> tuple[str | None, int]:
        if self._any.search(window) is None:
            return None, 0
        found = []
        for stop in self._stops:
            start = window.find(stop, max(0, seen - len(stop) + 1))
            if start >= 0:
                found.append((start + len(stop), start, stop))
        _, start, matched = min(found, default=(0, 0, None))
        return matched, start

    def _partial_start(self, window: str) -> int:
        for opening in self._opening.finditer(window, max(0, len(window) - self._reach)):
            rest = window[opening.start() :]
            if any(stop.startswith(rest) for stop in self._stops):
                return opening.start()
        return len(window)

    def _tail(self, text: str) -> str:
        return text[-self._reach :] if self._reach else ""
