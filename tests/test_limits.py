"""What one user may take and what one server gives: each refusal with its code and an honest time."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstream import connection, limits
from inkstream.engines.scripted import Script
from inkstream.errors import LimitReached
from inkstream.limits import Quotas, Rate
from tests.live import Live, serving
from tests.signing_in import browser, keyed
from tests.test_api import ask, error_of, first_text, follow, until

ENDLESS = Script(tokens_per_second=200, answer_tokens=1_000_000)
HEAD = b"POST /api/chats HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def refused(http: httpx.AsyncClient) -> httpx.Response:
    chat = (await http.post("/api/chats", json={})).json()["id"]
    return await http.post(f"/api/chats/{chat}/messages", json={"content": "hello"})


# Rates


def test_a_minutes_worth_can_be_taken_at_once_and_comes_back_in_a_minute() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    for _ in range(60):
        assert rate.wait_seconds("ada") == 0
        rate.take("ada")
    assert rate.wait_seconds("ada") == 1
    assert rate.wait_seconds("bob") == 0
    clock.now = 1
    assert rate.wait_seconds("ada") == 0


def test_what_is_overdrawn_is_made_up_for_first() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    rate.take("ada", 60 + 30)
    assert rate.wait_seconds("ada") == 31
    clock.now = 30.5
    assert rate.wait_seconds("ada") == 1


@given(
    per_minute=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 500)), max_size=30),
)
def test_the_time_that_is_told_is_the_time_it_takes(per_minute: int, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    rate = Rate(per_minute, clock)
    for pause, amount in steps:
        clock.now += pause
        rate.take("ada", amount)
    seconds = rate.wait_seconds("ada")
    if seconds > 1:
        clock.now += seconds - 1
        assert rate.wait_seconds("ada") > 0
        clock.now += 1
    else:
        clock.now += seconds
    assert rate.wait_seconds("ada") <= (0 if seconds else 1)


def test_names_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUCKETS", 100)
    clock = Clock()
    rate = Rate(60, clock)
    rate.take("ada", 60)
    for number in range(1000):
        clock.now += 0.001
        rate.take(f"address {number}")
        rate.take("ada")
    assert len(rate._buckets) <= 100
    assert rate.wait_seconds("ada") > 1


def test_the_time_until_an_answer_ends_is_estimated_from_those_that_have_ended() -> None:
    quotas = Quotas(2, 0)
    assert quotas.of("ada") == 0
    for _ in range(3):
        quotas.begin("bob")
        quotas.end("bob", 30)
    quotas.begin("ada")
    quotas.begin("ada")
    with pytest.raises(LimitReached) as caught, quotas.beginning("ada"):
        pass
    assert caught.value.retry_after_seconds == 10
    assert (quotas.present, quotas.of("ada"), quotas.of("bob")) == (2, 2, 0)


# A user


async def test_a_user_has_so_many_answers_at_the_same_time(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ENDLESS, user_runs=2) as live,
        await keyed(live, "ada") as ada,
        await keyed(live, "bob") as bob,
    ):
        runs = [(await ask(ada))["run"]["id"] for _ in range(2)]
        reply = await refused(ada)
        assert (reply.status_code, error_of(reply)) == (429, "too_many_runs")
        assert int(reply.headers["retry-after"]) >= 1
        for path, body in (
            ("/stream", {"prompt": "hello"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ):
            assert error_of(await ada.post(path, json=body)) == "too_many_runs"
        await ask(bob)
        await ada.post(f"/api/runs/{runs[0]}/stop")
        await live.until(lambda: live.services.runs._drives.get(runs[0]) is None)
        await ask(ada)


async def test_many_that_are_asked_for_at_once_do_not_pass_together(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ENDLESS, user_runs=3) as live,
        await keyed(live, "ada") as ada,
    ):
        replies = await asyncio.gather(*(refused(ada) for _ in range(12)))
        assert sorted(reply.status_code for reply in replies) == [202] * 3 + [429] * 9


async def test_a_repeated_question_is_no_second_answer(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ENDLESS, user_runs=1) as live,
        await keyed(live, "ada") as ada,
    ):
        chat = (await ada.post("/api/chats", json={})).json()["id"]
        replies = [
            await ada.post(
                f"/api/chats/{chat}/messages", json={"content": "x"}, headers={"Idempotency-Key": "once"}
            )
            for _ in range(2)
        ]
        assert [reply.status_code for reply in replies] == [202, 202]


async def test_a_user_has_so_many_tokens_a_minute(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, Script(answer_tokens=200), user_tokens=60) as live,
        await keyed(live, "ada") as ada,
        await keyed(live, "bob") as bob,
    ):
        run = (await ask(ada))["run"]["id"]
        usage = json_of([e async for e in follow(ada, run)][-1].data)["usage"]
        await live.until_idle()
        reply = await refused(ada)
        assert (reply.status_code, error_of(reply)) == (429, "too_many_tokens")
        spent = usage["prompt_tokens"] + usage["completion_tokens"]
        assert spent - 60 <= int(reply.headers["retry-after"]) <= spent - 60 + 1
        await ask(bob)


async def test_a_stopped_answer_counts_as_far_as_it_was_written(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ENDLESS, user_tokens=30) as live,
        await keyed(live, "ada") as ada,
    ):
        run = (await ask(ada))["run"]["id"]
        async for event in follow(ada, run):
            if event.event == "text" and int(event.id.partition(":")[2]) > 30:
                break
        await ada.post(f"/api/runs/{run}/stop")
        await live.until_idle()
        assert error_of(await refused(ada)) == "too_many_tokens"


async def test_a_user_has_so_many_requests_a_minute_and_reads_on_all_the_same(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ENDLESS, user_requests=5) as live,
        await keyed(live, "ada") as ada,
        await keyed(live, "bob") as bob,
    ):
        run = (await ask(ada))["run"]["id"]  # two requests
        while (reply := await ada.get("/api/chats")).status_code == 200:
            pass
        assert (reply.status_code, error_of(reply)) == (429, "too_many_requests")
        assert 1 <= int(reply.headers["retry-after"]) <= 12
        await first_text(ada, run)
        assert (await ada.get("/api/live?wait=0")).status_code == 200
        assert (await bob.get("/api/chats")).status_code == 200


async def test_one_user_cannot_fill_the_queue(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, Script(slots=1, stall_on="hello"), queue=8) as live,
        await keyed(live, "ada") as ada,
        await keyed(live, "bob") as bob,
    ):
        replies = [await refused(ada) for _ in range(12)]
        assert [reply.status_code for reply in replies] == [202] * 8 + [503] * 4
        assert error_of(replies[-1]) == "queue_full"
        mine = await ask(bob)
        async for event in follow(bob, mine["run"]["id"]):
            if event.event == "note" and json_of(event.data)["key"] == "queued":
                assert json_of(event.data)["place"] == 1
                break


def json_of(data: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return found


# The server


async def test_so_many_streams_may_be_open(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS, readers=2) as live, browser(live) as http:
        run = (await ask(http))["run"]["id"]
        async with http.stream("GET", "/api/live"), http.stream("GET", f"/api/runs/{run}/events"):
            await live.until(lambda: len(live.services.streams) == 2)
            before = len(live.services.runs._drives)
            body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
            for reply in (
                await http.get(f"/api/runs/{run}/events"),
                await http.get("/api/live"),
                await http.get("/stream", params={"prompt": "hello"}),
                await http.post("/v1/chat/completions", json=body),
            ):
                assert (reply.status_code, error_of(reply)) == (503, "too_many_readers")
                assert int(reply.headers["retry-after"]) >= 1
            assert len(live.services.runs._drives) == before


async def test_so_many_connections_may_be_open(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=3) as live:
        held = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(3)]
        async with browser(live) as http:
            reply = await http.get("/healthz")
            assert (reply.status_code, error_of(reply)) == (503, "too_many_connections")
            assert int(reply.headers["retry-after"]) >= 1
            for _, writer in held:
                writer.close()
            await until(lambda: is_well(live))


async def is_well(live: Live) -> bool:
    async with browser(live) as http:
        return (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\nHost: loc", b"408"),
        (HEAD + b"Content-Length: 10\r\n\r\n{", b"408"),
        (b"GET /api/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", b"404"),
    ],
    ids=["silence", "half a head", "half a body", "a body that nobody wants"],
)
async def test_who_does_not_finish_a_request_is_not_waited_for(
    tmp_path: Path, said: bytes, answer: bytes
) -> None:
    async with serving(tmp_path, header_seconds=0.2, body_seconds=0.2) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(said)
        async with asyncio.timeout(10):
            reply = await reader.read()
        assert reply[9:12] == answer
        writer.close()


async def test_a_head_that_trickles_in_does_not_win_time(tmp_path: Path) -> None:
    async with serving(tmp_path, header_seconds=0.3) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        begun = time.monotonic()

        async def trickle() -> None:
            while True:
                writer.write(b"X-A: b\r\n")
                await asyncio.sleep(0.02)

        writer.write(b"GET /healthz HTTP/1.1\r\n")
        trickling = asyncio.create_task(trickle())
        async with asyncio.timeout(10):
            reply = await reader.readuntil(b"\r\n")
        trickling.cancel()
        assert b"408" in reply
        assert time.monotonic() - begun >= 0.3
        writer.transport.abort()


async def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * (connection.MOST_HEAD_BYTES + 1))
        async with asyncio.timeout(10):
            assert b"431" in await reader.readuntil(b"\r\n")
        writer.transport.abort()


async def test_a_large_body_is_no_long_head(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, browser(live) as http:
        for _ in range(2):
            reply = await http.post(
                "/api/import", content=b'"' + b"x" * (3 * connection.MOST_HEAD_BYTES) + b'"'
            )
            assert (reply.status_code, error_of(reply)) == (400, "unknown_format")


async def test_a_connection_may_rest_within_an_answer(tmp_path: Path) -> None:
    script = Script(stall_on="hello")
    async with (
        serving(tmp_path, script, header_seconds=0.05, body_seconds=0.05, heartbeat_seconds=0.1) as live,
        browser(live) as http,
    ):
        run = (await ask(http))["run"]["id"]
        async with http.stream("GET", f"/api/runs/{run}/events") as reply:
            pieces = reply.aiter_raw()
            beats = 0
            while beats < 3:
                beats += (await anext(pieces)) == b":\n\n"
            await http.post(f"/api/runs/{run}/stop")
            assert b"event: stopped" in b"".join([piece async for piece in pieces])


async def test_a_stray_line_end_wins_no_time_between_requests(tmp_path: Path) -> None:
    async with serving(tmp_path, header_seconds=0.2) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await reader.readuntil(b'"ok"}')
        writer.write(b"\r\n")
        async with asyncio.timeout(3):  # less than a connection may rest between requests
            assert b"408" in await reader.read()
        writer.close()


async def test_crowds_of_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    async with serving(tmp_path, header_seconds=1.0, connections=700) as live:
        crowd = []
        for _ in range(600):
            crowd.append(await asyncio.open_connection("127.0.0.1", live.port))
            crowd[-1][1].write(b"GET / HTTP/1.1\r\nHost:")
        assert await is_well(live)
        async with asyncio.timeout(20):
            replies = await asyncio.gather(*(reader.read() for reader, _ in crowd))
        assert all(reply[9:12] == b"408" for reply in replies)
        for _, writer in crowd:
            writer.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
async def test_a_reply_that_nobody_takes_does_not_hold_its_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, patience_seconds=0.5) as live, browser(live) as http:
        titles = ["x" * 200] * 20

        async def pieces() -> AsyncGenerator[bytes]:
            chats = ",".join(f'{{"title":"{title}","messages":[]}}' for title in titles * 10)
            yield f'{{"format":"inkstream","version":1,"chats":[{chats}]}}'.encode()

        for _ in range(4):
            await http.post("/api/import", content=pieces())
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", live.port))
            reader.sendall(b"GET /api/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
            number = reader.getsockname()[1]
            await until(lambda: has_connection(number, is_there=True))
            await until(lambda: has_connection(number, is_there=False))


async def has_connection(port: int, *, is_there: bool) -> bool:
    """Whether the server's side of it is established, as the system sees it."""
    hex_port = f":{port:04X} "
    lines = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
    there = any(
        line.split()[2].endswith(hex_port.strip()) and line.split()[3] == "01"
        for line in lines.splitlines()[1:]
    )
    return there == is_there
