"""Many readers, and one that takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from compare import servers
from compare.bench import Bench, tell
from compare.outcome import Outcome
from compare.seeds import write_runs
from compare.servers import Server, cpu_us
from inkstream.bench import Figures
from inkstream.bench.machine import family, use_of

LIVE = {"tokens_per_second": 50.0, "answer_tokens": 1_000_000, "context": 2_000_000, "slots": 20_000}
STALLED = 100
TINY_BUFFER = 4096
LOOK_SECONDS = 0.2
ESTABLISHED = "01"
GATEWAY = "gateway"  # how the name of its process ends


def rss_kib(server: Server) -> float:
    uses = [use for pid in family(server.pids) if (use := use_of(pid)) is not None]
    return sum(use.rss_bytes for use in uses if use.name.endswith(GATEWAY)) / 1024


def peak_kib(figures: Figures) -> float:
    return sum(use.rss_bytes for use in figures.server if use.name.endswith(GATEWAY)) / 1024


async def crowd(bench: Bench) -> Outcome:
    """Ten thousand answers, each slower than anybody reads, with a reader each."""
    outcome = bench.outcome("crowd", "10,000 runs with one reader each at 1 token/s")
    runs, seconds, ramp = bench.pick((10_000, 180, 120.0), (1_000, 25, 10.0))  # all are alive for a minute
    with servers.data_folder() as folder:
        async with servers.inkstream(folder, script={**LIVE, "tokens_per_second": 1.0}) as server:
            await server.measure(streams=(50,), tokens=2)
            before = rss_kib(server)
            tell(f"{runs} runs")
            figures = await server.measure(
                streams=(runs,), tokens=seconds, ramp=ramp, warm_up=False, timeout=120.0
            )
    outcome.keep("crowd", figures)
    outcome.judge("answers read to their end", [figures.answers], f"of {runs}", least=runs)
    outcome.judge(
        "gateway's memory per run with its reader", [(peak_kib(figures) - before) / runs], "KiB", most=25
    )
    waits = figures.longest.max - figures.longest.p50
    outcome.judge("the slowest reader's longest wait beyond the median's", [waits], "s", most=1)
    outcome.judge("first token p99", [figures.first.p99 * 1e3], "ms")
    outcome.judge("CPU per token, gateway", [cpu_us(figures)[0]], "µs")
    return outcome


async def fanout(bench: Bench) -> Outcome:
    """A thousand readers of one answer that is being written."""
    outcome = bench.outcome("fanout", "1,000 readers of one run at 50 tokens/s")
    readers, seconds = bench.pick((1_000, 30), (200, 6))
    with servers.data_folder() as folder:
        async with servers.inkstream(folder, script=LIVE) as server:
            run = await server.begin_run(50 * seconds)
            url = f"{server.url}/api/runs/{run}/events"
            tell(f"{readers} readers")
            figures = await server.measure(url=url, streams=(readers,), warm_up=False)
    outcome.keep("fanout", figures)
    outcome.judge("readers that got all of it", [figures.answers], f"of {readers}", least=readers)
    outcome.judge("CPU per event and reader", [cpu_us(figures)[0]], "µs")
    outcome.judge("generations, as the engine's CPU per event and reader", [cpu_us(figures)[1]], "µs")
    outcome.judge("inter-token p99", [figures.gap.p99 * 1e3], "ms")
    return outcome


async def stalled(bench: Bench) -> Outcome:
    """Readers that ask for a long stored answer and then take nothing, beside 32 that do."""
    outcome = bench.outcome("stalled", f"{STALLED} readers that stop reading, beside 32 that do not")
    seconds, patience = bench.pick((60, 30.0), (6, 2.0))
    with servers.data_folder() as folder:
        (run,) = await write_runs(folder, 1, 100_000)
        async with servers.inkstream(folder, script=LIVE, patience_seconds=patience) as server:
            load = {"streams": (32,), "tokens": int(50 * seconds), "ramp": 0.5}
            tell("without them")
            calm = outcome.keep("without them", await server.measure(**load))
            before = rss_kib(server)
            tell("with them")
            measuring = asyncio.ensure_future(server.measure(**load, warm_up=False))
            dropped = await asyncio.to_thread(_stall, server, run, patience)
            beside = outcome.keep("with them", await measuring)
    held = (peak_kib(beside) - max(before, peak_kib(calm))) / STALLED
    outcome.judge("gateway's memory for each", [held], "KiB", most=64)
    if dropped:
        outcome.judge("dropped behind", dropped, "s", target=f"about {patience:g} s")
    outcome.judge("dropped", [len(dropped)], f"of {STALLED}", least=STALLED)
    for name, figures in (("without", calm), ("with", beside)):
        outcome.judge(f"the others' inter-token p99 {name} them", [figures.gap.p99 * 1e3], "ms")
    return outcome


def _stall(server: Server, run: str, patience: float) -> list[float]:
    """Ask and read nothing; behind how many seconds the server gave each connection up."""
    where = urlsplit(server.url)
    assert where.hostname is not None
    assert where.port is not None
    request = f"GET /api/runs/{run}/events HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        ours = set()
        for _ in range(STALLED):
            stalling = stack.enter_context(socket.socket())
            # Before connecting: it bounds what the peer may send unasked.
            stalling.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BUFFER)
            stalling.connect((where.hostname, where.port))
            stalling.sendall(request)
            ours.add(stalling.getsockname()[1])
        began, dropped = time.monotonic(), list[float]()
        while len(dropped) < STALLED and time.monotonic() - began < 2 * patience + 10:
            time.sleep(LOOK_SECONDS)
            held = len(ours & _held(where.port))
            dropped += [time.monotonic() - began] * (STALLED - held - len(dropped))
    return dropped


def _held(port: int) -> set[int]:
    """The peers' ports of a server's connections. What it has let go stays for a while in other states:
    a peer that reads nothing is told nothing of it."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    return {_port(r[2]) for r in rows if _port(r[1]) == port and r[3] == ESTABLISHED}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
