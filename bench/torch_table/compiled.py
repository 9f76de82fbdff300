"""The operations of a forward pass as ``torch.compile`` joins them, in the place of our own.

``python -m torch_table.compiled CHECKPOINT`` holds them against plain torch on one core of a CPU, in float32:
tokens per second of processor time, medians of rounds that take turns. It needs a C++ compiler.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inkstream.engines.torch.forward import Linear
from inkstream.engines.torch.model import load
from inkstream.engines.torch.packed import packed
from inkstream.engines.torch.plain import PlainOperations, rms_norm
from torch_table.driving import Bench, greedy

PROMPT, NEW, CONTEXT = 58, 32, 256
SIZES, ROUNDS = (1, 4), 5


class CompiledOperations(PlainOperations):
    """What lies between two matrix products is one kernel. The products are the library's own."""

    def __init__(self) -> None:
        compiled: Any = torch.compile
        self._norm = compiled(_norm, dynamic=True)
        self._gate = compiled(_gate, dynamic=True)

    def norm(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total: tuple[Tensor, Tensor] = self._norm(residual, update, weight, epsilon)
        return total

    def norm_gate(
        self, residual: Tensor, update: Tensor, weight: Tensor, gate_up: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total, both = self.norm_linear(residual, update, weight, gate_up, epsilon)
        return total, self._gate(both)


def _norm(residual: Tensor, update: Tensor | None, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    total = residual if update is None else residual + update
    return total, rms_norm(total, weight, epsilon)


def _gate(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate) * up


def main() -> None:
    torch.set_num_threads(1)
    model = load(
        Path(sys.argv[1]), torch.device("cpu"), torch.float32, checksum="not needed", quantize=packed
    )
    weights = replace(model.weights, head=packed(model.weights.head))
    kinds = {"plain": PlainOperations(), "compiled": CompiledOperations()}
    benches = {
        kind: Bench(weights, max(SIZES), max(SIZES) * CONTEXT, CONTEXT, operations=operations)
        for kind, operations in kinds.items()
    }
    speeds: dict[tuple[int, str], list[float]] = defaultdict(list)
    for turn in range(ROUNDS + 1):
        for size in SIZES:
            for kind, bench in benches.items():
                speed = _speed(bench, size)
                if turn:  # the first one compiles
                    speeds[size, kind].append(speed)
    for (size, kind), seen in speeds.items():
        print(f"{size} at a time, {kind}: {statistics.median(seen):.1f} tokens per processor second")


def _speed(bench: Bench, size: int) -> float:
    prompts = [[random.randrange(1000, 40_000) for _ in range(PROMPT)] for _ in range(size)]
    started = time.process_time()
    bench.generate(prompts, NEW, greedy)
    return size * NEW / (time.process_time() - started)


if __name__ == "__main__":
    main()
