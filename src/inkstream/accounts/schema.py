"""The tables of ``accounts.db``, and the way to them from every earlier version.

Secrets stand here as hashes. They are 256 random bits each, so that a plain SHA-256 is enough: what makes
slow hashes necessary is that people's passwords can be guessed.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from inkstream import database

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
    """Raises LogUnwritable, LogError for a newer version or a damaged file."""
    return database.connect(folder / FILE, "accounts", VERSION, STEPS, "synchronous = FULL")


def has_users(folder: Path) -> bool:
    """Whether anybody has an account there, disabled or not. Raises LogError, LogUnwritable."""
    if not os.path.exists(folder / FILE):  # Path.exists raises where the folder may not be read
        return False
    with closing(connect(folder)) as db:
        return db.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None


VERSION = 1
STEPS: database.Steps = {0: (database.create(TABLES), VERSION)}
