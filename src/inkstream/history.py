"""Conversations and their messages, on SQLite.

A message of a run is derived from the log: the log is always ahead, so every write here is an upsert that may
be repeated, and a row of an older state never replaces a newer one. A conversation that was deleted
stays deleted: upserts of its messages change nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import orjson

from inkstream.errors import LogError, LogUnwritable, NotFound
from inkstream.events import Parts, RunState

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS chats (
  id TEXT PRIMARY KEY, principal TEXT NOT NULL, title TEXT NOT NULL, created_at REAL NOT NULL,
  updated_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS chats_by_time ON chats (principal, updated_at);
CREATE TABLE IF NOT EXISTS messages (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
  chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
  parent TEXT, role TEXT NOT NULL, parts BLOB NOT NULL, text TEXT NOT NULL, created_at REAL NOT NULL,
  run TEXT, state TEXT NOT NULL, ending BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS messages_of_chat ON messages (chat, n);
CREATE INDEX IF NOT EXISTS message_of_run ON messages (run);
"""
CHATS_SHOWN = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chat:
    id: str
    principal: str
    title: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Message:
    """``ending`` is the public part of the run's terminal event, empty while it lives.

    ``last_id`` is the wire id of the last event that ``parts`` tells, where they were folded from a living
    run; it is never stored.
    """

    id: str
    chat: str
    parent: str | None
    role: Literal["user", "assistant"]
    parts: Parts
    created_at: float
    run: str | None = None
    state: RunState = RunState.DONE
    ending: dict[str, Any] | None = None
    last_id: str | None = None


