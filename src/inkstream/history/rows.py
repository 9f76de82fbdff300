"""What is said to the tables of conversations and messages, in one thread and inside one transaction each."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import orjson

from inkstream.errors import KeyReused, NotFound
from inkstream.events import RunState, text_of
from inkstream.history.index import Index
from inkstream.history.records import Changed, Chat, Message
from inkstream.history.titles import title_of

ALIVE = f"state IN ('{RunState.QUEUED}', '{RunState.RUNNING}')"
CHAT = "id, principal, title, created_at, updated_at, settings"
MESSAGE = "id, chat, parent, role, parts, created_at, run, state, ending, made_with, left_out"


class Rows:
    """See ``inkstream.history.History`` for what every call promises."""

    def __init__(self, db: sqlite3.Connection, on_change: Callable[[Changed], None]) -> None:
        self.db = db
        self.index = Index(db)
        self._on_change = on_change
        self._touched: dict[str, None] = {}  # conversations, in this transaction

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        self._touched.clear()
        try:
            yield
            changes = [self._changed(chat) for chat in self._touched]
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        for change in changes:
            self._on_change(change)

    def _changed(self, chat: str) -> Changed:
        *columns, deleted_at = self.db.execute(
            f"SELECT {CHAT}, deleted_at FROM chats WHERE id = ?", (chat,)
        ).fetchone()
        [found] = self.with_runs([as_chat(columns)])
        return Changed(chat, found.principal, found if deleted_at is None else None)

    # Conversations

    def create(self, chat: Chat, key: str | None, body_hash: bytes) -> Chat:
        with self.transaction():
            there = self.db.execute(
                "SELECT id, body_hash FROM chats WHERE principal = ? AND key = ?", (chat.principal, key)
            ).fetchone()
            if there is None:
                self.insert_chat(chat, key, body_hash)
                return chat
        id_, hash_ = there
        if hash_ != body_hash:
            raise KeyReused(f"the idempotency key {key!r} was used for another conversation. Take a new one.")
        return self.chat(chat.principal, id_)

    def insert_chat(self, chat: Chat, key: str | None = None, body_hash: bytes = b"") -> None:
        self.db.execute(
            "INSERT INTO chats (id, principal, title, created_at, updated_at, settings, key, body_hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(chat.id, chat.principal, chat.title, chat.created_at, chat.updated_at),
                *(orjson.dumps(chat.settings), key, body_hash),
            ),
        )
        self.index.replace(chat.id, None, "", chat.title)
        self._touched[chat.id] = None

    def add(self, chat: Chat, messages: Sequence[Message], key: str) -> tuple[Chat, bool]:
        with self.transaction():
            there = self.db.execute(
                "SELECT id, deleted_at FROM chats WHERE principal = ? AND key = ?", (chat.principal, key)
            ).fetchone()
            if there is None:
                self.insert_chat(chat, key)
                for message in messages:
                    self._write(message)
                return chat, True
            id_, deleted_at = there
            if deleted_at is not None:
                self._restore(chat.principal, id_)
            return self.chat(chat.principal, id_), False

    def chat(self, principal: str, chat: str) -> Chat:
        row = self.db.execute(
            f"SELECT {CHAT}, deleted_at FROM chats WHERE id = ? AND principal = ?", (chat, principal)
        ).fetchone()
        if row is None:
            raise NotFound(f"there is no conversation {chat!r}.", code="unknown_chat")
        *columns, deleted_at = row
        if deleted_at is not None:
            raise _deleted(chat)
        [found] = self.with_runs([as_chat(columns)])
        return found

    def with_runs(self, chats: list[Chat]) -> list[Chat]:
        """The same conversations, each with its living runs."""
        marks = ", ".join("?" * len(chats))
        runs: dict[str, list[str]] = {}
        for chat, run in self.db.execute(
            f"SELECT chat, run FROM messages WHERE {ALIVE} AND chat IN ({marks}) AND run IS NOT NULL",
            [chat.id for chat in chats],
        ):
            runs.setdefault(chat, []).append(run)
        return [replace(chat, runs=tuple(runs.get(chat.id, ()))) for chat in chats]

    def after(self, principal: str, n: int, limit: int) -> list[tuple[int, Chat]]:
        """In the order of creation, those numbered above ``n``."""
        rows = self.db.execute(
            f"SELECT n, {CHAT} FROM chats WHERE principal = ? AND n > ? AND deleted_at IS NULL"
            " ORDER BY n LIMIT ?",
            (principal, n, limit),
        )
        return [(number, as_chat(columns)) for number, *columns in rows]

    def change(self, principal: str, chat: str, title: str | None, settings: dict[str, Any]) -> Chat:
        with self.transaction():
            found = self.chat(principal, chat)
            changed = replace(
                found,
                title=found.title if title is None else title,
                settings=merged(found.settings, settings),
            )
            self.db.execute(
                "UPDATE chats SET title = ?, settings = ? WHERE id = ?",
                (changed.title, orjson.dumps(changed.settings), chat),
            )
            self.index.replace(chat, None, found.title, changed.title)
            self._touched[chat] = None
        return changed

    def delete(self, principal: str, chat: str) -> tuple[str, ...]:
        with self.transaction():
            row = self.db.execute(
                f"SELECT {CHAT} FROM chats WHERE id = ? AND principal = ?", (chat, principal)
            ).fetchone()
            if row is None:
                raise NotFound(f"there is no conversation {chat!r}.", code="unknown_chat")
            self.db.execute(
                "UPDATE chats SET deleted_at = coalesce(deleted_at, ?) WHERE id = ?", (time.time(), chat)
            )
            self._touched[chat] = None
            [found] = self.with_runs([as_chat(row)])
        return found.runs

    def restore(self, principal: str, chat: str) -> Chat:
        with self.transaction():
            self._restore(principal, chat)
            return self.chat(principal, chat)

    def _restore(self, principal: str, chat: str) -> None:
        found = self.db.execute(
            "UPDATE chats SET deleted_at = NULL WHERE id = ? AND principal = ?", (chat, principal)
        )
        if found.rowcount:
            self._touched[chat] = None

    # Messages

    def conversation(self, principal: str, chat: str) -> tuple[Chat, list[Message]]:
        found = self.chat(principal, chat)
        rows = self.db.execute(f"SELECT {MESSAGE} FROM messages WHERE chat = ? ORDER BY n", (chat,))
        return found, [_as_message(row) for row in rows]

    def message(self, principal: str, column: Literal["id", "run"], value: str) -> Message:
        row = self.db.execute(f"SELECT {MESSAGE} FROM messages WHERE {column} = ?", (value,)).fetchone()
        found = _as_message(row) if row else None
        if found is None or not self._is_of(principal, found.chat):
            raise NotFound(f"there is no message {value!r}.", code="unknown_message")
        self.chat(principal, found.chat)
        return found

    def upsert(self, messages: Sequence[Message]) -> None:
        with self.transaction():
            for message in messages:
                self._upsert(message)

    def _is_of(self, principal: str, chat: str) -> bool:
        row = self.db.execute("SELECT 1 FROM chats WHERE id = ? AND principal = ?", (chat, principal))
        return row.fetchone() is not None

    def _upsert(self, message: Message) -> None:
        row = self.db.execute("SELECT title FROM chats WHERE id = ?", (message.chat,)).fetchone()
        if row is None:  # purged
            return
        self._write(message)
        newer = self.db.execute(
            "UPDATE chats SET updated_at = ?1 WHERE id = ?2 AND updated_at < ?1",
            (message.created_at, message.chat),
        )
        if newer.rowcount:
            self._touched[message.chat] = None
        if row == ("",) and message.role == "user":
            title = title_of(text_of(message.parts))
            self.db.execute("UPDATE chats SET title = ? WHERE id = ?", (title, message.chat))
            self.index.replace(message.chat, None, "", title)
            self._touched[message.chat] = None

    def _write(self, message: Message) -> None:
        """An ended message is not overwritten by a living state of the same run: that one is late."""
        there = self.db.execute(
            "SELECT run, state, parts FROM messages WHERE id = ?", (message.id,)
        ).fetchone()
        if there is not None and there[0] == message.run and RunState(there[1]).is_terminal:
            return
        self.db.execute(
            f"INSERT INTO messages ({MESSAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET parts = excluded.parts, run = excluded.run,"
            " state = excluded.state, ending = excluded.ending, made_with = excluded.made_with,"
            " left_out = excluded.left_out",
            (
                *(message.id, message.chat, message.parent, message.role, orjson.dumps(message.parts)),
                *(message.created_at, message.run, message.state, orjson.dumps(message.ending)),
                *(orjson.dumps(message.made_with), message.left_out),
            ),
        )
        (n,) = self.db.execute("SELECT n FROM messages WHERE id = ?", (message.id,)).fetchone()
        before = text_of(orjson.loads(there[2])) if there else ""
        self.index.replace(message.chat, n, before, text_of(message.parts))


def _deleted(chat: str) -> NotFound:
    return NotFound(
        f"the conversation {chat!r} is deleted. Restore it before it is gone for good.", code="chat_deleted"
    )


def as_chat(columns: Sequence[Any]) -> Chat:
    id_, principal, title, created_at, updated_at, settings = columns
    return Chat(id_, principal, title, created_at, updated_at, orjson.loads(settings))


def _as_message(row: Sequence[Any]) -> Message:
    id_, chat, parent, role, parts, created_at, run, state, ending, made_with, left_out = row
    return Message(
        *(id_, chat, parent, role, orjson.loads(parts), created_at, run, RunState(state)),
        ending=orjson.loads(ending),
        made_with=orjson.loads(made_with),
        left_out=left_out,
    )


def merged(there: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396: what the patch names is replaced, null takes it away."""
    result = dict(there)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merged(result.get(name, {}), value)
        else:
            result[name] = value
    return {name: value for name, value in result.items() if value != {}}
