"""llama.cpp's own server, bare, and inkstream over the same engine, taking turns."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from compare import servers
from compare.bench import Bench, tell
from compare.environments import weights
from compare.outcome import Outcome, of
from inkstream.bench import Figures

CONTEXT, SLOTS = 1024, 8


async def llama(bench: Bench) -> Outcome:
    """Real weights, greedy answers to the same questions."""
    outcome = bench.outcome("llama", "Over llama.cpp's own server, SmolLM2-135M-Instruct")
    tokens = bench.pick(128, 48)
    found: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    model = weights()
    with servers.data_folder() as folder:
        settings: dict[str, Any] = {
            "engine": "llama",
            "model": model,
            "context": CONTEXT,
            "slots": SLOTS,
            "offline": True,
        }
        async with (
            servers.llama_server(model, CONTEXT, SLOTS) as bare,
            servers.inkstream(folder, **settings) as ours,
        ):
            loads = [(server, streams) for streams in (1, 4, 8) for server in (bare, ours)]
            async for number, (server, streams) in bench.turns(7, loads):
                tell(f"{server.name}, {streams} streams")
                figures = await server.measure(
                    api="openai",
                    streams=(streams,),
                    tokens=tokens,
                    duration=bench.pick(10.0, 3.0),
                    seed=number,  # new questions, the same for both
                )
                found[server.name, streams].append(outcome.keep(f"{server.name}, {streams}", figures))
    for streams in (1, 4, 8):
        _judge(
            outcome, list(zip(found["inkstream", streams], found[bare.name, streams], strict=True)), streams
        )
    outcome.table = _table(found)
    return outcome


def _judge(outcome: Outcome, pairs: list[tuple[Figures, Figures]], streams: int) -> None:
    ratios = [a.tokens_per_second / b.tokens_per_second for a, b in pairs]
    outcome.judge(f"throughput, {streams} streams", ratios, "× the bare server's", least=0.95)
    added = [(a.first.p50 - b.first.p50) * 1e3 for a, b in pairs]
    allowed = max(10.0, 0.05 * 1e3 * max(b.first.p50 for _, b in pairs))
    outcome.judge(
        f"first token later by, {streams} streams", added, "ms", most=allowed, target="≤ 10 ms or 5 %"
    )


def _table(found: dict[tuple[str, int], list[Figures]]) -> list[list[str]]:
    lines = [["server", "streams", "tokens/s", "first token p50 ms", "inter-token p50 ms", "p99", "errors"]]
    for (name, streams), rounds in found.items():
        cells = [of(rounds, lambda f: f.tokens_per_second), of(rounds, lambda f: f.first.p50 * 1e3)]
        cells += [of(rounds, lambda f: f.gap.p50 * 1e3), of(rounds, lambda f: f.gap.p99 * 1e3)]
        lines.append([name, str(streams), *cells, str(sum(sum(f.errors.values()) for f in rounds))])
    return lines
