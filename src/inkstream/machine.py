"""How much memory and how many cores there are, and how much a model takes."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# Buffers for the prompt batch and the runtime itself, rounded up from what llama.cpp logs for small models.
RUNTIME_BYTES = 300 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """``available_bytes`` can be given to a new process without swapping; a container's limit counts."""

    total_bytes: int
    available_bytes: int


def memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Memory:
    """This machine's memory. Where the system does not say what is available, all of it counts as such."""
    if sys.platform == "win32":
        return _windows()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = _meminfo(proc / "meminfo").get("MemAvailable", total)
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is not None and limit < total:
        return Memory(limit, min(available, limit - (used or 0)))
    return Memory(total, available)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes: its weights, and so much for each token in the cache at 16 bits. An estimate.

    ``context_length`` is the longest context that the model knows, 0 where it does not say.
    """

    size_bytes: int
    kv_bytes_per_token: int
    context_length: int = 0

    def bytes_for(self, tokens: int) -> int:
        """``tokens`` are those of all slots together."""
        return self.size_bytes + RUNTIME_BYTES + self.kv_bytes_per_token * tokens

    def tokens_within(self, size_bytes: int) -> int:
        """How many tokens of all slots together there is room for."""
        return max(0, size_bytes - self.bytes_for(0)) // max(1, self.kv_bytes_per_token)

    def context(self, wanted: int) -> int:
        return min(wanted, self.context_length or wanted)


def spare_cores() -> int:
    """All cores that we may use but one.

    Threads that compute together spin while they wait for each other. Where as many of them as cores share
    the machine with a server and a browser, the slowest decides: llama.cpp's speed falls to a tenth.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def _meminfo(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 5),
    )


def _windows() -> Memory:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]  # Windows
    return Memory(status.total, status.available)
