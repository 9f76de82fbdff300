"""The bench, against servers of which it is known what must come out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstream.bench import Figures, Plan, Result, measure
from inkstream.bench.load import Unreachable
from inkstream.bench.machine import listeners
from inkstream.bench.measure import OURS, Meter
from inkstream.bench.stats import Percentiles
from inkstream.engines.scripted import Script
from inkstream.errors import ConfigError
from tests.live import serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'event: message\ndata: {"text": "a"}\n\n'
END = b"event: end\ndata: [DONE]\n\n"
LAST = b"0\r\n\r\n"

Answer = Callable[[bytes, StreamWriter], Awaitable[None]]


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def whole(status: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"Content-Length: 0", b"", b""])


@asynccontextmanager
async def server(answer: Answer, to_head: bytes = whole(b"404 Not Found")) -> AsyncIterator[str]:
    """Answers the warming up like any other request."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HEAD"):
                writer.write(to_head)
            else:
                await answer(head, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):  # it has seen enough
                await writer.wait_closed()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/stream"
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def after_the_first(answer: Answer) -> Answer:
    """Misbehaves from the second request on: the first only warms up."""
    asked = 0

    async def answer_or_misbehave(head: bytes, writer: StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            writer.write(HEAD + chunk(TOKEN + END) + LAST)
        else:
            await answer(head, writer)

    return answer_or_misbehave


def only(result: Result) -> Figures:
    (figures,) = result.rounds
    return figures


@pytest.mark.parametrize("path", ["", "/v1", "/stream"])
async def test_a_server_of_ours_is_measured_by_each_of_its_apis(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, Script(tokens_per_second=100, answer_tokens=500)) as live:
        plan = Plan(url=live.url + path, streams=(1, 4), tokens=20, rounds=2)
        result = await measure(plan)
    assert [figures.streams for figures in result.rounds] == [1, 4, 1, 4]
    for figures in result.rounds:
        assert figures.errors == {}
        assert figures.answers == figures.streams == figures.first.count
        assert figures.seconds > 0.15, "20 tokens at 100 a second, the first of them at once or not"
        # Where nothing is said of tokens, events count, and late tokens share one.
        assert figures.events <= figures.tokens <= 20 * figures.streams
        assert path == "/stream" or figures.tokens == 20 * figures.streams
        assert figures.tokens_per_second == pytest.approx(figures.tokens / figures.seconds)
    assert result.counts_usage == (path != "/stream")


async def test_the_listening_process_is_found_and_its_costs_are_kept_apart_from_the_clients(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, Script(tokens_per_second=200)) as live:
        assert listeners("127.0.0.1", live.port) == (os.getpid(),)
        assert listeners("localhost", 1) == ()
        figures = only(await measure(Plan(url=live.url, streams=(8,), tokens=100, rounds=1)))
    # What other tests have left running here are children of this server as well.
    (us,) = (use for use in figures.server if use.pid == os.getpid())
    assert not any(use.name.startswith(OURS) for use in figures.server)
    assert us.cpu_seconds > 0.01
    assert us.rss_bytes > 20_000_000
    assert 0 < figures.client_cpu_seconds < figures.seconds


async def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides() -> None:
    """Three of ten arrivals meet a stall of 300 ms in every second; one that waits its turn meets it once."""

    async def answer(head: bytes, writer: StreamWriter) -> None:
        into_second = time.monotonic() % 1
        if into_second < 0.3:
            await asyncio.sleep(0.3 - into_second)
        writer.write(HEAD + chunk(TOKEN + END) + LAST)

    async with server(answer) as url:
        plan = Plan(url=url, streams=(1,), rounds=1, duration=2.0)
        closed = only(await measure(plan))
        opened = only(await measure(replace(plan, rate=100.0)))
    assert min(closed.first.max, opened.first.max) > 0.25
    assert closed.first.p90 < 0.1 < opened.first.p90
    assert 130 < opened.answers < 270, f"Poisson with seed {plan.seed}"


async def test_in_an_open_loop_everybody_waits_from_the_own_arrival_on() -> None:
    """A server that stands still for half a second: the first to come wait for all of it, the last hardly."""
    release = asyncio.Event()

    async def answer(head: bytes, writer: StreamWriter) -> None:
        asyncio.get_running_loop().call_later(0.5, release.set)
        await release.wait()
        writer.write(HEAD + chunk(TOKEN + END) + LAST)

    async with server(after_the_first(answer)) as url:
        figures = only(await measure(Plan(url=url, rounds=1, rate=50.0, duration=0.5)))
    assert figures.answers > 10
    assert figures.first.max > 0.4
    assert figures.first.p50 < figures.first.max - 0.1


async def test_the_pace_and_a_gap_of_an_answer_come_out() -> None:
    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(HEAD)
        for number in range(20):
            await asyncio.sleep(1.0 if number == 10 else 0.02)
            writer.write(chunk(TOKEN))
        writer.write(chunk(END) + LAST)

    async with server(answer) as url:
        figures = only(await measure(Plan(url=url, streams=(3,), rounds=1)))
    assert figures.events == 3 * 20
    assert 3 * 5 < figures.gap.count <= 3 * 19, "what a busy machine reads at once has come at once"
    assert 0.01 < figures.gap.p50 < 0.2
    assert 0.8 < figures.gap.max < 2
    assert 0.8 < figures.longest.p50 < 2


FRAMES = (
    b': ok\n\nid: 1:1\nevent: started\ndata: {"model":"event: message"}\n\n'
    b'event: note\ndata: {"place":1}\n\n',
    b'id: 3\r\nevent: message\r\ndata: {"text":"event: message\\n\\nevent: end"}\r\n\r\n',
    b"event: message\ndata: \xe6\xb5\x81\xe5\xbc\x8f\n\n",
    TOKEN * 3,
    b":\n\n",
    b"id: x:end\nevent: end\ndata: [DONE]\n\n",
)


@pytest.mark.parametrize("piece_bytes", [1, 7, 10_000])
async def test_frames_are_counted_however_they_are_cut(piece_bytes: int) -> None:
    stream = b"".join(FRAMES)
    pieces = [stream[at : at + piece_bytes] for at in range(0, len(stream), piece_bytes)]

    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(HEAD)
        for piece in pieces:
            writer.write(chunk(piece))
            await writer.drain()
        writer.write(LAST)

    async with server(answer) as url:
        figures = only(await measure(Plan(url=url, streams=(2,), rounds=1)))
    assert (figures.errors, figures.answers, figures.events) == ({}, 2, 2 * 5)


async def test_a_stream_without_chunks_ends_with_its_connection() -> None:
    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + TOKEN * 2 + END)

    async with server(answer) as url:
        figures = only(await measure(Plan(url=url, streams=(1,), rounds=1)))
    assert (figures.errors, figures.events) == ({}, 2)


