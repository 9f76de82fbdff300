"""Which device computes, for how many at a time, and how much of its memory the cache may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from inkstream import gpus, probe
from inkstream.engines import GPU_SLOTS, SLOTS
from inkstream.engines.torch.cache import PAGE, SCRATCH
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.memory import free_bytes, require_cache
from inkstream.engines.torch.runner import PlainRunner, Runner
from inkstream.errors import ModelError
from inkstream.words import Words

FULL_SHARE = 0.85
"""Of a GPU's free memory: weights that take more leave too little for the cache, and are spread."""

GPU_SHARE, CPU_SHARE = 0.85, 0.5
"""Of the memory that is free when the weights are loaded. The rest is for what a step needs in between."""


def choose_device(wanted: str) -> torch.device:
    """``auto``: a GPU where there is one. Raises ModelError rather than leave a GPU unused unasked."""
    device = torch.device("cuda" if wanted == "auto" and _expects_gpu() else wanted.replace("auto", "cpu"))
    if device.type == "cuda":
        _require_gpu(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _unusable("This torch, or this machine, has no Metal device (--device mps).")
    return device


def spread_over(device: torch.device, wanted: str, weights_bytes: int) -> tuple[torch.device, ...]:
    """All GPUs where this one does not hold the weights and none was asked for by number, else this one."""
    is_free_to = device.type == "cuda" and device.index is None and wanted in ("auto", "cuda")
    if not is_free_to or weights_bytes <= free_bytes(device) * FULL_SHARE:
        return (device,)
    return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))


def default_slots(device: torch.device) -> int:
    return GPU_SLOTS if device.type == "cuda" else SLOTS


def pages_that_fit(weights: Weights, wanted_tokens: int, drafting: Drafting | None = None) -> int:
    """Pages for so many tokens, or for as many as there is memory for, and the scratch page. Raises
    ModelError where that is too little for an answer.
    """
    share = GPU_SHARE if weights.device.type == "cuda" else CPU_SHARE
    fitting = wanted_tokens
    for device, per_token in _cache_bytes(weights, drafting).items():
        free = int(free_bytes(device) * share)
        if free // per_token < wanted_tokens:
            require_cache(free // per_token, per_token, free)
        fitting = min(fitting, free // per_token)
    return max(fitting // PAGE, 1) + SCRATCH + 1


def create_runner(
    weights: Weights,
    stops: Sequence[int],
    seats: int,
    pages: int,
    context: int,
    captured: Callable[[int, int], None] = lambda done, total: None,
    drafting: Drafting | None = None,
) -> Runner:
    """The runner for the device on which the weights are. ``captured`` hears of each graph of so many."""
    if weights.device.type != "cuda":
        return PlainRunner(weights, stops, seats, pages, drafting)
    from inkstream.engines.torch.graphs import (  # noqa: PLC0415 - Triton is there with CUDA alone
        GraphRunner,
        Options,
    )

    return GraphRunner(weights, stops, seats, pages, context, Options(captured=captured, drafting=drafting))


def _cache_bytes(weights: Weights, drafting: Drafting | None) -> dict[torch.device, int]:
    """Bytes of keys and values of one token on each device that has any."""
    each = weights.shape.cache_bytes(weights.dtype) // weights.shape.layers
    needed = {device: layers * each for device, layers in weights.layers_on.items()}
    needed[weights.device] += drafting.cache_bytes if drafting else 0
    return {device: count for device, count in needed.items() if count}


def _expects_gpu() -> bool:
    return torch.cuda.is_available() or bool(probe.nvidia_gpus())


def _require_gpu(device: torch.device) -> None:
    """Raises ModelError with what stands in the way, and the line that installs what fits."""
    if not torch.cuda.is_available():
        build = probe.TorchBuild(torch.__version__, torch.version.cuda)
        problem = gpus.problem(probe.nvidia_gpus(), build, Words("en"))
        raise _unusable(
            f"{problem.text} {problem.fix}" if problem else "torch finds no GPU here that it can compute on."
        )
    if (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise _unusable(f"There is no {device}: torch sees {count} GPU{'s' * (count > 1)}, from cuda:0 on.")


def _unusable(message: str) -> ModelError:
    return ModelError(f"{message} --device cpu computes without it.", code="gpu_unusable")
