"""The one writing thread's work on the SQLite log.

Layout, the log's secret. A step of all runs is one record of ``journal``: that is what makes a commit cost
microseconds per event. Behind it each run collects its tail in memory; when the tail fills a page, or the run
ends, it is written to ``pages``, where readers find a run's events together. Of the journal goes what is in
pages. So what is in memory can be rebuilt from journal and pages at any moment: that is
what opening does, and what follows a failed commit.

Memory is trusted only while nobody else has written: SQLite's ``data_version`` tells, inside the same
transaction, and then everything is loaded anew. That is the fence: a paused holder that wakes up after a
takeover finds the new epoch before it can append.

Everything here is synchronous and belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from inkstream.database import empty_wal
from inkstream.errors import Fenced, KeyReused, LogUnwritable, NotFound
from inkstream.events import NEXT, RunState
from inkstream.log import Appended, Claim, Entry, NewRun, Run
from inkstream.log.expiry import forget, has_traces, set_traceless
from inkstream.log.journal import BLOCK_BYTES, Journal
from inkstream.log.packing import HEAD, Stretch, behind, seams_behind
from inkstream.log.schema import ADD_PAGE, FILE, connect, prepare
from inkstream.log.tail import Tail

PAGE_BYTES = 3500  # with the last append, as a rule, a row of it fills one page of the database
JOURNAL_BYTES = 32 << 20  # an older tail is paged early, so that an idle run cannot hold the journal
TRIM_BLOCKS = 64
TRIM_PAGES = 64  # how many tails are paged early in one commit
CHECKPOINT_ROWS = 2048  # a row is a page of the write-ahead file, or two
LEASE_SECONDS = 10.0
NOW = "(julianday('now') - 2440587.5) * 86400.0"  # the store's clock; unixepoch('subsec') needs SQLite 3.42
BALLAST_BYTES = 1 << 20

RUN_COLUMNS = (
    "id, principal, record, state, epoch, last_seq, stop_requested, deaths, created_at, ended_at, settled"
)


Packed = tuple[Entry, bytes, bytes]
"""An entry, with the frames and the seams of its events as they will lie in the file if it is not fenced."""


class Store:
    """All that is written. ``open_runs`` maps the id of every run that has not ended to its tail."""

    def __init__(self, folder: Path, instance: str, *, durable: bool) -> None:
        self._path, self._ballast = folder / FILE, folder / "ballast"
        self._instance = instance
        self._db = connect(self._path)
        self.open_runs: dict[str, Tail] = {}
        self._data_version = -1
        self._journal = Journal(self._db)
        self._trimmed_at = self._checkpointed_at = 0
        with self._translated():
            prepare(self._db, self._path, durable=durable)
            with self._transaction():
                self._load()
            self._wipe_below = self._journal.next if has_traces(self._db) else 0
        self._restore_ballast()

    # Opening and closing

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
            " coalesce((SELECT last FROM pages WHERE run = n ORDER BY first DESC LIMIT 1), 0)"
            " FROM runs WHERE ended_at IS NULL ORDER BY n"
        ).fetchall()
        self.open_runs = {
            run: Tail(
                n,
                epoch,
                holder,
                RunState.RUNNING if paged else RunState.QUEUED,
                paged,
                bool(stop),
                deaths,
                paged,
            )
            for run, n, epoch, holder, stop, deaths, paged in rows
        }
        tails = {tail.n: tail for tail in self.open_runs.values()}
        for block, n, after, stretch in self._journal.load():
            tail = tails.get(n)
            if tail is not None and after == tail.last_seq:
                tail.add(stretch.frames, stretch.seams, stretch.last_seq, block)
                tail.state = RunState.RUNNING  # the terminal event of an open run is in no journal
        self._data_version = self._db.execute("PRAGMA data_version").fetchone()[0]

    def is_checkpoint_due(self) -> bool:
        """Whether much has been written since this was last true."""
        if self._db.total_changes - self._checkpointed_at < CHECKPOINT_ROWS:
            return False
        self._checkpointed_at = self._db.total_changes
        return True

    def empty_wal(self) -> bool:
        with self._translated():  # quick: a checkpoint has just moved all of it
            return empty_wal(self._db)

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

    def unsettled(self, but: Container[str]) -> list[Run]:
        with self._reading():
            rows = [(tail.n, run) for run, tail in self.open_runs.items()]
            rows += self._db.execute("SELECT n, id FROM runs WHERE settled = 0 AND ended_at IS NOT NULL")
            return [self._require(run) for _, run in sorted(rows) if run not in but]

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

    def claim(self, run: str, seen_epoch: int, after_death: bool) -> Claim:
        with self._writing():
            tail = self.open_runs.get(run)
            if tail is None or tail.epoch != seen_epoch or not self._is_free(tail):
                raise Fenced(f"run {run} has ended or is held by somebody else.")
            tail.epoch, tail.holder, tail.deaths = seen_epoch + 1, self._instance, tail.deaths + after_death
            self._db.execute(
                "UPDATE runs SET epoch = ?, holder = ?, deaths = ? WHERE n = ?",
                (tail.epoch, tail.holder, tail.deaths, tail.n),
            )
            return Claim(run, tail.epoch, tail.last_seq)

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
            if rows := forget(self._db, before, limit):
                self._wipe_below = self._journal.next
            return rows or self._wipe(limit)

    def _wipe(self, limit: int) -> int:
        """Overwrite what the journal still says of forgotten runs. Returns how many rows were written."""
        if not self._wipe_below:
            return 0
        unpaged = [tail for tail in self.open_runs.values() if tail.frames and tail.block < self._wipe_below]
        for tail in unpaged[:limit]:
            self._page(tail)
        self._release()
        rows = len(unpaged[:limit])
        rows += self._journal.wipe(self._wipe_below, limit - rows)
        if not rows:
            set_traceless(self._db)
            self._wipe_below = 0
        return rows

    # Events

    def commit(self, work: Sequence[Packed]) -> list[Appended | None]:
        """Append everything in one transaction. Raises LogUnwritable; then nothing was appended.

        Endings must find room even on a full disk, so they may spend the ballast.
        """
        try:
            return self._commit(work)
        except LogUnwritable:
            if not self._ballast.exists() or not all(_only_ends(entry) for entry, _, _ in work):
                raise
            self._ballast.unlink()
            return self._commit(work)

    def _commit(self, work: Sequence[Packed]) -> list[Appended | None]:
        with self._writing():
            body: list[bytes] = []
            touched: dict[str, Tail] = {}
            answers = self._append(work, body, touched)
            if body:
                self._journal.write(b"".join(body))
            for run, tail in touched.items():
                self._follow_up(run, tail)
            if self._journal.next - self._trimmed_at >= TRIM_BLOCKS:
                self._trim()
            return answers

    def _append(
        self, work: Sequence[Packed], body: list[bytes], touched: dict[str, Tail]
    ) -> list[Appended | None]:
        """Number the entries, or fence them off. It runs for every token: calls would cost it half again."""
        block = self._journal.next
        answers: list[Appended | None] = []
        for (claim, expected_seq, drafts), frames, seams in work:
            tail = self.open_runs.get(claim.run)
            answers.append(None)
            if tail is None or tail.epoch != claim.epoch or tail.last_seq != expected_seq:
                continue
            state: RunState | None = tail.state
            for kind, _, _ in drafts:
                state = NEXT.get((state, kind)) if state else None
            if state is None:
                continue
            last_seq = expected_seq + len(drafts)
            answers[-1] = Appended(last_seq, tail.stop_requested)
            if last_seq == expected_seq:
                continue
            body += (HEAD.pack(tail.n, expected_seq, last_seq, len(frames), len(seams)), frames, seams)
            size = tail.add(frames, seams, last_seq, block)
            if state is not tail.state or tail.deaths or size >= PAGE_BYTES:
                tail.state = state
                touched[claim.run] = tail
        return answers

    def _follow_up(self, run: str, tail: Tail) -> None:
        """What an append brings with it beside the journal."""
        if tail.deaths and tail.last_seq > 1:
            tail.deaths = 0
            self._db.execute("UPDATE runs SET deaths = 0 WHERE n = ?", (tail.n,))
        if tail.state.is_terminal:
            self._page(tail)
            self._end(run, tail)
        elif len(tail.frames) + len(tail.seams) >= PAGE_BYTES:
            self._page(tail)

    def _page(self, tail: Tail) -> None:
        self._db.execute(ADD_PAGE, (tail.n, tail.paged_seq + 1, tail.last_seq, tail.frames, tail.seams))
        tail.frames, tail.seams, tail.paged_seq = bytearray(), bytearray(), tail.last_seq

    def _end(self, run: str, tail: Tail) -> None:
        self._db.execute(
            "UPDATE runs SET state = ?, last_seq = ?, ended_at = ?, holder = NULL WHERE n = ?",
            (tail.state, tail.last_seq, time.time(), tail.n),
        )
        del self.open_runs[run]

    def _trim(self) -> None:
        """Let the journal forget what is paged; page what would make it keep too much."""
        self._trimmed_at = self._journal.next
        unpaged = [tail for tail in self.open_runs.values() if tail.frames]
        oldest = self._journal.next - JOURNAL_BYTES // BLOCK_BYTES
        for tail in [tail for tail in unpaged if tail.block < oldest][:TRIM_PAGES]:
            self._page(tail)
        self._release()

    def _release(self) -> None:
        blocks = (tail.block for tail in self.open_runs.values() if tail.frames)
        self._journal.release(min(blocks, default=self._journal.next))

    def tail_behind(self, run: str, after: int) -> Stretch | None:
        """What is behind ``after``, if there is something and all of it is in no page yet."""
        with self._reading():
            tail = self.open_runs.get(run)
            if tail is None or not tail.paged_seq <= after < tail.last_seq:
                return None
            seams = seams_behind(tail.seams, after - tail.paged_seq)
            return Stretch(behind(tail.frames, after), seams, tail.last_seq)

    def _restore_ballast(self) -> None:
        """Keep some space that only endings may use, where enough is left for everything else."""
        if not self._ballast.exists() and shutil.disk_usage(self._path.parent).free >= 2 * BALLAST_BYTES:
            with contextlib.suppress(OSError):
                self._ballast.write_bytes(bytes(BALLAST_BYTES))


def _only_ends(entry: Entry) -> bool:
    return all(draft.kind.is_terminal for draft in entry.events)
