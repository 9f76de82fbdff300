"""Which device computes, and how much of its memory the cache may take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from inkstream.engines.torch.cache import PAGE, SCRATCH
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.runner import PlainRunner, Runner
from inkstream.errors import ModelError

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
GPU_SHARE, CPU_SHARE = 0.85, 0.5
"""Of the memory that is free when the weights are loaded. The rest is for what a step needs in between."""


def choose_device(wanted: str) -> torch.device:
    """``auto``: a GPU where there is one. Raises ModelError rather than leave a GPU unused unasked."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if NVIDIA_DRIVER.exists():
        build = torch.version.cuda or "none"
        raise ModelError(
            f"There is an NVIDIA GPU, but this torch {torch.__version__} (CUDA: {build}) cannot use it. "
            "Install a torch that fits the driver, or choose the CPU with --device cpu.",
            code="gpu_unusable",
        )
    return torch.device("cpu")


def pages_that_fit(weights: Weights, wanted_tokens: int, drafting: Drafting | None = None) -> int:
    """Pages for so many tokens, or for as many as there is memory for, and the scratch page."""
    free, share = _free_bytes(weights.device)
    drafts = drafting.cache_bytes if drafting else 0
    room = int(free * share) // (weights.shape.cache_bytes(weights.dtype) + drafts)
    return max(min(wanted_tokens, room) // PAGE, 1) + SCRATCH + 1


def create_runner(
    weights: Weights,
    stops: Sequence[int],
    seats: int,
    pages: int,
    context: int,
    drafting: Drafting | None = None,
) -> Runner:
    """The runner for the device on which the weights are."""
    if weights.device.type != "cuda":
        return PlainRunner(weights, stops, seats, pages, drafting)
    from inkstream.engines.torch.graphs import GraphRunner  # noqa: PLC0415 - Triton is there with CUDA alone

    return GraphRunner(weights, stops, seats, pages, context, drafting=drafting)


def _free_bytes(device: torch.device) -> tuple[int, float]:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], GPU_SHARE
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), CPU_SHARE
