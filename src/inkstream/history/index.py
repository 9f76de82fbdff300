"""The search index: which passages hold which short pieces of text.

A text is folded, so that case, width and ways of composing a character make no difference, and cut into
passages that overlap by what a query may be long. For each passage the index has its distinct pieces of
one, two and three characters; of wide scripts those of one and two, since two of their characters say as much
as three letters. So a query of any length is answered from the index: all its pieces are in a passage, or it
is not there. It is then looked for in the passages that are left.

FTS5 keeps the lists. The pieces are its tokens, spelled in hexadecimal: no query has a syntax, no
tokenizer an opinion on punctuation. SQLite's own trigram tokenizer knows nothing of one or two characters.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

import regex

PASSAGE_CHARS = 1024
QUERY_CHARS = 128
STEP_CHARS = PASSAGE_CHARS - QUERY_CHARS
MEMO_CHARS = 50_000
NARROW_PIECE = regex.compile(r"[^\u2e80-\U0010ffff]{3}")


class _Folding(dict[int, str]):
    """Each character by itself, so that a place in the folded text is a place in the text. A memo.

    It holds what people write in. A text of all that Unicode has would make it 200 MB.
    """

    def __missing__(self, code: int) -> str:
        character = " " if chr(code).isspace() else unicodedata.normalize("NFKD", chr(code)).casefold()
        folded = unicodedata.normalize("NFKD", character)
        if len(self) < MEMO_CHARS:
            self[code] = folded
        return folded


_FOLDING = _Folding()


def fold(text: str) -> str:
    """The text as the index sees it: compatibility decomposition of Unicode (NFKD), case folded."""
    return text.translate(_FOLDING)


def find(text: str, folded_query: str, start: int = 0) -> tuple[int, int] | None:
    """Where ``text`` first holds the query from ``start`` on, in characters of ``text`` itself."""
    folded = fold(text[start:])
    at = folded.find(folded_query)
    if at < 0:
        return None
    last = at + len(folded_query) - 1
    if len(folded) != len(text) - start:  # some characters fold to several
        ends = list(accumulate(len(_FOLDING[ord(character)]) for character in text[start:]))
        at, last = bisect_right(ends, at), bisect_right(ends, last)
    return start + at, start + last + 1


def passages(text: str) -> list[str]:
    """Every stretch of ``QUERY_CHARS`` characters lies in one of them whole."""
    last_start = max(1, len(text) - QUERY_CHARS) if text else 0
    return [text[start : start + PASSAGE_CHARS] for start in range(0, last_start, STEP_CHARS)]


def _tokens(passage: str) -> str:
    folded = fold(passage)
    pieces = {*folded, *(folded[at : at + 2] for at in range(len(folded) - 1))}
    pieces.update(NARROW_PIECE.findall(folded, overlapped=True))
    return _spelled(pieces)


def _tokens_of_query(folded: str) -> str:
    pieces = [folded[at : at + 3] for at in range(max(1, len(folded) - 2))]
    narrow = {piece for piece in pieces if len(piece) < 3 or NARROW_PIECE.match(piece)}
    wide = {pair for piece in pieces if piece not in narrow for pair in (piece[:2], piece[1:])}
    return _spelled(narrow | wide)


def _spelled(pieces: set[str]) -> str:
    return " ".join([piece.encode().hex() for piece in pieces])


class Place(NamedTuple):
    """A passage that holds every piece of a query. ``message`` is the row's number, None for the title."""

    n: int
    chat: str
    message: int | None
    start: int


class Index:
    """What is written here belongs to the transaction that is open on ``db``."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def replace(self, chat: str, message: int | None, old: str, new: str) -> None:
        """``old`` must be what was indexed. Passages that stay as they are cost nothing."""
        before, after = passages(old), passages(new)
        for at in range(max(len(before), len(after))):
            was, now = before[at : at + 1], after[at : at + 1]
            if was == now:
                continue
            if was:
                self.remove(chat, message, at * STEP_CHARS, was[0])
            if now:
                self._add(chat, message, at * STEP_CHARS, now[0])

    def remove(self, chat: str, message: int | None, start: int, passage: str) -> None:
        (n,) = self._db.execute(
            "SELECT n FROM passages WHERE chat = ? AND message IS ? AND start = ?", (chat, message, start)
        ).fetchone()
        self._db.execute("DELETE FROM passages WHERE n = ?", (n,))
        self._db.execute(
            "INSERT INTO grams (grams, rowid, tokens) VALUES ('delete', ?, ?)", (n, _tokens(passage))
        )

    def _add(self, chat: str, message: int | None, start: int, passage: str) -> None:
        n = self._db.execute(
            "INSERT INTO passages (chat, message, start) VALUES (?, ?, ?)", (chat, message, start)
        ).lastrowid
        self._db.execute("INSERT INTO grams (rowid, tokens) VALUES (?, ?)", (n, _tokens(passage)))

    def places(self, principal: str, folded_query: str, before: int) -> sqlite3.Cursor:
        """Rows of Place, newest first, of conversations that are shown, numbered below ``before``."""
        return self._db.execute(
            "SELECT passages.n, passages.chat, message, start FROM grams"
            " CROSS JOIN passages ON passages.n = grams.rowid CROSS JOIN chats ON chats.id = passages.chat"
            " WHERE grams MATCH ? AND grams.rowid < ? AND principal = ? AND deleted_at IS NULL"
            " ORDER BY grams.rowid DESC",
            (_tokens_of_query(folded_query), before, principal),
        )

    def scrub(self, pages: int, *, is_first: bool) -> bool:
        """Work off that much of what overwrites deleted entries; says whether there is more.

        FTS5 first only notes that an entry is deleted; it goes when its segments are merged. A negative
        number begins a merge of all segments, a positive one goes on with it.
        https://sqlite.org/fts5.html#the_merge_command
        """
        before = self._db.total_changes
        self._db.execute(
            "INSERT INTO grams (grams, rank) VALUES ('merge', ?)", (-pages if is_first else pages,)
        )
        return self._db.total_changes - before >= 2
