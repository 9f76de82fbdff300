"""A runner with its scheduler, driven as the engine's worker drives them, without text."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from inkstream.engines.torch.cache import Pages, pages_for
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Operations, Weights
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.runner import PlainRunner, Runner
from inkstream.engines.torch.scheduler import Scheduler
from inkstream.engines.torch.scheduler import Sequence as Answer

Ruled = Callable[[int], Rules]
"""The rules of each stream."""

QWEN2 = Rules(temperature=0.7, top_k=20, top_p=0.8, repetition=1.05)


def greedy(_: int) -> Rules:
    return Rules()


def mixed(at: int) -> Rules:
    """Every other stream is drawn as Qwen2 recommends."""
    return replace(QWEN2, seed=at) if at % 2 else Rules()


class Bench:
    def __init__(
        self,
        weights: Weights,
        seats: int,
        tokens: int,
        context: int,
        *,
        captures: bool = True,
        operations: Operations | None = None,
        drafting: Drafting | None = None,
    ) -> None:
        """``tokens`` is what all answers together have in the cache."""
        started = time.perf_counter()
        self.pages = pages = pages_for(tokens) + seats + 1
        self.runner: Runner
        if weights.device.type == "cuda":
            from inkstream.engines.torch.graphs import (  # noqa: PLC0415 - Triton is there with CUDA alone
                GraphRunner,
                Options,
            )

            options = Options(captures=captures, operations=operations, drafting=drafting)
            self.runner = GraphRunner(weights, (), seats, pages, context, options)
        else:
            self.runner = PlainRunner(weights, (), seats, pages, drafting, operations)
        wait(weights.device)
        self.seconds_to_start = time.perf_counter() - started
        self.scheduler = Scheduler(Pages(pages), self.runner.limits(seats))

    def steps(self) -> Iterator[list[tuple[Answer, int]]]:
        """Until nobody has anything left to write: who wrote which token in each step."""
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

    def add(self, ids: Sequence[int], new: int, rules: Rules) -> Answer:
        answer = Answer(list(ids), len(ids), len(ids) + new, rules)
        self.scheduler.add(answer)
        return answer

    def generate(self, prompts: Sequence[Sequence[int]], new: int, rules: Ruled) -> dict[str, float]:
        """All prompts at once. The step's time is that of the second half, where nobody is read any more."""
        for at, ids in enumerate(prompts):
            self.add(ids, new, rules(at))
        started = time.perf_counter()
        ends, written, firsts = [], 0, dict[int, float]()
        for step in self.steps():
            ends.append(time.perf_counter())
            written += len(step)
            for answer, _ in step:
                firsts.setdefault(id(answer), ends[-1] - started)
        gaps = [b - a for a, b in pairwise(ends)][len(ends) // 2 :]
        return {
            "tokens_per_second": written / (ends[-1] - started),
            "step_ms": 1e3 * statistics.median(gaps),
            "first_ms_p50": 1e3 * percentile(list(firsts.values()), 0.5),
            "first_ms_p95": 1e3 * percentile(list(firsts.values()), 0.95),
        }

    def median(self, prompts: Callable[[], list[list[int]]], new: int, rules: Ruled, rounds: int) -> Any:
        """The run in the middle, by speed, behind one that warms up."""
        runs = [self.generate(prompts(), new, rules) for _ in range(rounds + 1)][1:]
        return sorted(runs, key=lambda run: run["tokens_per_second"])[len(runs) // 2]


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
