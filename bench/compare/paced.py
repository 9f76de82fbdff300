"""The streaming layer under load: paced as people read, compared, and as fast as it goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from compare import servers
from compare.bench import Bench, tell
from compare.outcome import Outcome, of, shown
from compare.servers import Server, cpu_seconds, cpu_us
from inkstream.bench import Figures

PACE = 50.0
OURS, OWN_CLOCKS, BARE = "inkstream", "inkstream, own clocks", "bare ASGI loop"
STARLETTE, FASTAPI = "sse-starlette", "FastAPI EventSourceResponse"
ARTICLE, THREADS = "the article", "the article's pattern, threads"


def _script(**more: object) -> dict[str, object]:
    return {
        "tokens_per_second": PACE,
        "answer_tokens": 1_000_000,
        "context": 2_000_000,
        "slots": 4096,
        **more,
    }


@asynccontextmanager
async def _contestants(folder: Path) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        threads = await enter(servers.article(PACE))
        script = _script()
        yield [
            await enter(servers.inkstream(folder / "a", OURS, script=script)),
            replace(
                await enter(servers.sender(folder / "b", "sse-starlette", script=script)), name=STARLETTE
            ),
            replace(await enter(servers.sender(folder / "c", "fastapi", script=script)), name=FASTAPI),
            replace(threads, name=THREADS, url=threads.url.replace("/stream", "/threads/stream")),
            replace(await enter(servers.bare(PACE)), name=BARE),
            await enter(servers.inkstream(folder / "d", OWN_CLOCKS, script=_script(in_step=False))),
            # In a process of its own: it goes on with answers whose readers have left, and blocks the loop.
            replace(await enter(servers.article(PACE)), name=ARTICLE),
        ]


@dataclass(frozen=True, slots=True)
class Turn:
    """One contestant's turn: answers of one token, which cost what beginning costs, then long ones."""

    begun: Figures
    whole: Figures

    @property
    def serving_us(self) -> float:
        """Microseconds of CPU per token, the beginning apart."""
        return self._us(0)

    @property
    def engine_us(self) -> float:
        return self._us(1)

    @property
    def begin_ms(self) -> float:
        """Milliseconds of CPU to begin an answer: request, run, first token."""
        return cpu_seconds(self.begun)[0] / max(self.begun.answers, 1) * 1e3

    def _us(self, at: int) -> float:
        # Streams that were never served have begun nothing either.
        begun = cpu_seconds(self.begun)[at] * (self.whole.first.count / max(self.begun.first.count, 1))
        tokens = self.whole.tokens - self.whole.first.count
        return (cpu_seconds(self.whole)[at] - begun) / max(tokens, 1) * 1e6


Turns = dict[tuple[str, int], list[Turn]]


async def paced(bench: Bench) -> Outcome:
    """Everybody sends 50 tokens a second to each of 32 and of 256 readers."""
    outcome = bench.outcome("paced", "Runs paced at 50 tokens/s")
    seconds, counts = bench.pick((60, (32, 256)), (6, (32,)))
    found: Turns = defaultdict(list)
    with servers.data_folder() as folder:
        async with _contestants(folder) as contestants:
            loads = [(server, streams) for streams in counts for server in contestants]
            async for number, (server, streams) in bench.turns(3, loads):
                if server.name == ARTICLE and (bench.is_quick or number or streams != counts[0]):
                    continue  # it serves one reader at a time and lets the others wait: once shows it
                name = f"{server.name}, {streams} streams"
                tell(name)
                load = {"streams": (streams,), "ramp": 0.5, "timeout": seconds + 15.0}
                begun = await server.measure(tokens=1, **load)
                whole = await server.measure(tokens=int(PACE * seconds), **load, warm_up=False)
                outcome.keep(f"{name}, beginning", begun)
                found[server.name, streams].append(Turn(begun, outcome.keep(name, whole)))
    for streams in counts:
        _judge(outcome, found, streams)
    outcome.table = _table(found)
    return outcome


def _judge(outcome: Outcome, found: Turns, streams: int) -> None:
    def cost(name: str) -> list[float]:
        return [turn.serving_us for turn in found[name, streams]]

    def ratio(one: str, other: str) -> list[float]:
        return [a / b for a, b in zip(cost(one), cost(other), strict=True)]

    at = f"{streams} streams"
    per_arrival = [turn.whole.tokens / max(turn.whole.arrivals, 1) for turn in found[OURS, streams]]
    outcome.judge(f"CPU per token, {at}", cost(OURS), "µs", most=10)
    outcome.judge(f"tokens per arrival, {at}", per_arrival, "", most=1.2)
    outcome.judge(f"CPU per token, {at}, each run by its own clock", cost(OWN_CLOCKS), "µs")
    outcome.judge(f"{THREADS} costs, {at}", ratio(THREADS, OURS), "× ours", least=8)
    outcome.judge(f"sse-starlette over the same log costs, {at}", ratio(STARLETTE, OURS), "× ours", least=3)
    outcome.judge(f"{FASTAPI} over the same log costs, {at}", ratio(FASTAPI, OURS), "× ours")
    outcome.judge(f"beside the bare loop, {at}", ratio(OURS, BARE), "× its cost", most=3)


