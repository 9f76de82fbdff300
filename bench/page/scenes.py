"""What is measured, scene by scene. Each gives the rows of the table that it can fill."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

from playwright.async_api import Browser, Error

from . import corpus
from .history import imported
from .lags import Lags, lags_of
from .lumps import Lumps
from .server import Server, serving
from .tasks import Task, Trace, traced
from .visit import LAST, LENGTH, Visit, visiting

FRAME_MS = 1000 / 60
TYPED_SECONDS = 40
KEY_SECONDS = 0.25
DROPS_RATE = 40  # tokens a second
DROPS_PAUSE = 0.7  # seconds between two blows, half as much to half as much again
SCROLLER = "document.querySelector('[data-testid=scroller]')"


@dataclass(frozen=True, slots=True)
class Row:
    criterion: str
    what: str
    target: str
    value: str
    is_met: bool | None  # None: reported, no target


@dataclass(frozen=True, slots=True)
class Stage:
    """Where scenes are played: the browser, how much slower its processor is, and how long they last."""

    browser: Browser
    throttle: float
    seconds: float
    drops: int
    seed: int


Scene = Callable[[Stage], Awaitable[list[Row]]]


async def long_answer(stage: Stage) -> list[Row]:
    """200 tokens a second of everything."""
    async with _read_at_200(stage, stage.seconds) as (visit, trace):
        await visit.until_ended()
    return _task_rows(trace, stage.seconds)


async def keys(stage: Stage) -> list[Row]:
    """Such an answer while somebody types: what a key costs is not the answer's."""
    async with _read_at_200(stage, min(stage.seconds, TYPED_SECONDS)) as (visit, trace):
        await _type_until_ended(visit)
    return [_key_row(trace)]


@asynccontextmanager
async def _read_at_200(stage: Stage, seconds: float) -> AsyncIterator[tuple[Visit, Trace]]:
    text = corpus.mixed(int(200 * seconds))
    with serving({"answer": text, "tokens_per_second": 200}) as server:
        async with visiting(stage.browser, server.url, stage.throttle, trace=False) as visit:
            browser = await stage.browser.new_browser_cdp_session()
            await visit.page.evaluate("probe.watchKeys()")
            async with traced(browser) as trace:
                await visit.ask()
                yield visit, trace


async def heap(stage: Stage) -> list[Row]:
    """The same answer, faster, behind one like it: by then what the page runs is compiled."""
    text = corpus.mixed(int(200 * stage.seconds))
    with serving({"answer": text, "tokens_per_second": 1000}) as server:
        async with visiting(stage.browser, server.url, stage.throttle, trace=False) as visit:
            heaps = [await visit.heap_bytes()]
            for count in (1, 2):
                await visit.ask()
                await visit.until(f"document.querySelectorAll('[data-testid=answer]').length === {count}")
                await visit.until_ended()
                heaps.append(await visit.heap_bytes())
            heaps.append(await visit.heap_bytes())
    return _heap_rows(len(text.encode()), heaps)


async def _type_until_ended(visit: Visit) -> None:
    ended = asyncio.ensure_future(visit.until_ended())
    await visit.until_longer(20)
    while not ended.done():
        await visit.page.keyboard.press("x")
        await asyncio.sleep(KEY_SECONDS)
    await ended


def _task_rows(trace: Trace, seconds: float) -> list[Row]:
    part = min(10.0, seconds / 3) * 1000
    start, end = trace.tasks[0].at, trace.tasks[-1].at
    first, last = _cpu_from(trace.tasks, start, part), _cpu_from(trace.tasks, end - part, part)
    budget = 4000 * seconds / 100
    return [
        Row(
            "T7",
            "longest main-thread task, CPU",
            "≤ 16 ms",
            f"{trace.longest_ms:.1f} ms",
            trace.longest_ms <= 16,
        ),
        Row("T7", "tasks over 16 ms of CPU", "0", f"{sum(task.cpu > 16 for task in trace.tasks)}", None),
        Row("T7", "frames dropped", "reported", f"{trace.dropped} of {trace.frames}", None),
        Row(
            "T8",
            "main-thread CPU",
            f"≤ {budget / 1000:.1f} s",
            f"{trace.cpu_ms / 1000:.2f} s",
            trace.cpu_ms <= budget,
        ),
        Row("T8", f"last {part / 1000:.0f} s to first", "≤ 1.3", f"{last / first:.2f}", last <= 1.3 * first),
    ]


def _cpu_from(tasks: list[Task], start: float, length: float) -> float:
    return sum(task.cpu for task in tasks if start <= task.at < start + length)


def _heap_rows(size: int, heaps: list[int]) -> list[Row]:
    empty, first, second, later = heaps
    growth = (second - first) / size
    value = f"{growth:.1f}, of the first {(first - empty) / size:.1f}; {(second - empty) / 1e6:.1f} MB in all"
    return [
        Row("T9", "heap growth by text, collected", "≤ 8", value, growth <= 8),
        Row(
            "T9", "a second collection to the first", "flat", f"{later / second:.2f}", later <= 1.02 * second
        ),
    ]


