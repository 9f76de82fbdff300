"""Pages of the key-value cache: who holds which, and which can be read again by a prompt that begins alike.

Knows nothing of tensors: a page is a number, and the device's memory is cut into as many. A full page is
named by a digest of all tokens up to its end, so equal names mean equal contents. Pages that nobody holds
keep their contents until somebody needs the room, the longest unused ones first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

PAGE = 16
"""Tokens in a page. Smaller ones share more and waste less; the kernels read a few pages at a time anyway."""

SCRATCH = 0
"""Never given out: rows that only fill up a batch write here."""


class OutOfPages(Exception):
    """All pages are held."""


class Pages:
    """``count`` includes the scratch page."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._holders = [0] * count
        self._blank = list(range(count - 1, SCRATCH, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._names: dict[int, bytes] = {}
        self._by_name: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        return len(self._blank) + len(self._idle)

    @property
    def usage(self) -> float:
        """The share of the pages that is held, without the one that nobody gets."""
        return 1 - self.free / (self.count - 1)

    def take(self, number: int) -> list[int]:
        """Pages without contents. Raises OutOfPages and takes none where there are fewer."""
        if number > self.free:
            raise OutOfPages
        return [self._take_one() for _ in range(number)]

    def known(self, names: Iterable[bytes]) -> list[int]:
        """The pages of the longest beginning of ``names`` that are still there, without holding them."""
        found = []
        for name in names:
            page = self._by_name.get(name)
            if page is None:
                break
            found.append(page)
        return found

    def hold(self, pages: Iterable[int]) -> None:
        """Hold pages that have contents."""
        for page in pages:
            self._idle.pop(page, None)
            self._holders[page] += 1

    def give_back(self, pages: Sequence[int]) -> None:
        """The last page first: an end is of use to fewer prompts than a beginning."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            if page in self._names:
                self._idle[page] = None
            else:
                self._blank.append(page)

    def idle_among(self, pages: Iterable[int]) -> int:
        """How many of them count as free although they have contents."""
        return sum(page in self._idle for page in pages)

    def name(self, page: int, name: bytes) -> None:
        """The page is full and will not change. A second page with equal contents stays nameless."""
        if name not in self._by_name:
            self._names[page], self._by_name[name] = name, page

    def forget(self, page: int) -> None:
        """The page was named for contents that it has not got."""
        if name := self._names.pop(page, None):
            del self._by_name[name]

    def _take_one(self) -> int:
        if self._blank:
            page = self._blank.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            del self._by_name[self._names.pop(page)]
        self._holders[page] = 1
        return page


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE)


def extend_names(names: list[bytes], ids: Sequence[int], pages: int) -> None:
    """Add what is missing of the names of the first ``pages`` pages, which ``ids`` fill."""
    for at in range(len(names), pages):
        before = names[-1] if names else b""
        content = array("q", ids[at * PAGE : (at + 1) * PAGE]).tobytes()
        names.append(hashlib.blake2b(before + content, digest_size=16).digest())
