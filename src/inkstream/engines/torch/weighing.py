"""Which memory the weights of a model will take, and whether the engine has its architecture.

Told by the model's files, without torch: a model is refused before another one is stopped for it. What a step
needs, and the tables of rotations, are for the share of the memory that the cache leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from inkstream import gguf, machine, probe, safetensors
from inkstream.config import Settings
from inkstream.errors import ModelError
from inkstream.probe import size

MODEL_TYPES = ("qwen2", "qwen3", "llama")
"""Qwen2.5 calls itself qwen2, SmolLM2 and many others llama."""

NUMBER_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
HEADS = ("lm_head.weight", "output.weight")
EMBEDDINGS = ("model.embed_tokens.weight", "token_embd.weight")

NF4_BLOCK, NF4_SCALES_BLOCK = 64, 256
NF4_TABLES_BYTES = 16 * 4 + 256 * 4 + 4
"""Beside each matrix in nf4: what its codes stand for, what those of its scales stand for, their mean."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """``matrices`` are those of the layers, as (outputs, inputs): they alone are quantised. ``others`` are
    the numbers in all else: embedding, head, norms, biases. ``head`` are those in the head, which may be
    the embedding.
    """

    matrices: tuple[tuple[int, int], ...]
    others: int
    head: int
    is_tied: bool

    @classmethod
    def of(cls, shapes: Shapes) -> Numbers:
        matrices = tuple((shape[0], shape[1]) for name, shape in shapes.items() if _is_matrix(name, shape))
        elements = sum(map(prod, shapes.values()))
        is_tied = not any(name in shapes for name in HEADS)
        head = sum(prod(shapes[name]) for name in (EMBEDDINGS if is_tied else HEADS) if name in shapes)
        return cls(matrices, elements - sum(map(prod, matrices)), head, is_tied)

    @property
    def elements(self) -> int:
        return self.others + sum(map(prod, self.matrices))

    def kept_bytes(self, number_bytes: int, quantize: str = "") -> int:
        """Of all weights once they are loaded."""
        matrices = sum(_matrix_bytes(shape, number_bytes, quantize) for shape in self.matrices)
        return self.others * number_bytes + matrices


@dataclass(frozen=True, slots=True)
class Demand:
    """What loading takes at its worst, in numbers of so many bytes."""

    numbers: Numbers
    number_bytes: int
    quantize: str
    is_on_gpu: bool

    @property
    def bytes(self) -> int:
        return self._on_gpu() if self.is_on_gpu else self._in_main_memory()

    def smaller(self) -> Iterator[tuple[str, Demand]]:
        """What takes less, with the flags that ask for it."""
        half = replace(self, number_bytes=2)
        if self.number_bytes > 2:
            yield "--dtype bfloat16", half
        if self.is_on_gpu and not self.quantize:
            flags = "--dtype bfloat16 " if self.number_bytes > 2 else ""
            for wanted in ("int8", "nf4"):
                yield f"{flags}--quantize {wanted}", replace(half, quantize=wanted)
        if self.is_on_gpu:
            yield "--device cpu", Demand(self.numbers, 2 if self.quantize else 4, self.quantize, False)

    def _on_gpu(self) -> int:
        """A layer's two largest matrices are there twice while they are joined, and not yet quantised."""
        largest = max(map(prod, self.numbers.matrices), default=0)
        return self.numbers.kept_bytes(self.number_bytes, self.quantize) + 4 * largest * self.number_bytes

    def _in_main_memory(self) -> int:
        """The runtime's own, and all of the model: it is read before the first matrix is made smaller. In
        float32 a head is packed beside the embedding, which is narrowed where it is the same.
        """
        per_head = {4: 6 if self.numbers.is_tied else 4}.get(self.number_bytes, 0)
        weights = self.numbers.elements * self.number_bytes + self.numbers.head * per_head
        return weights + machine.RUNTIME_BYTES


@dataclass(frozen=True, slots=True)
class Room:
    """Memory for weights: where it is, and how much."""

    where: str
    bytes: int


