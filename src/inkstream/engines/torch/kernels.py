"""The operations of a forward pass as fused Triton kernels, for a GPU.

A step of a small model is many short kernels, and each costs a microsecond or two beside its work. For a few
rows a product with a vector is limited by reading the matrix once: such kernels also add, normalise and gate.
For more rows the products are cuBLAS's, and what lies between them is one kernel.

Rounding follows transformers: the residual, the normalised input, gate and up have the weights' type.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from inkstream.engines.torch.forward import Linear

FEW_ROWS = 2
"""Up to here a product per row is faster than cuBLAS. Further rows find the matrix in the GPU's cache."""

GATE_BLOCK = 1024


class FusedOperations:
    """``few_rows`` 0 leaves all products to cuBLAS."""

    def __init__(self, few_rows: int = FEW_ROWS) -> None:
        self._few_rows = few_rows

    def norm(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        rows, width = residual.shape
        total = residual if update is None else torch.empty_like(residual)
        normed = torch.empty_like(residual)
        _norm[(rows,)](
            residual,
            update,
            total,
            weight,
            normed,
            epsilon,
            width,
            triton.next_power_of_2(width),
            update is not None,
        )
        return total, normed

    def norm_linear(
        self, residual: Tensor, update: Tensor | None, weight: Tensor, linear: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        if self._has_kernel(residual, linear):
            return _norm_product(residual, update, weight, linear, epsilon, is_gated=False)
        total, normed = self.norm(residual, update, weight, epsilon)
        return total, linear(normed)

    def norm_gate(
        self, residual: Tensor, update: Tensor, weight: Tensor, gate_up: Linear, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        if self._has_kernel(residual, gate_up):
            return _norm_product(residual, update, weight, gate_up, epsilon, is_gated=True)
        total, both = self.norm_linear(residual, update, weight, gate_up, epsilon)
        rows, width = both.shape[0], both.shape[1] // 2
        inner = torch.empty(rows, width, dtype=both.dtype, device=both.device)
        _gate[(rows, triton.cdiv(width, GATE_BLOCK))](both, inner, width, GATE_BLOCK)
        return total, inner

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return _product(x, linear) if self._has_kernel(x, linear) else linear(x)

    def _has_kernel(self, x: Tensor, linear: Linear) -> bool:
        """For few rows, and matrices of plain numbers."""
        return x.shape[0] <= self._few_rows and type(linear) is Linear


def _norm_product(
    residual: Tensor, update: Tensor | None, weight: Tensor, linear: Linear, epsilon: float, *, is_gated: bool
) -> tuple[Tensor, Tensor]:
    total = residual if update is None else torch.empty_like(residual)
    out = _matvec(residual, update, total, weight, linear, epsilon, is_gated)
    return total, out


def _product(x: Tensor, linear: Linear) -> Tensor:
    return _matvec(x, None, x, None, linear, 0.0, False)


def _matvec(
    x: Tensor,
    update: Tensor | None,
    total: Tensor,
    norm: Tensor | None,
    linear: Linear,
    epsilon: float,
    is_gated: bool,
) -> Tensor:
    rows, inner = x.shape
    outer = linear.weight.shape[0] // (2 if is_gated else 1)
    block, warps, span = _tiling(outer, inner, is_gated)
    out = torch.empty(rows, outer, dtype=x.dtype, device=x.device)
    _matvec_kernel[(triton.cdiv(outer, block), rows)](
        x,
        update,
        total,
        norm,
        linear.weight,
        linear.bias,
        out,
        epsilon,
        outer,
        inner,
        triton.next_power_of_2(inner),
        block,
        min(triton.next_power_of_2(inner), span),
        update is not None,
        norm is not None,
        linear.bias is not None,
        is_gated,
        num_warps=warps,
    )
    return out


def _tiling(outer: int, inner: int, is_gated: bool) -> tuple[int, int, int]:
    """Outputs of a program, its warps, and inputs at a time; the fastest on an H200 (bench/torch.md)."""
    if is_gated:
        return 4, 2, 1024
    if outer > 1 << 15:
        return 2, 2, 1024
    return (1, 4, 2048) if inner > 2048 else (2, 4, 1024)


@triton.jit
def _matvec_kernel(
    x_at,
    update_at,
    total_at,
    norm_at,
    weight_at,
    bias_at,
    out_at,
    EPSILON: tl.constexpr,
    outer,
    INNER: tl.constexpr,
    INNER_PADDED: tl.constexpr,
    BLOCK_OUTER: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_GATED: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK_OUTER + tl.arange(0, BLOCK_OUTER)
    dtype = out_at.dtype.element_ty
    first = tl.zeros([BLOCK_OUTER], tl.float32)
    second = tl.zeros([BLOCK_OUTER], tl.float32)
    scale = 1.0
    if HAS_NORM:
        k = tl.arange(0, INNER_PADDED)
        x = tl.load(x_at + row * INNER + k, mask=k < INNER, other=0.0).to(tl.float32)
        if HAS_UPDATE:
            x += tl.load(update_at + row * INNER + k, mask=k < INNER, other=0.0).to(tl.float32)
            x = x.to(dtype).to(tl.float32)
            if tl.program_id(0) == 0:
                tl.store(total_at + row * INNER + k, x.to(dtype), mask=k < INNER)
        scale = tl.rsqrt(tl.sum(x * x) / INNER + EPSILON)
    for start in tl.static_range(0, INNER, BLOCK):
        k = start + tl.arange(0, BLOCK)
        weight_place = n[:, None] * INNER + k[None, :]
        inside = (n[:, None] < outer) & (k[None, :] < INNER)
        weight = tl.load(weight_at + weight_place, mask=inside, other=0.0)
        # Asked for here, before anything waits: both matrices are on their way together.
        up_weight = weight
        if IS_GATED:
            up_weight = tl.load(weight_at + outer * INNER + weight_place, mask=inside, other=0.0)
        x = tl.load(x_at + row * INNER + k, mask=k < INNER, other=0.0).to(tl.float32)
        if HAS_NORM:
            if HAS_UPDATE:
                x += tl.load(update_at + row * INNER + k, mask=k < INNER, other=0.0).to(tl.float32)
                x = x.to(dtype).to(tl.float32)
            norm = tl.load(norm_at + k, mask=k < INNER, other=0.0)
            x = ((x * scale).to(dtype) * norm).to(dtype).to(tl.float32)
        first += tl.sum(weight.to(tl.float32) * x[None, :], axis=1)
        if IS_GATED:
            second += tl.sum(up_weight.to(tl.float32) * x[None, :], axis=1)
    if HAS_BIAS:
        first += tl.load(bias_at + n, mask=n < outer, other=0.0).to(tl.float32)
        if IS_GATED:
            second += tl.load(bias_at + outer + n, mask=n < outer, other=0.0).to(tl.float32)
    result = first.to(dtype)
    if IS_GATED:
        result = _silu(result) * second.to(dtype)
    tl.store(out_at + row * outer + n, result.to(dtype), mask=n < outer)


@triton.jit
def _silu(x):
    wide = x.to(tl.float32)
    return (wide / (1.0 + tl.exp(-wide))).to(x.dtype)


@triton.jit
def _norm(
    residual_at,
    update_at,
    total_at,
    weight_at,
    out_at,
    EPSILON: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * WIDTH
    dtype = out_at.dtype.element_ty
    k = tl.arange(0, WIDTH_PADDED)
    inside = k < WIDTH
    x = tl.load(residual_at + row + k, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        x += tl.load(update_at + row + k, mask=inside, other=0.0).to(tl.float32)
        x = x.to(dtype).to(tl.float32)
        tl.store(total_at + row + k, x.to(dtype), mask=inside)
    scale = tl.rsqrt(tl.sum(x * x) / WIDTH + EPSILON)
    weight = tl.load(weight_at + k, mask=inside, other=0.0)
    tl.store(out_at + row + k, ((x * scale).to(dtype) * weight).to(dtype), mask=inside)


@triton.jit
def _gate(both_at, out_at, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(both_at + row * 2 * width + k, mask=k < width, other=0.0)
    up = tl.load(both_at + row * 2 * width + width + k, mask=k < width, other=0.0)
    tl.store(out_at + row * width + k, _silu(gate) * up, mask=k < width)
