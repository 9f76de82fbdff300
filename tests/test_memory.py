"""What has ended is freed at once: the server's garbage collector looks at everything very seldom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from inkstream.admission import Ticket
from inkstream.api.sse import EventStream
from inkstream.connection import Protocol
from inkstream.drive import Drive
from inkstream.engines.scripted import Script
from inkstream.errors import NotFound
from inkstream.log import Claim
from inkstream.pen import Pen
from inkstream.timeline import Attempt, Timeline
from inkstream.writer import Writer
from tests.live import Live, serving

ENDING = (Drive, Pen, Ticket, Timeline, Attempt, Claim, EventStream, Protocol, NotFound)
SLOW = Script(tokens_per_second=5, answer_tokens=1000)


def living() -> Counter[str]:
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in ENDING)


@contextmanager
def uncollected() -> Iterator[Counter[str]]:
    """Nothing is collected in here. Other tests' tracebacks may keep some of what is there before."""
    gc.collect()
    gc.disable()
    try:
        yield living()
    finally:
        gc.enable()


async def begin(http: httpx.AsyncClient) -> str:
    chat = (await http.post("/api/chats", json={})).json()["id"]
    reply = await http.post(f"/api/chats/{chat}/messages", json={"content": "hi"})
    run: str = reply.json()["run"]["id"]
    return run


async def read_to_its_end(live: Live) -> None:
    async with httpx.AsyncClient(base_url=live.url, trust_env=False) as http:
        await http.get(f"/api/runs/{await begin(http)}/events")


async def leave_and_stop(live: Live) -> None:
    async with httpx.AsyncClient(base_url=live.url, trust_env=False) as http:
        run = await begin(http)
        async with http.stream("GET", f"/api/runs/{run}/events") as reply:
            await anext(reply.aiter_raw())
        await http.post(f"/api/runs/{run}/stop")


@pytest.mark.parametrize("slots", [1, 4])
async def test_answers_that_were_read_to_their_end_are_freed(tmp_path: Path, slots: int) -> None:
    script = Script(tokens_per_second=1000, answer_tokens=5, slots=slots)  # with one, the others wait
    async with serving(tmp_path, script) as live:
        with uncollected() as before:
            await asyncio.gather(*[read_to_its_end(live) for _ in range(4)])
            await live.until_idle()
            await live.until(lambda: living() <= before)


async def test_an_answer_that_was_left_and_stopped_is_freed(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live:
        with uncollected() as before:
            await leave_and_stop(live)
            await live.until_idle()
            await live.until(lambda: living() <= before)


async def test_a_thread_hands_on_what_it_raises_and_keeps_nothing_of_it() -> None:
    writer = Writer("test")
    writer.start()

    def fail() -> None:
        raise NotFound("nothing")

    with uncollected() as before:
        with contextlib.suppress(NotFound):
            await writer.ask(fail)
        await writer.ask(lambda: None)  # so that it has let go of the call before
        assert living() <= before
    await writer.stop()


async def test_a_thread_finishes_what_a_cancelled_caller_asked_for() -> None:
    writer = Writer("test")
    heard: list[int | Exception] = []
    asking = asyncio.create_task(writer.ask(lambda: 7, heard.append))
    await asyncio.sleep(0)  # it has asked; nobody works yet
    asking.cancel()
    await asyncio.wait([asking])
    writer.start()
    assert await writer.ask(lambda: 8) == 8
    assert heard == [7]
    await writer.stop()


async def test_a_thread_that_has_ended_says_so() -> None:
    writer = Writer("test")
    writer.start()
    await writer.stop()
    with pytest.raises(RuntimeError, match="'test' is stopped"):
        await writer.ask(lambda: None)
