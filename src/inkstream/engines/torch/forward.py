"""The forward pass of the Llama family (Qwen2, Qwen3, Llama), over weights that transformers has loaded.

Projections that read the same input are one matrix. What a layer computes beside its matrix products is left
to the operations (``plain`` or ``kernels``), where and how it looks back to ``Attend``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """``positions`` is the longest text that the model was trained for."""

    layers: int
    width: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    positions: int
    epsilon: float

    @property
    def group(self) -> int:
        """Heads that share a key head."""
        return self.heads // self.key_heads

    def cache_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of keys and values of one token."""
        each: int = dtype.itemsize
        return 2 * self.layers * self.key_heads * self.head_width * each


@dataclass(frozen=True, slots=True)
class Linear:
    """``quantized`` has subclasses whose weight is no matrix of plain numbers."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it keeps."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @classmethod
    def joined(cls, parts: Sequence[Linear]) -> Linear:
        biases = [part.bias for part in parts if part.bias is not None]
        weight = torch.cat([part.weight for part in parts])
        return cls(weight, torch.cat(biases) if biases else None)


@dataclass(frozen=True, slots=True)
class Layer:
    """``query_norm`` and ``key_norm`` are Qwen3's."""

    input_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Linear
    inner_norm: Tensor
    gate_up: Linear
    down: Linear

    @property
    def matrices(self) -> tuple[Linear, ...]:
        return (self.qkv, self.output, self.gate_up, self.down)

    @property
    def device(self) -> torch.device:
        return self.input_norm.device


@dataclass(frozen=True, slots=True)
class Weights:
    """``cos`` and ``sin`` are (positions, half of the head's width), float32.

    ``embedding`` may have narrower numbers than the rest, where they are the same. Layers may lie on several
    devices, in order; all else is on ``device``.
    """

    shape: Shape
    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear
    cos: Tensor
    sin: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.dtype

    @property
    def device(self) -> torch.device:
        return self.cos.device

    @property
    def layers_on(self) -> dict[torch.device, int]:
        """How many layers each device has."""
        counts = {self.device: 0}
        for layer in self.layers:
            counts[layer.device] = counts.get(layer.device, 0) + 1
        return counts

    def stages(self) -> Iterator[tuple[torch.device, list[int]]]:
        """Layers that follow each other on one device."""
        for device, layers in groupby(range(len(self.layers)), lambda index: self.layers[index].device):
            yield device, list(layers)


class Operations(Protocol):
    """Those with a norm add ``update`` to ``residual`` first and return the sum beside their result."""

    def norm(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]: ...

    def norm_linear(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, linear: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]: ...

    def norm_gate(
        self, residual: Tensor, update: Tensor, weight: Tensor, gate_up: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """SiLU of the first half of the projection, times the second half."""
        ...

    def linear(self, x: Tensor, linear: Linear) -> Tensor: ...


class Attend(Protocol):
    """Stores keys and values of a batch's tokens, then lets each look at what its row has up to it."""

    def __call__(self, layer: int, weights: Layer, qkv: Tensor) -> Tensor: ...


def hidden_states(weights: Weights, operations: Operations, ids: Tensor, attend: Attend) -> Tensor:
    """The last layer's states of all tokens of a batch, whose rows lie behind each other."""
    epsilon = weights.shape.epsilon
    residual = weights.embedding[ids].to(weights.dtype)
    update: Tensor | None = None
    for device, layers in weights.stages():
        with current(device):
            residual, update = residual.to(device), None if update is None else update.to(device)
            for index in layers:
                layer = weights.layers[index]
                residual, qkv = operations.norm_linear(residual, update, layer.input_norm, layer.qkv, epsilon)
                update = operations.linear(attend(index, layer, qkv), layer.output)
                residual, inner = operations.norm_gate(
                    residual, update, layer.inner_norm, layer.gate_up, epsilon
                )
                update = operations.linear(inner, layer.down)
    home = weights.device
    return operations.norm(
        residual.to(home), None if update is None else update.to(home), weights.norm, epsilon
    )[1]


def current(device: torch.device) -> AbstractContextManager[object]:
    """Kernels are launched on the current device, whatever device their tensors are on: make it this one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
