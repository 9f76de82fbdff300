"""Reading pages, on connections that only read.

A fetch is one statement: a run that is being forgotten meanwhile has all its events or is unknown.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from inkstream.errors import LogError
from inkstream.log.packing import Stretch, behind, seams_behind
from inkstream.log.schema import connect

FETCH = """
WITH begun (run) AS (SELECT n FROM runs WHERE id = :run)
SELECT first, last, frames, CASE WHEN :with_seams THEN seams END FROM pages
WHERE run = (SELECT run FROM begun) AND first >=
  coalesce((SELECT max(first) FROM pages WHERE run = (SELECT run FROM begun) AND first <= :after + 1), 0)
  AND last > :after
ORDER BY first LIMIT :most
"""
LAST_SEQ = (1 << 32) - 1  # no number is higher
# Of frames, and what the last page has beyond: a reader that takes nothing holds that much.
FETCH_BYTES = 16 * 1024

Row = tuple[int, int, bytes, bytes]


class Pages:
    """May be read by several threads at once; each gets a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    def read(self, run: str, after: int, most: int, with_seams: bool) -> Stretch | None:
        """What is behind ``after`` in up to ``most`` pages, or as many as a fetch may have.

        None where there is nothing. Raises LogError.
        """
        after = min(after, LAST_SEQ)
        asked = {"run": run, "after": after, "most": most, "with_seams": with_seams}
        try:
            rows = _up_to(FETCH_BYTES, self._db().execute(FETCH, asked))
        except sqlite3.OperationalError as error:
            raise LogError(f"the log {self._path} cannot be read: {error}", code="log_unreadable") from error
        if not rows:
            return None
        first, last_seq = rows[0][0], rows[-1][1]
        frames = [row[2] for row in rows]
        frames[0] = behind(frames[0], after)
        if not with_seams:
            return Stretch(b"".join(frames), b"", last_seq)
        seams = [row[3] for row in rows]
        seams[0] = seams_behind(seams[0], max(0, after + 1 - first))
        return Stretch(b"".join(frames), b"".join(seams), last_seq)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _db(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = connect(self._path, read_only=True)
            self._connections.append(db)
        return db


def _up_to(most_bytes: int, cursor: sqlite3.Cursor) -> list[Row]:
    """A page can be much longer than its usual size: one append is never torn apart."""
    rows: list[Row] = []
    with contextlib.closing(cursor):
        for row in cursor:
            rows.append(row)
            most_bytes -= len(row[2])
            if most_bytes <= 0:
                break
    return rows