def read(path: Path) -> Numbers:
    """From a folder's safetensors, or a GGUF file. Raises ModelError."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
            shapes |= (gguf.read(file) if file.suffix == ".gguf" else safetensors.read(file)).shapes
    except (gguf.Corrupt, safetensors.Corrupt, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", code="model_corrupt") from error
    return Numbers.of(shapes)


def demanded(path: Path, settings: Settings) -> tuple[Demand, Room]:
    """What the model takes with these settings, and all the memory of the device that they mean, as far as
    that is known without torch. Raises ModelError.
    """
    gpus = () if settings.device in ("cpu", "mps") else probe.nvidia_gpus()
    quantize = "" if settings.quantize == "none" else settings.quantize
    native_bytes = 2 if gpus or quantize else 4
    demand = Demand(read(path), NUMBER_BYTES.get(settings.dtype, native_bytes), quantize, bool(gpus))
    if not gpus:
        return demand, Room("main memory", machine.memory().total_bytes)
    _, _, index = settings.device.partition(":")
    meant = gpus[int(index) :][:1] if index else gpus
    return demand, Room(", ".join(gpu.name for gpu in meant), sum(gpu.memory_bytes for gpu in meant))


def require_loadable(path: Path, settings: Settings) -> None:
    """Refuse what would certainly not load. Raises ModelError."""
    require_known(configuration(path))
    demand, room = demanded(path, settings)
    if 0 < room.bytes < demand.bytes:
        raise too_large(path.name, demand, room)


def require_known(config: Mapping[str, Any]) -> None:
    """``config`` is as in a model's config.json. Raises ModelError."""
    model_type = str(config.get("model_type"))
    # A GGUF file names no class, only the type.
    name = str((config.get("architectures") or [f"{model_type}ForCausalLM"])[0])
    if model_type not in MODEL_TYPES or not name.endswith("ForCausalLM"):
        raise ModelError(
            f"The torch engine has no {name} of type '{model_type}'; it has {', '.join(MODEL_TYPES)}.",
            code="model_unsupported",
        )
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise ModelError(
            f"The torch engine reads no weights that are quantised by '{method}'. "
            "Take the model that they were made from, with --quantize nf4 or int8 where it is too large.",
            code="model_unsupported",
        )


def too_large(name: str, demand: Demand, room: Room) -> ModelError:
    """Says what fits, and how to get there."""
    elements, kind = demand.numbers.elements, demand.quantize or f"{8 * demand.number_bytes} bits each"
    ways = [f"{flags} takes {size(needed)}" for flags, needed in ways_out(demand, room)]
    others = f"{room.bytes / 2e9:.1f} billion parameters fit in 16 bits ('inkstream models' lists models)"
    return ModelError(
        f"{name} needs {size(demand.bytes)} for its {elements / 1e9:.1f} billion parameters ({kind}), and "
        f"{room.where} has {size(room.bytes)} for them. {'; '.join([*ways, others])}.",
        code="model_too_large",
    )


def ways_out(demand: Demand, room: Room) -> list[tuple[str, int]]:
    """Flags with which it fits, and what it takes then."""
    main = machine.memory().available_bytes
    return [
        (flags, smaller.bytes)
        for flags, smaller in demand.smaller()
        if smaller.bytes <= (room.bytes if smaller.is_on_gpu == demand.is_on_gpu else main)
    ]


def configuration(path: Path) -> dict[str, Any]:
    """A folder's config.json; of a GGUF file the type of its model. Raises ModelError."""
    try:
        if not path.is_dir():
            return {"model_type": gguf.read(path).architecture}
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (gguf.Corrupt, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", code="model_corrupt") from error
    if not isinstance(config, dict):
        raise ModelError(f"The config.json of {path} describes no model.", code="model_corrupt")
    return config


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and (".layers." in name or name.startswith("blk."))


def _matrix_bytes(shape: tuple[int, int], number_bytes: int, quantize: str) -> int:
    numbers = prod(shape)
    if quantize == "int8":
        return numbers + 4 * shape[0]
    if quantize == "nf4":
        blocks = -(-numbers // NF4_BLOCK)
        return -(-numbers // 2) + blocks + 4 * -(-blocks // NF4_SCALES_BLOCK) + NF4_TABLES_BYTES
    return numbers * number_bytes
