"""Whether there is memory for the weights, and what to do where there is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from inkstream import machine
from inkstream.engines.torch.weighing import Demand, Room, too_large
from inkstream.errors import ModelError

GIB = 1 << 30
LEAST_TOKENS = 256
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""How allocators say it that have no exception of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def free_bytes(device: torch.device) -> int:
    """What can be taken on the device now; of a GPU no more than this process may have."""
    if device.type == "cuda":
        index = device.index or 0
        free, total = torch.cuda.mem_get_info(index)
        allowed = torch.cuda.get_per_process_memory_fraction(index) * total
        return int(min(free, allowed - torch.cuda.memory_reserved(index)))
    return machine.memory().available_bytes


@contextmanager
def within_memory(path: Path, device: torch.device) -> Iterator[None]:
    """Where memory runs out while loading, say so, and what takes less. Raises ModelError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"{path.name} does not fit: the memory of {device} ran out while it was loaded, with "
            f"{free_bytes(device) / GIB:.1f} GiB free. Take fewer --slots, a shorter --context, a smaller "
            f"--dtype or a smaller model{_elsewhere(device)}.",
            code="model_too_large",
        ) from error


def require_room(name: str, demand: Demand, devices: Sequence[torch.device]) -> None:
    """Refuse what the system would end with a kill. Raises ModelError."""
    device, *others = devices
    free = sum(map(free_bytes, devices))
    if demand.bytes > free:
        where = f"{device} and {len(others)} more" if others else str(device)
        raise too_large(name, demand, Room(where, free))


def require_cache(tokens: int, bytes_per_token: int, free: int) -> None:
    """An answer needs a cache of some length. Raises ModelError."""
    if tokens < LEAST_TOKENS:
        raise ModelError(
            f"Beside the weights {free / GIB:.2f} GiB are free: at {bytes_per_token >> 10} KiB a token a "
            f"context of {tokens}, and {LEAST_TOKENS} are the least. Take a smaller --dtype or a "
            "smaller model, or end what else uses the memory.",
            code="model_too_large",
        )


def _elsewhere(device: torch.device) -> str:
    return ", or compute in main memory with --device cpu" if device.type == "cuda" else ""
