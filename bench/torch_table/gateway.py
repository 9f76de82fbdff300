"""Through everything: ``inkstream serve``, its log, and clients that read server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from compare import servers
from inkstream.bench import Figures as Measured
from torch_table.core import Figures
from torch_table.driving import greedy
from torch_table.engine import _driven, opened, together
from torch_table.place import Place


def gateway(place: Place) -> Iterator[Figures]:
    """Greedy answers to as many clients as the table has, and the same from the bare engine beside it. The
    longer answers tell what a token costs; the short ones also have what beginning an answer costs."""
    place.clear()
    yield from _driven(_bare(place))
    place.clear()
    yield from _driven(_served(place))


async def _bare(place: Place) -> AsyncIterator[Figures]:
    scale = place.scale
    async with opened(place, place.folder, scale.served) as engine:
        for new in (scale.new, scale.served_new):
            runs = [
                await together(engine, place.prompts(scale.served), new, greedy)
                for _ in range(scale.rounds + 1)
            ]
            yield {
                f"bare engine, {new} tokens": _median(
                    [run["tokens_per_second"] for run in runs[1:]], runs[1:]
                )
            }


async def _served(place: Place) -> AsyncIterator[Figures]:
    scale = place.scale
    settings: dict[str, Any] = {
        "engine": "torch", "model": place.folder, "device": place.device.type, "dtype": "bfloat16",
        "slots": scale.served, "context": scale.context, "offline": True,
    }  # fmt: skip
    with servers.data_folder() as folder:
        async with servers.inkstream(folder, **settings) as server:
            for new in (scale.new, scale.served_new):
                runs = [
                    await server.measure(
                        api="native", streams=(scale.served,), tokens=new, seed=number, workers=2
                    )
                    for number in range(scale.rounds + 1)
                ][1:]
                told = [_told(run) for run in runs]
                yield {f"gateway, {new} tokens": _median([run["tokens_per_second"] for run in told], told)}


def _told(run: Measured) -> Figures:
    """Processor time apart by who used it: what serves, what computes, who reads."""
    serving, engine = servers.cpu_us(run)
    return {
        "tokens_per_second": run.tokens_per_second,
        "first_ms_p50": 1e3 * run.first.p50,
        "inter_token_ms_p50": 1e3 * run.gap.p50,
        "inter_token_ms_p99": 1e3 * run.gap.p99,
        "serving_cpu_us_per_token": serving,
        "engine_cpu_us_per_token": engine,
        "clients_cpu_us_per_token": 1e6 * run.client_cpu_seconds / max(run.tokens, 1),
        "errors": run.errors,
    }


def _median(keys: list[float], runs: list[Figures]) -> Figures:
    return sorted(zip(keys, runs, strict=True), key=lambda pair: pair[0])[len(runs) // 2][1]
