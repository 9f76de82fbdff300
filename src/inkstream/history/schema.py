"""The tables of ``history.db``, and the way to them from every earlier version.

``passages`` says what the rows of the index ``grams`` are about: a stretch of a message, or a title, whose
``message`` is NULL. The index is contentless: the words stand in ``messages`` and ``chats`` alone.
Messages do not refer to their chat by a foreign key, because a chat that is purged goes first, and its
messages in small slices behind it; ``purging`` remembers which.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson

from inkstream.errors import LogError, LogUnwritable
from inkstream.events import text_of
from inkstream.history.index import Index

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

OF_VERSION_1 = "SELECT n, id, chat, parent, role, parts, created_at, run, state, ending FROM messages_1"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, made or brought up to date. Raises LogUnwritable, LogError for a newer one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            _require_known(db, path)
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                with closing(db.execute(f"PRAGMA {pragma}")) as answer:
                    answer.fetchall()
            _bring_up_to_date(db)
        except BaseException:
            db.close()
            raise
    except (OSError, sqlite3.OperationalError) as error:
        raise LogUnwritable(f"the history {path} cannot be opened: {error}") from error
    return db


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _require_known(db: sqlite3.Connection, path: Path) -> None:
    if (version := _version(db)) > VERSION:
        raise LogError(
            f"{path} was written by a newer inkstream (version {version}, known: {VERSION})."
            " Update inkstream, or start it with another INKSTREAM_DATA_DIR.",
            code="log_too_new",
        )


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """In one transaction: a process that dies in the middle leaves the old version."""
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        while (version := _version(db)) < VERSION:
            step, reached = STEPS[version]
            step(db)
            db.execute(f"PRAGMA user_version = {reached}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _create(db: sqlite3.Connection) -> None:
    for statement in TABLES.split(";\n"):
        db.execute(statement)


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
STEPS: dict[int, tuple[Callable[[sqlite3.Connection], None], int]] = {
    0: (_create, VERSION),
    1: (_from_version_1, 2),
}
"""From each earlier version, how to go on from it, and to which. Version 0 is an empty file."""