class History:
    """All calls belong to a principal; what is not his does not exist. Raises NotFound, LogUnwritable."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path
        self._thread = ThreadPoolExecutor(1, "history")

    @classmethod
    async def open(cls, folder: Path) -> Self:
        path = folder / "history.db"
        return cls(await asyncio.to_thread(_open, path), path)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self._db.close()

    async def create_chat(self, principal: str, title: str = "") -> Chat:
        now = time.time()
        chat = Chat(uuid.uuid4().hex, principal, title, now, now)
        await self._run(partial(self._insert_chat, chat))
        return chat

    async def chats(self, principal: str, query: str = "") -> list[Chat]:
        """Newest first; with ``query``, those whose title or text contains it, whatever its case."""
        return await self._run(partial(self._chats, principal, query))

    async def chat(self, principal: str, chat: str) -> Chat:
        return await self._run(partial(self._require_chat, principal, chat))

    async def rename(self, principal: str, chat: str, title: str) -> Chat:
        return await self._run(partial(self._rename, principal, chat, title))

    async def delete(self, principal: str, chat: str) -> None:
        await self._run(partial(self._delete, principal, chat))

    async def messages(self, principal: str, chat: str) -> list[Message]:
        """All branches, parents before children."""
        return await self._run(partial(self._messages, principal, chat))

    async def message(self, principal: str, message: str) -> Message:
        return await self._run(partial(self._message, principal, "id", message))

    async def message_of_run(self, principal: str, run: str) -> Message:
        return await self._run(partial(self._message, principal, "run", run))

    async def upsert(self, *messages: Message) -> None:
        await self._run(partial(self._upsert, messages))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._translated, call))

    def _translated(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except sqlite3.OperationalError as error:
            raise LogUnwritable(f"the history {self._path} cannot be written: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _insert_chat(self, chat: Chat) -> None:
        self._db.execute(
            "INSERT INTO chats VALUES (?, ?, ?, ?, ?)",
            (chat.id, chat.principal, chat.title, chat.created_at, chat.updated_at),
        )

    def _chats(self, principal: str, query: str) -> list[Chat]:
        rows = self._db.execute(
            "SELECT id, principal, title, created_at, updated_at FROM chats WHERE principal = :principal"
            " AND (:query = '' OR title LIKE :pattern ESCAPE '\\' OR id IN"
            " (SELECT chat FROM messages WHERE text LIKE :pattern ESCAPE '\\'))"
            " ORDER BY updated_at DESC LIMIT :limit",
            {"principal": principal, "query": query, "pattern": _pattern(query), "limit": CHATS_SHOWN},
        )
        return [Chat(*row) for row in rows]

    def _require_chat(self, principal: str, chat: str) -> Chat:
        row = self._db.execute(
            "SELECT id, principal, title, created_at, updated_at FROM chats WHERE id = ? AND principal = ?",
            (chat, principal),
        ).fetchone()
        if row is None:
            raise NotFound(f"there is no conversation {chat!r}.", code="unknown_chat")
        return Chat(*row)

    def _rename(self, principal: str, chat: str, title: str) -> Chat:
        found = replace(self._require_chat(principal, chat), title=title)
        self._db.execute("UPDATE chats SET title = ? WHERE id = ?", (title, chat))
        return found

    def _delete(self, principal: str, chat: str) -> None:
        self._require_chat(principal, chat)
        self._db.execute("DELETE FROM chats WHERE id = ?", (chat,))

    def _messages(self, principal: str, chat: str) -> list[Message]:
        self._require_chat(principal, chat)
        rows = self._db.execute(f"SELECT {COLUMNS} FROM messages WHERE chat = ? ORDER BY n", (chat,))
        return [_as_message(row) for row in rows]

    def _message(self, principal: str, column: Literal["id", "run"], value: str) -> Message:
        row = self._db.execute(
            f"SELECT {COLUMNS} FROM messages WHERE {column} = ?"
            " AND chat IN (SELECT id FROM chats WHERE principal = ?)",
            (value, principal),
        ).fetchone()
        if row is None:
            raise NotFound(f"there is no message {value!r}.", code="unknown_message")
        return _as_message(row)

    def _upsert(self, messages: tuple[Message, ...]) -> None:
        with self._transaction():
            for message in messages:
                self._upsert_one(message)

    def _upsert_one(self, message: Message) -> None:
        """An ended message is not overwritten by a living state of the same run: that one is late."""
        text = "".join(part["text"] for part in message.parts)
        self._db.execute(
            "INSERT INTO messages (id, chat, parent, role, parts, text, created_at, run, state, ending)"
            " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM chats WHERE id = ?)"
            " ON CONFLICT (id) DO UPDATE SET parts = excluded.parts, text = excluded.text,"
            " run = excluded.run, state = excluded.state, ending = excluded.ending"
            " WHERE messages.run IS NOT excluded.run"
            f" OR messages.state IN ('{RunState.QUEUED}', '{RunState.RUNNING}')",
            (
                message.id,
                message.chat,
                message.parent,
                message.role,
                orjson.dumps(message.parts),
                text,
                message.created_at,
                message.run,
                message.state,
                orjson.dumps(message.ending),
                message.chat,
            ),
        )
        self._db.execute(
            "UPDATE chats SET updated_at = max(updated_at, ?),"
            " title = CASE title WHEN '' THEN ? ELSE title END WHERE id = ?",
            (message.created_at, _title(text) if message.role == "user" else "", message.chat),
        )


COLUMNS = "id, chat, parent, role, parts, created_at, run, state, ending"


def _as_message(row: tuple[Any, ...]) -> Message:
    id_, chat, parent, role, parts, created_at, run, state, ending = row
    return Message(
        id_, chat, parent, role, orjson.loads(parts), created_at, run, RunState(state), orjson.loads(ending)
    )


def _title(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else f"{line[:59]}…"


def _pattern(query: str) -> str:
    escaped = query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise LogError(
                f"{path} was written by a newer inkstream (version {version}, known: {VERSION})."
                " Update inkstream, or start it with another INKSTREAM_DATA_DIR.",
                code="log_too_new",
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
    except (OSError, sqlite3.OperationalError) as error:
        raise LogUnwritable(f"the history {path} cannot be opened: {error}") from error
    return db
