"""What every log promises. Random tests print their seed."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inkstream.errors import Fenced, KeyReused, LogError, NotFound
from inkstream.events import Batch, Draft, Kind, Note, RunState, framed
from inkstream.log import Appended, Claim, Entry, Log, NewRun
from inkstream.log.pages import FETCH_BYTES
from inkstream.log.store import PAGE_BYTES
from tests.log_world import (
    DONE,
    STARTED,
    STOPPED,
    Listener,
    append,
    begin,
    everything,
    fill,
    following,
    sqlite_log,
    text,
)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with sqlite_log(tmp_path) as log:
        yield log


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