def _table(found: Turns) -> list[list[str]]:
    head = ["sender", "streams", "server µs/token", "engine", "sum", "ms to begin an answer"]
    lines = [[*head, "inter-token p50 ms", "p99", "max", "first token p50 ms", "tokens/s", "errors"]]
    for (name, streams), turns in found.items():
        serving, engine = median(t.serving_us for t in turns), median(t.engine_us for t in turns)
        costs = [serving, engine, serving + engine, median(t.begin_ms for t in turns)]
        whole = [turn.whole for turn in turns]
        lines.append([name, str(streams), *map(shown, costs), *_latency(whole), _errors(whole)])
    return lines


def _latency(rounds: list[Figures]) -> list[str]:
    gaps = [of(rounds, lambda f, at=at: getattr(f.gap, at) * 1e3) for at in ("p50", "p99", "max")]  # type: ignore[misc]
    return [*gaps, of(rounds, lambda f: f.first.p50 * 1e3), of(rounds, lambda f: f.tokens_per_second)]


def _errors(rounds: list[Figures]) -> str:
    kinds = {kind for figures in rounds for kind in figures.errors}
    return ", ".join(f"{k} × {sum(f.errors.get(k, 0) for f in rounds)}" for k in sorted(kinds)) or "0"


async def latency(bench: Bench) -> Outcome:
    """What the streaming layer adds between two tokens: ours and the bare loop in turns."""
    outcome = bench.outcome("latency", "Added inter-token latency, 32 streams of 50 tokens/s")
    seconds = bench.pick(20, 5)
    found: dict[str, list[Figures]] = defaultdict(list)
    with servers.data_folder() as folder:
        async with servers.inkstream(folder, OURS, script=_script()) as ours, servers.bare(PACE) as limit:
            async for _, server in bench.turns(7, [ours, limit]):
                tell(server.name)
                figures = await server.measure(streams=(32,), tokens=int(PACE * seconds), ramp=0.5)
                found[server.name].append(outcome.keep(server.name, figures))
    pairs = list(zip(found[OURS], found[limit.name], strict=True))
    jitter = max(f.jitter.p99 for rounds in found.values() for f in rounds) * 1e3
    outcome.judge("added p50", [(a.gap.p50 - b.gap.p50) * 1e3 for a, b in pairs], "ms", most=1)
    outcome.judge("added p99", [(a.gap.p99 - b.gap.p99) * 1e3 for a, b in pairs], "ms", most=3)
    outcome.judge("timers of an idle process late by p99", [jitter], "ms")
    outcome.table = [["sender", "inter-token p50 ms", "p99", "max", "first token p50 ms", "tokens/s"]]
    outcome.table += [[name, *_latency(rounds)] for name, rounds in found.items()]
    return outcome


async def unpaced(bench: Bench) -> Outcome:
    """An engine that never waits: how many tokens one core's worth of gateway brings to sockets."""
    outcome = bench.outcome("unpaced", "An engine as fast as it goes")
    tokens = bench.pick(400_000, 80_000)
    found: dict[tuple[int, int], list[Figures]] = defaultdict(list)
    with servers.data_folder() as folder:
        async with AsyncExitStack() as stack:
            contestants = []
            for chunk in (64, 1):
                script = _script(tokens_per_second=0, tokens_per_chunk=chunk)
                server = await stack.enter_async_context(
                    servers.inkstream(folder / str(chunk), script=script)
                )
                contestants += [(server, chunk, streams) for streams in (1, 8, 32)]
            async for _, (server, chunk, streams) in bench.turns(3, contestants):
                tell(f"{streams} streams, {chunk} tokens per chunk of the engine")
                whole = tokens * 8 if chunk > 1 else tokens
                figures = await server.measure(streams=(streams,), tokens=whole // streams)
                found[chunk, streams].append(outcome.keep(f"{streams} streams, {chunk} per chunk", figures))
    for (chunk, streams), rounds in found.items():
        per_core = [1e6 / cpu_us(figures)[0] for figures in rounds]
        what = f"{streams} streams, the engine gives {chunk} tokens at a time"
        outcome.judge(what, per_core, "tokens/s per core", least=300_000 if chunk > 1 else None)
    outcome.table = [["streams", "tokens per chunk", "tokens/s by the clock", "tokens per event", "errors"]]
    for (chunk, streams), rounds in found.items():
        per_event = of(rounds, lambda f: f.tokens / max(f.events, 1))
        speed = of(rounds, lambda f: f.tokens_per_second)
        outcome.table.append([str(streams), str(chunk), speed, per_event, _errors(rounds)])
    return outcome
