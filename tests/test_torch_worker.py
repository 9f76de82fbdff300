"""What a step costs those around it: one frame for everybody in it, and no further step for who has left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from inkstream.engines import Emitted
from inkstream.engines.torch.engine import TorchEngine
from inkstream.engines.torch.runner import Outcome
from inkstream.engines.torch.scheduler import Sequence, Step
from tests.test_link import RawGateway, hosted
from tests.test_torch import GREEDY, ask, ids_of, opened, request_of

pytestmark = pytest.mark.real


def watched(engine: TorchEngine) -> list[list[Sequence]]:
    """Who is in each step, as the device gets them."""
    runner = engine._ready()._worker._runner
    launch, steps = runner.launch, list[list[Sequence]]()

    def launched(step: Step) -> Outcome:
        steps.append([fill.sequence for fill in step.fills] + [row for row, _ in step.rows])
        return launch(step)

    runner.launch = launched  # type: ignore[method-assign]  # it passes everything on
    return steps


async def test_a_step_is_one_frame_for_everybody_in_it(qwen2_checkpoint: Path) -> None:
    calls = set(range(4))
    async with opened(qwen2_checkpoint) as engine:
        steps, frames, ended = watched(engine), list[set[int]](), set[int]()
        async with hosted(engine) as (_, url), RawGateway.connected(url) as raw:
            await raw.shake_hands()
            for call in calls:
                request = replace(request_of(ids_of(20, seed=call), GREEDY), id=str(call))
                raw.send(["generate", call, request, Emitted()])
            while ended != calls:
                frame = await raw.receive()
                frames.append(set(frame["chunks"][0]) if frame["chunks"] else set())
                ended |= {call for call, *_ in frame.get("ends", [])}
    # A step in which nobody's token ends a character has nothing to tell.
    assert len(frames) <= len(steps)
    assert sum(map(len, steps)) > 3 * len(steps)
    assert frames.count(calls) > len(steps) // 3


async def test_who_is_cancelled_is_in_at_most_one_more_step(qwen2_checkpoint: Path) -> None:
    async with opened(qwen2_checkpoint, slots=1) as engine:
        steps, has_begun = watched(engine), asyncio.Event()
        long = request_of(ids_of(20, seed=1), replace(GREEDY, max_tokens=900))
        first = asyncio.create_task(engine.generate(long, Emitted(), lambda _: has_begun.set()))
        await has_begun.wait()
        (sequence,) = engine._ready().calls
        first.cancel()
        await asyncio.wait([first])
        before = len(steps)
        assert (await ask(engine, request_of(ids_of(20, seed=2), GREEDY))).text
        assert sum(sequence in members for members in steps[before:]) <= 1
        assert sequence in steps[before - 1]
