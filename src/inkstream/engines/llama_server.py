"""llama.cpp's own server, started inside this process from ``xllamacpp``.

It belongs into a process that may die: a fault in native code takes the whole process with it. It
listens on a free loopback port and wants a key that is drawn here, so no other user of the machine can
use it. Its lines go to stderr and hold no prompts.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inkstream import gguf, machine
from inkstream.errors import ModelError

BLOCK_BYTES = 4 << 20
ERRORS, EVERYTHING_BUT_PROMPTS = 1, 3
"""llama.cpp's verbosity. Even its warnings come with every second request."""

HOST_CACHE_MIB = 512
"""Prompts of idle slots are kept in memory up to this size; llama.cpp's own default is 8 GiB."""

LOOK_SECONDS = 1
"""How soon a thread of the server that has nothing to send sees that its reader is gone; closing the server
waits for it. Each look sends an empty comment. llama.cpp's own default is 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to run a model. ``context`` is tokens per answer; ``threads`` 0 means all cores but one.

    ``gpu_layers`` -1 means as many as fit. ``sha256`` of the file spares computing it.
    """

    path: Path
    context: int = 8192
    slots: int = 4
    threads: int = 0
    gpu_layers: int = -1
    is_verbose: bool = False
    sha256: str = ""


class LlamaServer:
    """``url`` and ``key`` are what a client needs; ``build`` says which llama.cpp it is."""

    def __init__(self, native: Any, key: str) -> None:
        self._native = native
        self.url: str = native.listening_address
        self.key = key
        self.build = f"xllamacpp {version('xllamacpp')}"

    @classmethod
    def start(cls, launch: Launch, header: gguf.Header) -> LlamaServer:
        """Load the model and listen. Blocks, and holds the interpreter lock all the while.

        Raises ModelError: ``model_too_large`` or ``model_corrupt``.
        """
        import xllamacpp  # noqa: PLC0415 - 50 MB of native code that a remote server spares us

        context = min(launch.context, header.about("context_length", launch.context))
        _require_memory(launch, header, context * launch.slots, xllamacpp.get_device_info())
        key = secrets.token_urlsafe(32)
        try:
            return cls(xllamacpp.Server(_params(xllamacpp, launch, context, key)), key)
        except RuntimeError as error:
            raise ModelError(
                f"llama.cpp cannot load {launch.path}: the file is cut off or damaged, or its architecture "
                f"({header.architecture}) is unknown to this version. The lines above say which.",
                code="model_corrupt",
            ) from error

    def close(self) -> None:
        """Stop listening and free the model."""
        self._native = None


def read_header(path: Path) -> gguf.Header:
    """Raises ModelError: ``model_not_found`` or ``model_corrupt``."""
    try:
        return gguf.read(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except gguf.Corrupt as error:
        raise ModelError(f"{path} is no usable GGUF file: {error}.", code="model_corrupt") from error


def read_through(path: Path, on_share: Callable[[float], None], sha256: str) -> str:
    """Read the weights once: the checksum, unless it is known, and a warm page cache: loading is short then.

    ``on_share`` is called with 0…1 from the calling thread. Raises ModelError.
    """
    digest, done = hashlib.sha256(), 0
    try:
        size = max(path.stat().st_size, 1)
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                if not sha256:
                    digest.update(block)
                done += len(block)
                on_share(done / size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    return sha256 or digest.hexdigest()


def _params(xllamacpp: Any, launch: Launch, context: int, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(launch.path)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.endpoint_slots = True
    params.endpoint_props = False  # it would allow changing them
    params.sse_ping_interval = LOOK_SECONDS
    params.verbosity = EVERYTHING_BUT_PROMPTS if launch.is_verbose else ERRORS
    params.n_parallel = launch.slots
    # A cache of its own for each slot: in a shared one, long answers end others for want of room.
    params.kv_unified = False
    params.n_ctx = context * launch.slots
    params.cache_prompt = True
    params.cache_ram_mib = HOST_CACHE_MIB
    params.cont_batching = True
    params.ctx_shift = False
    params.n_gpu_layers = launch.gpu_layers
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = launch.threads or machine.spare_cores()
    return params


def _require_memory(launch: Launch, header: gguf.Header, tokens: int, devices: list[dict[str, Any]]) -> None:
    """Refuse what the system would end with a kill. Where a GPU takes part nobody can tell beforehand."""
    if any("GPU" in str(device["type"]) for device in devices):
        return
    needed, there = header.file_bytes + tokens * header.kv_bytes_per_token, _memory_bytes()
    if needed > there:
        raise ModelError(
            f"{launch.path.name} needs about {needed / 2**30:.1f} GiB for its weights and "
            f"{launch.slots} answers of {tokens // launch.slots} tokens; this machine has "
            f"{there / 2**30:.1f} GiB. Choose a smaller model, or lower INKSTREAM_CONTEXT or "
            "INKSTREAM_SLOTS.",
            code="model_too_large",
        )


def _memory_bytes() -> int:
    """Of the machine, or of the container that we are in."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 1 << 60
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdigit() else memory
