"""The token log on SQLite: one gateway, one folder, nothing to install.

One writer thread owns the store. Entries that arrive while a commit is under way go into the next one
together, so a write carries what came during the last commit and no timer is needed. Their frames are encoded
on the loop while the thread waits for the disk, and go as they are into journal and pages, and to readers.

Readers that have everything are served on the loop, when the commit is answered; others from the run's
unpaged tail, by the writer, or from pages on a connection of their own, a fetch at a time, so that no read
transaction outlives it. Checkpoints have a third thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from filelock import FileLock, Timeout

from inkstream.database import checkpoint, damaged
from inkstream.errors import FolderInUse, LogError, LogUnwritable, NotFound
from inkstream.events import ENDINGS, Batch, Event, Note
from inkstream.log import Appended, Claim, Done, Entry, NewRun, Reader, Run
from inkstream.log.feed import Feed, Follower
from inkstream.log.packing import Stretch, pack
from inkstream.log.pages import FETCH_BYTES, Pages
from inkstream.log.schema import FILE
from inkstream.log.store import PAGE_BYTES, Packed, Store
from inkstream.log.tally import LogTally
from inkstream.writer import Writer, resolve

logger = logging.getLogger(__name__)

FETCH_PAGES = FETCH_BYTES // PAGE_BYTES
TAIL_EVENTS = 64  # a cursor that is closer to the end is likely to be in the tail
NOTE_BYTES = 32 * 1024
CLOSED = "closed"

T = TypeVar("T")
Answers = list[Appended | None] | Exception


class SqliteLog:
    """See ``inkstream.log.Log`` for what every call promises."""

    def __init__(self, folder: Path, store: Store, lock: FileLock | None) -> None:
        self.tally = LogTally()
        self._path = folder / FILE
        self._loop = asyncio.get_running_loop()
        self._store, self._writer = store, Writer("log")
        self._lock = lock
        self._pages = Pages(self._path)
        self._readers = ThreadPoolExecutor(2, "log-reader")
        self._checkpointer = ThreadPoolExecutor(1, "log-checkpoint")
        self._feeds = {run: Feed(tail.epoch, tail.last_seq) for run, tail in store.open_runs.items()}
        self._pending: list[Packed] = []
        self._pending_done: list[Done] = []
        self._is_idle, self._drained = True, asyncio.Event()
        self._checkpoint: Future[bool] | None = None
        self._wal_holds_traces = True  # of runs that are forgotten
        self._is_closed = False

    @classmethod
    async def open(cls, folder: Path, *, durability: str = "process") -> Self:
        """Lock the folder, bury whoever held it before, and load what was going on.

        Raises FolderInUse if another gateway is alive on it, LogUnwritable, LogError.
        """
        lock = lock_folder(folder)
        try:
            log = await cls.attach(folder, durability=durability, lock=lock)
            await log._write(log._store.bury_others)
        except BaseException:
            lock.release()
            raise
        return log

    @classmethod
    async def attach(cls, folder: Path, *, durability: str = "process", lock: FileLock | None = None) -> Self:
        """Open without taking the folder's lock; claims are then decided by leases."""
        instance = uuid.uuid4().hex
        try:
            store = await asyncio.to_thread(Store, folder, instance, durable=durability == "power")
        except sqlite3.DatabaseError as error:  # a lock or a full disk is LogUnwritable
            raise damaged(folder / FILE, error) from error
        log = cls(folder, store, lock)
        log._writer.start()
        await log.renew()
        return log

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        return await self._write(partial(self._store.create, new), self._created)

    async def get(self, run: str) -> Run | None:
        return await self._write(partial(self._store.get, run))

    async def find(self, principal: str, key: str) -> Run | None:
        return await self._write(partial(self._store.find, principal, key))

    async def claim(self, run: str, seen_epoch: int, *, after_death: bool = False) -> Claim:
        return await self._write(partial(self._store.claim, run, seen_epoch, after_death), self._claimed)

    def submit(self, entry: Entry, done: Done) -> None:
        if self._is_closed:
            self._loop.call_soon(done, LogError("the log is closed.", code=CLOSED))
            return
        claim, expected_seq, drafts = entry
        self._pending.append((entry, *pack(claim.epoch, expected_seq, drafts)))
        self._pending_done.append(done)
        if self._is_idle:
            self._is_idle = False
            self._loop.call_soon(self._commit)  # what else this turn of the loop submits comes along

    async def append(self, entry: Entry) -> Appended | None:
        answer: asyncio.Future[Appended | None] = self._loop.create_future()
        self.submit(entry, partial(resolve, answer))
        return await answer

    def note(self, claim: Claim, key: str, payload: bytes) -> None:
        if len(payload) > NOTE_BYTES:
            raise ValueError(f"a note of {len(payload)} bytes is longer than {NOTE_BYTES}")
        feed = self._feeds.get(claim.run)
        if feed is not None and feed.epoch == claim.epoch:
            feed.note(Note(key, payload))

    async def request_stop(self, run: str) -> Run:
        return await self._write(partial(self._store.request_stop, run))

    async def read(self, run: str, after: int, limit: int) -> list[Event]:
        events: list[Event] = []
        while len(events) < limit:
            pages = min(FETCH_PAGES, limit - len(events))
            stretch = await self._stretch(run, after + len(events), pages, with_seams=True)
            if stretch is None:
                break
            events += stretch.events()
        return events[:limit]

    async def follow(self, run: str, after: int, reader: Reader, *, waits: bool = True) -> None:
        if run not in self._feeds and await self.get(run) is None:
            raise NotFound(f"there is no run {run!r}.", code="unknown_run")
        follower = Follower(reader, after)
        try:
            await self._follow(run, follower, waits)
        except LogError as error:
            if error.code != CLOSED:
                raise

    async def _follow(self, run: str, follower: Follower, waits: bool) -> None:
        begun = self._feeds.get(run)
        # Where it stands now: it may grow faster than it is read.
        enough = begun.last_seq if begun is not None and not waits else None
        while not (follower.has_ended or self._is_closed):
            if not follower.is_ready:
                follower.is_ready = True
                await follower.reader.ready()
                continue
            feed = self._feeds.get(run)
            if feed is not None and follower.cursor >= (feed.last_seq if enough is None else enough):
                if not (waits or feed.has_notes_for(follower)):
                    return
                await feed.serve(follower)
            elif not await self._catch_up(run, follower):
                return

    async def _catch_up(self, run: str, follower: Follower) -> bool:
        """Give the follower one fetch of what is stored. Says whether there may be more."""
        is_live = run in self._feeds
        stretch = await self._stretch(run, follower.cursor, FETCH_PAGES)
        if stretch is None:
            return is_live
        self.tally.replayed_events += stretch.last_seq - follower.cursor
        self.tally.replayed_bytes += len(stretch.frames)
        feed = self._feeds.get(run)
        notes = feed.notes_for(follower) if feed is not None else ()
        follower.take(Batch(stretch.frames, stretch.last_seq, is_last=stretch.is_last, notes=notes))
        return True

    async def open_runs(self, *, but: Container[str] = ()) -> list[Run]:
        return await self._write(partial(self._store.unsettled, but))

    async def settle(self, run: str) -> None:
        await self._write(partial(self._store.settle, run))

    async def expire(self, before: float, limit: int) -> int:
        rows = await self._write(partial(self._store.expire, before, limit))
        if rows:
            self._wal_holds_traces = True
        elif self._wal_holds_traces:
            self._refuse_if_closed()
            whole = partial(checkpoint, self._path, is_whole=True)
            if await self._loop.run_in_executor(self._checkpointer, whole):
                self._wal_holds_traces = not await self._write(self._store.empty_wal)
        return rows

    async def renew(self) -> None:
        await self._write(self._store.renew)

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for feed in self._feeds.values():
            feed.release_all()
        if not self._is_idle:
            self._drained.clear()
            await self._drained.wait()
        await self._ask(self._store.close)
        await self._writer.stop()
        await asyncio.to_thread(self._close_readers)
        if self._lock is not None:
            self._lock.release()

    def _close_readers(self) -> None:
        self._readers.shutdown()
        self._checkpointer.shutdown()
        self._pages.close()

    # Writing. What the writer answers is heard in the order in which it was asked.

    async def _write(self, call: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Have the writer call it. A cancelled caller leaves the call to finish, and ``then`` to follow."""
        self._refuse_if_closed()
        return await self._ask(call, then)

    async def _ask(self, call: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        def answered(result: T | Exception) -> None:
            self._checkpoint_if_due()
            if then is not None and not isinstance(result, Exception):
                then(result)

        return await self._writer.ask(call, answered)

    def _created(self, created: tuple[Run, bool]) -> None:
        run, is_new = created
        if is_new:
            self._feeds[run.id] = Feed(run.epoch, 0)

    def _claimed(self, claim: Claim) -> None:
        feed = self._feeds.setdefault(claim.run, Feed(claim.epoch, claim.last_seq))
        feed.pass_on(claim.epoch, claim.last_seq)

    def _commit(self) -> None:
        work, self._pending = self._pending, []
        done, self._pending_done = self._pending_done, []
        told = partial(self._committed, work, done)
        if self.tally.is_timed():
            told = partial(self._timed, time.perf_counter(), told)
        self._writer.do(partial(self._store.commit, work), told)

    def _timed(self, asked_at: float, told: Callable[[Answers], None], answers: Answers) -> None:
        self.tally.seconds.observe(time.perf_counter() - asked_at)
        told(answers)

    def _committed(self, work: list[Packed], done: list[Done], answers: Answers) -> None:
        if isinstance(answers, Exception):
            error = _as_log_error(answers)
            for told in done:
                _tell(told, error)
        else:
            for packed, told, answer in zip(work, done, answers, strict=True):
                if answer is not None:
                    self._publish(packed, answer.seq)
                _tell(told, answer)
        self._go_on()

    def _go_on(self) -> None:
        self._checkpoint_if_due()
        if self._pending:
            self._commit()
        else:
            self._is_idle = True
            self._drained.set()

    def _checkpoint_if_due(self) -> None:
        is_running = self._checkpoint is not None and not self._checkpoint.done()
        if not self._is_closed and not is_running and self._store.is_checkpoint_due():
            self._checkpoint = self._checkpointer.submit(checkpoint, self._path)

    def _publish(self, packed: Packed, last_seq: int) -> None:
        (claim, expected_seq, drafts), frames, _ = packed
        feed = self._feeds.get(claim.run)
        if feed is None or not drafts:
            return
        is_last = drafts[-1].kind in ENDINGS
        if is_last:
            del self._feeds[claim.run]
        feed.publish(expected_seq, last_seq, frames, is_last=is_last)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise LogError("the log is closed.", code=CLOSED)

    # Reading

    async def _stretch(self, run: str, after: int, pages: int, *, with_seams: bool = False) -> Stretch | None:
        """Some of what is stored behind ``after``; None if nothing is."""
        while True:
            feed = self._feeds.get(run)
            if feed is not None and feed.last_seq - after < TAIL_EVENTS:
                tail = await self._write(partial(self._store.tail_behind, run, after))
                if tail is not None:
                    return tail
            self._refuse_if_closed()
            read = partial(self._pages.read, run, after, pages, with_seams)
            paged = await self._loop.run_in_executor(self._readers, read)
            if paged is not None or feed is None:
                return paged
            tail = await self._write(partial(self._store.tail_behind, run, after))
            if tail is not None or after >= feed.last_seq:
                return tail


def _tell(done: Done, outcome: Appended | LogError | None) -> None:
    try:
        done(outcome)
    except Exception:
        logger.exception("whoever appended could not take the answer")  # the others are told all the same


def _as_log_error(error: Exception) -> LogError:
    if isinstance(error, LogError):
        return error
    logger.error("a commit failed", exc_info=error)
    return LogError(f"the commit failed: {error!r}")


def lock_folder(folder: Path) -> FileLock:
    """Be the only one on the folder, until the lock is released. Raises FolderInUse, LogUnwritable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "gateway.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUse(
            f"another inkstream is running on {folder}, and one gateway serves a folder, however many readers"
            " it has. Stop it, or give this one a folder of its own with --data-dir; both can join one"
            " 'inkstream engine' with --engine-url."
        ) from None
    except OSError as error:
        raise LogUnwritable(
            f"the folder {folder} cannot be written: {error.strerror}. Free it, or set INKSTREAM_DATA_DIR."
        ) from error
    return lock


def is_in_use(folder: Path) -> bool:
    """Whether a gateway is alive on the folder. Creates nothing."""
    if not (folder / "gateway.lock").exists():
        return False
    try:
        lock_folder(folder).release()
    except FolderInUse:
        return True
    return False
