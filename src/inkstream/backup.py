"""``inkstream backup`` and ``inkstream restore``: chats, answers and users of a data folder in one file.

A backup is made beside a server that goes on: it is a ZIP archive of the three databases as they were at one
moment, and of the choice of a model, where one was made while the server ran. Answers that were being
written then are written on by the server that the backup is restored for. Models themselves are not in it,
nor is what a folder makes anew by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from inkstream import __version__, chosen, database
from inkstream.accounts import schema as accounts
from inkstream.disk import sync_folder
from inkstream.errors import ConfigError, LogError, LogUnwritable
from inkstream.history import schema as history
from inkstream.log import schema as log
from inkstream.log.sqlite import lock_folder

MANIFEST = "backup.json"
FORMAT = "inkstream-backup"
VERSION = 1
SIDE_FILES = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the databases. ``newest`` is the newest version of its tables that is known here."""

    file: str
    newest: int


LOG = Part(log.FILE, log.VERSION)
PARTS = (LOG, Part(history.FILE, history.VERSION), Part(accounts.FILE, accounts.VERSION))
NAMES = (*(part.file for part in PARTS), chosen.FILE)


def back_up(folder: Path, target: Path) -> None:
    """Write a new file for its owner alone, and nothing if that fails.

    Raises ConfigError where there is nothing to back up, or the file is there already; LogUnwritable,
    LogError.
    """
    if not (folder / LOG.file).exists():
        raise ConfigError(f"{folder} holds nothing to back up.", code="nothing_there")
    with _translated(target), _created(target) as file, _workshop(target.parent) as work:
        with _snapshot(folder) as sources:
            for part, source in sources.items():
                with _undamaged(folder / part.file):
                    database.require_known(source, folder / part.file, part.newest)
                    _copy(source, work / part.file)
        if (choice := chosen.read(folder)) is not None:
            chosen.write(work, choice)
        _pack(work, file)


def restore(source: Path, folder: Path) -> None:
    """Put a backup into a folder that holds no databases. It gets all of them, or stays as it was.

    Raises ConfigError for a file that is no backup or is damaged, and for a folder with databases;
    FolderInUse, LogUnwritable, and LogError for a backup of a newer version.
    """
    with _translated(source), source.open("rb"):
        lock = lock_folder(folder)  # which makes it: not for a backup that is not there
    try:
        with _translated(source), _workshop(folder) as work:
            _require_room(folder)
            for name in _unpack(source, work):
                os.replace(work / name, folder / name)
            sync_folder(folder)
    finally:
        lock.release()


# Making


@contextmanager
def _snapshot(folder: Path) -> Iterator[dict[Part, sqlite3.Connection]]:
    """The databases, as all of them are at one moment for as long as the block runs."""
    parts = [part for part in PARTS if (folder / part.file).exists()]
    with ExitStack() as stack:
        sources = {part: stack.enter_context(closing(_open(folder / part.file))) for part in parts}
        with closing(_open(folder / LOG.file)) as holder:
            # The history may be behind the log and never ahead, so the log stands still for the moment.
            with _named(folder / LOG.file):
                holder.execute("BEGIN IMMEDIATE")
            for part, source in sources.items():
                with _named(folder / part.file):
                    source.execute("BEGIN")
                    source.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # reading begins here
        yield sources


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What goes wrong in a database is said of it, not of the backup."""
    try:
        with _undamaged(path):
            yield
    except sqlite3.OperationalError as error:
        raise LogUnwritable(f"{path}: {error}") from error


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError:  # which is a DatabaseError too
        raise
    except sqlite3.DatabaseError as error:
        raise database.damaged(path, error) from error


def _open(path: Path) -> sqlite3.Connection:
    with _named(path):
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=10.0
        )


def _copy(source: sqlite3.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        source.backup(target)
    _require_sound(path)


def _pack(work: Path, file: BinaryIO) -> None:
    files = [name for name in NAMES if (work / name).exists()]
    told = {"format": FORMAT, "version": VERSION, "made_at": time.time(), "made_by": __version__}
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(MANIFEST, json.dumps({**told, "files": files}))
        for name in files:
            archive.write(work / name, name)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _created(target: Path) -> Iterator[BinaryIO]:
    """A new file, which is gone again if the block fails."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise ConfigError(f"{target} is there already. Choose another name.", code="file_exists") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        target.unlink()
        raise


# Restoring


def _require_room(folder: Path) -> None:
    for name in NAMES:
        for suffix in SIDE_FILES:
            path = folder / f"{name}{suffix}"
            if path.exists():
                raise ConfigError(
                    f"{path} is there already. Restore into another folder with --data-dir, or move it away.",
                    code="file_exists",
                )


def _unpack(source: Path, work: Path) -> list[str]:
    """The names of all files of a backup, which are whole and of versions that are known."""
    with ZipFile(source) as archive:
        names = _names_in(archive, source)
        for name in names:
            with archive.open(name) as packed, (work / name).open("xb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)  # which compares the checksum
                file.flush()
                os.fsync(file.fileno())
            os.chmod(work / name, 0o600)
    for part in (part for part in PARTS if part.file in names):
        with closing(_open(work / part.file)) as db:
            database.require_known(db, source / part.file, part.newest)
        _require_sound(work / part.file)
    if chosen.FILE in names:
        _require_choice(work / chosen.FILE, source)
    return names


def _names_in(archive: ZipFile, source: Path) -> list[str]:
    try:
        told = json.loads(archive.read(MANIFEST))
        format_, version, files = told["format"], told["version"], set(told["files"])
    except (KeyError, TypeError, ValueError):
        format_, version, files = None, 0, set[str]()
    if format_ != FORMAT or LOG.file not in files:
        raise _no_backup(source)
    if version > VERSION or files - set(NAMES):
        raise LogError(f"{source} was made by a newer inkstream. Update inkstream.", code="log_too_new")
    return [name for name in NAMES if name in files]


def _require_choice(path: Path, source: Path) -> None:
    try:
        chosen.decode(path.read_bytes())
    except ValueError as error:
        raise _no_backup(source) from error


def _require_sound(path: Path) -> None:
    """Raises sqlite3.DatabaseError."""
    with closing(_open(path)) as db:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"{path.name}: {found}")


def _no_backup(source: Path) -> ConfigError:
    return ConfigError(f"{source} is no backup of inkstream, or a damaged one.", code="bad_backup")


# Both


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder on the same disk, which is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".inkstream-") as work:
        yield Path(work)


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, zlib.error, EOFError) as error:
        raise _no_backup(file) from error
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}.", code="not_found") from error
    except (OSError, sqlite3.Error) as error:
        raise LogUnwritable(f"{file}: {error}") from error
