"""What every log promises, and what SQLite's adds. Random tests print their seed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inkstream.errors import Fenced, FolderInUse, KeyReused, LogError, LogUnwritable, NotFound
from inkstream.events import Batch, Draft, Event, Kind, Note, RunState, encode, framed
from inkstream.log import Appended, Claim, Entry, Log, NewRun
from inkstream.log.sqlite import FETCH_BYTES, SqliteLog
from inkstream.log.store import JOURNAL_BYTES, LEASE_SECONDS, PAGE_BYTES

STARTED = Draft(Kind.STARTED, b'{"model":"m","seed":1}')
DONE = Draft(Kind.DONE, b'{"finish":"stop"}')
STOPPED = Draft(Kind.STOPPED, b"{}")

Opener = Callable[[], Awaitable[SqliteLog]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def sqlite_log(folder: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(folder)
    try:
        yield log
    finally:
        await log.aclose()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with sqlite_log(tmp_path) as log:
        yield log


def text(piece: str) -> Draft:
    return Draft(Kind.TEXT, encode({"text": piece}), piece.encode())


async def begin(log: Log, run: str = "r1") -> Claim:
    await log.create(NewRun(run, "local", b"record"))
    return await log.claim(run, 0)


async def append(log: Log, claim: Claim, at: int, *events: Draft) -> Appended | None:
    return await log.append(Entry(claim, at, events))


class Listener:
    """A reader that keeps what it is given, and is ready as long as it has room for another batch."""

    def __init__(self, room: float = math.inf) -> None:
        self.batches: list[Batch] = []
        self.room = room
        self._bell = asyncio.Event()

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch.events]

    @property
    def notes(self) -> list[Note]:
        return [note for batch in self.batches for note in batch.notes]

    def take(self, batch: Batch) -> bool:
        self.batches.append(batch)
        self.room -= 1
        self.ring()
        return self.room > 0

    async def ready(self) -> None:
        await self.until(lambda: self.room > 0)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._bell.wait()

    def ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()


@asynccontextmanager
async def following(log: Log, claim: Claim, *listeners: Listener) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Readers that have all there is of a run with no note, and wait for more; they have been given one."""
    tasks = [asyncio.create_task(log.follow(claim.run, 0, listener)) for listener in listeners]
    log.note(claim, "hello", b"{}")
    for listener in listeners:
        await listener.until(lambda: bool(listener.notes))  # noqa: B023  # it is asked at once
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def everything(log: Log, run: str, after: int = 0) -> list[Event]:
    listener = Listener()
    await log.follow(run, after, listener)
    assert b"".join(event.frame for event in listener.events) == b"".join(
        batch.frames[sum(len(note.frame) for note in batch.notes) :] for batch in listener.batches
    )
    return listener.events


async def fill(log: Log, claim: Claim, at: int, size: int) -> int:
    """Append that many bytes, token by token; return the last number."""
    for seq in itertools.count(at):
        if size <= 0:
            return seq
        piece = text(f"{claim.run}:{seq} " + 100 * ".")
        size -= len(piece.data) + len(piece.seam)
        assert await append(log, claim, seq, piece) == Appended(seq + 1, False)
    raise AssertionError("unreachable")


# Creating


async def test_a_run_is_created_once_per_key(log: Log) -> None:
    created = await asyncio.gather(
        *(log.create(NewRun(f"r{i}", "local", b"record", "key", b"hash")) for i in range(20))
    )
    assert sum(is_new for _, is_new in created) == 1
    assert len({run.id for run, _ in created}) == 1


async def test_a_key_with_another_body_is_refused(log: Log) -> None:
    await log.create(NewRun("r1", "local", b"record", "key", b"hash"))
    with pytest.raises(KeyReused):
        await log.create(NewRun("r2", "local", b"record", "key", b"other"))


async def test_keys_belong_to_a_principal(log: Log) -> None:
    await log.create(NewRun("r1", "ann", b"record", "key", b"hash"))
    run, is_new = await log.create(NewRun("r2", "ben", b"record", "key", b"other"))
    assert (run.id, is_new) == ("r2", True)


async def test_runs_without_a_key_are_all_new(log: Log) -> None:
    assert (await log.create(NewRun("r1", "local", b"")))[1]
    assert (await log.create(NewRun("r2", "local", b"")))[1]


# Appending


async def test_events_are_numbered_from_one_without_gaps(log: Log) -> None:
    claim = await begin(log)
    assert await append(log, claim, 0, STARTED, text("a")) == Appended(2, False)
    assert await append(log, claim, 2, text("b"), DONE) == Appended(4, False)
    events = await log.read("r1", 0, 100)
    assert [(e.epoch, e.seq, e.kind) for e in events] == [
        (1, 1, Kind.STARTED),
        (1, 2, Kind.TEXT),
        (1, 3, Kind.TEXT),
        (1, 4, Kind.DONE),
    ]
    assert [e.seam for e in events] == [b"", b"a", b"b", b""]


