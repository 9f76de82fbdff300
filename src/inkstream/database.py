"""SQLite files of ours: made where there is none, brought up to date, refused where they are newer.

And their checkpoints, which belong to a thread of their own: each waits for the disk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from inkstream.errors import LogError, LogUnwritable

logger = logging.getLogger(__name__)

WAL_PAGES = 8 * 1024  # 32 MiB; a longer write-ahead file is brought to an end
BUSY_MS = 10_000
CHECKPOINT_BUSY_MS = 20

Steps = Mapping[int, tuple[Callable[[sqlite3.Connection], None], int]]
"""From each earlier version, how to go on from it, and to which. Version 0 is an empty file."""


def connect(path: Path, what: str, version: int, steps: Steps, *pragmas: str) -> sqlite3.Connection:
    """``what`` is what the file holds, in words. A new one is for its owner alone.

    Raises LogUnwritable, LogError for a newer version or a damaged file.
    """
    try:
        create_private(path)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
        try:
            require_known(db, path, version)
            for pragma in ("journal_mode = WAL", "secure_delete = ON", *pragmas):
                with closing(db.execute(f"PRAGMA {pragma}")) as answer:
                    answer.fetchall()
            _bring_up_to_date(db, version, steps)
        except BaseException:
            db.close()
            raise
    except (OSError, sqlite3.OperationalError) as error:
        raise LogUnwritable(f"the {what} {path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    return db


def create_private(path: Path) -> None:
    """A file for its owner alone, empty where there was none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its side files the permissions that it finds on this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError, PermissionError):  # which is its owner's to change
            file.chmod(0o600)


def damaged(path: Path, error: Exception) -> LogError:
    return LogError(
        f"{path} is damaged: {error}. Restore a backup into another folder, or begin with an empty one:"
        " inkstream restore FILE --data-dir FOLDER",
        code="log_damaged",
    )


def create(tables: str) -> Callable[[sqlite3.Connection], None]:
    """The step that makes these tables."""

    def step(db: sqlite3.Connection) -> None:
        for statement in tables.split(";\n"):
            db.execute(statement)

    return step


def checkpoint(path: Path, *, is_whole: bool = False) -> bool:
    """Move what is committed from the write-ahead file into the database, beside readers and writers.

    The file is begun anew only when a checkpoint has reached its very end, and under a load without a pause
    none does: then, or with ``is_whole``, writers are held up while what came during the checkpoint is moved
    too. Says whether all of it is moved. If not, nothing is lost, and the next checkpoint tries again.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        try:
            pages = _checkpoint(db, "PASSIVE")[1]
            if is_whole or pages > WAL_PAGES:
                return not _checkpoint(db, "FULL")[0]
        except sqlite3.OperationalError as error:
            logger.info("a checkpoint of %s: %s", path, error)
    return False


def empty_wal(db: sqlite3.Connection) -> bool:
    """Leave nothing in the write-ahead file; says whether that was possible: not while somebody reads it.

    By the connection that writes: to others the database would seem to have changed.
    """
    return not _checkpoint(db, "TRUNCATE")[0]


def _checkpoint(db: sqlite3.Connection, mode: str) -> tuple[int, int, int]:
    """Whether it was held up, how many pages the write-ahead file has, and how many of them are moved."""
    # Who waits for readers keeps the writers waiting, and a backup reads for long.
    db.execute(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
    try:
        answer: tuple[int, int, int] = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return answer
    finally:
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def require_known(db: sqlite3.Connection, path: Path, known: int) -> None:
    """Raises LogError for a newer version."""
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
