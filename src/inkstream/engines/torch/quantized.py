"""Matrices with fewer bits a number, through bitsandbytes.

``nf4`` is 4-bit NormalFloat with double quantisation (Dettmers et al. 2023): blocks of 64 numbers with a
scale of 8 bits each, computed in the type of the other weights. ``int8`` has a scale for each output, and
inputs are rounded to 8 bits row by row (Dettmers et al. 2022). Its separate way for inputs with outliers is
left out: how many there are is known on the device alone, and what depends on that cannot be captured.

Embeddings, norms and the head stay as they are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inkstream.engines.torch.forward import Linear
from inkstream.errors import ModelError

Quantize = Callable[[Linear], Linear]


@dataclass(frozen=True, slots=True)
class Nf4Linear(Linear):
    """``weight`` has two numbers a byte; ``state`` is what bitsandbytes keeps beside them."""

    state: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = _library().matmul_4bit(x, self.weight, quant_state=self.state, bias=self.bias)
        return product

    @property
    def tensors(self) -> list[Tensor]:
        state = self.state
        scales = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        return [*super(Nf4Linear, self).tensors, *scales]  # by name: slots make the class anew


@dataclass(frozen=True, slots=True)
class Int8Linear(Linear):
    """``scales`` are float32, one for each output."""

    scales: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        functional = _library().functional
        rounded, row_scales, _ = functional.int8_vectorwise_quant(x.to(torch.float16))
        sums = functional.int8_linear_matmul(rounded, self.weight)
        product: Tensor = functional.int8_mm_dequant(sums, row_scales, self.scales).to(x.dtype)
        return product if self.bias is None else product + self.bias

    @property
    def tensors(self) -> list[Tensor]:
        assert self.scales is not None
        return [*super(Int8Linear, self).tensors, self.scales]


def quantizer(wanted: str, device: torch.device) -> Quantize:
    """What makes a matrix smaller; nothing for an empty name. Raises ModelError where that cannot be done."""
    if not wanted:
        return lambda linear: linear
    make = {"nf4": _nf4, "int8": _int8}.get(wanted)
    if make is None:
        raise ModelError(f"There is no quantisation '{wanted}', only nf4 and int8.", code="cannot_quantize")
    _require_possible(wanted, device, make)
    return make


def _nf4(linear: Linear) -> Linear:
    weight, state = _library().functional.quantize_4bit(
        linear.weight, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    return Nf4Linear(weight, linear.bias, state)


def _int8(linear: Linear) -> Linear:
    weight, scales, _ = _library().functional.int8_vectorwise_quant(linear.weight.to(torch.float16))
    return Int8Linear(weight, linear.bias, scales)


def _library() -> Any:
    """Imported late: it is optional, and takes a second."""
    return importlib.import_module("bitsandbytes")


def _require_possible(wanted: str, device: torch.device, make: Quantize) -> None:
    """By trying it: which devices bitsandbytes computes on differs from build to build."""
    try:
        _library()
    except ImportError as error:
        raise ModelError(
            f"--quantize {wanted} needs the package 'bitsandbytes': pip install 'inkstream[quantize]' "
            f"({error}).",
            code="engine_missing",
        ) from error
    try:
        probe = torch.ones(64, 64, dtype=torch.bfloat16, device=device)
        make(Linear(probe))(probe)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"bitsandbytes cannot quantise to {wanted} on {device}: {error}. Leave --quantize out, or take a "
            "model that is small enough without.",
            code="cannot_quantize",
        ) from error
