"""The tables of ``history.db``, and the way to them from every earlier version.

``passages`` says what the rows of the index ``grams`` are about: a stretch of a message, or a title, whose
``message`` is NULL. The index is contentless: the words stand in ``messages`` and ``chats`` alone.
Messages do not refer to their chat by a foreign key, because a chat that is purged goes first, and its
messages in small slices behind it; ``purging`` remembers which.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import orjson

from inkstream import database
from inkstream.events import text_of
from inkstream.history.index import Index

FILE = "history.db"

TABLES = """
CREATE TABLE chats (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, title TEXT NOT NULL,
  settings BLOB NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, deleted_at REAL,
  key TEXT, body_hash BLOB NOT NULL, UNIQUE (principal, key));
CREATE INDEX chats_shown ON chats (principal, updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX chats_in_order ON chats (principal, n) WHERE deleted_at IS NULL;
CREATE INDEX chats_deleted ON chats (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE TABLE messages (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, chat TEXT NOT NULL, parent TEXT, role TEXT NOT NULL,
  parts BLOB NOT NULL, created_at REAL NOT NULL, run TEXT, state TEXT NOT NULL, ending BLOB NOT NULL,
  made_with BLOB NOT NULL, left_out INTEGER NOT NULL);
CREATE INDEX messages_of_chat ON messages (chat, n);
CREATE INDEX message_of_run ON messages (run);
CREATE INDEX messages_alive ON messages (chat) WHERE state IN ('queued', 'running');
CREATE TABLE passages (
  n INTEGER PRIMARY KEY, chat TEXT NOT NULL, message INTEGER, start INTEGER NOT NULL);
CREATE INDEX passages_of ON passages (chat, message, start);
CREATE VIRTUAL TABLE grams USING fts5 (
  tokens, content = '', columnsize = 0, detail = none, tokenize = 'ascii');
CREATE TABLE purging (chat TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_create = database.create(TABLES)

OF_VERSION_1 = "SELECT n, id, chat, parent, role, parts, created_at, run, state, ending FROM messages_1"


def connect(path: Path) -> sqlite3.Connection:
    """Raises LogUnwritable, LogError for a newer version or a damaged file."""
    pragmas = ("synchronous = NORMAL", "wal_autocheckpoint = 0", "journal_size_limit = 0")
    return database.connect(path, "history", VERSION, STEPS, *pragmas)


def _from_version_1(db: sqlite3.Connection) -> None:
    for name in ("chats_by_time", "messages_of_chat", "message_of_run"):
        db.execute(f"DROP INDEX {name}")
    db.execute("ALTER TABLE messages RENAME TO messages_1")
    db.execute("ALTER TABLE chats RENAME TO chats_1")
    _create(db)
    db.execute(
        "INSERT INTO chats (id, principal, title, settings, created_at, updated_at, body_hash)"
        " SELECT id, principal, title, '{}', created_at, updated_at, '' FROM chats_1 ORDER BY created_at"
    )
    db.execute(f"INSERT INTO messages SELECT *, 'null', 0 FROM ({OF_VERSION_1})")
    db.execute("DROP TABLE messages_1")
    db.execute("DROP TABLE chats_1")
    _index_all(db)


def _index_all(db: sqlite3.Connection) -> None:
    index = Index(db)
    for chat, title in db.execute("SELECT id, title FROM chats ORDER BY n").fetchall():
        index.replace(chat, None, "", title)
    for n, chat, parts in db.execute("SELECT n, chat, parts FROM messages ORDER BY n"):
        index.replace(chat, n, "", text_of(orjson.loads(parts)))


VERSION = 2
STEPS: database.Steps = {0: (_create, VERSION), 1: (_from_version_1, 2)}
