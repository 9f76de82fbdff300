"""What guessing ahead gains: ``python bench/torch_speculation.py MODEL [--draft MODEL] [--json FILE]``.

MODEL is a checkpoint's folder or a GGUF file that transformers reads. Three tasks, greedy, alone: repeating a
text, changing a word of it, and one in which nothing repeats. Each is asked without and with drafts in turn;
medians of tokens per second by the wall clock and by processor time, which a busy machine does not lengthen.
The texts must be the same in float32.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inkstream.engines import Chunk, Emitted, Message, Progress, Request, Sampling
from inkstream.engines.torch.engine import Launch, TorchEngine

TEXT = """\
def total(rows):
    result = 0
    for row in rows:
        if row.is_paid:
            result += row.price
        else:
            result -= row.discount
    return result


def report(rows):
    for row in rows:
        print(row.name, row.price, row.discount)
    print('total', total(rows))
"""
TASKS = {
    "repeat": f"Repeat this text exactly, and say nothing else:\n\n{TEXT}",
    "change": f"Write this program again with the name 'items' instead of 'rows':\n\n{TEXT}",
    "new": "Tell me a story about a river that forgets its way to the sea.",
}
ROUNDS, NEW = 3, 160


@dataclass(frozen=True)
class Run:
    text: str
    tokens: int
    seconds: float
    processor_seconds: float
    accepted_share: float


async def answer(engine: TorchEngine, task: str) -> Run:
    prompt = await engine.render([Message("user", task)])
    sampling = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=NEW, seed=1)
    chunks: list[Chunk] = []
    began: list[tuple[float, float]] = []

    def take(item: Chunk | Progress) -> None:
        if isinstance(item, Chunk):
            began.append((time.perf_counter(), time.process_time()))
            chunks.append(item)

    finish = await engine.generate(Request("bench", prompt, sampling), Emitted(), take)
    wall, processor = began[0]  # reading the prompt is left out
    return Run(
        text="".join(chunk.text for chunk in [*chunks, *([finish.last] if finish.last else [])]),
        tokens=finish.completion_tokens - chunks[0].tokens,
        seconds=time.perf_counter() - wall,
        processor_seconds=time.process_time() - processor,
        accepted_share=finish.timings.get("accepted_share", 0.0),
    )


async def measure(model: Path, draft: Path | None) -> dict[str, Any]:
    results: dict[str, Any] = {}
    bare = Launch(path=model, context=2048, slots=1)
    async with (
        TorchEngine(bare) as plain,
        TorchEngine(replace(bare, ngram=draft is None, draft_model=draft)) as drafted,
    ):
        for name, task in TASKS.items():
            runs = [(await answer(plain, task), await answer(drafted, task)) for _ in range(ROUNDS)]
            results[name] = summary(runs)
            print(name, json.dumps(results[name]), flush=True)
    return results


def summary(runs: list[tuple[Run, Run]]) -> dict[str, Any]:
    def speed(which: int, clock: str) -> float:
        return float(statistics.median(run[which].tokens / getattr(run[which], clock) for run in runs))

    return {
        "tokens": runs[0][0].tokens,
        "same_text": all(one.text == other.text for one, other in runs),
        "accepted_share": round(runs[-1][1].accepted_share, 3),
        "tokens_per_second": [round(speed(which, "seconds"), 1) for which in (0, 1)],
        "per_processor_second": [round(speed(which, "processor_seconds"), 1) for which in (0, 1)],
        "gain": round(speed(1, "seconds") / speed(0, "seconds"), 2),
        "gain_in_processor_time": round(speed(1, "processor_seconds") / speed(0, "processor_seconds"), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = asyncio.run(measure(given.model, given.draft))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
