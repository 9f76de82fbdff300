"""The list of conversations, page by page: the newest, or those in which something is found."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import orjson
import regex

from inkstream.errors import Invalid
from inkstream.events import text_of
from inkstream.history.index import PASSAGE_CHARS, QUERY_CHARS, Place, find, fold
from inkstream.history.records import Chat, Match, Page
from inkstream.history.rows import CHAT, Rows, as_chat

PLACES_LOOKED_AT = 2000  # per page, so that no search holds the thread for long
BEFORE_GRAPHEMES = 24
AFTER_GRAPHEMES = 96
WINDOW_CHARS = 400
NEWEST = (1e18, "")
ALL = 2**62


def listed(rows: Rows, principal: str, limit: int, cursor: str | None) -> Page:
    updated_at, id_ = _opened(cursor, float, str) if cursor else NEWEST
    found = rows.db.execute(
        f"SELECT {CHAT} FROM chats WHERE principal = ? AND deleted_at IS NULL"
        " AND (updated_at, id) < (?, ?) ORDER BY updated_at DESC, id DESC LIMIT ?",
        (principal, updated_at, id_, limit + 1),
    ).fetchall()
    chats = [as_chat(columns) for columns in found[:limit]]
    is_last = len(found) <= limit
    return Page(rows.with_runs(chats), None if is_last else _sealed(chats[-1].updated_at, chats[-1].id))


def searched(rows: Rows, principal: str, query: str, limit: int, cursor: str | None) -> Page:
    (before,) = _opened(cursor, int) if cursor else (ALL,)
    folded = fold(query)
    if len(folded) > QUERY_CHARS:
        raise Invalid(
            f"the query is longer than {QUERY_CHARS} characters. Search for a part of it.",
            code="query_too_long",
            param="query",
        )
    return _Search(rows, principal, folded, before).page(limit)


class _Search:
    """One page of one search. A conversation counts where its newest match is."""

    def __init__(self, rows: Rows, principal: str, folded: str, before: int) -> None:
        self._rows, self._principal, self._folded, self._before = rows, principal, folded, before
        self._told: set[str] = set()  # here or on an earlier page

    def page(self, limit: int) -> Page:
        found: list[Chat] = []
        last = self._before
        with closing(self._rows.index.places(self._principal, self._folded, last)) as places:
            for looked_at, place in enumerate(map(Place._make, places), 1):
                if place.chat not in self._told and (chat := self._match(place)):
                    if len(found) == limit:
                        return self._page(found, last)
                    self._told.add(place.chat)
                    found.append(chat)
                last = place.n
                if looked_at == PLACES_LOOKED_AT:
                    return self._page(found, last)
        return self._page(found, None)

    def _page(self, found: list[Chat], last: int | None) -> Page:
        return Page(self._rows.with_runs(found), None if last is None else _sealed(last))

    def _match(self, place: Place) -> Chat | None:
        """The conversation with what is found at this place, if it is there and nothing newer is."""
        row = self._rows.db.execute(f"SELECT {CHAT} FROM chats WHERE id = ?", (place.chat,)).fetchone()
        chat = as_chat(row)
        message, text = self._text(chat, place.message)
        where = self._found(text, place.start)
        if where is None:
            return None
        if self._was_on_an_earlier_page(chat):
            self._told.add(chat.id)
            return None
        snippet, hits = excerpt(text, where, self._folded)
        return replace(chat, match=Match(message, snippet, hits))

    def _text(self, chat: Chat, message: int | None) -> tuple[str | None, str]:
        if message is None:
            return None, chat.title
        id_, parts = self._rows.db.execute(
            "SELECT id, parts FROM messages WHERE n = ?", (message,)
        ).fetchone()
        return id_, text_of(orjson.loads(parts))

    def _found(self, text: str, start: int) -> tuple[int, int] | None:
        where = find(text[start : start + PASSAGE_CHARS], self._folded)
        return where and (start + where[0], start + where[1])

    def _was_on_an_earlier_page(self, chat: Chat) -> bool:
        newer = self._rows.db.execute(
            "SELECT message, start FROM passages WHERE chat = ? AND n >= ?", (chat.id, self._before)
        ).fetchall()
        return any(self._found(self._text(chat, message)[1], start) for message, start in newer)


def excerpt(text: str, where: tuple[int, int], folded: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A line around ``where``, and all hits in it in UTF-16 code units."""
    start, end = where
    before = regex.findall(r"\X", text[max(0, start - WINDOW_CHARS) : start])
    after = regex.findall(r"\X", text[end : end + WINDOW_CHARS])
    # The outermost may be cut by the window, or is one more than there is room for.
    first = start - len("".join(before[1:][-BEFORE_GRAPHEMES:])) if start > BEFORE_GRAPHEMES else 0
    last = (
        end + len("".join(after[:-1][:AFTER_GRAPHEMES])) if len(text) - end > AFTER_GRAPHEMES else len(text)
    )
    shown = regex.sub(r"[\s\p{Cc}]", " ", text[first:last])
    left, right = "…" if first else "", "…" if last < len(text) else ""
    return left + shown + right, tuple(_hits(shown, folded, len(left)))


def _hits(shown: str, folded: str, offset: int) -> Iterator[tuple[int, int]]:
    where = find(shown, folded)
    while where:
        start, end = where
        yield offset + _units(shown[:start]), offset + _units(shown[:end])
        where = find(shown, folded, end)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _sealed(*fields: object) -> str:
    return urlsafe_b64encode(orjson.dumps(fields)).decode().rstrip("=")


def _opened(cursor: str, *kinds: type) -> list[Any]:  # Any: of these kinds
    """Raises Invalid ``bad_cursor`` for one that this list has not given."""
    try:
        fields = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        fields = None
    if not isinstance(fields, list) or list(map(type, fields)) != list(kinds) or _is_beyond(fields):
        raise Invalid(
            f"{cursor!r} is no cursor of this list. Take 'next' of the page before, or begin without one.",
            code="bad_cursor",
            param="before",
        )
    return fields


def _is_beyond(fields: list[Any]) -> bool:  # Any: what JSON holds
    """Whether a number among them is larger than SQLite's."""
    return any(isinstance(field, int) and abs(field) > ALL for field in fields)