@pytest.mark.parametrize(
    ("before", "attempt"),
    [
        ([], [text("a")]),
        ([], [DONE]),
        ([STARTED], [STARTED]),
        ([STARTED, DONE], [text("late")]),
        ([STARTED, DONE], [STOPPED]),
        ([STOPPED], [DONE]),
        ([STARTED], [DONE, text("late")]),
        ([STARTED], [DONE, DONE]),
    ],
)
async def test_the_event_table_is_enforced(log: Log, before: list[Draft], attempt: list[Draft]) -> None:
    claim = await begin(log)
    if before:
        await append(log, claim, 0, *before)
    assert await append(log, claim, len(before), *attempt) is None
    assert [e.seq for e in await log.read("r1", 0, 10)] == list(range(1, len(before) + 1))


async def test_a_wrong_expected_number_is_fenced(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED)
    assert await append(log, claim, 0, text("again")) is None
    assert await append(log, claim, 2, text("gap")) is None


async def test_each_entry_of_a_commit_succeeds_or_is_fenced_on_its_own(log: Log) -> None:
    good, bad = await begin(log, "good"), await begin(log, "bad")
    await log.claim("bad", bad.epoch)
    unknown = Claim("nobody", 1, 0)
    entries = [Entry(bad, 0, [STARTED]), Entry(unknown, 0, [STARTED]), Entry(good, 0, [STARTED])]
    assert await asyncio.gather(*map(log.append, entries)) == [None, None, Appended(1, False)]


async def test_entries_of_one_run_may_share_a_commit(log: Log) -> None:
    claim = await begin(log)
    entries = [Entry(claim, 0, [STARTED]), Entry(claim, 1, [text("a")]), Entry(claim, 2, [text("b"), DONE])]
    answers = await asyncio.gather(*map(log.append, entries))
    assert answers == [Appended(1, False), Appended(2, False), Appended(4, False)]
    assert [e.seq for e in await everything(log, "r1")] == [1, 2, 3, 4]


async def test_an_entry_without_events_only_asks(log: Log) -> None:
    claim = await begin(log)
    assert await append(log, claim, 0) == Appended(0, False)
    await append(log, claim, 0, STARTED)
    await log.request_stop("r1")
    assert await append(log, claim, 1) == Appended(1, True)
    assert await append(log, claim, 0) is None
    assert [e.seq for e in await log.read("r1", 0, 10)] == [1]


async def test_an_event_is_stored_as_it_is_sent(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED, text("流\u2028式\n\ndata: "), text(""))
    expected = [
        framed(1, 1, Kind.STARTED, STARTED.data),
        'id: 1:2\nevent: text\ndata: {"text":"流\u2028式\\n\\ndata: "}\n\n'.encode(),
        b'id: 1:3\nevent: text\ndata: {"text":""}\n\n',
    ]
    events = await log.read("r1", 0, 10)
    assert [e.frame for e in events] == expected
    assert [e.payload for e in events[1:]] == [{"text": "流\u2028式\n\ndata: "}, {"text": ""}]


async def test_the_readers_have_the_events_before_the_appender_hears(log: Log) -> None:
    claim = await begin(log)
    listener = Listener()
    heard: list[tuple[object, int]] = []
    async with following(log, claim, listener):
        for seq, draft in enumerate([STARTED, text("a"), text("b")]):
            log.submit(
                Entry(claim, seq, [draft]), lambda answer: heard.append((answer, len(listener.events)))
            )
        assert heard == []
        await log.renew()
        await append(log, claim, 3)
    assert [answer for answer, _ in heard] == [Appended(seq, False) for seq in (1, 2, 3)]
    assert all(given >= seq for seq, (_, given) in enumerate(heard, 1))


