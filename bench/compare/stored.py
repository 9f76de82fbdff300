"""What is in the log already: coming back to it, replaying it, forgetting it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from compare import servers
from compare.bench import Bench, tell
from compare.outcome import Outcome
from compare.readers import LIVE
from compare.seeds import write_runs
from compare.servers import cpu_us
from inkstream.bench import Figures

LONG = 20_000
BEHIND = 10
DAYS_TOKENS = 300


async def resume(bench: Bench) -> Outcome:
    """A reader that comes back near the end of a long answer, again and again."""
    outcome = bench.outcome("resume", "Resuming at the end of a 20,000-token run")
    with servers.data_folder() as folder:
        (run,) = await write_runs(folder, 1, LONG)
        async with servers.inkstream(folder) as server:
            url = f"{server.url}/api/runs/{run}/events?after={LONG - BEHIND}"
            async for _, _ in bench.turns(5, [server]):
                outcome.keep(
                    "resume", await server.measure(url=url, streams=(1,), duration=bench.pick(3.0, 1.0))
                )
    for at, most in (("p50", None), ("p99", 30.0), ("max", None)):
        values = [figures["first"][at] * 1e3 for figures in outcome.figures["resume"]]
        outcome.judge(f"first missing event, {at}", values, "ms", most=most)
    return outcome


async def replay(bench: Bench) -> Outcome:
    """Everything from the start, to sockets."""
    events = bench.pick(1_000_000, 100_000)
    outcome = bench.outcome("replay", f"Replay of {events:,} stored events to sockets")
    found: dict[int, list[Figures]] = defaultdict(list)
    with servers.data_folder() as folder:
        tell("writing them")
        (run,) = await write_runs(folder, 1, events)
        async with servers.inkstream(folder) as server:
            url = f"{server.url}/api/runs/{run}/events"
            async for _, readers in bench.turns(3, [1, 4]):
                tell(f"{readers} readers")
                figures = await server.measure(url=url, streams=(readers,), warm_up=False, workers=1)
                found[readers].append(outcome.keep(f"{readers} readers", figures))
    for readers, rounds in found.items():
        speed = [figures.events / figures.seconds for figures in rounds]
        what = f"{readers} reader{'s' if readers > 1 else ''}, server and client on this machine"
        outcome.judge(what, speed, "events/s", least=1_000_000 if readers == 1 else None)
        outcome.judge(f"{what}, per core of the server", [1e6 / cpu_us(f)[0] for f in rounds], "events/s")
    return outcome


async def expiry(bench: Bench) -> Outcome:
    """Yesterday's runs are forgotten while 32 answers are being written: does anybody wait?"""
    runs = bench.pick(10_000, 1_000)
    outcome = bench.outcome("expiry", f"Expiry of a day's {runs:,} answers under load")
    found: dict[str, list[Figures]] = defaultdict(list)
    mebibytes: dict[str, list[float]] = defaultdict(list)
    async for _, (name, hours) in bench.turns(3, [("kept", 24.0), ("forgotten", 0.0)]):
        with servers.data_folder() as folder:
            tell(f"writing {runs} answers, which are {name}")
            await write_runs(folder, runs, DAYS_TOKENS)
            async with servers.inkstream(folder, script=LIVE, retention_hours=hours) as server:
                load = {"streams": (32,), "tokens": 50 * bench.pick(75, 40), "ramp": 0.5}
                found[name].append(outcome.keep(name, await server.measure(**load)))
            mebibytes[name].append(_mebibytes(folder / "log.db"))
            mebibytes[f"{name}, write-ahead"].append(_mebibytes(folder / "log.db-wal"))
    for name, rounds in found.items():
        outcome.judge(f"longest wait, the day is {name}", [f.gap.max * 1e3 for f in rounds], "ms")
        outcome.judge(f"log.db afterwards, the day is {name}", mebibytes[name], "MiB")
        outcome.judge(f"its write-ahead file, the day is {name}", mebibytes[f"{name}, write-ahead"], "MiB")
    pairs = zip(found["forgotten"], found["kept"], strict=True)
    outcome.judge(
        "expiry adds to the longest wait", [(a.gap.max - b.gap.max) * 1e3 for a, b in pairs], "ms", most=20
    )
    growth = [a / b for a, b in zip(mebibytes["forgotten"], mebibytes["kept"], strict=True)]
    outcome.judge("log.db beside one that forgets nothing", growth, "× its size", most=1.05)
    return outcome


def _mebibytes(path: Path) -> float:
    return path.stat().st_size / 2**20 if path.exists() else 0.0
