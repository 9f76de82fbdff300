"""The token log on SQLite: one gateway, one folder, nothing to install.

One writer thread owns the store. Appends that arrive while a commit is under way go into the next one
together, so a write carries what came during the last commit and no timer is needed. Readers are served
from memory as long as their cursor is in the run's unpaged tail, else from pages on a connection of their
own, one page of rows at a time, so that no read transaction outlives it. Checkpoints have a third thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from filelock import FileLock, Timeout

from inkstream.errors import FolderInUse, LogError, LogUnwritable, NotFound
from inkstream.events import Event, Note
from inkstream.log import Appended, Claim, Entry, NewRun, Run
from inkstream.log.store import PAGE_EVENTS, Committed, Store, Tail, connect, read_pages

FOLLOW_EVENTS = 256
NOTE_BYTES = 32 * 1024
CHECKPOINT_COMMITS = 512

T = TypeVar("T")
Answer = asyncio.Future[list[Appended | None]]


@dataclass(slots=True)
class Feed:
    """What the followers of a live run share: its newest events, its notes, and a bell.

    ``events`` reaches back at least to the first event that is in no page yet.
    """

    epoch: int
    last_seq: int
    events: list[Event] = field(default_factory=list)
    notes: dict[str, tuple[int, Note]] = field(default_factory=dict)
    version: int = 0
    bell: asyncio.Event | None = None  # there is one only while somebody listens

    def listen(self) -> asyncio.Event:
        if self.bell is None:
            self.bell = asyncio.Event()
        return self.bell

    def ring(self) -> None:
        if self.bell is not None:
            self.bell.set()
            self.bell = None

    def add(self, events: list[Event]) -> None:
        self.events.extend(events)
        self.last_seq = events[-1].seq
        if len(self.events) > 2 * PAGE_EVENTS:
            del self.events[:-PAGE_EVENTS]  # a tail shorter than a page is all that is unpaged
        self.ring()

    def notes_after(self, version: int) -> list[Note]:
        return [note for at, note in self.notes.values() if at > version]

    def behind(self, after: int) -> list[Event] | None:
        """The events behind ``after``, or None if some of them are no longer here."""
        if after >= self.last_seq:
            return []
        if not self.events or self.events[0].seq > after + 1:
            return None
        return self.events[after + 1 - self.events[0].seq :]


class SqliteLog:
    """See ``inkstream.log.Log`` for what every call promises."""

    def __init__(self, folder: Path, store: Store, lock: FileLock | None) -> None:
        self._path = folder / "log.db"
        self._store = store
        self._lock = lock
        self._writer = ThreadPoolExecutor(1, "log-writer")
        self._readers = ThreadPoolExecutor(2, "log-reader")
        self._checkpointer = ThreadPoolExecutor(1, "log-checkpoint")
        self._reader = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._feeds = {run: _feed_of(tail) for run, tail in store.open_runs.items()}
        self._pending: list[tuple[Sequence[Entry], Answer]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits = 0
        self._is_closed = False

    @classmethod
    async def open(cls, folder: Path, *, durability: str = "process") -> Self:
        """Lock the folder, bury whoever held it before, and load what was going on.

        Raises FolderInUse if another gateway is alive on it, LogUnwritable, LogError.
        """
        lock = _lock(folder)
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
        store = await asyncio.to_thread(Store, folder, instance, durable=durability == "power")
        log = cls(folder, store, lock)
        await log.renew()
        return log

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        return await self._write(partial(self._store.create, new), self._created)

    async def get(self, run: str) -> Run | None:
        return await self._write(partial(self._store.get, run))

    async def find(self, principal: str, key: str) -> Run | None:
        return await self._write(partial(self._store.find, principal, key))

    async def claim(self, run: str, seen_epoch: int, *, after_death: bool = False) -> Claim:
        claim, _ = await self._write(partial(self._store.claim, run, seen_epoch, after_death), self._claimed)
        return claim

    async def append(self, batch: Sequence[Entry]) -> list[Appended | None]:
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._pending.append((batch, answer))
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._commit)  # what else this turn of the loop appends comes along
        return await answer

    def note(self, claim: Claim, key: str, payload: bytes) -> None:
        if len(payload) > NOTE_BYTES:
            raise ValueError(f"a note of {len(payload)} bytes is longer than {NOTE_BYTES}")
        feed = self._feeds.get(claim.run)
        if feed is not None and feed.epoch == claim.epoch:
            feed.version += 1
            feed.notes[key] = (feed.version, Note(key, payload))
            feed.ring()

    async def request_stop(self, run: str) -> Run:
        return await self._write(partial(self._store.request_stop, run))

    async def read(self, run: str, after: int, limit: int) -> list[Event]:
        feed = self._feeds.get(run)
        events = feed.behind(after) if feed else None
        if events is not None:
            return events[:limit]
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        events = await loop.run_in_executor(self._readers, self._read_pages, run, after, limit)
        if feed is not None and len(events) < limit:  # behind the last page comes what is in none
            events += feed.behind(events[-1].seq if events else after) or []
        return events[:limit]

    async def follow(self, run: str, after: int) -> AsyncGenerator[list[Event | Note]]:
        if run not in self._feeds and await self.get(run) is None:
            raise NotFound(f"there is no run {run!r}.", code="unknown_run")
        cursor, version = after, 0
        while not self._is_closed:
            feed = self._feeds.get(run)
            bell = feed.listen() if feed else None
            notes: list[Note] = []
            if feed is not None and feed.version > version:
                notes, version = feed.notes_after(version), feed.version
            events = await self.read(run, cursor, FOLLOW_EVENTS)
            if events or notes:
                yield [*notes, *events]
            if events and events[-1].kind.is_terminal:
                return
            if events:
                cursor = events[-1].seq
            elif bell is None:
                return
            elif not notes:
                await bell.wait()

    async def open_runs(self) -> list[Run]:
        return await self._write(self._store.unsettled)

    async def settle(self, run: str) -> None:
        await self._write(partial(self._store.settle, run))

    async def expire(self, before: float, limit: int) -> int:
        return await self._write(partial(self._store.expire, before, limit))

    async def renew(self) -> None:
        await self._write(self._store.renew)

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for feed in self._feeds.values():
            feed.ring()
        await self._idle.wait()
        await asyncio.to_thread(self._close_threads)
        if self._lock is not None:
            self._lock.release()

    def _close_threads(self) -> None:
        self._readers.shutdown()
        self._checkpointer.shutdown()
        self._writer.submit(self._store.close).result()
        self._writer.shutdown()
        for connection in self._connections:
            connection.close()

    # Writing. Feeds are touched in done-callbacks, which run in the order of the writer's calls.

    async def _write(self, call: Callable[[], T], done: Callable[[T], None] | None = None) -> T:
        """Run on the writer's thread. A cancelled caller leaves the call to finish."""
        self._refuse_if_closed()
        answer = asyncio.get_running_loop().run_in_executor(self._writer, call)
        if done is not None:
            answer.add_done_callback(partial(_if_it_went_well, done))
        return await asyncio.shield(answer)

    def _created(self, created: tuple[Run, bool]) -> None:
        run, is_new = created
        if is_new:
            self._feeds[run.id] = Feed(run.epoch, 0)

    def _claimed(self, claimed: tuple[Claim, list[Event]]) -> None:
        claim, unpaged = claimed
        feed = self._feeds.setdefault(claim.run, Feed(claim.epoch, claim.last_seq, unpaged))
        feed.epoch, feed.notes = claim.epoch, {}
        if feed.last_seq != claim.last_seq:  # somebody else appended meanwhile
            feed.last_seq, feed.events = claim.last_seq, unpaged
            feed.ring()

    def _commit(self) -> None:
        work, self._pending = self._pending, []
        batches = [batch for batch, _ in work]
        commit = asyncio.get_running_loop().run_in_executor(self._writer, self._store.commit, batches)
        commit.add_done_callback(partial(self._committed, work))

    def _committed(
        self, work: list[tuple[Sequence[Entry], Answer]], commit: asyncio.Future[list[Committed]]
    ) -> None:
        error = commit.exception()
        for at, (_, answer) in enumerate(work):
            if error is None:
                committed = commit.result()[at]
                self._publish(committed)
            if answer.done():  # its caller was cancelled
                continue
            if error is None:
                answer.set_result(commit.result()[at].results)
            else:
                answer.set_exception(error)
        self._go_on()

    def _go_on(self) -> None:
        self._commits += 1
        if self._commits % CHECKPOINT_COMMITS == 0 and not self._is_closed:
            self._checkpointer.submit(_checkpoint, self._path)
        if self._pending:
            self._commit()
        else:
            self._idle.set()

    def _publish(self, committed: Committed) -> None:
        for run, events in committed.events:
            feed = self._feeds.get(run)
            if feed is None:
                continue
            if events[-1].kind.is_terminal:
                del self._feeds[run]
            feed.add(events)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise LogError("the log is closed.", code="closed")

    # Reading

    def _read_pages(self, run: str, after: int, limit: int) -> list[Event]:
        db: sqlite3.Connection | None = getattr(self._reader, "db", None)
        if db is None:
            db = self._reader.db = connect(self._path, read_only=True)
            self._connections.append(db)
        try:
            return read_pages(db, run, after, limit)
        except sqlite3.OperationalError as error:
            raise LogError(f"the log {self._path} cannot be read: {error}", code="log_unreadable") from error


def _feed_of(tail: Tail) -> Feed:
    return Feed(tail.epoch, tail.last_seq, list(tail.events))


def _if_it_went_well(done: Callable[[T], None], answer: asyncio.Future[T]) -> None:
    if not answer.cancelled() and answer.exception() is None:
        done(answer.result())


def _checkpoint(path: Path) -> None:
    """Move what is committed from the write-ahead file into the database, beside readers and writer."""
    db = connect(path)
    try:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.OperationalError:
        pass  # nothing is lost: the write-ahead file keeps it, and the next checkpoint tries again
    finally:
        db.close()


def _lock(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "gateway.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUse(
            f"another inkstream is running on {folder}. Stop it, or give this one a folder of its own"
            " with INKSTREAM_DATA_DIR."
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
        _lock(folder).release()
    except FolderInUse:
        return True
    return False
