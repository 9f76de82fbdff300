"""Rows through ``Engine.generate``: text and the event loop included; and answers cut and continued."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inkstream import collector
from inkstream.engines import Chunk, Emitted, Finish, Progress, Prompt, Request, Sampling
from inkstream.engines.torch.engine import Launch, TorchEngine
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.text import Pieces, Texts
from torch_table.core import Figures
from torch_table.driving import Ruled, greedy, mixed, percentile
from torch_table.place import Place

SEEDED = Rules(temperature=0.7, top_k=20, top_p=0.8, repetition=1.05)


@dataclass
class Heard:
    """What came of a request, and when the first of it came."""

    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    chunks: list[Chunk] = field(default_factory=list)
    finish: Finish | None = None

    def take(self, item: Chunk | Progress) -> None:
        if isinstance(item, Chunk):
            self.first = self.first or time.perf_counter() - self.began
            self.chunks.append(item)

    @property
    def whole(self) -> list[Chunk]:
        last = self.finish.last if self.finish else None
        return [*self.chunks, *([last] if last else [])]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.whole)

    @property
    def ids(self) -> list[int]:
        return [id for chunk in self.whole for id in chunk.ids or ()]


def sampling_of(rules: Rules, new: int) -> Sampling:
    return Sampling(
        temperature=rules.temperature,
        top_k=rules.top_k,
        top_p=rules.top_p,
        min_p=0.0,
        repetition_penalty=rules.repetition,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        seed=rules.seed,
        max_tokens=new,
        ignore_eos=True,
    )


async def ask(
    engine: TorchEngine, ids: Sequence[int], sampling: Sampling, emitted: Emitted | None = None
) -> Heard:
    heard = Heard()
    request = Request("bench", Prompt(len(ids), list(ids)), sampling)
    heard.finish = await engine.generate(request, emitted or Emitted(), heard.take)
    return heard


@asynccontextmanager
async def opened(place: Place, path: Path, slots: int) -> AsyncIterator[TorchEngine]:
    launch = Launch(
        path=path, context=place.scale.context, slots=slots, device=place.device.type, dtype="bfloat16"
    )
    async with TorchEngine(launch) as engine:
        collector.settle()  # as the engine's process does
        yield engine


async def together(engine: TorchEngine, prompts: Sequence[Sequence[int]], new: int, rules: Ruled) -> Figures:
    """All prompts at once, each with its own rules."""
    started = time.perf_counter()
    asked = [ask(engine, ids, sampling_of(rules(at), new)) for at, ids in enumerate(prompts)]
    answers = await asyncio.gather(*asked)
    seconds = time.perf_counter() - started
    tokens = sum(heard.finish.completion_tokens for heard in answers if heard.finish)
    firsts = [1e3 * heard.first for heard in answers]
    return {
        "tokens_per_second": tokens / seconds,
        "first_ms_p50": percentile(firsts, 0.5),
        "first_ms_p95": percentile(firsts, 0.95),
    }


def engine_speed(place: Place) -> Iterator[Figures]:
    """The same table as ``speed``, and the first token of a prompt that finds the engine idle."""
    place.clear()
    yield from _driven(_engine_speed(place))


async def _engine_speed(place: Place) -> AsyncIterator[Figures]:
    scale, started = place.scale, time.perf_counter()
    async with opened(place, place.folder, scale.seats) as engine:
        yield {"seconds_to_start": time.perf_counter() - started}
        idle = [await ask(engine, ids, sampling_of(Rules(), 2)) for ids in place.prompts(scale.firsts + 1)]
        firsts = [1e3 * heard.first for heard in idle[1:]]
        yield {"idle": {"first_ms_p50": percentile(firsts, 0.5), "first_ms_p95": percentile(firsts, 0.95)}}
        for count in scale.sizes:
            for name, rules in (("greedy", greedy), ("mixed", mixed)):
                yield {f"{count} {name}": await _median(place, engine, count, rules)}


async def _median(place: Place, engine: TorchEngine, count: int, rules: Ruled) -> Figures:
    runs = [
        await together(engine, place.prompts(count), place.scale.new, rules)
        for _ in range(place.scale.rounds + 1)
    ][1:]
    return sorted(runs, key=lambda run: run["tokens_per_second"])[len(runs) // 2]


def seams(place: Place) -> Iterator[Figures]:
    """Answers in bfloat16, each cut at a random chunk and continued by an engine that has not seen it, as
    behind a kill: greedy and seeded, alone and among others. Random weights, and real ones where there are
    any: the nearer two tokens are to each other, the sooner rounding tells."""
    place.clear()
    yield from _driven(_seams(place, "random weights", place.folder))
    if place.real is not None:
        yield from _driven(_seams(place, "real weights", place.real))


async def _seams(place: Place, kind: str, path: Path) -> AsyncIterator[Figures]:
    scale, draw = place.scale, random.Random(7)
    async with opened(place, path, scale.among) as first, opened(place, path, scale.among) as second:
        for crowd, at_a_time in (("alone", 1), (f"among {scale.among}", scale.among)):
            for name, rules in (("greedy", Rules()), ("seeded", SEEDED)):
                seen: list[Seam] = []
                while len(seen) < scale.kills:
                    killed = _killed(place, first, second, rules, draw, at_a_time)
                    seen += (await killed)[: scale.kills - len(seen)]
                yield {f"{kind}, {name}, {crowd}": _told(seen)}


@dataclass(frozen=True, slots=True)
class Seam:
    """An answer that was cut, beside the undisturbed one. ``problems`` are what is wrong with the seam."""

    is_equal: bool
    problems: tuple[str, ...]


async def _killed(
    place: Place, first: TorchEngine, second: TorchEngine, rules: Rules, draw: random.Random, count: int
) -> list[Seam]:
    vocabulary = first._ready().model.weights.shape.vocabulary
    prompts = [
        [draw.randrange(1000, min(vocabulary, 100_000)) for _ in range(place.scale.prompt)]
        for _ in range(count)
    ]
    samplings = [sampling_of(replace(rules, seed=draw.randrange(1 << 60)), place.scale.new) for _ in prompts]
    whole = await asyncio.gather(
        *(ask(first, ids, sampling) for ids, sampling in zip(prompts, samplings, strict=True))
    )
    emitted = [_cut(heard, draw) for heard in whole]
    asked: list[Awaitable[Heard]] = [
        ask(second, ids, sampling, before)
        for ids, sampling, before in zip(prompts, samplings, emitted, strict=True)
    ]
    rests = await asyncio.gather(*asked)
    return [_seam(first, *each) for each in zip(whole, emitted, rests, strict=True)]


def _cut(heard: Heard, draw: random.Random) -> Emitted:
    """What was visible when the engine died."""
    before = heard.whole[: draw.randrange(1, max(len(heard.whole), 2))]
    ids = tuple(id for chunk in before for id in chunk.ids or ())
    return Emitted("".join(chunk.text for chunk in before), ids, sum(chunk.tokens for chunk in before))


def _seam(engine: TorchEngine, whole: Heard, emitted: Emitted, rest: Heard) -> Seam:
    """Well-formed: all ids together spell what was shown before and behind, and their number is right."""
    assert emitted.ids is not None
    text, ids = emitted.text + rest.text, [*emitted.ids, *rest.ids]
    pieces = Pieces(Texts(engine._ready().model.chat.tokenizer))
    spelled = "".join(map(pieces.feed, ids))
    finish, undisturbed = rest.finish, whole.finish
    problems = []
    if spelled != text:
        problems.append("ids and text differ")
    if finish is None or undisturbed is None or finish.completion_tokens != undisturbed.completion_tokens:
        problems.append("another number of tokens")
    return Seam(text == whole.text, tuple(problems))


def _told(seams: Sequence[Seam]) -> dict[str, Any]:
    return {
        "seams": len(seams),
        "well_formed": sum(not seam.problems for seam in seams),
        "problems": sorted({problem for seam in seams for problem in seam.problems}),
        "equal_share": sum(seam.is_equal for seam in seams) / len(seams),
    }


def _driven(figures: AsyncIterator[Figures]) -> Iterator[Figures]:
    """What an asynchronous row yields, as it comes."""
    with asyncio.Runner() as runner:

        async def following() -> Figures | None:
            return await anext(figures, None)

        while (figure := runner.run(following())) is not None:
            yield figure
