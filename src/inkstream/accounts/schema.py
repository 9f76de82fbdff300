"""The tables of ``accounts.db``, and the way to them from every earlier version.

Secrets stand here as hashes. They are 256 random bits each, so that a plain SHA-256 is enough: what makes
slow hashes necessary is that people's passwords can be guessed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from inkstream.errors import LogError, LogUnwritable

FILE = "accounts.db"

TABLES = """
CREATE TABLE users (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, folded TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL, created_at REAL NOT NULL, disabled_at REAL);
CREATE TABLE keys (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, label TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE, created_at REAL NOT NULL);
CREATE TABLE links (hash BLOB PRIMARY KEY, user TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (hash BLOB PRIMARY KEY, user TEXT, expires_at REAL NOT NULL) WITHOUT ROWID;
"""


def connect(folder: Path) -> sqlite3.Connection:
    """Open the database, made or brought up to date. Raises LogUnwritable, LogError for a newer one."""
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # SQLite gives its side files the permissions that it finds on this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            _require_known(db, path)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                with closing(db.execute(f"PRAGMA {pragma}")) as answer:
                    answer.fetchall()
            _bring_up_to_date(db)
        except BaseException:
            db.close()
            raise
    except (OSError, sqlite3.OperationalError) as error:
        raise LogUnwritable(f"the accounts {path} cannot be opened: {error}") from error
    return db


def has_users(folder: Path) -> bool:
    """Whether anybody has an account there, disabled or not. Raises LogError, LogUnwritable."""
    if not (folder / FILE).exists():
        return False
    with closing(connect(folder)) as db:
        return db.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None


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


VERSION = 1
STEPS: dict[int, tuple[Callable[[sqlite3.Connection], None], int]] = {0: (_create, VERSION)}
"""From each earlier version, how to go on from it, and to which. Version 0 is an empty file."""
