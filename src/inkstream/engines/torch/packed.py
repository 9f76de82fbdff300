"""Matrices in the order in which oneDNN reads them, for products of a few rows on a CPU.

torch's own product of four rows puts the matrix in order each time anew, which takes two to three times as
long as a product of one row, in float32 on one core. Put in order once, four rows take as long as one
(bench/torch.md). The operators are those to which torch.compile turns a frozen linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inkstream.engines.torch.forward import Linear

ROWS = 4
"""For how many the order is chosen; others are computed with it as well."""


@dataclass(frozen=True, slots=True)
class PackedLinear(Linear):
    """``weight`` is opaque to all but oneDNN."""

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype is torch.float32 and torch.backends.mkldnn.is_available()


def narrowed(embedding: Tensor) -> Tensor:
    """In 16 bits where that changes no number, as with weights that were saved in 16 bits.

    A head that is the embedding is packed, and rows cannot be looked up in what is packed: both are kept.
    """
    for dtype in (torch.bfloat16, torch.float16):
        narrow = embedding.to(dtype)
        if torch.equal(narrow.to(embedding.dtype), embedding):
            return narrow
    return embedding


def packed(linear: Linear) -> Linear:
    return PackedLinear(torch.ops.mkldnn._reorder_linear_weight(linear.weight, ROWS), linear.bias)
