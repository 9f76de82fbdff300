"""The operations of a forward pass in plain torch: for a CPU, and to compare ``kernels`` with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inkstream.engines.torch.cache import PAGE, pages_for
from inkstream.engines.torch.forward import Layer, Linear, Shape, Weights


@dataclass(frozen=True, slots=True)
class KeyValues:
    """For each layer keys and values, (pages, key heads, tokens of a page, head width).

    One tensor a layer: what writes into a part of a larger one is at times compiled into a copy of all of it.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def allocate(cls, weights: Weights, pages: int) -> KeyValues:
        """Zeros, not what was there: a masked place still takes part, times nothing, and NaN would stay."""
        shape = weights.shape
        size = (pages, shape.key_heads, PAGE, shape.head_width)

        def tensors() -> tuple[Tensor, ...]:
            devices = [layer.device for layer in weights.layers]
            return tuple(torch.zeros(size, dtype=weights.dtype, device=device) for device in devices)

        return cls(tensors(), tensors())


@dataclass(frozen=True, slots=True)
class Stretch:
    """``count`` tokens of one row, from position ``start`` on, in the batch behind those before it."""

    start: int
    count: int
    pages: Sequence[int]


class PlainOperations:
    def norm(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total = residual if update is None else residual + update
        return total, rms_norm(total, weight, epsilon)

    def norm_linear(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, linear: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total, normed = self.norm(residual, update, weight, epsilon)
        return total, self.linear(normed, linear)

    def norm_gate(
        self, residual: Tensor, update: Tensor, weight: Tensor, gate_up: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total, both = self.norm_linear(residual, update, weight, gate_up, epsilon)
        gate, up = both.chunk(2, dim=-1)
        return total, functional.silu(gate) * up

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return linear(x)


class PlainAttend:
    """Attention row by row over pages that are gathered."""

    def __init__(self, weights: Weights, cache: KeyValues, stretches: Sequence[Stretch]) -> None:
        self._shape, self._cache, self._stretches = weights.shape, cache, stretches
        places = [
            (s.pages[at // PAGE], at % PAGE, at)
            for s in stretches
            for at in range(s.start, s.start + s.count)
        ]
        self._pages, self._offsets, positions = torch.tensor(places, device=weights.device).unbind(1)
        self._cos = weights.cos[positions].unsqueeze(1).to(weights.dtype)
        self._sin = weights.sin[positions].unsqueeze(1).to(weights.dtype)

    def __call__(self, layer: int, weights: Layer, qkv: Tensor) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        query, key, value = split_heads(qkv, self._shape)
        if weights.query_norm is not None and weights.key_norm is not None:
            query = rms_norm(query, weights.query_norm, self._shape.epsilon)
            key = rms_norm(key, weights.key_norm, self._shape.epsilon)
        keys[self._pages, :, self._offsets] = self._rotated(key)
        values[self._pages, :, self._offsets] = value
        queries = self._rotated(query).split([stretch.count for stretch in self._stretches])
        seen = zip(queries, self._stretches, strict=True)
        return torch.cat([self._look(query, keys, values, stretch) for query, stretch in seen])

    def _rotated(self, heads: Tensor) -> Tensor:
        left, right = heads.chunk(2, dim=-1)
        cos, sin = self._cos, self._sin
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    def _look(self, query: Tensor, keys: Tensor, values: Tensor, stretch: Stretch) -> Tensor:
        end = stretch.start + stretch.count
        pages = torch.tensor(stretch.pages[: pages_for(end)], device=query.device)
        key, value = (part[pages].transpose(0, 1).flatten(1, 2)[:, :end] for part in (keys, values))
        mask = None
        if stretch.count > 1:
            positions = torch.arange(end, device=query.device)
            mask = positions <= positions[stretch.start :].unsqueeze(1)
        heads = functional.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            key.unsqueeze(0),
            value.unsqueeze(0),
            attn_mask=mask,
            enable_gqa=self._shape.group > 1,
        )
        return heads.squeeze(0).transpose(0, 1).flatten(1)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
    return weight * (wide * scale).to(x.dtype)


def split_heads(qkv: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    heads = qkv.view(qkv.shape[0], -1, shape.head_width)
    query, key, value = heads.split([shape.heads, shape.key_heads, shape.key_heads], dim=1)
    return query, key, value
