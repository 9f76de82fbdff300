"""``python -m tests.torch_compiling CAPABILITY DTYPE``: every kernel of the torch engine, compiled for a GPU
that need not be there.

Triton's interpreter knows no types: what it runs may still not compile. Here a runner goes through its
batches on the CPU, as at the start of an engine; a launch compiles the kernel and launches nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from inkstream.engines.torch import attention, kernels, sampling_kernels, speculation_kernels
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Layer, Linear, Shape, Weights
from inkstream.engines.torch.graphs import GraphRunner, Options

MODULES: list[ModuleType] = [attention, kernels, sampling_kernels, speculation_kernels]
SHAPE = Shape(
    layers=1, width=896, heads=14, key_heads=2, head_width=64, vocabulary=3000, positions=512, epsilon=1e-6
)
INNER, SEATS, PAGES, CONTEXT = 4864, 3, 40, 256


class AbsentGpu:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


@contextmanager
def compiling(capability: int) -> Iterator[set[str]]:
    """Fills the set with the names of the kernels that were compiled. What they would compute is zero."""
    driver.set_active(AbsentGpu(capability))
    compiled: set[str] = set()
    run = JITFunction.run

    def compile_only(self: Any, *given: Any, grid: Any, warmup: bool, **named: Any) -> None:
        assert not warmup
        run(self, *given, grid=grid, warmup=True, **named)
        compiled.add(self.fn.__name__)

    zeros = {"empty": torch.zeros, "empty_like": torch.zeros_like}
    with patch.object(JITFunction, "run", compile_only), patch.multiple(torch, **zeros):
        yield compiled


def launched() -> set[str]:
    """The kernels that no other kernel calls."""
    functions = {
        name: each
        for module in MODULES
        for name, each in vars(module).items()
        if isinstance(each, JITFunction)
    }
    called = {name for each in functions.values() for name in each.fn.__code__.co_names}
    return {name for name in functions if name not in called}


def weights_of(dtype: torch.dtype, *, is_qwen3: bool) -> Weights:
    """Qwen2 has a bias at its projections, Qwen3 norms of queries and keys."""

    def matrix(*size: int) -> torch.Tensor:
        return torch.zeros(*size, dtype=dtype)

    joined, wide = (SHAPE.heads + 2 * SHAPE.key_heads) * SHAPE.head_width, SHAPE.heads * SHAPE.head_width
    layer = Layer(
        matrix(SHAPE.width),
        Linear(matrix(joined, SHAPE.width), None if is_qwen3 else matrix(joined)),
        matrix(SHAPE.head_width) if is_qwen3 else None,
        matrix(SHAPE.head_width) if is_qwen3 else None,
        Linear(matrix(SHAPE.width, wide)),
        matrix(SHAPE.width),
        Linear(matrix(2 * INNER, SHAPE.width)),
        Linear(matrix(SHAPE.width, INNER)),
    )
    embedding, angles = (
        matrix(SHAPE.vocabulary, SHAPE.width),
        torch.zeros(SHAPE.positions, SHAPE.head_width // 2),
    )
    head = Linear(embedding)
    return Weights(SHAPE, embedding, (layer,), matrix(SHAPE.width), head, angles.cos(), angles.sin())


def main(capability: int, dtype: torch.dtype) -> None:
    with compiling(capability) as compiled:
        for is_qwen3 in (False, True):
            weights = weights_of(dtype, is_qwen3=is_qwen3)
            for drafting in (None, Drafting("ngram"), Drafting("small", weights)):
                GraphRunner(weights, (17,), SEATS, PAGES, CONTEXT, Options(captures=False, drafting=drafting))
    if missing := launched() - compiled:
        sys.exit(f"not compiled: {', '.join(sorted(missing))}")
    print(f"compiled: {', '.join(sorted(compiled))}")


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]))
