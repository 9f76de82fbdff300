"""Measures the torch engine on a CPU beside transformers: ``python bench/torch_cpu.py FOLDER…``.

Each FOLDER has a checkpoint with a chat template; one that has only a tokenizer gets random weights of
Qwen2-0.5B's shape first. In float32, greedily, from 58-token prompts to ``--tokens`` new ones: ``generate``
of transformers alone, the engine alone, and four answers at a time, interleaved ``--rounds`` times. Told are
medians of tokens per second, and per second of processor time, which other programs change less. With
``--vllm PYTHON`` that interpreter's vLLM serves the same checkpoint beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from inkstream.bench.measure import Meter
from inkstream.engines import Emitted, Prompt, Request, Sampling
from inkstream.engines.torch.engine import Launch, TorchEngine
from inkstream.probe import free_port

PROMPT = 58
STREAMS = 4
VLLM_START_SECONDS = 240

Answered = Callable[[], Awaitable[int]]
"""Writes, and tells how many tokens."""

Clock = Callable[[], float]
"""Seconds of processor time so far."""


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
        self._engine, self.tokens, self._draw = engine, tokens, random.Random(1)

    def prompt(self) -> list[int]:
        """Never the same one twice: nothing may be known of it."""
        return [self._draw.randrange(1000, 40_000) for _ in range(PROMPT)]

    async def generate(self) -> int:
        ids = torch.tensor([self.prompt()])
        limits = {"min_new_tokens": self.tokens, "max_new_tokens": self.tokens}
        with torch.inference_mode():
            written = self._model.generate(ids, do_sample=False, **limits)
        return int(written.shape[1]) - PROMPT

    async def alone(self) -> int:
        sampling = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=self.tokens, ignore_eos=True)
        request = Request("r", Prompt(PROMPT, self.prompt()), sampling)
        finish = await self._engine.generate(request, Emitted(), lambda _: None)
        return finish.completion_tokens

    async def together(self) -> int:
        return sum(await asyncio.gather(*(self.alone() for _ in range(STREAMS))))


class Vllm:
    """vLLM's own server, asked as any client would; every process of it counts."""

    def __init__(self, url: str, pid: int, bench: Bench) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=600, trust_env=False)
        self._meter = Meter((pid,))
        self._bench = bench

    def processor_seconds(self) -> float:
        return sum(use.cpu_seconds for use in self._meter.used())

    async def alone(self) -> int:
        asked = {"prompt": self._bench.prompt(), "max_tokens": self._bench.tokens, "temperature": 0}
        reply = await self._client.post("/v1/completions", json=asked | {"model": "m", "ignore_eos": True})
        tokens: int = reply.raise_for_status().json()["usage"]["completion_tokens"]
        return tokens

    async def together(self) -> int:
        return sum(await asyncio.gather(*(self.alone() for _ in range(STREAMS))))

    async def until_ready(self, process: Process) -> None:
        async with asyncio.timeout(VLLM_START_SECONDS):
            while process.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await self._client.get("/health")).is_success:
                        return
                await asyncio.sleep(0.5)
        raise SystemExit("vLLM has ended while it was started")

    async def aclose(self) -> None:
        await self._client.aclose()


@asynccontextmanager
async def vllm(python: Path | None, folder: Path, threads: int, bench: Bench) -> AsyncIterator[Vllm | None]:
    """In float32 and without compiling, as many threads as the others have."""
    if python is None:
        yield None
        return
    port = free_port("127.0.0.1")
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "m", "--port", str(port), "--host", "127.0.0.1", "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", str(STREAMS)]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    environ = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores, "HF_HUB_OFFLINE": "1"}
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(*command, env=own | environ, stdout=DEVNULL)
    server = Vllm(f"http://127.0.0.1:{port}", process.pid, bench)
    try:
        await server.until_ready(process)
        yield server
    finally:
        await server.aclose()
        process.terminate()
        await process.wait()


async def speeds(work: Answered, processor_seconds: Clock) -> tuple[float, float]:
    """Tokens per second, and per second of all threads' processor time."""
    wall, processor = time.perf_counter(), processor_seconds()
    tokens = await work()
    return tokens / (time.perf_counter() - wall), tokens / (processor_seconds() - processor)


async def measure(
    folder: Path, tokens: int, rounds: int, threads: int, python: Path | None
) -> dict[str, list[float]]:
    launch = Launch(path=folder, device="cpu", dtype="float32", slots=STREAMS, context=512, threads=threads)
    async with TorchEngine(launch) as engine:
        bench = Bench(folder, engine, tokens)
        async with vllm(python, folder, threads, bench) as other:
            return await in_turns(ways_of(bench, other), rounds)


def ways_of(bench: Bench, other: Vllm | None) -> dict[str, tuple[Answered, Clock]]:
    """What is measured, each with the clock of those who compute."""
    own = time.process_time
    ways: dict[str, tuple[Answered, Clock]] = {
        "transformers' generate": (bench.generate, own),
        "the engine, alone": (bench.alone, own),
        f"the engine, {STREAMS} streams": (bench.together, own),
    }
    if other:
        ways["vLLM, alone"] = (other.alone, other.processor_seconds)
        ways[f"vLLM, {STREAMS} streams"] = (other.together, other.processor_seconds)
    return ways


async def in_turns(ways: dict[str, tuple[Answered, Clock]], rounds: int) -> dict[str, list[float]]:
    """Medians, behind a round that warms up."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (work, clock) in ways.items():
            speed = await speeds(work, clock)
            if turn:
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
    parser.add_argument("--vllm", type=Path, metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {"torch": torch.__version__, "threads": given.threads}
    for folder in given.folders:
        if not list(folder.glob("*.safetensors")):
            write_model(folder)
        measuring = measure(folder, given.tokens, given.rounds, given.threads, given.vllm)
        results[folder.name] = asyncio.run(measuring)
        print(table(folder, results[folder.name]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
