"""How many gateways there may be: one for a data folder, any number over one engine. Real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from inkstream.probe import free_port
from tests.test_api import ask, follow, text_of
from tests.test_metrics import scraped, until_more
from tests.test_serving import address_of, finished, inkstream

pytestmark = pytest.mark.real

SCRIPT = '{"tokens_per_second": 50, "answer_tokens": 60}'


async def test_a_second_gateway_on_a_folder_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    """Without the parent, which looks before it starts anything."""
    async with (
        inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0") as first,
        httpx.AsyncClient(base_url=await address_of(first), trust_env=False) as http,
    ):
        url = ("--engine-url", f"tcp://127.0.0.1:{free_port('127.0.0.1')}", "--engine-key", "key")
        code, _, said = await finished(tmp_path, "gateway", "--port", "0", *url)
        assert code == 2
        assert "one gateway serves a folder" in said
        assert "--engine-url" in said
        assert (await http.get("/healthz")).status_code == 200


async def test_gateways_with_folders_of_their_own_share_one_engine(tmp_path: Path) -> None:
    async with two_gateways(tmp_path, SCRIPT) as gateways:
        answers = await asyncio.gather(*map(asked, gateways))
    assert [answer["chats"] for answer in answers] == [1, 1]
    assert [len(answer["text"]) > 0 for answer in answers] == [True, True]
    (one, other) = answers
    assert one["from"] < other["until"]
    assert other["from"] < one["until"]


async def test_gateways_admit_by_themselves_and_the_engine_queues_what_is_too_much(tmp_path: Path) -> None:
    script = '{"answer_tokens": 60, "slots": 1, "stall_on": "endlessly"}'
    async with two_gateways(tmp_path, script) as (one, other):
        held = (await ask(one, "endlessly"))["run"]["id"]
        await until_more(one, "vllm:num_requests_running")
        question = await ask(other)
        told = await until_more(other, "vllm:num_requests_running")
        assert told["inkstream_slots"] == 1
        run = question["run"]["id"]
        for _ in range(3):  # of which each asks the engine, behind the question
            path = f"/api/chats/{question['message']['chat']}/context"
            assert (await other.post(path, json={"content": "hello"})).status_code == 200
            assert "event: text" not in (await other.get(f"/api/runs/{run}/events?wait=0")).text
        await one.post(f"/api/runs/{held}/stop")
        assert [event.event async for event in follow(other, run)][-1] == "done"
        await until_more(other, "vllm:request_success_total{finished_reason=stop}")
        counted = [(await scraped(http))["vllm:generation_tokens_total"] for http in (one, other)]
        assert counted == [0, 60], "each counts what is its own"


@asynccontextmanager
async def two_gateways(
    folder: Path, script: str
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """An engine, and two gateways over it with folders of their own."""
    joined = ("--engine-url", f"tcp://127.0.0.1:{free_port('127.0.0.1')}", "--engine-key", "key")
    async with AsyncExitStack() as stack:
        engine = inkstream(folder, "engine", "--engine", "scripted", "--script", script, *joined)
        await stack.enter_async_context(engine)
        clients = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            gateway = await stack.enter_async_context(
                inkstream(folder / name, "serve", "--port", "0", *joined)
            )
            url = await address_of(gateway)
            client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=20)
            clients.append(await stack.enter_async_context(client))
        yield clients[0], clients[1]


async def asked(http: httpx.AsyncClient) -> dict[str, Any]:
    """A question of its own: the answer, when it was written, and how many chats are there."""
    loop = asyncio.get_running_loop()
    events, first_at = [], 0.0
    async for event in follow(http, (await ask(http))["run"]["id"]):
        first_at = first_at or (loop.time() if event.event == "text" else 0.0)
        events.append(event)
    chats = (await http.get("/api/chats")).json()["chats"]
    return {"text": text_of(events), "from": first_at, "until": loop.time(), "chats": len(chats)}
