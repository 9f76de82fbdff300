"""A disk that fills under a live server: what is committed stays, every answer ends, and it heals."""

from __future__ import annotations

import json
import resource
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.test_api import ask, client_of, error_of, first_text, follow
from tests.torture.server import Server

pytestmark = pytest.mark.real

SCRIPT = {"tokens_per_second": 200, "answer_tokens": 100_000}


def limit_file_size(pid: int, most_bytes: int) -> None:
    """From now on the process cannot make a file longer than that, as on a disk that is full."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


async def test_a_full_disk_ends_answers_keeps_their_text_and_heals(tmp_path: Path) -> None:
    settings = {"engine": "scripted", "script": json.dumps(SCRIPT)}
    async with Server(tmp_path, settings) as server, client_of(f"http://127.0.0.1:{server.port}") as http:
        asked = await ask(http)
        run, chat = asked["run"]["id"], asked["message"]["chat"]
        await first_text(http, run)
        gateway = server.target("gateway")
        assert gateway is not None
        limit_file_size(gateway.pid, (server.data_dir / "log.db-wal").stat().st_size + 65536)
        seen = await read_until_unwritable(http, run)
        refused = await http.post(f"/api/chats/{chat}/messages", json={"content": "now?", "parent": None})
        assert (refused.status_code, error_of(refused)) == (507, "log_unwritable")
        assert int(refused.headers["retry-after"]) >= 1
        assert len((await http.get(f"/api/chats/{chat}")).json()["messages"]) == 2

        limit_file_size(gateway.pid, resource.RLIM_INFINITY)
        events = [event async for event in follow(http, run) if event.event != "note"]
        assert json.loads(events[-1].data)["code"] == "disk_full"
        assert [(e.id, e.data) for e in events[: len(seen)]] == [(e.id, e.data) for e in seen]
        again = (await ask(http, sampling={"max_tokens": 5}))["run"]["id"]
        assert [event async for event in follow(http, again)][-1].event == "done"
        gateway.__exit__()


async def read_until_unwritable(http: httpx.AsyncClient, run: str) -> list[ServerSentEvent]:
    events = []
    async with aclosing(follow(http, run)) as stream:
        async for event in stream:
            if event.event == "note" and json.loads(event.data)["key"] == "log_unwritable":
                break
            if event.event != "note":
                events.append(event)
    return events