def _key_row(trace: Trace) -> Row:
    spans = sorted(trace.cpu_per_key())
    p95 = spans[math.ceil(len(spans) * 0.95) - 1] if spans else math.inf
    value = f"{p95:.1f} ms p95 of {len(spans)}"
    return Row("T12", "key press to paint, CPU", "≤ 16 ms", value, p95 <= 16)


async def steady(stage: Stage) -> list[Row]:
    """Even streams of both languages at several rates."""
    rows: list[Row] = []
    firsts: list[float] = []
    for language, sentence in (("en", corpus.ENGLISH), ("zh", corpus.HAN)):
        for rate in (6, 20, 40, 200):
            text = corpus.plain(sentence, int(rate * min(stage.seconds, 10)))
            async with _answered(stage, text, rate) as (visit, lags):
                firsts.append(await _first_ms(visit))
            p95, longest = (100, 150) if rate >= 20 else (400, 450)
            met = lags.p95 <= p95 and lags.longest <= longest
            value = f"{lags.p95:.0f} / {lags.longest:.0f} ms, arrivals up to {lags.gap:.0f} ms apart"
            rows.append(
                Row("T2", f"lag p95 / max, {rate} tok/s {language}", f"≤ {p95} / {longest} ms", value, met)
            )
            rows.append(_tail_row(lags, f"{rate} tok/s {language}"))
            rows.append(_paint_row(lags, f"{rate} tok/s {language}"))
    return [_first_row(firsts), *rows]


async def _first_ms(visit: Visit) -> float:
    probe = await visit.probe()
    return float(probe["firstSeen"] - probe["firstByte"])


def _first_row(firsts: list[float]) -> Row:
    worst = max(firsts)
    value = f"{statistics.median(firsts):.0f} / {worst:.0f} ms of {len(firsts)}"
    return Row(
        "T1", "first byte to first character, median / worst", "≤ 2 frames", value, worst <= 2 * FRAME_MS + 1
    )


def _tail_row(lags: Lags, what: str) -> Row:
    return Row("T4", f"tail, {what}", "≤ 250 ms", f"{lags.tail:.0f} ms", lags.tail <= 250)


def _paint_row(lags: Lags, what: str) -> Row:
    return Row("T6", f"largest paint, {what}", "≤ 25", f"{lags.paint}", lags.paint <= 25)


@asynccontextmanager
async def _answered(
    stage: Stage,
    text: str,
    rate: float,
    every_seconds: float = 0,
    script: Mapping[str, float] = MappingProxyType({}),
) -> AsyncIterator[tuple[Visit, Lags]]:
    """A page with an answer that has come, through a way that brings it in lumps if told so."""
    with serving({"answer": text, "tokens_per_second": rate, **script}) as server:
        way = Lumps(server.port)
        async with way.open(), visiting(stage.browser, way.url, stage.throttle, trace=True) as visit:
            way.every_seconds = every_seconds
            await visit.ask()
            await visit.until_ended()
            yield visit, lags_of(await visit.samples())


async def lumps(stage: Stage) -> list[Row]:
    """Bursts of 80 characters, stalls of 2.5 s, and everything at once."""
    seconds = min(stage.seconds, 20)
    rate = 80 / 0.47 / corpus.CHARACTERS_PER_TOKEN
    rows: list[Row] = []
    async with _answered(stage, corpus.plain(corpus.ENGLISH, int(rate * seconds)), rate, 0.47) as (_, lags):
        rows.append(
            Row("T5", "variation per 100 ms, bursts", "≤ 0.35", f"{lags.evenness:.2f}", lags.evenness <= 0.35)
        )
        rows.append(_lag_row(lags, "80 characters every 470 ms"))
        rows.append(_tail_row(lags, "bursts"))
    async with _answered(stage, corpus.plain(corpus.HAN, int(40 * seconds)), 40, 2.5) as (_, lags):
        rows.append(_lag_row(lags, "a lump every 2.5 s"))
    # It does not begin before the page listens: what was over by then is shown as what has been there.
    text, slow = corpus.plain(corpus.ENGLISH, 1600), {"prefill_tokens_per_second": 10}
    async with _answered(stage, text, 0, script=slow) as (_, lags):
        rows += [_lag_row(lags, "4,000 characters at once"), _tail_row(lags, "4,000 characters at once")]
    return rows


def _lag_row(lags: Lags, what: str) -> Row:
    return Row("T3", f"longest lag, {what}", "≤ 450 ms", f"{lags.longest:.0f} ms", lags.longest <= 450)


