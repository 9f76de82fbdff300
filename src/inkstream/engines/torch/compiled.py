"""The operations of a forward pass as ``torch.compile`` joins them, in the place of our own kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inkstream.engines.torch.forward import Linear
from inkstream.engines.torch.plain import PlainOperations, rms_norm


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
