"""Measures the torch engine on one GPU: ``python bench/torch_engine.py FOLDER [--json FILE] [--quick]``.

FOLDER has a tokenizer as transformers saves it; a model of Qwen2-0.5B's shape with random weights is added.
Compared with transformers' own forward pass on the same weights: largest difference of logits and how often
the likeliest token is the same. Then tokens per second from 58-token prompts to 128 new tokens each, with
everything greedy, and with half of the rows drawn as Qwen2 recommends; the share of each lever; what drafts
cost and bring; what quantised weights take; what a long prompt does to those who write. Prints tables, and
everything as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from inkstream.engines import Chunk, Emitted, Progress, Prompt, Request, Sampling
from inkstream.engines.torch.cache import PAGE, Pages
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.engine import Launch, TorchEngine
from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.graphs import GraphRunner, Options
from inkstream.engines.torch.kernels import FusedOperations
from inkstream.engines.torch.model import take_weights
from inkstream.engines.torch.plain import PlainOperations
from inkstream.engines.torch.quantized import quantizer
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.scheduler import Fill, Scheduler, Sequence
from inkstream.engines.torch.speculation import WIDTH

PROMPT, NEW = 58, 128
SEATS, CONTEXT = 256, 4608
SIZES = (1, 8, 32, 128, 256)
QWEN2 = Rules(temperature=0.7, top_k=20, top_p=0.8, repetition=1.05)
GPU = torch.device("cuda")


def config() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        eos_token_id=151645,
        bos_token_id=151643,
    )


def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    with torch.device(GPU):
        model = Qwen2ForCausalLM(config()).to(torch.bfloat16)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_k=20, top_p=0.8)
    # No token ends an answer: each has exactly as many as it is asked for.
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)


def pretrained(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(GPU).eval()


DRAW = random.Random(0)


def prompts(count: int, length: int = PROMPT) -> list[list[int]]:
    """Never the same twice: what was read before would be reused."""
    return [[DRAW.randrange(1000, 100_000) for _ in range(length)] for _ in range(count)]


class Bench:
    """A runner with its scheduler, driven as the worker drives them, without text."""

    def __init__(self, weights: Weights, options: Options | None = None, seats: int = SEATS) -> None:
        started = time.monotonic()
        pages = 1 + SEATS * (PROMPT + NEW + PAGE) // PAGE + 4 * CONTEXT // PAGE
        self.runner = GraphRunner(weights, (), seats, pages, CONTEXT, options)
        torch.cuda.synchronize()
        self.seconds_to_start = time.monotonic() - started
        self.pages = pages
        self.scheduler = Scheduler(Pages(pages), self.runner.limits(seats))

    def steps(self) -> Iterator[list[tuple[Sequence, int]]]:
        in_flight: list[Any] = []
        while True:
            step = self.scheduler.plan()
            if step is not None:
                in_flight.append((step, self.runner.launch(step)))
            elif not in_flight:
                return
            if step is None or len(in_flight) > self.runner.ahead:
                done, outcome = in_flight.pop(0)
                yield [
                    (written.sequence, token)
                    for written in self.scheduler.receive(done, outcome())
                    for token in written.tokens
                ]

    def add(self, ids: list[int], new: int, rules: Rules) -> Sequence:
        sequence = Sequence(list(ids), len(ids), len(ids) + new, rules)
        self.scheduler.add(sequence)
        return sequence

    def generate(self, count: int, rules: Callable[[int], Rules]) -> dict[str, float]:
        for at, ids in enumerate(prompts(count)):
            self.add(ids, NEW, rules(at))
        started = time.perf_counter()
        ends = []
        written = 0
        for step in self.steps():
            ends.append(time.perf_counter())
            written += len(step)
        gaps = [b - a for a, b in pairwise(ends)][len(ends) // 2 :]
        return {
            "tokens_per_second": written / (ends[-1] - started),
            "step_ms": 1e3 * statistics.median(gaps),
            "first_ms": 1e3 * (ends[0] - started),
        }


def greedy(_: int) -> Rules:
    return Rules()


def mixed(at: int) -> Rules:
    return replace(QWEN2, seed=at) if at % 2 else Rules()


def drawn(at: int) -> Rules:
    return mixed(2 * at + 1)


def throughput(
    bench: Bench, sizes: tuple[int, ...], kinds: dict[str, Callable[[int], Rules]]
) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for count in sizes:
        for name, rules in kinds.items():
            runs = [bench.generate(count, rules) for _ in range(4)][1:]
            best = sorted(runs, key=lambda run: run["tokens_per_second"])[len(runs) // 2]
            table[f"{count} {name}"] = best
            print(
                f"{count:4} {name:8} {best['tokens_per_second']:10.0f} tok/s  step {best['step_ms']:.3f} ms",
                flush=True,
            )
    return table


def compare(bench: Bench, model: Any) -> dict[str, float]:
    """Our rows and fills against transformers' forward pass over the same ids."""
    ids = prompts(1, 300)[0]
    sequence = bench.add(ids, 64, Rules())
    ours = [token for step in bench.steps() for _, token in step]
    whole = torch.tensor([ids + ours], device=GPU)
    with torch.inference_mode():
        logits = model(whole).logits[0, len(ids) - 1 : -1].float()
    best = logits.max(dim=-1)
    chosen = logits.gather(1, torch.tensor(ours, device=GPU).unsqueeze(1)).squeeze(1)
    assert sequence.ids == ids + ours
    return {
        "agreement": (best.indices.cpu() == torch.tensor(ours)).float().mean().item(),
        "worst_shortfall": (best.values - chosen).max().item(),
        "spread": logits.std().item(),
    }