OPENAI_STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"\\"content\\":\\"no\\""}}],"usage":null}\n\n',
    b'data: {"choices": [{"delta": {"content": "b"}}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9,"total_tokens":14}}\n\n',
    b"data: [DONE]\n\n",
)


async def test_tokens_are_the_servers_usage_and_events_those_with_text() -> None:
    async def answer(head: bytes, writer: StreamWriter) -> None:
        assert head.startswith(b"POST /v1/chat/completions ")
        assert b"Authorization: Bearer secret\r\n" in head
        writer.write(HEAD + b"".join(map(chunk, OPENAI_STREAM)) + LAST)

    async with server(answer) as url:
        plan = Plan(url=url.replace("/stream", "/v1"), key="secret", streams=(2,), rounds=1)
        result = await measure(plan)
    assert (only(result).events, only(result).tokens) == (2 * 3, 2 * 9)
    assert result.counts_usage
    assert "secret" not in json.dumps(result.as_json())


async def test_a_server_that_takes_only_post_is_asked_by_post() -> None:
    """As the article's server does."""
    asked: list[bytes] = []

    async def answer(head: bytes, writer: StreamWriter) -> None:
        asked.append(head.partition(b" ")[0])
        writer.write(HEAD + chunk(TOKEN + END) + LAST)

    async with server(answer, whole(b"405 Method Not Allowed", b"Allow: POST")) as url:
        figures = only(await measure(Plan(url=url, streams=(2,), rounds=1)))
    assert figures.errors == {}
    assert set(asked) == {b"POST"}


