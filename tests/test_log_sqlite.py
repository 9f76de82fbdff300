"""What SQLite's log adds to what every log promises. Random tests print their seed."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inkstream.database import WAL_PAGES
from inkstream.errors import Fenced, FolderInUse, LogError, LogUnwritable
from inkstream.events import Draft, Kind, RunState, encode
from inkstream.log import Appended, Claim, Entry, Log, NewRun
from inkstream.log.sqlite import SqliteLog
from inkstream.log.store import JOURNAL_BYTES, LEASE_SECONDS, PAGE_BYTES
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
        with pytest.raises(FolderInUse, match="--data-dir"):
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


# What a day leaves behind


def pages_of(folder: Path) -> int:
    """How long the file is, or will be when the write-ahead file has gone into it."""
    with sqlite3.connect(folder / "log.db") as db:
        pages: int = db.execute("PRAGMA page_count").fetchone()[0]
    db.close()
    return pages


async def test_the_file_does_not_grow_from_day_to_day(tmp_path: Path) -> None:
    runs, steps = 100, 60
    sizes = []
    async with sqlite_log(tmp_path) as log:
        for day in range(8):
            claims = [await begin(log, f"{day}:{number}") for number in range(runs)]
            await asyncio.gather(*(append(log, claim, 0, STARTED) for claim in claims))
            for seq in range(1, steps):
                await asyncio.gather(*(append(log, claim, seq, text(400 * ".")) for claim in claims))
            await asyncio.gather(*(append(log, claim, steps, DONE) for claim in claims))
            for claim in claims:
                await log.settle(claim.run)
            while await log.expire(2**40, 64):
                pass
            sizes.append(pages_of(tmp_path))
        assert (tmp_path / "log.db-wal").stat().st_size < 2 * WAL_PAGES * 4096
    assert max(sizes) < 1.05 * sizes[0], sizes


async def test_appends_go_on_between_the_slices_of_an_expiry(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path) as log:
        for run in range(20):
            claim = await begin(log, f"old {run}")
            await append(log, claim, 0, STARTED)
            await append(log, claim, await fill(log, claim, 1, 4 * PAGE_BYTES), DONE)
            await log.settle(claim.run)
        claim = await begin(log, "live")
        slices, seq = 0, 0
        while await log.expire(2**40, 8):
            assert await append(log, claim, seq, text(".") if seq else STARTED) == Appended(seq + 1, False)
            slices, seq = slices + 1, seq + 1
        assert slices >= 10
        assert [e.seq for e in await log.read("live", 0, 99)] == list(range(1, seq + 1))
