"""Taking deleted conversations out of the files for good, in slices that each hold the thread for moments.

First the conversation goes, and with it every way back; then its messages, passage by passage; then the
index is merged, because FTS5 only marks an entry as deleted until then; then the write-ahead file is emptied.
SQLite overwrites what it frees (``secure_delete``). Each step can be the last before a crash: ``purging``
remembers what is still to be done, and the next purge goes on.
"""

from __future__ import annotations

import time

import orjson

from inkstream.database import empty_wal
from inkstream.events import text_of
from inkstream.history.index import PASSAGE_CHARS
from inkstream.history.rows import Rows

SLICE_SECONDS = 0.002
SLICE_CHATS = 4
SLICE_PAGES = 8


def doom(rows: Rows, before: float) -> bool:
    """Let some go that were deleted before that Unix time; says whether there may be more."""
    with rows.transaction():
        found = rows.db.execute(
            "SELECT id, title FROM chats WHERE deleted_at < ? LIMIT ?", (before, SLICE_CHATS)
        ).fetchall()
        for chat, title in found:
            rows.index.replace(chat, None, title, "")
            rows.db.execute("DELETE FROM chats WHERE id = ?", (chat,))
            rows.db.execute("INSERT INTO purging VALUES (?)", (chat,))
    return bool(found)


def is_pending(rows: Rows) -> bool:
    return rows.db.execute("SELECT 1 FROM purging").fetchone() is not None


def empty(rows: Rows) -> bool:
    """Forget some of their messages; says whether there may be more."""
    deadline = time.monotonic() + SLICE_SECONDS
    with rows.transaction():
        while time.monotonic() < deadline:
            message = rows.db.execute(
                "SELECT messages.n, messages.chat, parts FROM purging"
                " CROSS JOIN messages ON messages.chat = purging.chat LIMIT 1"
            ).fetchone()
            if message is None:
                return False
            n, chat, parts = message
            _forget(rows, n, chat, parts, deadline)
    return True


def _forget(rows: Rows, n: int, chat: str, parts: bytes, deadline: float) -> None:
    text = text_of(orjson.loads(parts))
    starts = rows.db.execute(
        "SELECT start FROM passages WHERE chat = ? AND message = ? ORDER BY start DESC", (chat, n)
    ).fetchall()
    for (start,) in starts:
        rows.index.remove(chat, n, start, text[start : start + PASSAGE_CHARS])
        if time.monotonic() > deadline:
            return
    rows.db.execute("DELETE FROM messages WHERE n = ?", (n,))


def scrub(rows: Rows, *, is_first: bool) -> bool:
    """Merge some of the index; says whether there is more."""
    return rows.index.scrub(SLICE_PAGES, is_first=is_first)


def finish(rows: Rows) -> None:
    """Empty the write-ahead file. While somebody else reads the database, that waits for the next purge."""
    if empty_wal(rows.db):
        rows.db.execute("DELETE FROM purging")
