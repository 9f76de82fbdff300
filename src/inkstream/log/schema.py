"""The tables of the SQLite log, and how those of older versions become them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from struct import error as StructError

from inkstream.database import create_private, damaged
from inkstream.errors import LogError, LogUnwritable
from inkstream.events import Draft, Kind
from inkstream.log.packing import pack

FILE = "log.db"
VERSION = 2
ADD_PAGE = "INSERT INTO pages (run, first, last, frames, seams) VALUES (?, ?, ?, ?, ?)"

# AUTOINCREMENT: the journal may still name a run that is forgotten; its number must never be another's.
# Pages have a key of their own, so that each is added behind all others: rows of this size that are added in
# between make SQLite write their neighbours anew.
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, key TEXT,
  body_hash BLOB NOT NULL, record BLOB NOT NULL, state TEXT NOT NULL, epoch INTEGER NOT NULL, holder TEXT,
  last_seq INTEGER NOT NULL,
  stop_requested INTEGER NOT NULL, deaths INTEGER NOT NULL, created_at REAL NOT NULL, ended_at REAL,
  settled INTEGER NOT NULL, UNIQUE (principal, key));
CREATE INDEX IF NOT EXISTS unfinished ON runs (n) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS unsettled ON runs (n) WHERE settled = 0 AND ended_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS ended ON runs (ended_at) WHERE settled = 1;
CREATE TABLE IF NOT EXISTS journal (slot INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pages (
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  frames BLOB NOT NULL, seams BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS page_of ON pages (run, first);
CREATE TABLE IF NOT EXISTS forgotten (n INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, renewed_at REAL NOT NULL);
"""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the database; a new one is for its owner alone. Raises LogUnwritable."""
    mode = "ro" if read_only else "rw"
    try:
        if not read_only:
            create_private(path)
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10.0,
        )
    except (OSError, sqlite3.Error) as error:
        raise LogUnwritable(f"the log {path} cannot be opened: {error}") from error


def prepare(db: sqlite3.Connection, path: Path, *, durable: bool) -> None:
    """Bring the database to this version's tables. Raises sqlite3.Error, LogError (too new, damaged)."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise LogError(
            f"{path} was written by a newer inkstream (log version {version}, known: {VERSION})."
            " Update inkstream, or start it with another INKSTREAM_DATA_DIR.",
            code="log_too_new",
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    db.execute("PRAGMA secure_delete = ON")
    # A write-ahead file that begins anew keeps nothing of the old.
    db.execute("PRAGMA journal_size_limit = 0")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints fsync: never in a committing call
    db.execute("BEGIN IMMEDIATE")
    try:
        # Asked again: somebody else may have brought it here meanwhile.
        if db.execute("PRAGMA user_version").fetchone()[0] == 1:
            _from_version_1(db)
        else:
            _create(db)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, StructError):
            raise damaged(path, error) from error
        raise


def _create(db: sqlite3.Connection) -> None:
    for statement in SCHEMA.split(";"):
        db.execute(statement)


# Version 1 wrote events one after the other into journal and pages, each behind such a head.

HEAD_1 = Struct("<QIIBII")  # run's row, epoch, seq, kind, length of data, length of seam
Event1 = tuple[int, int, int, Draft]  # run's row, epoch, seq and what it says
KINDS_1 = (Kind.STARTED, Kind.TEXT, Kind.DONE, Kind.STOPPED, Kind.FAILED)


def _from_version_1(db: sqlite3.Connection) -> None:
    """Pages are written anew; what was only in the journal becomes pages too."""
    db.execute("DROP INDEX unsettled")
    db.execute("ALTER TABLE pages RENAME TO old_pages")
    db.execute("ALTER TABLE journal RENAME TO old_journal")
    _create(db)
    for (body,) in db.execute("SELECT body FROM old_pages"):
        _add_page(db, list(_events_1(body)))
    paged = dict(
        db.execute(
            "SELECT n, (SELECT coalesce(max(last), 0) FROM old_pages WHERE run = n) FROM runs"
            " WHERE ended_at IS NULL"
        )
    )
    unpaged: dict[int, list[Event1]] = {}
    for (body,) in db.execute("SELECT body FROM old_journal ORDER BY step"):
        for event in _events_1(body):
            n, _, seq, _ = event
            if seq > paged.get(n, seq):
                unpaged.setdefault(n, []).append(event)
    for events in unpaged.values():
        _add_page(db, events)
    db.execute("DROP TABLE old_pages")
    db.execute("DROP TABLE old_journal")


def _add_page(db: sqlite3.Connection, events: list[Event1]) -> None:
    packed = [pack(epoch, seq - 1, [draft]) for _, epoch, seq, draft in events]
    frames, seams = (b"".join(parts) for parts in zip(*packed, strict=True))
    db.execute(ADD_PAGE, (events[0][0], events[0][2], events[-1][2], frames, seams))


def _events_1(body: bytes) -> Iterator[Event1]:
    at = 0
    while at < len(body):
        n, epoch, seq, kind, data_length, seam_length = HEAD_1.unpack_from(body, at)
        seam_at = at + HEAD_1.size + data_length
        data, at = body[at + HEAD_1.size : seam_at], seam_at + seam_length
        yield n, epoch, seq, Draft(KINDS_1[kind], data, body[seam_at:at])