async def test_an_appender_that_fails_does_not_hurt_the_others(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    claim, other = await begin(log), await begin(log, "other")

    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    with caplog.at_level(logging.ERROR, "inkstream.log"):
        log.submit(Entry(claim, 0, [STARTED]), fail)
        assert await append(log, other, 0, STARTED) == Appended(1, False)
    assert "a bug" in caplog.text
    assert len(await log.read("r1", 0, 10)) == 1


async def test_a_newer_claim_fences_the_older_one(log: Log) -> None:
    old = await begin(log)
    await append(log, old, 0, STARTED)
    new = await log.claim("r1", old.epoch)
    assert await append(log, old, 1, text("zombie")) is None
    assert await append(log, new, new.last_seq, text("heir")) == Appended(2, False)


async def test_of_many_claims_with_one_epoch_one_succeeds(log: Log) -> None:
    await log.create(NewRun("r1", "local", b""))
    results = await asyncio.gather(*(log.claim("r1", 0) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(r, Claim) for r in results) == 1
    assert all(isinstance(r, Claim | Fenced) for r in results)


async def test_an_ended_or_unknown_run_cannot_be_claimed(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STOPPED)
    for run in ("r1", "nobody"):
        with pytest.raises(Fenced):
            await log.claim(run, 1)


async def test_deaths_count_up_and_a_token_forgives_them(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED)
    claim = await log.claim("r1", claim.epoch, after_death=True)
    claim = await log.claim("r1", claim.epoch, after_death=True)
    run = await log.get("r1")
    assert run is not None
    assert run.deaths == 2
    await append(log, claim, 1, text("a"))
    run = await log.get("r1")
    assert run is not None
    assert run.deaths == 0


# Stopping


async def test_a_stop_reaches_the_holder_with_its_next_append(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED)
    assert (await log.request_stop("r1")).stop_requested
    assert await append(log, claim, 1, text("in flight")) == Appended(2, True)


async def test_stopping_an_ended_run_changes_nothing(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED, DONE)
    run = await log.request_stop("r1")
    assert (run.state, run.stop_requested) == (RunState.DONE, False)


async def test_stopping_an_unknown_run_says_so(log: Log) -> None:
    with pytest.raises(NotFound):
        await log.request_stop("nobody")


# Following


async def test_a_follower_sees_every_event_once_from_any_cursor(log: Log) -> None:
    claim = await begin(log)
    cursors = range(0, 40, 7)
    followers = [asyncio.create_task(everything(log, "r1", after)) for after in cursors]
    await append(log, claim, 0, STARTED)
    total = await fill(log, claim, 1, 3 * PAGE_BYTES + 500)
    await append(log, claim, total, DONE)
    for after, follower in zip(cursors, followers, strict=True):
        assert [e.seq for e in await follower] == list(range(after + 1, total + 2))
    for after in range(total + 2):
        assert [e.seq for e in await everything(log, "r1", after)] == list(range(after + 1, total + 2))
        assert [e.seq for e in await log.read("r1", after, 3)] == list(range(after + 1, total + 2))[:3]


async def test_a_cursor_beyond_every_event_reads_nothing(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED, DONE)
    for after in (2, 3, 2**31, 2**32, 2**33, 2**63, 2**70):
        assert await log.read("r1", after, 10) == []
        assert await everything(log, "r1", after) == []


async def test_a_long_replay_comes_in_pieces_of_bounded_size(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED)
    total = await fill(log, claim, 1, 3 * FETCH_BYTES)
    await append(log, claim, total, DONE)
    listener = Listener()
    await log.follow("r1", 0, listener)
    assert [e.seq for e in listener.events] == list(range(1, total + 2))
    assert len(listener.batches) >= 3
    assert max(len(batch.frames) for batch in listener.batches) <= FETCH_BYTES + PAGE_BYTES
    assert [batch.is_last for batch in listener.batches] == [False] * (len(listener.batches) - 1) + [True]


async def test_live_readers_share_one_batch_per_append(log: Log) -> None:
    claim = await begin(log)
    listeners = [Listener(), Listener(), Listener()]
    async with following(log, claim, *listeners):
        await append(log, claim, 0, STARTED, text("a"))
        await append(log, claim, 2, text("b"))
    for batches in zip(*(listener.batches for listener in listeners), strict=True):
        assert all(batch is batches[0] for batch in batches) or batches[0].notes
    assert [(b.last_seq, len(b.events)) for b in listeners[0].batches if not b.notes] == [(2, 2), (3, 1)]


async def test_a_reader_that_is_not_ready_goes_on_from_the_log(log: Log) -> None:
    claim = await begin(log)
    slow, quick = Listener(room=2), Listener()
    async with following(log, claim, slow, quick) as [following_slowly, _]:
        await append(log, claim, 0, STARTED)  # the second batch: it is taken, but no other after it
        total = await fill(log, claim, 1, 2 * PAGE_BYTES)
        log.note(claim, "prefill", b"0.5")
        assert [e.seq for e in slow.events] == [1]
        assert [e.seq for e in quick.events] == list(range(1, total + 1))
        slow.room = 1
        slow.ring()
        await slow.until(lambda: len(slow.batches) == 3)
        assert [note.key for note in slow.notes] == ["hello", "prefill"]
        slow.room = math.inf
        slow.ring()
        await append(log, claim, total, DONE)
        await following_slowly
    assert [e.seq for e in slow.events] == [e.seq for e in quick.events] == list(range(1, total + 2))
    assert len(slow.notes) == 2


async def test_a_reader_that_fails_hurts_nobody_else(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Listener):
        def take(self, batch: Batch) -> bool:
            if batch.events:
                raise RuntimeError("a broken reader")
            return super().take(batch)

    claim = await begin(log)
    broken, well = Broken(), Listener()
    with caplog.at_level(logging.ERROR, "inkstream.log"):
        async with following(log, claim, broken, well) as [failing, _]:
            assert await append(log, claim, 0, STARTED) == Appended(1, False)
            assert await append(log, claim, 1, text("a")) == Appended(2, False)
            with pytest.raises(RuntimeError, match="a broken reader"):
                await failing
        assert [e.seq for e in well.events] == [1, 2]
    assert "a broken reader" in caplog.text
    with pytest.raises(RuntimeError, match="a broken reader"):
        await log.follow("r1", 0, Broken())


async def test_a_cancelled_follower_is_given_nothing_more(log: Log) -> None:
    claim = await begin(log)
    leaving, staying = Listener(), Listener()
    async with following(log, claim, leaving, staying) as [left, _]:
        await append(log, claim, 0, STARTED)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        await append(log, claim, 1, text("a"))
    assert left.cancelled()
    assert [e.seq for e in leaving.events] == [1]
    assert [e.seq for e in staying.events] == [1, 2]


async def test_a_reader_may_send_another_away_while_it_takes(log: Log) -> None:
    tasks: list[asyncio.Task[None]] = []

    class Jealous(Listener):
        def take(self, batch: Batch) -> bool:
            for task in tasks[1:]:
                task.cancel()
            return super().take(batch)

    claim = await begin(log)
    jealous, others = Jealous(), [Listener(), Listener()]
    async with following(log, claim, jealous, *others) as started:
        tasks += started
        assert await append(log, claim, 0, STARTED) == Appended(1, False)
        assert await append(log, claim, 1, text("a"), DONE) == Appended(3, False)
        await started[0]
    assert [e.seq for e in jealous.events] == [1, 2, 3]
    assert all(task.cancelled() for task in started[1:])


async def test_readers_that_come_pause_and_leave_at_random_miss_nothing(log: Log) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    claim = await begin(log)
    await append(log, claim, 0, STARTED)
    followers: list[tuple[Listener, int, asyncio.Task[None]]] = []
    seq = 1
    for _ in range(400):
        drafts = [text(f"{seq + i} " + choose.randrange(200) * ".") for i in range(choose.randrange(1, 9))]
        log.submit(Entry(claim, seq, drafts), lambda _: None)
        seq += len(drafts)
        if choose.random() < 0.1:
            listener, after = Listener(room=choose.choice([1, 3, math.inf])), choose.randrange(seq)
            followers.append((listener, after, asyncio.create_task(log.follow("r1", after, listener))))
        for listener, _, task in followers:
            if choose.random() < 0.1:
                listener.room = choose.choice([1, 2, math.inf])
                listener.ring()
            elif choose.random() < 0.01:
                task.cancel()
        if choose.random() < 0.3:
            await asyncio.sleep(0)
    assert await append(log, claim, seq, DONE) == Appended(seq + 1, False)
    for listener, after, task in followers:
        listener.room = math.inf
        listener.ring()
        await asyncio.gather(task, return_exceptions=True)
        last = seq + 1 if not task.cancelled() else len(listener.events) + after
        assert [e.seq for e in listener.events] == list(range(after + 1, last + 1))


async def test_following_an_unknown_run_says_so(log: Log) -> None:
    with pytest.raises(NotFound):
        await everything(log, "nobody")


async def test_a_duplicate_create_can_be_followed_at_once(log: Log) -> None:
    new = NewRun("r1", "local", b"", "key")
    (first, _), (second, _) = await asyncio.gather(log.create(new), log.create(new))
    assert first == second
    follower = asyncio.create_task(everything(log, second.id))
    claim = await log.claim("r1", 0)
    await append(log, claim, 0, STOPPED)
    assert [e.kind for e in await follower] == [Kind.STOPPED]


async def test_current_notes_come_first_and_only_the_last_per_key(log: Log) -> None:
    claim = await begin(log)
    log.note(claim, "queued", b"3")
    log.note(claim, "queued", b"2")
    log.note(claim, "engine", b"loading")
    await append(log, claim, 0, STARTED)
    listener = Listener()
    follower = asyncio.create_task(log.follow("r1", 0, listener))
    await listener.until(lambda: bool(listener.batches))
    await append(log, claim, 1, DONE)
    await follower
    first = listener.batches[0]
    assert sorted(first.notes, key=lambda n: n.key) == [Note("engine", b"loading"), Note("queued", b"2")]
    assert first.frames.startswith(b"".join(note.frame for note in first.notes) + b"id: 1:1\n")
    assert [e.seq for e in listener.events] == [1, 2]
    assert len(listener.notes) == 2


async def test_a_note_is_given_at_once_and_carries_no_number(log: Log) -> None:
    claim = await begin(log)
    listener = Listener()
    async with following(log, claim, listener):
        log.note(claim, "prefill", b"0.5")
        assert listener.notes[-1] == Note("prefill", b"0.5")
        log.note(claim, "prefill", b"0.6")
        assert listener.batches[-1].frames == b"event: note\ndata: 0.6\n\n"
        assert (listener.batches[-1].last_seq, listener.batches[-1].events) == (0, [])


async def test_the_terminal_event_clears_the_notes(log: Log) -> None:
    claim = await begin(log)
    log.note(claim, "queued", b"1")
    await append(log, claim, 0, STOPPED)
    log.note(claim, "queued", b"2")
    listener = Listener()
    await log.follow("r1", 0, listener)
    assert (len(listener.events), listener.notes) == (1, [])


async def test_a_note_of_an_old_claim_or_beyond_the_bound_is_not_kept(log: Log) -> None:
    old = await begin(log)
    new = await log.claim("r1", old.epoch)
    log.note(old, "queued", b"zombie")
    with pytest.raises(ValueError, match="longer than"):
        log.note(new, "queued", bytes(32 * 1024 + 1))
    await append(log, new, 0, STARTED, DONE)
    listener = Listener()
    await log.follow("r1", 0, listener)
    assert (len(listener.events), listener.notes) == (2, [])


async def test_closing_ends_every_follower(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path) as log:
        await begin(log)
        follower = asyncio.create_task(everything(log, "r1"))
        await asyncio.sleep(0)
    assert await follower == []
    with pytest.raises(LogError):
        await log.get("r1")


async def test_what_is_submitted_is_committed_before_closing(tmp_path: Path) -> None:
    heard: list[object] = []
    async with sqlite_log(tmp_path) as log:
        claim = await begin(log)
        log.submit(Entry(claim, 0, [STARTED]), heard.append)
        await asyncio.sleep(0)  # the first commit is under way
        log.submit(Entry(claim, 1, [text("a")]), heard.append)
    assert heard == [Appended(1, False), Appended(2, False)]
    log.submit(Entry(claim, 2, [text("late")]), heard.append)
    assert len(heard) == 2
    with pytest.raises(LogError, match="closed"):
        await append(log, claim, 2, text("late"))
    assert isinstance(heard[2], LogError)
    async with sqlite_log(tmp_path) as log:
        assert len(await log.read("r1", 0, 10)) == 2


async def test_closing_lets_go_of_a_reader_in_mid_replay(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path) as log:
        claim = await begin(log)
        await append(log, claim, 0, STARTED)
        await fill(log, claim, 1, 2 * FETCH_BYTES)
        listener = Listener()
        follower = asyncio.create_task(log.follow("r1", 0, listener))
        await listener.until(lambda: bool(listener.batches))
    await follower
    assert [e.seq for e in listener.events] == list(range(1, len(listener.events) + 1))


async def test_a_cancelled_append_is_whole_or_absent(log: Log) -> None:
    claim = await begin(log)
    pending = asyncio.create_task(append(log, claim, 0, STARTED, text("a")))
    await asyncio.sleep(0)
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    await log.renew()  # behind it in the writer's queue
    assert len(await log.read("r1", 0, 10)) in (0, 2)


# Settling and expiry


async def test_open_runs_are_those_that_have_not_ended_or_are_not_settled(log: Log) -> None:
    ended, settled = await begin(log, "ended"), await begin(log, "settled")
    await begin(log, "live")
    await append(log, ended, 0, STOPPED)
    await append(log, settled, 0, STOPPED)
    await log.settle("settled")
    await log.settle("live")
    assert [(run.id, run.state) for run in await log.open_runs()] == [
        ("ended", RunState.STOPPED),
        ("live", RunState.QUEUED),
    ]


async def test_runs_that_somebody_looks_after_can_be_left_out(log: Log) -> None:
    for run in ("ended", "driven", "left"):
        await begin(log, run)
    await append(log, Claim("ended", 1, 0), 0, STOPPED)
    assert [run.id for run in await log.open_runs(but={"driven"})] == ["ended", "left"]
    assert [run.id for run in await log.open_runs(but={"ended", "left"})] == ["driven"]


async def test_only_settled_runs_expire_and_in_slices(log: Log) -> None:
    for run in ("a", "b", "c", "unsettled"):
        claim = await begin(log, run)
        await append(log, claim, 0, STARTED)
        await append(log, claim, await fill(log, claim, 1, 5 * PAGE_BYTES), DONE)
        if run != "unsettled":
            await log.settle(run)
    assert await log.expire(0.0, 100) == 0
    later = 2**40
    assert await log.expire(later, 3) == 3
    # The first is unknown before its events go, so that nobody reads half of it.
    assert await log.get("a") is None
    assert await log.read("a", 0, 10) == []
    assert len(await everything(log, "b")) > 10
    rows = 0
    while slice_rows := await log.expire(later, 4):
        assert slice_rows <= 4
        rows += slice_rows
    assert rows >= 15
    for run in ("a", "b", "c"):
        assert await log.get(run) is None
        assert await log.read(run, 0, 10) == []
    assert len(await everything(log, "unsettled")) > 10


async def test_a_reader_of_a_run_that_is_forgotten_ends_without_a_gap(log: Log) -> None:
    claim = await begin(log)
    await append(log, claim, 0, STARTED)
    await append(log, claim, await fill(log, claim, 1, 3 * FETCH_BYTES), DONE)
    await log.settle("r1")
    slow = Listener(room=1)
    follower = asyncio.create_task(log.follow("r1", 0, slow))
    await slow.until(lambda: bool(slow.batches))
    assert await log.expire(2**40, 1) == 1
    slow.room = math.inf
    slow.ring()
    await follower
    assert [e.seq for e in slow.events] == list(range(1, len(slow.events) + 1))


# Taking over


async def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path) as log:
        claim = await begin(log)
        await append(log, claim, 0, STARTED)
        total = await fill(log, claim, 1, PAGE_BYTES + 700)
        before = await log.read("r1", 0, 1000)
    async with sqlite_log(tmp_path) as log:
        assert await log.read("r1", 0, 1000) == before
        [run] = await log.open_runs()
        assert (run.state, run.last_seq, run.epoch) == (RunState.RUNNING, total, 1)
        heir = await log.claim("r1", 1)
        assert heir.last_seq == total
        assert await append(log, heir, total, DONE) == Appended(total + 1, False)
        assert [e.epoch for e in await everything(log, "r1", total - 1)] == [1, 2]


async def test_a_living_holder_is_not_robbed_and_a_dead_one_is(tmp_path: Path) -> None:
    holder, rival = await SqliteLog.attach(tmp_path), await SqliteLog.attach(tmp_path)
    claim = await begin(holder)
    with pytest.raises(Fenced):
        await rival.claim("r1", claim.epoch)
    _age_leases(tmp_path, LEASE_SECONDS + 1)
    await rival.renew()
    heir = await rival.claim("r1", claim.epoch)
    assert await append(rival, heir, 0, STARTED) == Appended(1, False)
    # The old holder wakes up: it can append nothing any more, whatever it believes.
    assert await append(holder, claim, 0, STARTED) is None
    assert await append(holder, claim, 1, text("zombie")) is None
    await rival.aclose()
    await holder.aclose()


async def test_closing_releases_the_claims(tmp_path: Path) -> None:
    holder, heir = await SqliteLog.attach(tmp_path), await SqliteLog.attach(tmp_path)
    claim = await begin(holder)
    await append(holder, claim, 0, STARTED)
    await holder.aclose()
    assert (await heir.claim("r1", 1)).last_seq == 1
    await heir.aclose()


def _age_leases(folder: Path, seconds: float) -> None:
    with sqlite3.connect(folder / "log.db") as db:
        db.execute("UPDATE instances SET renewed_at = renewed_at - ?", (seconds,))
    db.close()


async def test_a_second_gateway_on_the_folder_is_refused(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path):
        with pytest.raises(FolderInUse, match="INKSTREAM_DATA_DIR"):
            await SqliteLog.open(tmp_path)
    async with sqlite_log(tmp_path):
        pass


WRITER = """
import asyncio, sys
from pathlib import Path
from inkstream.events import Draft, Kind
from inkstream.log import Entry, NewRun
from inkstream.log.sqlite import SqliteLog

async def main():
    log = await SqliteLog.open(Path(sys.argv[1]))
    await log.create(NewRun("r1", "local", b""))
    claim = await log.claim("r1", 0)
    await log.append(Entry(claim, 0, [Draft(Kind.STARTED, b"{}")]))
    for seq in range(1, 10**6):
        await log.append(Entry(claim, seq, [Draft(Kind.TEXT, b'{"text":"%d"}' % seq)]))
        print(seq + 1, flush=True)
asyncio.run(main())
"""


def write_until_killed(folder: Path, lines: int) -> int:
    """Run a writer, kill it behind that many acknowledgements, return the last it gave."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        last = ""
        for _ in range(lines):
            last = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        complete = [line for line in [last, *writer.stdout] if line.endswith("\n")]
        return int(complete[-1])


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        lines = choose.randrange(1, 300)
        acknowledged = await asyncio.to_thread(write_until_killed, folder, lines)
        async with sqlite_log(folder) as log:
            seqs = [e.seq for e in await log.read("r1", 0, 10**6)]
            assert seqs == list(range(1, len(seqs) + 1))
            assert len(seqs) >= acknowledged
            # Its holder is known to be dead: no lease to wait for.
            assert (await log.claim("r1", 1)).last_seq == len(seqs)


# What memory and file must agree on


async def test_random_histories_read_the_same_from_memory_file_and_after_reopening(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    expected: dict[str, list[str]] = {}
    for _ in range(4):
        async with sqlite_log(tmp_path) as log:
            await _random_work(log, choose, expected)
            for run, pieces in expected.items():
                after = choose.randrange(len(pieces) + 1)
                events = await log.read(run, after, 10**6)
                assert [e.seq for e in events] == list(range(after + 1, len(pieces) + 1))
                assert [e.seam.decode() for e in events] == pieces[after:]


async def _random_work(log: Log, choose: random.Random, expected: dict[str, list[str]]) -> None:
    claims = {run.id: await log.claim(run.id, run.epoch) for run in await log.open_runs() if not run.ended_at}
    for _ in range(60):
        if choose.random() < 0.1:
            run = f"r{len(expected)}"
            claims[run], expected[run] = await begin(log, run), []
        chosen = choose.sample(sorted(claims), min(len(claims), choose.randrange(5)))
        entries = []
        for run in chosen:
            pieces = expected[run]
            drafts = [] if pieces else [STARTED]
            drafts += [text(f"{run}:{len(pieces)}:{i}") for i in range(choose.randrange(1, 20))]
            if choose.random() < 0.05:
                drafts.append(DONE)
                del claims[run]
            claim = Claim(run, (await log.get(run)).epoch, 0)  # type: ignore[union-attr]  # it exists
            entries.append(Entry(claim, len(pieces), drafts))
            pieces += [draft.seam.decode() for draft in drafts]
        assert None not in await asyncio.gather(*map(log.append, entries))


async def test_nothing_of_a_forgotten_run_comes_back_in_a_later_one(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path) as log:
        old = await begin(log, "old")
        await append(log, old, 0, STARTED, text("yesterday's"), DONE)
        await log.settle("old")
        assert await log.expire(2**40, 1) == 1
        await append(log, await begin(log, "new"), 0, STARTED)
    async with sqlite_log(tmp_path) as log:
        assert [e.seam for e in await log.read("new", 0, 10)] == [b""]


async def test_an_idle_run_does_not_hold_the_journal(tmp_path: Path) -> None:
    large = Draft(Kind.TEXT, encode({"text": 64_000 * "."}))
    async with sqlite_log(tmp_path) as log:
        idle, busy = await begin(log, "idle"), await begin(log, "busy")
        await append(log, idle, 0, STARTED, text("waiting"))
        await append(log, busy, 0, STARTED)
        for seq in range(1, 3 * JOURNAL_BYTES // (2 * len(large.data))):
            await append(log, busy, seq, large)
        with sqlite3.connect(tmp_path / "log.db") as db:
            assert db.execute("SELECT sum(length(body)) FROM journal").fetchone()[0] < JOURNAL_BYTES + 2**20
        db.close()
        assert [e.seam for e in await log.read("idle", 0, 10)] == [b"", b"waiting"]
    async with sqlite_log(tmp_path) as log:
        assert [e.seam for e in await log.read("idle", 0, 10)] == [b"", b"waiting"]


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(LogUnwritable, match=r"file.*INKSTREAM_DATA_DIR"):
        await SqliteLog.open(blocked)


async def test_a_log_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LogError, match="newer inkstream"):
        await SqliteLog.open(tmp_path)
    async with sqlite_log(tmp_path / "other"):
        pass


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


async def fill_disk(log: Log, claim: Claim) -> int:
    """Append to a run that has just started until nothing more fits; return its last number."""
    for seq in itertools.count(1):
        try:
            await append(log, claim, seq, text("x" * 2000))
        except LogUnwritable:
            return seq
    raise AssertionError("a disk ends")


@pytest.mark.real
async def test_an_ending_finds_room_on_a_disk_that_is_full(small_disk: Path) -> None:
    async with sqlite_log(small_disk) as log:
        claim = await begin(log)
        await append(log, claim, 0, STARTED)
        listener = Listener()
        async with following(log, claim, listener) as [follower]:
            seq = await fill_disk(log, claim)
            assert listener.events[-1].seq == seq  # nothing is shown that was not kept
            ending = Draft(Kind.FAILED, encode({"code": "disk_full"}))
            assert await append(log, claim, seq, ending) == Appended(seq + 1, False)
            await follower
        events = await log.read("r1", 0, 10**6)
        assert [e.seq for e in events] == list(range(1, seq + 2))
        assert events[-1].kind is Kind.FAILED
        assert b"".join(e.frame for e in listener.events) == b"".join(e.frame for e in events)


# A log of version 1

SCHEMA_1 = """
CREATE TABLE runs (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, key TEXT,
  body_hash BLOB NOT NULL, record BLOB NOT NULL, state TEXT NOT NULL, epoch INTEGER NOT NULL, holder TEXT,
  last_seq INTEGER NOT NULL,
  stop_requested INTEGER NOT NULL, deaths INTEGER NOT NULL, created_at REAL NOT NULL, ended_at REAL,
  settled INTEGER NOT NULL, UNIQUE (principal, key));
CREATE INDEX unsettled ON runs (n) WHERE settled = 0;
CREATE INDEX ended ON runs (ended_at) WHERE settled = 1;
CREATE TABLE journal (step INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE pages (
  run INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (run, first)) WITHOUT ROWID;
CREATE TABLE instances (id TEXT PRIMARY KEY, renewed_at REAL NOT NULL);
PRAGMA user_version = 1;
"""
KINDS_1 = (Kind.STARTED, Kind.TEXT, Kind.DONE, Kind.STOPPED, Kind.FAILED)


def body_1(n: int, first: int, *drafts: Draft, epoch: int = 1) -> bytes:
    """Events as version 1 kept them."""
    head = struct.Struct("<QIIBII")
    return b"".join(
        head.pack(n, epoch, seq, KINDS_1.index(draft.kind), len(draft.data), len(draft.seam))
        + draft.data
        + draft.seam
        for seq, draft in enumerate(drafts, first)
    )


def write_version_1(folder: Path) -> None:
    """A settled run, one that has ended, one in pages and journal, one in the journal, one that waits."""
    db = sqlite3.connect(folder / "log.db")
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA_1)
    runs: list[tuple[str, str, int, int, float | None, int]]
    runs = [("settled", "done", 1, 2, 9.0, 1), ("ended", "stopped", 1, 1, 9.0, 0)]
    runs += [("paged", "queued", 2, 0, None, 0), ("fresh", "queued", 1, 0, None, 0)]
    runs += [("waiting", "queued", 0, 0, None, 0)]
    for run, state, epoch, last_seq, ended_at, settled in runs:
        db.execute(
            "INSERT INTO runs (id, principal, key, body_hash, record, state, epoch, last_seq, stop_requested,"
            " deaths, created_at, ended_at, settled)"
            " VALUES (?, 'ann', ?, x'01', x'02', ?, ?, ?, 0, 1, 1.0, ?, ?)",
            (run, f"key of {run}", state, epoch, last_seq, ended_at, settled),
        )
    page_1 = [STARTED, *map(text, "0123456789")]
    pages = [(1, 1, 2, body_1(1, 1, STARTED, DONE)), (2, 1, 1, body_1(2, 1, STOPPED))]
    pages += [(3, 1, 11, body_1(3, 1, *page_1)), (3, 12, 13, body_1(3, 12, text("a"), text("b"), epoch=2))]
    db.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", pages)
    steps = [body_1(3, 11, text("9")) + body_1(1, 2, DONE), body_1(3, 12, text("a"), text("b"), epoch=2)]
    steps += [body_1(4, 1, STARTED) + body_1(3, 14, text("c"), epoch=2), body_1(4, 2, text("x"), text("y"))]
    db.executemany("INSERT INTO journal (body) VALUES (?)", [(step,) for step in steps])
    db.commit()
    db.close()


async def test_a_log_of_version_1_is_taken_over_with_all_its_events(tmp_path: Path) -> None:
    write_version_1(tmp_path)
    for _ in range(2):  # and it stays so
        async with sqlite_log(tmp_path) as log:
            seams = {
                run: [e.seam for e in await log.read(run, 0, 99)] for run in ("settled", "ended", "fresh")
            }
            assert seams == {"settled": [b"", b""], "ended": [b""], "fresh": [b"", b"x", b"y"]}
            paged = await log.read("paged", 0, 99)
            assert [e.payload.get("text") for e in paged[1:]] == [*"0123456789abc"]
            assert [(e.seq, e.epoch) for e in paged] == [(n, 1 if n < 12 else 2) for n in range(1, 15)]
            assert [(run.id, run.state, run.last_seq, run.deaths) for run in await log.open_runs()] == [
                ("ended", RunState.STOPPED, 1, 1),
                ("paged", RunState.RUNNING, 14, 1),
                ("fresh", RunState.RUNNING, 3, 1),
                ("waiting", RunState.QUEUED, 0, 1),
            ]
    async with sqlite_log(tmp_path) as log:
        claim = await log.claim("paged", 2)
        assert await append(log, claim, 14, text("d"), DONE) == Appended(16, False)
        assert [e.seq for e in await everything(log, "paged")] == list(range(1, 17))
        assert await append(log, await log.claim("waiting", 0), 0, STARTED) == Appended(1, False)
        assert not (await log.create(NewRun("again", "ann", b"", "key of fresh", b"\x01")))[1]
        assert await log.expire(2**40, 99) == 2


async def test_taking_over_an_older_log_is_all_or_nothing(tmp_path: Path) -> None:
    write_version_1(tmp_path)
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("UPDATE pages SET body = x'ff' WHERE run = 3")
    db.close()
    with pytest.raises(LogError, match=r"log\.db.*damaged"):
        await SqliteLog.open(tmp_path)
    with sqlite3.connect(tmp_path / "log.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM pages").fetchone() == (4,)
    db.close()
