"""What our engine process adds to llama.cpp: ``python bench/llama.py MODEL.gguf [--streams 1 4 8]``.

The same weights with the same settings, asked the same questions in turns: llama.cpp's bare server in a
process of its own, streaming ``/v1/chat/completions`` to a plain socket, and the engine behind a Host in one,
asked over the link. A round asks both, the one and the other first by turns. Printed are medians: of the
bare server, of what ours adds to it or has of it in the same round; and the processor time that the engine's
own thread takes per token.

``python bench/llama.py --reader`` needs no model: it prints what reading one event of a stream costs with our
reader and with httpx, for events that come one by one and for those that come in a burst.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import uvloop

from inkstream.engines import Chunk, Emitted, Message, Phase, Progress, Request, Sampling
from inkstream.engines.link import Host, LinkEngine
from inkstream.engines.llama import Launch, LlamaEngine
from inkstream.engines.llama_client import LlamaClient
from inkstream.engines.llama_server import LlamaServer, read_header

KEY = "bench"
SEED = 7
READER_ROUNDS = 3
spawn = multiprocessing.get_context("spawn")


@dataclass
class Round:
    """Seconds to each stream's first token, tokens of all, and the seconds it took."""

    first: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def first_token(self) -> float:
        return statistics.median(self.first)

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


Ask = Callable[[str, int, Callable[[int], None]], Awaitable[None]]
"""A question, how many tokens, and who is told how many came."""


def question(number: int) -> str:
    """A new one each time, so that no cache knows it; all of the same length."""
    return f"Question {number:06}: write a long story about ink, rivers and paper. " * 4


async def one_round(ask: Ask, tokens: int, numbers: Sequence[int]) -> Round:
    result = Round()

    async def one(number: int) -> None:
        started = time.perf_counter()
        is_first = True

        def heard(count: int) -> None:
            nonlocal is_first
            if is_first:
                result.first.append(time.perf_counter() - started)
                is_first = False
            result.tokens += count

        await ask(question(number), tokens, heard)

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in numbers))
    result.seconds = time.perf_counter() - started
    return result


# The two servers


def serve_bare(pipe: Connection, launch: Launch) -> None:
    server = LlamaServer.start(launch, read_header(launch.path))
    pipe.send((server.url, server.key))
    pipe.recv()
    server.close()


def serve_engine(pipe: Connection, launch: Launch) -> None:
    async def main() -> None:
        host = Host(KEY)
        url = await host.listen("127.0.0.1", 0)
        async with LlamaEngine.local(launch) as engine:
            host.attach(engine)
            pipe.send((url, KEY))
            while await asyncio.to_thread(pipe.recv):
                pipe.send(time.clock_gettime(time.pthread_getcpuclockid(threading.main_thread().ident or 0)))
            await host.aclose()

    uvloop.run(main())


@asynccontextmanager
async def started(target: Callable[..., None], launch: Launch) -> AsyncGenerator[tuple[Connection, str, str]]:
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=target, args=(theirs, launch))
    child.start()
    url, key = await asyncio.to_thread(ours.recv)
    try:
        yield ours, url, key
    finally:
        ours.send(None)
        await asyncio.to_thread(child.join)


# The two ways of asking


def bare(url: str, key: str) -> Ask:
    address = urlsplit(url)

    async def ask(text: str, tokens: int, heard: Callable[[int], None]) -> None:
        body = orjson.dumps(
            {
                "messages": [{"role": "user", "content": text}],
                "max_tokens": tokens,
                "stream": True,
                "seed": SEED,
            }
        )
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
        )
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        async for line in reader:
            if line.startswith(b"data: {"):
                [choice] = orjson.loads(line[6:])["choices"]
                if choice["delta"].get("content"):
                    heard(1)
        writer.close()

    return ask


def linked(engine: LinkEngine) -> Ask:
    async def ask(text: str, tokens: int, heard: Callable[[int], None]) -> None:
        def take(item: Chunk | Progress) -> None:
            if isinstance(item, Chunk):
                heard(item.tokens)

        prompt = await engine.render([Message("user", text)])
        finish = await engine.generate(
            Request("bench", prompt, Sampling(seed=SEED, max_tokens=tokens)), Emitted(), take
        )
        if finish.last is not None:
            heard(finish.last.tokens)

    return ask


