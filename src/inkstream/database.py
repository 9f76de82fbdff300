"""Opening a SQLite file of ours: made where there is none, brought up to date, refused where it is newer."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from inkstream.errors import LogError, LogUnwritable

Steps = Mapping[int, tuple[Callable[[sqlite3.Connection], None], int]]
"""From each earlier version, how to go on from it, and to which. Version 0 is an empty file."""


def connect(path: Path, what: str, version: int, steps: Steps, *pragmas: str) -> sqlite3.Connection:
    """``what`` is what the file holds, in words. A new one is for its owner alone.

    Raises LogUnwritable, LogError for a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its side files the permissions that it finds on this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            _require_known(db, path, version)
            for pragma in ("journal_mode = WAL", "secure_delete = ON", *pragmas):
                with closing(db.execute(f"PRAGMA {pragma}")) as answer:
                    answer.fetchall()
            _bring_up_to_date(db, version, steps)
        except BaseException:
            db.close()
            raise
    except (OSError, sqlite3.OperationalError) as error:
        raise LogUnwritable(f"the {what} {path} cannot be opened: {error}") from error
    return db


def create(tables: str) -> Callable[[sqlite3.Connection], None]:
    """The step that makes these tables."""

    def step(db: sqlite3.Connection) -> None:
        for statement in tables.split(";\n"):
            db.execute(statement)

    return step


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _require_known(db: sqlite3.Connection, path: Path, known: int) -> None:
    if (version := _version(db)) > known:
        raise LogError(
            f"{path} was written by a newer inkstream (version {version}, known: {known})."
            " Update inkstream, or start it with another INKSTREAM_DATA_DIR.",
            code="log_too_new",
        )


def _bring_up_to_date(db: sqlite3.Connection, wanted: int, steps: Steps) -> None:
    """In one transaction: a process that dies in the middle leaves the old version."""
    if _version(db) == wanted:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        while (version := _version(db)) < wanted:
            step, reached = steps[version]
            step(db)
            db.execute(f"PRAGMA user_version = {reached}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
