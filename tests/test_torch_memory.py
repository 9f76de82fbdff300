"""When memory runs out: at loading it is said what would fit; in mid-answer nobody loses a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from inkstream import machine  # noqa: E402 - without torch there is nothing to import for
from inkstream.engines import Phase, Prompt, Request, Sampling  # noqa: E402
from inkstream.engines.torch import loading, thrift  # noqa: E402
from inkstream.engines.torch.engine import Launch, TorchEngine  # noqa: E402
from inkstream.engines.torch.runner import Outcome  # noqa: E402
from inkstream.engines.torch.scheduler import Step  # noqa: E402
from inkstream.errors import EngineLost, ModelError  # noqa: E402
from tests.calls import answered, text_of  # noqa: E402

pytestmark = pytest.mark.real

DRAWN = Sampling(temperature=0.9, top_k=40, repetition_penalty=1.1, max_tokens=40)
LENGTHS = (5, 40, 130, 60, 300, 17)


class Memory:
    """Stands between the worker and its runner, and refuses what ``fits`` does not let through."""

    def __init__(self, engine: TorchEngine, fits: Callable[[Step], bool]) -> None:
        self._runner = engine._ready()._worker._runner
        self._launch, self._fits = self._runner.launch, fits
        self.refusals = 0
        self.sizes: list[int] = []
        self._runner.launch = self.launch  # type: ignore[method-assign]  # the fault is put in here

    def launch(self, step: Step) -> Outcome:
        if not self._fits(step):
            self.refusals += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.sizes.append(len(step.rows) + len(step.fills))
        return self._launch(step)


def tokens_of(step: Step) -> int:
    return len(step.rows) + sum(fill.count for fill in step.fills)


@asynccontextmanager
async def opened(path: Path, **launch: Any) -> AsyncIterator[TorchEngine]:
    async with TorchEngine(Launch(path=path, context=512, slots=6, device="cpu", **launch)) as engine:
        yield engine


async def texts(engine: TorchEngine) -> list[str]:
    """Answers to prompts of many lengths, asked together."""
    prompts = [[1000 + at * length % 700 for at in range(length)] for length in LENGTHS]
    asked = [
        Request("r", Prompt(len(prompt), prompt), replace(DRAWN, seed=seed))
        for seed, prompt in enumerate(prompts)
    ]
    return [text_of(chunks) for chunks, _ in await asyncio.gather(*(answered(engine, r) for r in asked))]


@pytest.fixture(scope="module")
async def undisturbed(qwen2_checkpoint: Path, anyio_backend: str) -> list[str]:
    async with opened(qwen2_checkpoint) as engine:
        said = await texts(engine)
    assert len(set(said)) == len(LENGTHS)
    return said


async def test_steps_that_do_not_fit_are_made_smaller_and_cost_nobody_a_word(
    qwen2_checkpoint: Path, undisturbed: list[str]
) -> None:
    async with opened(qwen2_checkpoint) as engine:
        memory = Memory(engine, lambda step: len(step.rows) + len(step.fills) <= 3 and tokens_of(step) <= 100)
        assert await texts(engine) == undisturbed
        assert memory.refusals > 0
        assert engine.preemptions > 0
        assert max(memory.sizes) <= 3
        assert engine.status.phase is Phase.READY


async def test_more_is_tried_again_by_and_by(
    qwen2_checkpoint: Path, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrift, "FITTING_STEPS", 4)
    async with opened(qwen2_checkpoint) as engine:
        memory = Memory(engine, lambda step: memory.refusals >= 3 or len(step.rows) < 3)
        assert await texts(engine) == undisturbed
        assert memory.refusals == 3
        assert max(memory.sizes[-30:]) > 3, "the others came back when there was memory again"


async def test_a_single_token_that_does_not_fit_is_waited_for(
    qwen2_checkpoint: Path, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrift, "PAUSE_SECONDS", 0.001)
    async with opened(qwen2_checkpoint) as engine:
        memory = Memory(engine, lambda step: memory.refusals >= 6 or len(memory.sizes) < 20)
        assert await texts(engine) == undisturbed
        assert memory.refusals == 6


async def test_memory_that_never_comes_back_loses_the_engine_and_not_silently(
    qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrift, "PAUSE_SECONDS", 0.001)
    async with opened(qwen2_checkpoint) as engine:
        Memory(engine, lambda step: False)
        with pytest.raises(EngineLost, match="out of memory"):
            await texts(engine)
        assert (engine.status.phase, engine.status.code) == (Phase.GIVEN_UP, "engine_failed")


async def test_weights_that_cannot_fit_are_refused_with_what_does(
    qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(500 << 20, 350 << 20))
    engine = TorchEngine(Launch(path=qwen2_checkpoint, device="cpu", dtype="float32"))
    with pytest.raises(ModelError) as refused:
        await engine.load()
    assert refused.value.code == engine.status.code == "model_too_large"
    assert "(32 bits each)" in refused.value.message
    assert "--dtype bfloat16 takes" in refused.value.message
    assert "0.2 billion parameters fit in 16 bits" in refused.value.message
    assert engine.status.phase is Phase.GIVEN_UP


async def test_weights_that_leave_no_room_for_an_answer_are_refused(
    qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "require_room", lambda *_: None)
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(1 << 20, 100 << 10))
    with pytest.raises(ModelError, match="256 are the least") as refused:
        await TorchEngine(Launch(path=qwen2_checkpoint, device="cpu")).load()
    assert refused.value.code == "model_too_large"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
async def test_an_allocator_that_fails_while_loading_says_what_takes_less(
    qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(loading, "create_runner", fail)
    with pytest.raises(ModelError, match="fewer --slots, a shorter --context") as refused:
        await TorchEngine(Launch(path=qwen2_checkpoint, device="cpu")).load()
    assert refused.value.code == "model_too_large"