async def compare(launch: Launch, all_streams: Sequence[int], rounds: int, tokens: int) -> None:
    async with (
        started(serve_bare, launch) as (_, bare_url, bare_key),
        started(serve_engine, launch) as (pipe, url, key),
        LinkEngine(url, key) as engine,
    ):
        while engine.status.phase is not Phase.READY:
            await engine.status_after(engine.status)
        asks = {"bare": bare(bare_url, bare_key), "ours": linked(engine)}
        numbers = iter(range(10**6))
        print(
            "| streams | bare: first token, ms | tokens/s | ours: first token | tokens/s | own µs per token |"
        )
        print("|---|---|---|---|---|---|")
        for streams in all_streams:
            pairs, busy = [], 0.0
            for turn in range(rounds):
                asked = [next(numbers) for _ in range(streams)]
                pair = {}
                for name in sorted(asks, reverse=turn % 2 == 1):
                    before = await thread_seconds(pipe)
                    pair[name] = await one_round(asks[name], tokens, asked)
                    busy += await thread_seconds(pipe) - before if name == "ours" else 0
                pairs.append((pair["bare"], pair["ours"]))
            print(row(streams, pairs, busy), flush=True)


async def thread_seconds(pipe: Connection) -> float:
    pipe.send(True)
    seconds: float = await asyncio.to_thread(pipe.recv)
    return seconds


def row(streams: int, pairs: list[tuple[Round, Round]], busy: float) -> str:
    first = statistics.median(bare.first_token * 1e3 for bare, _ in pairs)
    later = statistics.median((ours.first_token - bare.first_token) * 1e3 for bare, ours in pairs)
    rate = statistics.median(bare.rate for bare, _ in pairs)
    share = statistics.median(ours.rate / bare.rate for bare, ours in pairs)
    own = busy / sum(ours.tokens for _, ours in pairs) * 1e6
    return f"| {streams} | {first:.0f} | {rate:.1f} | {later:+.1f} | × {share:.2f} | {own:.0f} |"


# Reading a stream

EVENT = orjson.dumps(
    {
        "index": 0,
        "content": " ink",
        "tokens": [79],
        "stop": False,
        "tokens_predicted": 1,
        "tokens_evaluated": 4,
    }
)


@asynccontextmanager
async def event_server(events: int, pause_seconds: float) -> AsyncGenerator[str]:

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"data: %b\n\n" % EVENT
        for _ in range(events):
            writer.write(b"%x\r\n%b\r\n" % (len(block), block))
            await asyncio.sleep(pause_seconds)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def serve_events(pipe: Connection, events: int, pause_seconds: float) -> None:
    async def main() -> None:
        async with event_server(events, pause_seconds) as url:
            pipe.send(url)
            await asyncio.to_thread(pipe.recv)

    uvloop.run(main())


async def read_with_ours(url: str) -> int:
    seen = 0

    def read(events: Sequence[dict[str, Any]]) -> bool:
        nonlocal seen
        seen += len(events)
        return False

    client = LlamaClient(url, "", lambda: None)
    await client.stream("/", {}, read)
    await client.aclose()
    return seen


async def read_with_httpx(url: str) -> int:
    seen, rest = 0, b""
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", url, content=b"{}") as reply,
    ):
        async for block in reply.aiter_bytes():
            *frames, rest = (rest + block).split(b"\n\n")
            seen += len([orjson.loads(frame[6:]) for frame in frames])
    return seen


async def read_lines_with_httpx(url: str) -> int:
    seen = 0
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", url, content=b"{}") as reply,
    ):
        async for line in reply.aiter_lines():
            seen += bool(line and orjson.loads(line[6:]))
    return seen


async def compare_readers(events: int, pause_seconds: float) -> None:
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=serve_events, args=(theirs, events, pause_seconds))
    child.start()
    url = await asyncio.to_thread(ours.recv)
    print(f"{events} events, {pause_seconds * 1e3:g} ms apart:")
    for reader in (read_with_ours, read_with_httpx, read_lines_with_httpx):
        costs = []
        for _ in range(READER_ROUNDS):
            before = time.process_time()
            assert await reader(url) == events
            costs.append((time.process_time() - before) / events * 1e6)
        print(f"  {reader.__name__}: {statistics.median(costs):.1f} µs per event")
    ours.send(None)
    child.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--reader", action="store_true")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.reader or given.model is None:
        uvloop.run(compare_readers(3_000, 0.002))
        uvloop.run(compare_readers(20_000, 0))
        return
    launch = Launch(path=given.model, context=1024, slots=max(given.streams), threads=given.threads)
    uvloop.run(compare(launch, given.streams, given.rounds, given.tokens))


if __name__ == "__main__":
    main()
