"""The tables under the SQLite log, and the one thread's work on them.

Layout, the log's secret. A step of all runs is one row of ``journal``: that is what makes a commit cost
microseconds per event. Behind it each run collects its tail in memory; when the tail is a page long, or the
run ends, it is written to ``pages``, where readers find a run's events together. A journal row goes as soon
as nothing in it is unpaged. So what is in memory can be rebuilt from journal and pages at any moment: that is
what opening does, and what follows a failed commit.

Memory is trusted only while nobody else has written: SQLite's ``data_version`` tells, inside the same
transaction, and then everything is loaded anew. That is the fence: a paused holder that wakes up after a
takeover finds the new epoch before it can append.

Everything here is synchronous and belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inkstream.errors import Fenced, KeyReused, LogError, LogUnwritable, NotFound
from inkstream.events import NEXT, Event, Kind, RunState
from inkstream.log import Appended, Claim, Entry, NewRun, Run
from inkstream.log.packing import pack, unpack

PAGE_EVENTS = 32
TRIM_STEPS = 256
JOURNAL_STEPS = 4096  # an older tail is paged early, so that an idle run cannot hold the journal
LEASE_SECONDS = 10.0
NOW = "(julianday('now') - 2440587.5) * 86400.0"  # the store's clock; unixepoch('subsec') needs SQLite 3.42
BALLAST_BYTES = 1 << 20

# AUTOINCREMENT: the journal may still name a run that is forgotten; its number must never be another's.
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, key TEXT,
  body_hash BLOB NOT NULL, record BLOB NOT NULL, state TEXT NOT NULL, epoch INTEGER NOT NULL, holder TEXT,
  last_seq INTEGER NOT NULL,
  stop_requested INTEGER NOT NULL, deaths INTEGER NOT NULL, created_at REAL NOT NULL, ended_at REAL,
  settled INTEGER NOT NULL, UNIQUE (principal, key));
CREATE INDEX IF NOT EXISTS unsettled ON runs (n) WHERE settled = 0;
CREATE INDEX IF NOT EXISTS ended ON runs (ended_at) WHERE settled = 1;
CREATE TABLE IF NOT EXISTS journal (step INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pages (
  run INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (run, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, renewed_at REAL NOT NULL);
"""
VERSION = 1

RUN_COLUMNS = (
    "id, principal, record, state, epoch, last_seq, stop_requested, deaths, created_at, ended_at, settled"
)


@dataclass(slots=True)
class Tail:
    """A run that has not ended: where it stands, and its events that are in no page yet."""

    n: int
    epoch: int
    holder: str | None
    state: RunState
    last_seq: int
    stop_requested: bool
    deaths: int
    events: list[Event] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)  # the same, as a page will have them
    first_step: int = 0

    def add(self, events: list[Event], packed: bytes, step: int) -> None:
        if not self.events:
            self.first_step = step
        self.events += events
        self.packed.append(packed)
        self.last_seq = events[-1].seq
        for event in events:
            self.state = NEXT[self.state, event.kind]