MISBEHAVIOUR = {
    "http 503": whole(b"503 Service Unavailable"),
    "cut": HEAD + chunk(TOKEN),
    "failed": HEAD + chunk(TOKEN + b'event: error\ndata: {"code": "x"}\n\n') + LAST,
    "unfinished": HEAD + chunk(TOKEN) + LAST,
    "protocol": b"no http at all\r\n\r\n",
    "no stream": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
async def test_errors_are_counted_by_kind_and_end_no_measurement(kind: str) -> None:
    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(MISBEHAVIOUR[kind])

    async with server(after_the_first(answer)) as url:
        figures = only(await measure(Plan(url=url, streams=(3,), rounds=1)))
    assert (figures.answers, figures.errors) == (0, {kind: 3})
    assert figures.events == (3 if kind in ("cut", "failed", "unfinished") else 0)


async def test_a_silent_server_is_given_up_behind_the_timeout() -> None:
    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(HEAD + chunk(TOKEN))
        await writer.drain()
        await asyncio.Event().wait()

    async with server(after_the_first(answer)) as url:
        figures = only(await measure(Plan(url=url, streams=(2,), rounds=1, timeout=0.5)))
    assert figures.errors == {"timeout": 2}


async def test_a_server_that_cannot_be_asked_is_said_at_once() -> None:
    with pytest.raises(Unreachable, match="refused"):
        await measure(Plan(url="http://127.0.0.1:1/stream"))

    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(whole(b"401 Unauthorized"))

    async with server(answer) as url:
        with pytest.raises(Unreachable, match="http 401"):
            await measure(Plan(url=url))


async def test_several_load_processes_share_the_streams_and_the_arrivals(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(tokens_per_second=200)) as live:
        plan = Plan(url=live.url, streams=(5,), tokens=10, rounds=1, workers=3)
        assert only(await measure(plan)).answers == 5
        opened = only(await measure(replace(plan, rate=60.0, duration=1.0)))
    assert opened.errors == {}
    assert 30 < opened.answers < 90, f"Poisson with seed {plan.seed}"


def burn(pipe: Connection, seconds: float) -> None:
    pipe.send("ready")
    pipe.recv()
    began = time.process_time()
    while (spent := time.process_time() - began) < seconds:
        pass
    pipe.send(spent)
    pipe.recv()


def test_processor_time_is_that_of_the_processes_and_their_children() -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=burn, args=(theirs, 0.4))
    child.start()
    assert ours.recv() == "ready"
    meter = Meter((os.getpid(),))
    ours.send(None)
    spent = ours.recv()
    uses = {use.pid: use for use in meter.used()}
    ours.send(None)
    child.join()
    assert child.pid in uses
    # It spends a little more while it tells.
    assert uses[child.pid].cpu_seconds == pytest.approx(spent, abs=0.05)
    assert os.getpid() in uses


@given(st.lists(st.floats(0, 1e3), min_size=1))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float]) -> None:
    found = Percentiles.of(values)
    for share, percentile in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
        assert percentile in values
        assert sum(value <= percentile for value in values) >= share * len(values)
        assert sum(value < percentile for value in values) < share * len(values)
    assert (found.max, found.count) == (max(values), len(values))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "127.0.0.1:8000"}, "URL"),
        ({"streams": "1,x"}, "--streams"),
        ({"streams": ""}, "--streams"),
        ({"rate": "5"}, "--duration"),
        ({"rounds": "0"}, "--rounds"),
        ({"timeout": "0"}, "--timeout"),
        ({"api": "grpc"}, "--api"),
    ],
)
def test_a_plan_that_makes_no_sense_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Plan.parse({"url": "http://127.0.0.1:8000"} | given)


async def finished(*arguments: str, **environ: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inkstream", "bench", *arguments),
        env=os.environ | {"INKSTREAM_LANG": "en", "COLUMNS": "80"} | environ,
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_command_prints_a_table_and_writes_json_and_a_picture(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", Script(tokens_per_second=200)) as live:
        files = ("--json", str(tmp_path / "b.json"), "--svg", str(tmp_path / "b.svg"))
        load = ("--streams", "1,4", "--tokens", "20", "--rounds", "2", "--key", "secret")
        code, out, err = await finished(live.url, *load, *files)
    assert code == 0, err
    assert "round 2/2" in err
    assert "inter-token p50, ms" in out
    assert "usage" in out
    written = json.loads((tmp_path / "b.json").read_text())
    assert [figures["tokens"] for figures in written["rounds"]] == [20, 80, 20, 80]
    assert "secret" not in (tmp_path / "b.json").read_text()
    assert ElementTree.parse(tmp_path / "b.svg").getroot().tag.endswith("svg")


async def test_the_command_speaks_chinese_and_failed_answers_are_its_exit_code() -> None:
    async def answer(head: bytes, writer: StreamWriter) -> None:
        writer.write(HEAD + chunk(TOKEN))

    async with server(after_the_first(answer)) as url:
        code, out, err = await finished(url, "--streams", "2", "--rounds", "1", INKSTREAM_LANG="zh")
    assert code == 1, err
    assert "错误" in out
    assert "cut × 2" in out


async def test_a_bench_that_is_killed_leaves_no_load_behind() -> None:
    opened, gone = asyncio.Event(), asyncio.Event()

    async def answer(head: bytes, writer: StreamWriter) -> None:
        opened.set()
        writer.write(HEAD)
        try:
            while True:
                await asyncio.sleep(0.01)
                writer.write(chunk(TOKEN))
                await writer.drain()
        finally:
            gone.set()

    async with server(after_the_first(answer)) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "inkstream", "bench", url, "--streams", "1"), stdout=PIPE, stderr=PIPE
        )
        async with asyncio.timeout(15):
            await opened.wait()
            process.kill()
            await gone.wait()
        await process.communicate()
