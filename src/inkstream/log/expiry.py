"""Forgetting runs, a slice of rows at a time. SQLite overwrites what it frees (``secure_delete``).

``forgotten`` has the run that is being forgotten, and a 0 while the journal may still hold something of any.
"""

from __future__ import annotations

import sqlite3


def forget(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget settled runs that ended before that Unix time. Returns how many rows went."""
    left = limit
    while left > 0:
        n = _forgotten(db, before)
        if n is None:
            break
        left -= db.execute(
            "DELETE FROM pages WHERE id IN (SELECT id FROM pages WHERE run = ? LIMIT ?)", (n, left)
        ).rowcount
        if left > 0:
            db.execute("DELETE FROM forgotten WHERE n = ?", (n,))
            left -= 1
    return limit - left


def _forgotten(db: sqlite3.Connection, before: float) -> int | None:
    """The row of a run that is being forgotten. Nobody can find it any more."""
    row: tuple[int] | None = db.execute("SELECT n FROM forgotten WHERE n > 0").fetchone()
    if row is None:
        row = db.execute(
            "SELECT n FROM runs WHERE settled = 1 AND ended_at < ? ORDER BY ended_at LIMIT 1", (before,)
        ).fetchone()
        if row is not None:
            db.execute("DELETE FROM runs WHERE n = ?", row)
            db.execute("INSERT OR IGNORE INTO forgotten VALUES (?), (0)", row)
    return row[0] if row else None


def has_traces(db: sqlite3.Connection) -> bool:
    """Whether the journal may still hold something of a run that is forgotten."""
    return db.execute("SELECT 1 FROM forgotten WHERE n = 0").fetchone() is not None


def set_traceless(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM forgotten WHERE n = 0")
