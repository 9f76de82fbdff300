"""That what was deleted is in no file any more, when the time for it has come."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import sqlite3
from pathlib import Path

import httpx
import pytest

from inkstream.engines.scripted import Script
from inkstream.events import Draft, Kind, encode
from inkstream.log import Entry, NewRun
from inkstream.log.sqlite import SqliteLog
from tests.live import Live, serving

SECRET = "龘靐齉 xylophonic"
# In the search index a piece is spelled in hexadecimal, without what it has in common with the one before.
TRACES = [SECRET.encode(), "靐".encode().hex().encode()]


def traces(folder: Path, *wanted: bytes) -> dict[str, int]:
    """In which files how much of it can still be read."""
    counts = {
        path.name: sum(map(path.read_bytes().count, wanted)) for path in folder.rglob("*") if path.is_file()
    }
    return {name: count for name, count in counts.items() if count}


async def test_a_deleted_conversation_leaves_every_file_of_a_server_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, Script(answer=f"So you said {SECRET}. " * 50)) as live, client(live) as http:
        chats = [await said(http, f"{SECRET} {number}") for number in range(5)]
        await live.until_idle()
        assert set(traces(tmp_path, *TRACES)) >= {"history.db-wal", "log.db-wal"}
    monkeypatch.setattr("inkstream.runs.RENEW_SECONDS", 0.02)
    script = Script(answer_tokens=4000, tokens_per_second=100)
    at_once = {"undo_hours": 0.0, "retention_hours": 0.0}
    async with serving(tmp_path, script, **at_once) as live, client(live) as http:
        kept = await said(http, "and this is kept")
        await live.until(lambda: live.engine.active)
        for chat in chats:
            assert (await http.delete(f"/api/chats/{chat}")).status_code == 204
        await live.until(lambda: not traces(tmp_path, *TRACES))
        assert live.engine.active == 1
        assert (await http.get(f"/api/chats/{kept}")).status_code == 200
        assert (await http.get(f"/api/chats/{chats[0]}")).json()["error"]["code"] == "unknown_chat"


def client(live: Live) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=live.url, trust_env=False)


async def said(http: httpx.AsyncClient, question: str) -> str:
    chat: str = (await http.post("/api/chats", json={})).json()["id"]
    (await http.post(f"/api/chats/{chat}/messages", json={"content": question})).raise_for_status()
    return chat


async def test_forgotten_runs_leave_the_logs_files_whatever_lies_beside_them(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    draw = random.Random(seed)
    log = await SqliteLog.open(tmp_path)
    with contextlib.suppress(asyncio.CancelledError):
        doomed = await asyncio.gather(*(run(log, draw, number) for number in range(300)))
        idle = await log.claim((await log.create(NewRun("idle", "ann", b"kept")))[0].id, 0)
        await log.append(Entry(idle, 0, [Draft(Kind.STARTED, b"{}"), Draft(Kind.TEXT, b'{"text":"kept"}')]))
        for id_ in draw.sample(doomed, len(doomed)):
            await log.settle(id_)
            if draw.random() < 0.1:
                await emptied(log)
        await emptied(log)
        assert traces(tmp_path, b"canary") == {}
        assert len(await log.read("idle", 0, 10)) == 2
    await log.aclose()
    again = await SqliteLog.open(tmp_path)
    assert [run.id for run in await again.open_runs()] == ["idle"]
    assert len(await again.read("idle", 0, 10)) == 2
    await again.aclose()


async def test_forgetting_comes_to_an_end_while_others_write_on_and_on(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path)
    await log.settle(await run(log, random.Random(1), 1))
    claim = await log.claim((await log.create(NewRun("live", "ann", b"")))[0].id, 0)
    await log.append(Entry(claim, 0, [Draft(Kind.STARTED, b"{}")]))
    seq = 1
    page = Draft(Kind.TEXT, encode({"text": "." * 4000}))  # each frees the blocks before it
    slices = 0
    while await log.expire(2.0**40, 64):
        for _ in range(4):
            await log.append(Entry(claim, seq, [page]))
            seq += 1
        slices += 1
    assert slices < 10
    await log.aclose()


async def test_while_a_backup_reads_the_write_ahead_file_stays_and_appends_go_on(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path)
    await log.settle(await run(log, random.Random(1), 1))
    claim = await log.claim((await log.create(NewRun("live", "ann", b"")))[0].id, 0)
    await log.append(Entry(claim, 0, [Draft(Kind.STARTED, b"{}")]))
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM pages").fetchone()
        forgetting = asyncio.create_task(emptied(log))
        appended = 1
        while not forgetting.done():
            await log.append(Entry(claim, appended, [Draft(Kind.TEXT, b'{"text":"."}')]))
            appended += 1
        await forgetting
        assert traces(tmp_path, b"canary").keys() == {"log.db-wal"}
    assert len(await log.read("live", 0, 10**6)) == appended
    await emptied(log)
    assert traces(tmp_path, b"canary") == {}
    await log.aclose()


async def run(log: SqliteLog, draw: random.Random, number: int) -> str:
    """One that has ended, of any length, canaries everywhere."""
    id_ = f"canary-{number}"
    record = b"canary" * draw.choice((1, 50, 500, 5000))
    await log.create(NewRun(id_, "canary", record, f"canary-key-{number}"))
    claim = await log.claim(id_, 0)
    seq = 1
    await log.append(Entry(claim, 0, [Draft(Kind.STARTED, b"{}", b"canary")]))
    for _ in range(draw.choice((0, 3, 30))):
        text = Draft(Kind.TEXT, encode({"text": "canary" * draw.choice((1, 10, 100, 1000))}), b"canary")
        await log.append(Entry(claim, seq, [text]))
        seq += 1
    await log.append(Entry(claim, seq, [Draft(Kind.DONE, b"{}")]))
    return id_


async def emptied(log: SqliteLog) -> None:
    while await log.expire(2.0**40, 64):
        pass
