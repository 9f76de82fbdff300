"""Where and how large everything is measured: as the table wants it, or as a CPU can rehearse it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from inkstream.engines.torch.forward import Weights
from torch_table.driving import Bench
from torch_table.weights import HALF_BILLION, SEVEN_BILLION, TINY, Dimensions, drawn, write_model

GIB = 1 << 30
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts of tokens, streams and repetitions. ``sizes`` are numbers of streams."""

    half: Dimensions = HALF_BILLION
    seven: Dimensions = SEVEN_BILLION
    prompt: int = 58
    new: int = 128
    context: int = 4608
    seats: int = 256
    sizes: tuple[int, ...] = (1, 8, 32, 128, 256)
    lever_sizes: tuple[int, ...] = (1, 32, 128)
    rounds: int = 3
    firsts: int = 20
    served: int = 128
    served_new: int = 1024
    long_prompt: int = 4096
    beside_long: int = 32
    steps_before_long: int = 200
    capped_bytes: int = 24 * GIB
    capped_streams: int = 20
    capped_prompt: int = 3968
    kills: int = 50
    """For each of: greedy and seeded, alone and among others."""
    among: int = 32
    article: tuple[tuple[int, int], ...] = ((1, 64), (8, 24), (32, 16))
    """Streams, and new tokens of each: it writes 26 tokens a second in all."""
    batched: tuple[tuple[int, int], ...] = ((1, 64), (32, 128), (128, 128))


REHEARSAL = Scale(
    half=TINY,
    seven=TINY,
    prompt=20,
    new=12,
    context=512,
    seats=8,
    sizes=(1, 8),
    lever_sizes=(1, 4),
    rounds=1,
    firsts=3,
    served=4,
    served_new=24,
    long_prompt=256,
    beside_long=3,
    steps_before_long=8,
    capped_streams=3,
    capped_prompt=100,
    kills=2,
    among=4,
    article=((1, 8), (3, 4)),
    batched=((1, 8), (4, 8)),
)


@dataclass
class Place:
    """``folder`` has a tokenizer; weights of Qwen2-0.5B's shape are added. ``real`` is a checkpoint that says
    something, such as SmolLM2's, if there is one.
    """

    folder: Path
    real: Path | None
    device: torch.device
    scale: Scale
    _kept: dict[str, Any] = field(default_factory=dict)
    _draw: random.Random = field(default_factory=lambda: random.Random(0))

    @classmethod
    def of(cls, folder: Path, real: Path | None, *, rehearses: bool) -> Place:
        device = torch.device("cpu" if rehearses else "cuda")
        if not list(folder.glob("*.safetensors")):
            write_model(folder, REHEARSAL.half if rehearses else Scale().half, device)
        return cls(folder, real, device, REHEARSAL if rehearses else Scale())

    @property
    def is_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    @property
    def weights(self) -> Weights:
        """Of the half billion, random."""
        return self._once("weights", lambda: drawn(self.scale.half, self.device))

    @property
    def bench(self) -> Bench:
        """Over ``weights``, with a seat for everybody."""
        return self._once("bench", lambda: self.bench_of(self.weights))

    def bench_of(self, weights: Weights, seats: int = 0, **options: Any) -> Bench:
        """With room for ``seats`` answers, and for a few whole contexts."""
        scale = self.scale
        seats = seats or scale.seats
        tokens = seats * (scale.prompt + scale.new) + 4 * scale.context
        return Bench(weights, seats, tokens, scale.context, **options)

    def prompts(self, count: int, length: int = 0) -> list[list[int]]:
        """Never the same twice: what was read before would be reused."""
        length = length or self.scale.prompt
        return [[self._draw.randrange(1000, 100_000) for _ in range(length)] for _ in range(count)]

    def clear(self) -> None:
        """Give the memory back."""
        self._kept.clear()
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()

    def _once(self, name: str, make: Callable[[], Kept]) -> Kept:
        if name not in self._kept:
            self._kept[name] = make()
        kept: Kept = self._kept[name]
        return kept
