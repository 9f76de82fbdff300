"""Measures the torch engine on a CPU beside transformers.

``python bench/torch_cpu.py FOLDER… [--json FILE]``. Each FOLDER has a checkpoint with a chat template; one that
has only a tokenizer gets random weights of Qwen2-0.5B's shape first. In float32, greedily, from 58-token prompts
to ``--tokens`` new ones: ``generate`` of transformers alone, the engine alone, and four answers at a time,
interleaved ``--rounds`` times. Told are medians of tokens per second, and per second of processor time, which
other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from inkstream.engines import Emitted, Prompt, Request, Sampling
from inkstream.engines.torch.engine import Launch, TorchEngine

PROMPT = 58
STREAMS = 4

Answered = Callable[[], Awaitable[int]]
"""Writes, and tells how many tokens."""


def write_model(folder: Path) -> None:
    config = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=config.vocab_size - 1)
    model.save_pretrained(folder)


class Bench:
    def __init__(self, folder: Path, engine: TorchEngine, tokens: int) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._engine, self._tokens, self._draw = engine, tokens, random.Random(1)

    def prompt(self) -> list[int]:
        """Never the same one twice: nothing may be known of it."""
        return [self._draw.randrange(1000, 40_000) for _ in range(PROMPT)]

    async def generate(self) -> int:
        ids = torch.tensor([self.prompt()])
        limits = {"min_new_tokens": self._tokens, "max_new_tokens": self._tokens}
        with torch.inference_mode():
            written = self._model.generate(ids, do_sample=False, **limits)
        return int(written.shape[1]) - PROMPT

    async def alone(self) -> int:
        sampling = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=self._tokens, ignore_eos=True)
        request = Request("r", Prompt(PROMPT, self.prompt()), sampling)
        finish = await self._engine.generate(request, Emitted(), lambda _: None)
        return finish.completion_tokens

    async def together(self) -> int:
        return sum(await asyncio.gather(*(self.alone() for _ in range(STREAMS))))


async def speeds(work: Answered) -> tuple[float, float]:
    """Tokens per second, and per second of all threads' processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    tokens = await work()
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - processor)


async def measure(folder: Path, tokens: int, rounds: int, threads: int) -> dict[str, list[float]]:
    launch = Launch(path=folder, device="cpu", dtype="float32", slots=STREAMS, context=512, threads=threads)
    async with TorchEngine(launch) as engine:
        bench = Bench(folder, engine, tokens)
        ways = {
            "transformers' generate": bench.generate,
            "the engine, alone": bench.alone,
            f"the engine, {STREAMS} streams": bench.together,
        }
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, work in ways.items():
                speed = await speeds(work)
                if turn:  # the first one warms up
                    seen[name].append(speed)
    return {
        name: [statistics.median(values) for values in zip(*taken, strict=True)]
        for name, taken in seen.items()
    }


def table(folder: Path, measured: dict[str, list[float]]) -> str:
    base, *_ = measured.values()
    rows = [
        f"| {name} | {wall:.1f} | {wall / base[0]:.2f} × | {processor:.1f} | {processor / base[1]:.2f} × |"
        for name, (wall, processor) in measured.items()
    ]
    head = f"| {folder.name} | tokens/s | | per processor second | |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {"torch": torch.__version__, "threads": given.threads}
    for folder in given.folders:
        if not list(folder.glob("*.safetensors")):
            write_model(folder)
        results[folder.name] = asyncio.run(measure(folder, given.tokens, given.rounds, given.threads))
        print(table(folder, results[folder.name]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