async def hidden(stage: Stage) -> list[Row]:
    """A tab that is hidden in mid-answer and shown again."""
    away = min(60.0, stage.seconds * 0.6)
    text = corpus.mixed(int(100 * (away + 6)))
    with serving({"answer": text, "tokens_per_second": 100}) as server:
        async with visiting(stage.browser, server.url, stage.throttle, trace=True) as visit:
            await visit.ask()
            await visit.until_longer(100)
            await visit.page.evaluate("probe.hide(true)")
            await asyncio.sleep(away)
            await visit.samples()
            await visit.page.evaluate("probe.hide(false)")
            await visit.until(f"{LENGTH} > {int(100 * away)}")
            await asyncio.sleep(1)
            samples = await visit.samples()
    arrived = next(sample for sample in samples if sample["arrived"] > 100 * away)
    whole = next(sample for sample in samples if sample["shown"] >= arrived["arrived"])
    late = whole["now"] - arrived["now"]
    what = f"what came in {away:.0f} s hidden, in view after its arrival"
    return [Row("T10", what, "≤ 1 frame", f"{late:.0f} ms", late <= FRAME_MS + 1)]


async def drops(stage: Stage) -> list[Row]:
    """Two tabs read one answer while connections break, pages reload and the gateway dies."""
    chance = random.Random(stage.seed)
    text = corpus.counted(int(DROPS_RATE * stage.drops * DROPS_PAUSE * 1.5))
    with serving({"answer": text, "tokens_per_second": DROPS_RATE}) as server:
        way = Lumps(server.port)
        async with way.open(), visiting(stage.browser, way.url, 1, trace=False) as first:
            await first.ask()
            await first.until_longer(20)
            async with visiting(stage.browser, first.page.url, 1, trace=False) as second:
                counts = await _break(stage, server, way, (first, second), chance)
                shown = [await _whole_text(visit) for visit in (first, second)]
    equal = sum(said == text for said in shown)
    what = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return [Row("T11", f"tabs with the exact text after {what}", "2", f"{equal}", equal == 2)]


async def _break(
    stage: Stage, server: Server, way: Lumps, tabs: tuple[Visit, ...], chance: random.Random
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in range(stage.drops):
        what = chance.choices(("cuts", "reloads", "kills"), (6, 3, 1))[0]
        counts[what] = counts.get(what, 0) + 1
        if what == "cuts":
            way.cut()
        elif what == "kills":
            server.kill("gateway")
        else:
            await _reload(chance.choice(tabs))
        await asyncio.sleep(DROPS_PAUSE * chance.uniform(0.5, 1.5))
    return counts


async def _reload(visit: Visit) -> None:
    """As often as somebody does who finds the gateway dead."""
    while True:
        try:
            await visit.page.reload()
        except Error:
            await asyncio.sleep(DROPS_PAUSE)
        else:
            return


async def _whole_text(visit: Visit) -> str:
    await visit.until_ended()
    said = await visit.page.get_by_test_id("answer").last.get_by_test_id("text").all_inner_texts()
    return "".join(said)


async def scrolled_up(stage: Stage) -> list[Row]:
    """A reader who looks at what is further up while the answer goes on."""
    text = corpus.mixed(200 * 14)
    with serving({"answer": text, "tokens_per_second": 200}) as server:
        async with visiting(stage.browser, server.url, stage.throttle, trace=False) as visit:
            await visit.ask()
            await visit.until(f"{SCROLLER}.scrollTop > 600", every_ms=50)
            await visit.page.get_by_test_id("scroller").hover()
            await visit.page.mouse.wheel(0, -400)
            await visit.page.get_by_test_id("jump").wait_for()
            await asyncio.sleep(1)  # a smooth scroll comes to rest
            await visit.page.evaluate("probe.watchShifts()")
            where = await visit.page.evaluate(f"{SCROLLER}.scrollTop")
            await visit.until_ended()
            shifts = (await visit.probe())["shifts"]
            moved = await visit.page.evaluate(f"{SCROLLER}.scrollTop") - where
    value = f"{shifts:.4f}, moved {moved:.0f} px"
    return [Row("T13", "layout shift while scrolled up", "0", value, shifts == 0 and moved == 0)]


async def opened(stage: Stage) -> list[Row]:
    """A conversation of 500 messages and 2 MB, from its address to its end in view."""
    with serving({"answer": ""}) as server:
        url = imported(server.url, 500, 3_200)
        async with visiting(stage.browser, server.url, stage.throttle, trace=False) as visit:
            empty = await visit.heap_bytes()
            browser = await stage.browser.new_browser_cdp_session()
            async with traced(browser) as trace:
                await visit.page.evaluate(f"location.href = '{url}'")
                await visit.until(f"{LAST}?.querySelector('[data-testid=text] table')")
                await asyncio.sleep(1)
            grown = await visit.heap_bytes() - empty
    value = f"{trace.cpu_ms:.0f} ms, longest task {trace.longest_ms:.0f} ms, heap {grown / 1e6:.1f} MB"
    return [Row("", "500 messages, 2 MB: main-thread CPU until drawn", "reported", value, None)]


SCENES: dict[str, Scene] = {
    "long": long_answer,
    "keys": keys,
    "heap": heap,
    "steady": steady,
    "lumps": lumps,
    "hidden": hidden,
    "drops": drops,
    "scrolled": scrolled_up,
    "opened": opened,
}