def compare_states(bench: Bench, model: Any) -> dict[str, float]:
    """Logits of the last token of a fill."""
    ids = prompts(1, 200)[0]
    sequence = bench.add(ids, 1, Rules())
    step = bench.scheduler.plan()
    assert step is not None
    outcome = bench.runner.launch(step)
    batch = bench.runner._batch_of[256, 0]
    with torch.inference_mode():
        logits = torch.nn.functional.linear(
            batch._replay().states[0], bench.runner._state.model.weights.head.weight
        )
    bench.scheduler.receive(step, outcome())
    with torch.inference_mode():
        theirs = model(torch.tensor([ids], device=GPU)).logits[0, -1].float()
    assert len(sequence.ids) == 201
    return {
        "max_difference": (logits.float() - theirs).abs().max().item(),
        "largest": theirs.abs().max().item(),
    }


def long_prompt(bench: Bench, writers: int = 32) -> dict[str, float]:
    """Gaps between the steps of ``writers`` rows while a prompt of 4,096 tokens arrives."""
    for ids in prompts(writers):
        bench.add(ids, 400, Rules())
    (long,) = prompts(1, 4096)
    ends: list[float] = []
    newcomer: Sequence | None = None
    arrived = read = 0
    for step in bench.steps():
        ends.append(time.perf_counter())
        if len(ends) == 200:
            newcomer = bench.add(long, 8, Rules())
            arrived = len(ends)
        if newcomer and not read and any(s is newcomer for s, _ in step):
            read = len(ends)
    gaps = [b - a for a, b in pairwise(ends)]
    before, during = gaps[100 : arrived - 1], sorted(gaps[arrived - 1 : read])
    return {
        "median_before_ms": 1e3 * statistics.median(before),
        "median_during_ms": 1e3 * statistics.median(during),
        "worst_during_ms": 1e3 * during[-1],
        "p99_during_ms": 1e3 * during[int(0.99 * len(during))],
        "steps_during": len(during),
        "first_token_ms": 1e3 * (ends[read - 1] - ends[arrived - 1]),
    }


async def through_engine(folder: Path) -> dict[str, Any]:
    """The same through Engine.generate: detokenizing and the event loop included."""
    table: dict[str, Any] = {}
    started = time.monotonic()
    async with TorchEngine(Launch(path=folder, context=CONTEXT, slots=SEATS)) as engine:
        table["start_seconds"] = time.monotonic() - started
        print(f"engine ready in {table['start_seconds']:.1f} s", flush=True)
        for count in SIZES:
            for name, rules in (("greedy", greedy), ("mixed", mixed)):
                runs = [await _engine_run(engine, count, rules) for _ in range(3)]
                best = sorted(runs, key=lambda run: run["tokens_per_second"])[1]
                table[f"{count} {name}"] = best
                speed, first = best["tokens_per_second"], best["first_ms"]
                print(f"{count:4} {name:8} {speed:10.0f} tok/s  first token {first:.1f} ms", flush=True)
    return table


async def _engine_run(engine: TorchEngine, count: int, rules: Callable[[int], Rules]) -> dict[str, float]:
    first: list[float] = []
    started = time.perf_counter()

    async def one(at: int, ids: list[int]) -> int:
        by = rules(at)
        sampling = Sampling(
            temperature=by.temperature,
            top_k=by.top_k,
            top_p=by.top_p,
            min_p=0.0,
            repetition_penalty=by.repetition,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            seed=at,
            max_tokens=NEW,
        )
        is_first = True

        def take(item: Chunk | Progress) -> None:
            nonlocal is_first
            if is_first:
                first.append(time.perf_counter() - started)
                is_first = False

        finish = await engine.generate(Request(str(at), Prompt(len(ids), ids), sampling), Emitted(), take)
        return finish.completion_tokens

    tokens = await asyncio.gather(*(one(at, ids) for at, ids in enumerate(prompts(count))))
    return {
        "tokens_per_second": sum(tokens) / (time.perf_counter() - started),
        "first_ms": 1e3 * statistics.median(first),
    }


def levers(weights: Weights) -> dict[str, Any]:
    """One lever less at a time, at three sizes."""
    variants: dict[str, Options] = {
        "all": Options(),
        "no product kernels": Options(operations=FusedOperations(few_rows=0)),
        "no fused operations": Options(operations=PlainOperations()),
        "no graphs": Options(captures=False),
    }
    table: dict[str, Any] = {}
    for name, options in variants.items():
        print(f"-- {name}", flush=True)
        bench = Bench(weights, options, seats=128)
        table[name] = throughput(bench, (1, 32, 128), {"greedy": greedy})
        table[name]["seconds_to_start"] = bench.seconds_to_start
        del bench
        gc.collect()
        torch.cuda.empty_cache()
    return table


