"""What NVIDIA's driver says of its GPUs now. It needs the package nvidia-ml-py; without it there are none."""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """``load`` is the share of the last moment in which something ran on it, 0…1."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int
    load: float
    celsius: int


class Nvml:
    """The driver's library, loaded when it is first asked. It may block: not for the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: Any = None  # it has no types
        self._is_open = self._is_missing = False

    def loads(self) -> list[GpuLoad]:
        """Empty where there is no driver, no package or no GPU. A GPU that does not answer is left out."""
        with self._lock:
            return [] if self._is_missing else self._loads()

    def _loads(self) -> list[GpuLoad]:
        try:
            self._open()
            count = self._library.nvmlDeviceGetCount()
        except ModuleNotFoundError:
            self._is_missing = True
            return []
        except self._library.NVMLError:
            self._is_missing = not self._is_open  # a driver that is not there now will not come
            return []
        return [load for index in range(count) if (load := self._load(index)) is not None]

    def _open(self) -> None:
        if not self._is_open:
            self._library = importlib.import_module("pynvml")
            self._library.nvmlInit()
            self._is_open = True

    def _load(self, index: int) -> GpuLoad | None:
        nvml = self._library
        try:
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            return GpuLoad(
                index,
                nvml.nvmlDeviceGetName(gpu),
                memory.used,
                memory.total,
                nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
                nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            )
        except nvml.NVMLError:
            return None
