"""How many gateways there may be: one for a data folder, any number over one engine. Real processes."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from inkstream.probe import free_port
from tests.test_api import ask, follow, text_of
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
    url = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
    joined = ("--engine-url", url, "--engine-key", "key")
    async with AsyncExitStack() as stack:
        engine = inkstream(tmp_path, "engine", "--engine", "scripted", "--script", SCRIPT, *joined)
        await stack.enter_async_context(engine)
        gateways = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            gateway = inkstream(tmp_path / name, "serve", "--port", "0", *joined)
            gateways.append(await stack.enter_async_context(gateway))
        answers = await asyncio.gather(*map(asked, gateways))
    assert [answer["chats"] for answer in answers] == [1, 1]
    assert [len(answer["text"]) > 0 for answer in answers] == [True, True]
    (one, other) = answers
    assert one["from"] < other["until"]
    assert other["from"] < one["until"]


async def asked(gateway: Process) -> dict[str, Any]:
    """A question of its own: the answer, when it was written, and how many chats are there."""
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=await address_of(gateway), trust_env=False, timeout=20) as http:
        events, first_at = [], 0.0
        async for event in follow(http, (await ask(http))["run"]["id"]):
            first_at = first_at or (loop.time() if event.event == "text" else 0.0)
            events.append(event)
        chats = (await http.get("/api/chats")).json()["chats"]
        return {"text": text_of(events), "from": first_at, "until": loop.time(), "chats": len(chats)}
