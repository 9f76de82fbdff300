"""What this machine has: asked, not judged."""

from __future__ import annotations

import errno
import json
import random
import socket
import subprocess
import sys
from dataclasses import dataclass

PROBE_SECONDS = 30

# In a process of its own: a graphics driver that crashes while it is asked must not take the doctor along.
PROBE = """
import json, xllamacpp
devices = [
    {"name": d["name"], "description": d["description"], "kind": d["type"].name.rpartition("_")[2],
     "memory_bytes": d["memory_total"]}
    for d in xllamacpp.get_device_info()
]
print(json.dumps({"build": xllamacpp.__version__, "devices": devices}))
"""

TORCH_PROBE = """
import json, warnings
warnings.simplefilter("ignore")
import torch
usable, reason = torch.cuda.is_available(), ""
if not usable and torch.version.cuda:
    try:
        torch.cuda.init()
    except Exception as error:
        reason = str(error).splitlines()[0]
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "is_usable": usable, "reason": reason,
    "architectures": torch.cuda.get_arch_list() if usable else [],
}))
"""

GPU_FIELDS = "name,driver_version,compute_cap,memory.total"


@dataclass(frozen=True, slots=True)
class Device:
    """Something that llama.cpp can compute on. ``kind`` is its own word: CPU, GPU, IGPU, ACCEL."""

    name: str
    description: str
    kind: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver sees it. ``capability`` is its generation, such as (9, 0)."""

    name: str
    driver: str
    capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """``cuda`` is the CUDA release that it was built for, None for a CPU build; ``architectures`` are those
    that it has code for, such as sm_90. ``reason`` is its own word on why it cannot use a GPU.
    """

    version: str
    cuda: str | None
    is_usable: bool = False
    architectures: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Llama:
    build: str
    devices: tuple[Device, ...]


def llama() -> Llama:
    """The engine's library and its devices. Raises ProbeError."""
    answer = json.loads(_ask(sys.executable, "-c", PROBE).splitlines()[-1])
    return Llama(answer["build"], tuple(Device(**device) for device in answer["devices"]))


def torch_build() -> TorchBuild:
    """The torch that is installed, and whether it can use a GPU. Raises ProbeError if it does not load."""
    answer = json.loads(_ask(sys.executable, "-c", TORCH_PROBE).splitlines()[-1])
    return TorchBuild(**answer | {"architectures": tuple(answer["architectures"])})


def nvidia_gpus() -> tuple[Gpu, ...]:
    """What the driver's own program says; empty without it."""
    try:
        answer = _ask("nvidia-smi", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits")
    except ProbeError:
        return ()
    return read_gpus(answer)


def read_gpus(listing: str) -> tuple[Gpu, ...]:
    """From nvidia-smi's lines. What it does not know of a GPU it calls ``[N/A]`` or the like."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines()]
    return tuple(
        Gpu(name, driver, _capability(capability), int(mebibytes) << 20 if mebibytes.isdigit() else 0)
        for name, driver, capability, mebibytes in (
            row for row in rows if len(row) == GPU_FIELDS.count(",") + 1
        )
    )


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def has_package_index() -> bool:
    """Whether pip is told to use another index than its own."""
    try:
        return "index-url" in _ask(sys.executable, "-m", "pip", "config", "list")
    except ProbeError:
        return False


def bind_problem(host: str, port: int) -> OSError | None:
    """Why nobody could listen there now; None if one could."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def free_port(host: str) -> int:
    """A port on which nobody listens now. Raises OSError if the host is not an address of this machine.

    It is none that systems lend to connections that go out: what is started again must find it free too.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        try:
            with socket.create_server((host, port), family=family):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def size(count: float) -> str:
    """Bytes as people say them: 1.5 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class ProbeError(Exception):
    """A program could not be asked; the text is the last thing it said."""


def _ask(*command: str) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise ProbeError(said[-1] if said else f"exit code {error.returncode}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise ProbeError(str(error)) from error
    return answer.stdout