def speculation(weights: Weights) -> dict[str, Any]:
    """What a step with drafts costs beside one without, and from which accepted share on it is worth it; and
    what comes of drafts that are all right, which the model itself makes: no draft model is as slow."""
    table: dict[str, Any] = {}
    for name, small in (("ngram", None), ("the model itself", weights)):
        print(f"-- drafts: {name}", flush=True)
        bench = Bench(weights, Options(drafting=Drafting(name, small)), seats=128)
        costs = {}
        for rows in (1, 2, 4, 8, 16, 32, 64, 128):
            plain, drafted = bench.runner.seconds(rows, 1), bench.runner.seconds(rows, WIDTH)
            worth = (drafted / plain - 1) / (WIDTH - 1)
            costs[rows] = {"plain_ms": 1e3 * plain, "drafted_ms": 1e3 * drafted, "worth_from_share": worth}
            print(f"{rows:4} {1e3 * plain:.3f} {1e3 * drafted:.3f} ms, worth it from {worth:.2f}", flush=True)
        runs = {count: bench.generate(count, greedy) for count in (1, 8, 32)}
        share = bench.scheduler.accepted / max(bench.scheduler.drafted, 1)
        print(
            f"accepted {share:.2f}", {n: round(r["tokens_per_second"]) for n, r in runs.items()}, flush=True
        )
        table[name] = {"costs": costs, "accepted_share": share, "always": runs}
        del bench
        gc.collect()
        torch.cuda.empty_cache()
    return table


def quantised(folder: Path) -> dict[str, Any]:
    """Memory of the weights, and tokens per second at three sizes, beside those of the whole weights."""
    table: dict[str, Any] = {}
    for name in ("", "nf4", "int8"):
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        weights = take_weights(pretrained(folder), GPU, quantize=quantizer(name, GPU))
        gc.collect()
        taken = torch.cuda.memory_allocated() - before
        linear = sum(m.bytes for layer in weights.layers for m in layer.matrices)
        print(f"-- {name or 'bf16'}: {taken / 2**20:.0f} MiB, {linear / 2**20:.0f} in layers", flush=True)
        bench = Bench(weights, seats=128)
        table[name or "bf16"] = {"bytes": taken, "linear_bytes": linear}
        table[name or "bf16"] |= throughput(bench, (1, 32, 128), {"greedy": greedy})
        del bench, weights
    return table


def profile(bench: Bench, path: Path) -> None:
    """Where the time of a step goes, by kernel. Rows have 150 tokens, fills are prompts of 58."""
    with path.open("w") as out:
        for (fills, rows), batch in sorted(bench.runner._batch_of.items()):
            if rows not in (0, 1, 2, 8, 32, 128, 256):
                continue
            sequences = [Sequence(ids, PROMPT, PROMPT + 1, Rules()) for ids in prompts(fills // 64)]
            for seat, sequence in enumerate(sequences):
                sequence.seat = seat
            bench.runner._state.places.positions.fill_(150)
            batch.run([Fill(s, 0, PROMPT, True) for s in sequences], list(range(rows)))
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(20):
                batch._replay()
            end.record()
            torch.cuda.synchronize()
            print(
                f"=== {fills} tokens of fills, {rows} rows: {begin.elapsed_time(end) / 20:.3f} ms", file=out
            )
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
                for _ in range(5):
                    batch._replay()
                torch.cuda.synchronize()
            print(
                seen.key_averages().table(sort_by="cuda_time_total", row_limit=12, max_name_column_width=50),
                file=out,
            )
        bench.runner._state.places.positions.zero_()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(results, flush=True)
    if not list(given.folder.glob("*.safetensors")):
        write_model(given.folder)
    model = pretrained(given.folder)
    weights = take_weights(pretrained(given.folder), GPU)
    bench = Bench(weights)
    results["seconds_to_start"] = bench.seconds_to_start
    print(f"captured in {bench.seconds_to_start:.1f} s", flush=True)
    results["logits"] = compare_states(bench, model)
    results["greedy"] = compare(bench, model)
    print(results["logits"], results["greedy"], flush=True)
    del model
    if given.profile:
        with torch.inference_mode():
            profile(bench, given.profile)
        print(given.profile.read_text()[:200], flush=True)
    results["core"] = throughput(bench, SIZES, {"greedy": greedy, "mixed": mixed, "drawn": drawn})
    results["long prompt"] = long_prompt(bench)
    print(results["long prompt"], flush=True)
    del bench
    gc.collect()
    torch.cuda.empty_cache()
    if not given.quick:
        results["levers"] = levers(weights)
        results["speculation"] = speculation(weights)
    del weights
    gc.collect()
    torch.cuda.empty_cache()
    if not given.quick and importlib.util.find_spec("bitsandbytes"):
        results["quantised"] = quantised(given.folder)
    results["engine"] = asyncio.run(through_engine(given.folder))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
