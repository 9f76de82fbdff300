"""The journal: a step of all runs, kept until each run's part of it is in a page.

It is a table of blocks of one size, and a block that is needed no more is overwritten in place. That is half
as dear as inserting and deleting rows: SQLite then writes the block alone, and never its list of free pages.
A commit takes as many blocks as it needs, so that what it leaves of the last one is lost.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from struct import Struct

from inkstream.log.packing import Stretch, records

BLOCK_BYTES = 4040  # one row of that size fills a page of the database
BLOCK_HEAD = Struct("<QQ")  # the block's number, and that of the first block of its commit
BODY_BYTES = BLOCK_BYTES - BLOCK_HEAD.size


class Journal:
    """Numbers its blocks from 1 upwards, in the order in which they were written."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.next = 1  # the number of the next block
        self._used: deque[tuple[int, int]] = deque()  # number and slot
        self._free: list[tuple[int, int]] = []
        self._blank = 0  # how many of the free ones, from the first on, are wiped

    def load(self) -> Iterator[tuple[int, int, int, Stretch]]:
        """All that it holds, oldest first: block, run's row, the number before, and what came behind it.

        What has been in a page for long may be among it, or parts of it.
        """
        rows = self._db.execute("SELECT slot, body FROM journal").fetchall()
        blocks = sorted((*BLOCK_HEAD.unpack_from(body), slot, body) for slot, body in rows)
        self._free, self._blank = [], 0
        self._used = deque((number, slot) for number, _, slot, _ in blocks)
        self.next = blocks[-1][0] + 1 if blocks else 1
        return self._records(blocks)

    def write(self, body: bytes) -> None:
        first = self.next
        rows = []
        for at in range(0, len(body), BODY_BYTES):
            block = BLOCK_HEAD.pack(self.next, first) + body[at : at + BODY_BYTES]
            slot = self._free.pop()[1] if self._free else len(self._used)
            self._used.append((self.next, slot))
            self.next += 1
            rows.append((slot, block.ljust(BLOCK_BYTES, b"\0")))
        self._blank = min(self._blank, len(self._free))
        self._db.executemany("INSERT OR REPLACE INTO journal VALUES (?, ?)", rows)

    def release(self, needed: int) -> None:
        """Blocks with lower numbers may be overwritten."""
        while self._used and self._used[0][0] < needed:
            self._free.append(self._used.popleft())

    def wipe(self, below: int, most: int) -> int:
        """Zero up to so many blocks with lower numbers that are needed no more; returns how many it found."""
        free = self._free[self._blank : self._blank + most]
        found = [(number, slot) for number, slot in free if number < below]  # the lower numbers come first
        # Each is a commit of its own then that wrote nothing; its number keeps it in its place.
        rows = [(BLOCK_HEAD.pack(number, number).ljust(BLOCK_BYTES, b"\0"), slot) for number, slot in found]
        self._db.executemany("UPDATE journal SET body = ? WHERE slot = ?", rows)
        self._blank += len(found)
        return len(found)

    @staticmethod
    def _records(blocks: list[tuple[int, int, int, bytes]]) -> Iterator[tuple[int, int, int, Stretch]]:
        commit: list[bytes] = []
        for at, (number, first, _, body) in enumerate(blocks):
            if number - first != len(commit):  # the blocks before it were overwritten
                continue
            commit.append(body[BLOCK_HEAD.size :])
            if at + 1 == len(blocks) or blocks[at + 1][1] != first:
                for n, after, stretch in records(b"".join(commit)):
                    yield first, n, after, stretch
                commit = []