@dataclass(frozen=True, slots=True)
class Committed:
    """One batch after its commit: what to answer, and per run what to show."""

    results: list[Appended | None]
    events: list[tuple[str, list[Event]]]


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the database. Raises LogUnwritable."""
    mode = "ro" if read_only else "rwc"
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10.0,
        )
    except sqlite3.Error as error:
        raise LogUnwritable(f"the log {path} cannot be opened: {error}") from error


def read_pages(db: sqlite3.Connection, run: str, after: int, limit: int) -> list[Event]:
    """Up to ``limit`` events of a run from its pages."""
    rows = db.execute(
        "SELECT body FROM pages WHERE run = (SELECT n FROM runs WHERE id = ?) AND last > ?"
        " ORDER BY first LIMIT ?",
        (run, after, limit // PAGE_EVENTS + 1),
    ).fetchall()
    return [event for (body,) in rows for _, event in unpack(body) if event.seq > after][:limit]


class Store:
    """All that is written. ``open_runs`` maps the id of every run that has not ended to its tail."""

    def __init__(self, folder: Path, instance: str, *, durable: bool) -> None:
        self._path, self._ballast = folder / "log.db", folder / "ballast"
        self._instance = instance
        self._db = connect(self._path)
        self.open_runs: dict[str, Tail] = {}
        self._data_version = -1
        self._step = 0
        with self._translated():
            self._prepare(durable)
            with self._transaction():
                self._load()
        self._restore_ballast()

    # Opening and closing

    def _prepare(self, durable: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise LogError(
                f"{self._path} was written by a newer inkstream (log version {version}, known: {VERSION})."
                " Update inkstream, or start it with another INKSTREAM_DATA_DIR.",
                code="log_too_new",
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._db.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints fsync: never in a committing call
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def bury_others(self) -> None:
        """Every other instance is dead: we hold the folder's lock."""
        with self._writing():
            self._db.execute("DELETE FROM instances WHERE id != ?", (self._instance,))

    def close(self) -> None:
        """Release this instance's claims. A log that cannot be written is closed all the same."""
        with contextlib.suppress(LogUnwritable), self._writing():
            self._db.execute("UPDATE runs SET holder = NULL WHERE holder = ?", (self._instance,))
            self._db.execute("DELETE FROM instances WHERE id = ?", (self._instance,))
        self._db.close()

    def _load(self) -> None:
        rows = self._db.execute(
            "SELECT id, n, epoch, holder, stop_requested, deaths,"
            " (SELECT coalesce(max(last), 0) FROM pages WHERE pages.run = runs.n)"
            " FROM runs WHERE settled = 0 AND ended_at IS NULL ORDER BY n"
        ).fetchall()
        self.open_runs = {
            run: Tail(
                n, epoch, holder, RunState.RUNNING if paged else RunState.QUEUED, paged, bool(stop), deaths
            )
            for run, n, epoch, holder, stop, deaths, paged in rows
        }
        self._replay_journal({tail.n: tail for tail in self.open_runs.values()})
        self._data_version = self._db.execute("PRAGMA data_version").fetchone()[0]

    def _replay_journal(self, tails: dict[int, Tail]) -> None:
        for step, body in self._db.execute("SELECT step, body FROM journal ORDER BY step"):
            self._step = step
            for n, event in unpack(body):
                tail = tails.get(n)
                if tail is not None and event.seq > tail.last_seq:
                    tail.add([event], pack(n, [event]), step)

    # Transactions

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LogUnwritable(f"the log {self._path} cannot be written: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("ROLLBACK")
            self._data_version = -1  # memory may be ahead of the file now
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._translated(), self._transaction():
            if self._is_outdated():
                self._load()
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Like ``_writing``, but a log that cannot be written can still be read."""
        with self._translated():
            if self._is_outdated():
                self._db.execute("BEGIN")
                self._load()
                self._db.execute("COMMIT")
            yield

    def _is_outdated(self) -> bool:
        return bool(self._db.execute("PRAGMA data_version").fetchone()[0] != self._data_version)

    def renew(self) -> None:
        with self._writing():
            self._db.execute(
                f"INSERT INTO instances VALUES (?, {NOW})"
                " ON CONFLICT (id) DO UPDATE SET renewed_at = excluded.renewed_at",
                (self._instance,),
            )

    # Runs

    def create(self, new: NewRun) -> tuple[Run, bool]:
        with self._writing():
            inserted = self._db.execute(
                "INSERT INTO runs (id, principal, key, body_hash, record, state, epoch, last_seq,"
                " stop_requested, deaths, created_at, settled) VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, 0)"
                " ON CONFLICT (principal, key) DO NOTHING",
                (new.id, new.principal, new.key, new.body_hash, new.record, RunState.QUEUED, time.time()),
            )
            if inserted.rowcount:
                n = inserted.lastrowid
                assert n is not None
                self.open_runs[new.id] = Tail(n, 0, None, RunState.QUEUED, 0, False, 0)
                return self._require(new.id), True
            run, body_hash = self._db.execute(
                "SELECT id, body_hash FROM runs WHERE principal = ? AND key = ?", (new.principal, new.key)
            ).fetchone()
            if body_hash != new.body_hash:
                raise KeyReused(
                    f"the idempotency key {new.key!r} was used for another request. Take a new key."
                )
            return self._require(run), False

    def get(self, run: str) -> Run | None:
        with self._reading():
            return self._find("id = ?", run)

    def find(self, principal: str, key: str) -> Run | None:
        with self._reading():
            return self._find("principal = ? AND key = ?", principal, key)

    def _find(self, where: str, *values: str) -> Run | None:
        row = self._db.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE {where}", values).fetchone()
        return self._as_run(row) if row else None

    def unsettled(self) -> list[Run]:
        with self._writing():
            rows = self._db.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE settled = 0 ORDER BY n").fetchall()
            return [self._as_run(row) for row in rows]

    def _require(self, run: str) -> Run:
        found = self._find("id = ?", run)
        if found is None:
            raise NotFound(f"there is no run {run!r}.", code="unknown_run")
        return found

    def _as_run(self, row: tuple[object, ...]) -> Run:
        run, principal, record, state, epoch, last_seq, stop, deaths, created_at, ended_at, settled = row
        tail = self.open_runs.get(str(run))
        if tail is not None:  # the row follows only at the end
            state, last_seq = tail.state, tail.last_seq
        return Run(
            id=str(run),
            principal=str(principal),
            record=bytes(record),  # type: ignore[call-overload]  # a BLOB column
            state=RunState(str(state)),
            epoch=int(epoch),  # type: ignore[call-overload]  # an INTEGER column
            last_seq=int(last_seq),  # type: ignore[call-overload]  # an INTEGER column
            stop_requested=bool(stop),
            deaths=int(deaths),  # type: ignore[call-overload]  # an INTEGER column
            created_at=float(created_at),  # type: ignore[arg-type]  # a REAL column
            ended_at=None if ended_at is None else float(ended_at),  # type: ignore[arg-type]  # a REAL column
            settled=bool(settled),
        )

    def claim(self, run: str, seen_epoch: int, after_death: bool) -> tuple[Claim, list[Event]]:
        """The claim, with the events that are in no page yet."""
        with self._writing():
            tail = self.open_runs.get(run)
            if tail is None or tail.epoch != seen_epoch or not self._is_free(tail):
                raise Fenced(f"run {run} has ended or is held by somebody else.")
            tail.epoch, tail.holder, tail.deaths = seen_epoch + 1, self._instance, tail.deaths + after_death
            self._db.execute(
                "UPDATE runs SET epoch = ?, holder = ?, deaths = ? WHERE n = ?",
                (tail.epoch, tail.holder, tail.deaths, tail.n),
            )
            return Claim(run, tail.epoch, tail.last_seq), list(tail.events)

    def _is_free(self, tail: Tail) -> bool:
        if tail.holder is None or tail.holder == self._instance:
            return True
        (alive,) = self._db.execute(
            f"SELECT count(*) FROM instances WHERE id = ? AND renewed_at > {NOW} - ?",
            (tail.holder, LEASE_SECONDS),
        ).fetchone()
        return not alive

    def request_stop(self, run: str) -> Run:
        with self._writing():
            tail = self.open_runs.get(run)
            if tail is not None and not tail.stop_requested:
                tail.stop_requested = True
                self._db.execute("UPDATE runs SET stop_requested = 1 WHERE n = ?", (tail.n,))
            return self._require(run)

    def settle(self, run: str) -> None:
        with self._writing():
            self._db.execute("UPDATE runs SET settled = 1 WHERE id = ? AND ended_at IS NOT NULL", (run,))

    def expire(self, before: float, limit: int) -> int:
        with self._writing():
            gone = self._db.execute(
                "SELECT n FROM runs WHERE settled = 1 AND ended_at < ? ORDER BY ended_at LIMIT ?",
                (before, limit),
            ).fetchall()
            self._db.executemany("DELETE FROM pages WHERE run = ?", gone)
            self._db.executemany("DELETE FROM runs WHERE n = ?", gone)
            return len(gone)

    # Events

    def commit(self, batches: Sequence[Sequence[Entry]]) -> list[Committed]:
        """Append everything in one transaction. Raises LogUnwritable; then nothing was appended.

        Endings must find room even on a full disk, so they may spend the ballast.
        """
        try:
            return self._commit(batches)
        except LogUnwritable:
            entries = [entry for batch in batches for entry in batch]
            if not self._ballast.exists() or not all(_only_ends(entry) for entry in entries):
                raise
            self._ballast.unlink()
            return self._commit(batches)

    def _commit(self, batches: Sequence[Sequence[Entry]]) -> list[Committed]:
        with self._writing():
            self._step += 1
            body: list[bytes] = []
            committed = [self._append_all(batch, body) for batch in batches]
            if body:
                self._db.execute("INSERT INTO journal VALUES (?, ?)", (self._step, b"".join(body)))
                self._page_touched({run for answer in committed for run, _ in answer.events})
            return committed

    def _append_all(self, batch: Sequence[Entry], body: list[bytes]) -> Committed:
        committed = Committed([], [])
        for entry in batch:
            tail = self.open_runs.get(entry.claim.run)
            events = self._numbered(tail, entry) if tail else None
            if tail is None or events is None:
                committed.results.append(None)
                continue
            packed = pack(tail.n, events)
            body.append(packed)
            tail.add(events, packed, self._step)
            committed.results.append(Appended(tail.last_seq, tail.stop_requested))
            committed.events.append((entry.claim.run, events))
        return committed

    @staticmethod
    def _numbered(tail: Tail, entry: Entry) -> list[Event] | None:
        """The entry's events with their numbers, or None if it is fenced."""
        if tail.epoch != entry.claim.epoch or tail.last_seq != entry.expected_seq:
            return None
        state: RunState | None = tail.state
        for draft in entry.events:
            state = NEXT.get((state, draft.kind)) if state else None
        if state is None:
            return None
        return [
            Event(tail.epoch, seq, draft.kind, draft.data, draft.seam)
            for seq, draft in enumerate(entry.events, tail.last_seq + 1)
        ]

    def _page_touched(self, runs: set[str]) -> None:
        for run in runs:
            tail = self.open_runs[run]
            if tail.deaths and tail.events[-1].kind is not Kind.STARTED:
                tail.deaths = 0
                self._db.execute("UPDATE runs SET deaths = 0 WHERE n = ?", (tail.n,))
            if tail.state.is_terminal:
                self._page(tail)
                self._end(run, tail)
            elif len(tail.events) >= PAGE_EVENTS:
                self._page(tail)
        if self._step % TRIM_STEPS == 0:
            self._trim()

    def _page(self, tail: Tail) -> None:
        first, last = tail.events[0].seq, tail.events[-1].seq
        self._db.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?)", (tail.n, first, last, b"".join(tail.packed))
        )
        tail.events, tail.packed = [], []

    def _end(self, run: str, tail: Tail) -> None:
        self._db.execute(
            "UPDATE runs SET state = ?, last_seq = ?, ended_at = ?, holder = NULL WHERE n = ?",
            (tail.state, tail.last_seq, time.time(), tail.n),
        )
        del self.open_runs[run]

    def _trim(self) -> None:
        """Drop the journal rows that hold nothing unpaged; page what would hold too many of them."""
        for tail in self.open_runs.values():
            if tail.events and tail.first_step < self._step - JOURNAL_STEPS:
                self._page(tail)
        needed = min((t.first_step for t in self.open_runs.values() if t.events), default=self._step + 1)
        self._db.execute("DELETE FROM journal WHERE step < ?", (needed,))

    def _restore_ballast(self) -> None:
        """Keep some space that only endings may use. Where there is none to keep, there is none."""
        if self._ballast.exists():
            return
        with contextlib.suppress(OSError):
            self._ballast.write_bytes(bytes(BALLAST_BYTES))


def _only_ends(entry: Entry) -> bool:
    return all(draft.kind.is_terminal for draft in entry.events)
